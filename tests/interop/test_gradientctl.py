"""gradientctl on files of real runs, on other writers' files, and on files damaged in every place."""

import json
import math
import struct
import subprocess
import warnings

import numpy as np
import pytest
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboardX import SummaryWriter as TensorboardXWriter
from torch.utils.tensorboard import SummaryWriter as TorchWriter

from readers import HEADER_BYTES, masked_crc, read_events, read_scalars, read_tensors, split_records
from streams import Stream
from trainer import Group, Optimizer, ParameterGroup, Run, Trainer, build_path, train

STEPS = 40
FILES_PER_CALL = 400
FAULTS_SHOWN = 20  # of a file: ctl/faults.h
RECORD_BYTES_MAX = 64 << 20  # ctl/record.h
TOOL_SECONDS = 120


def gradientctl(*arguments):
    command = [build_path("ctl/gradientctl"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS)


def check(*arguments, status=0):
    result = gradientctl("check", *arguments)
    assert result.returncode == status, result
    assert status == 2 or not result.stderr, result
    return result.stdout


def check_one(path, *options):
    """The object of one file, whose exit status must agree with it."""
    result = gradientctl("check", "--json", *options, path)
    found = json.loads(result.stdout)
    assert result.returncode == (1 if found["n_faults"] else 0), result
    return found


def fault_of(path, *options):
    """The only fault of a file: (offset, what)."""
    found = check_one(path, *options)
    assert found["n_faults"] == 1, found
    return found["faults"][0]["offset"], found["faults"][0]["what"]


def record(data):
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data))


def starts_of(content):
    """Where each record starts, and the end of the last one."""
    starts = [0]
    for data in split_records(content)[0]:
        starts.append(starts[-1] + len(record(data)))
    return starts


def value_event(step, *tags, wall_time=1.7e9):
    values = [summary_pb2.Summary.Value(tag=tag, simple_value=0.5) for tag in tags]
    return event_pb2.Event(wall_time=wall_time, step=step, summary=summary_pb2.Summary(value=values))


def first_event(writer):
    event = event_pb2.Event(wall_time=1.7e9, file_version="brain.Event:2")
    event.source_metadata.writer = writer
    return event


def session(status, step=1):
    return event_pb2.Event(wall_time=1.7e9, step=step, session_log=event_pb2.SessionLog(status=status))


START, STOP = session(event_pb2.SessionLog.START), session(event_pb2.SessionLog.STOP, 9)


def write(path, events, writer="gradientd"):
    """A file of these events behind its first one."""
    path.write_bytes(b"".join(record(event.SerializeToString()) for event in [first_event(writer), *events]))
    return path


def write_variants(directory, contents):
    directory.mkdir()
    for i, content in enumerate(contents):
        (directory / f"{i:06}").write_bytes(content)
    return sorted(directory.iterdir())


def check_many(paths, *options, status):
    """The objects of many files, in order; each call must end with `status`."""
    found = []
    for first in range(0, len(paths), FILES_PER_CALL):
        output = check("--json", *options, *paths[first : first + FILES_PER_CALL], status=status)
        found += [json.loads(line) for line in output.splitlines()]
    assert [one["file"] for one in found] == [str(path) for path in paths]
    return found


@pytest.fixture
def run_file(daemon, tmp_path):
    run = Run([Group("w", 200), Group("b", 5)], Optimizer("adam"), [ParameterGroup(0.9, 1e-8)], hparams={"rate": 0.1})
    records = Stream(run, seed=3).steps(STEPS)
    for one in records:
        odd = math.nan if one.step % 2 else -math.inf
        one.scalars = (("train/loss", 1 / one.step), ('odd, "tag" \\ \u00e4\u4e16', odd))
    return train(run, records, daemon.socket, tmp_path)


@pytest.fixture
def small(tmp_path):
    """A small file as gradientd writes it."""
    return write(tmp_path / "small", [START, value_event(1, "a", "b"), value_event(2, "a"), STOP])


def test_a_real_run_is_whole(run_file):
    events = read_events(run_file)
    tags = {value.tag for event in events for value in event.summary.value}
    expected = f"{len(events)} records, {len(tags)} tags, steps 1 to {STEPS}"
    assert check(run_file) == f"{run_file}: {expected}, whole\n"
    found = check_one(run_file)
    assert found == {
        "file": str(run_file),
        "faults": [],
        "n_faults": 0,
        "records": len(events),
        "tags": len(tags),
        "first_step": 1,
        "last_step": STEPS,
        "steps_not_rising": 0,
        "torn_at": None,
        "whole": True,
    }


def test_a_killed_run_is_whole(daemon, tmp_path):
    """Without SessionLog STOP: the trainer was killed."""
    run = Run([Group("w", 200)], Optimizer("sgd"))
    trainer = Trainer(run, daemon.socket, tmp_path, echo=True)
    trainer.send(Stream(run, seed=4).steps(STEPS))
    trainer.kill()
    assert daemon.stop() == 0
    assert check_one(trainer.event_path)["whole"]


@pytest.mark.parametrize("writer", [TorchWriter, TensorboardXWriter])
def test_other_writers_files_are_whole(writer, tmp_path):
    """Their users choose the steps: one that does not rise is legal there, and noted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with writer(str(tmp_path)) as out:
            for step in (1, 2, 3, 2):
                out.add_scalar("loss", 0.5, step)
            out.add_histogram("weights", np.arange(10.0), 4)
            out.add_image("picture", np.zeros((3, 2, 2)), 4)
            out.add_text("note", "said", 4)
    (path,) = tmp_path.iterdir()
    found = check_one(path)
    assert found["whole"] and found["steps_not_rising"] == 1 and found["tags"] == len(tags_of(path))
    fallen = starts_of(path.read_bytes())[4]
    assert f"note: steps that are not above their tag's last one: 1, the first at offset {fallen}\n" in check(path)
    kinds = {line["tag"]: line.get("kind") for line in dumped(path)}
    assert kinds == {"loss": None, "weights": "histograms", "picture": "images", "note/text_summary": "text"}


def tags_of(path):
    return {value.tag for event in read_events(path) for value in event.summary.value}


def dumped(path):
    result = gradientctl("dump", "--json", path)
    assert result.returncode == 0 and not result.stderr, result
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_dump_gives_the_values(run_file):
    lines = dumped(run_file)
    scalars = [line for line in lines if "value" in line]
    for tag, series in read_scalars(run_file).items():
        mine = [line for line in scalars if line["tag"] == tag]
        assert [line["step"] for line in mine] == series.steps
        assert [line["wall_time"] for line in mine] == series.wall_times
        np.testing.assert_array_equal(np.float32([float(line["value"]) for line in mine]), np.float32(series.values))
    tensors = read_tensors(run_file)
    assert {line["tag"] for line in lines} == read_scalars(run_file).keys() | tensors.keys()
    for tag, values in tensors.items():
        plugin = values[0][1].metadata.plugin_data.plugin_name
        found = [(line["step"], line["kind"]) for line in lines if line["tag"] == tag]
        assert found == [(step, plugin) for step, _ in values]


def test_dump_is_csv_unless_asked(run_file):
    lines = ["wall_time,step,tag,value"]
    for event in read_events(run_file):
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                tag = '"' + value.tag.replace('"', '""') + '"' if set(value.tag) & set(',"\r\n') else value.tag
                lines.append(f"{event.wall_time:.6f},{event.step},{tag},{value.simple_value:.9g}")
    assert gradientctl("dump", run_file).stdout.splitlines() == lines


def test_every_flipped_bit_is_found(small, tmp_path):
    """At the record that holds it."""
    content = small.read_bytes()
    starts = starts_of(content)

    def flipped(bit):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)

    bits = range(8 * len(content))
    found = check_many(write_variants(tmp_path / "flips", map(flipped, bits)), status=1)
    for bit, one in zip(bits, found):
        start = max(start for start in starts if start <= bit // 8)
        assert one["n_faults"] >= 1 and not one["whole"], (bit, one)
        assert one["faults"][0]["offset"] == start and "checksum" in one["faults"][0]["what"], (bit, one)


def test_a_flipped_bit_in_a_real_run_is_found(run_file, tmp_path):
    content = run_file.read_bytes()
    for at in range(0, len(content), max(1, len(content) // 50)):
        changed = bytearray(content)
        changed[at] ^= 0x10
        path = tmp_path / "flipped"
        path.write_bytes(changed)
        assert check_one(path)["n_faults"] >= 1, at


def test_every_torn_tail_is_found(small, tmp_path):
    content = small.read_bytes()
    starts = starts_of(content)
    paths = write_variants(tmp_path / "cuts", (content[:end] for end in range(len(content))))
    torn = [path for end, path in enumerate(paths) if end not in starts]
    for path, one in zip(torn, check_many(torn, status=1)):
        start = max(start for start in starts if start <= int(path.name))
        assert one["torn_at"] == start and not one["whole"] and one["n_faults"] == 1
        assert f"ends inside a record at offset {start}" in one["faults"][0]["what"]
    for path, one in zip(paths, check_many(paths, "--growing", status=0)):
        start = max(start for start in starts if start <= int(path.name))
        assert one["n_faults"] == 0 and one["torn_at"] == (start if path in torn else None), one
    assert check("--growing", torn[-1]).endswith(f", ends inside a record at offset {starts[-2]}\n")


def test_an_empty_file_has_no_first_event(tmp_path):
    path = tmp_path / "empty"
    path.touch()
    assert fault_of(path) == (0, "the file has no record, the first must be a file_version")


@pytest.mark.parametrize("length", [RECORD_BYTES_MAX + 1, 1 << 40, (1 << 64) - 1])
def test_a_length_beyond_reason_is_found(length, small):
    """With the right checksum."""
    size = small.stat().st_size
    field = struct.pack("<Q", length)
    small.write_bytes(small.read_bytes() + field + struct.pack("<I", masked_crc(field)) + bytes(100))
    offset, what = fault_of(small, "--growing")
    assert offset == size and str(length) in what and str(RECORD_BYTES_MAX) in what


def test_what_comes_after_damaged_data_is_checked(small):
    """Where the record's length is right the next one's start is known."""
    starts = starts_of(small.read_bytes())
    content = bytearray(small.read_bytes())
    for start in starts[1:3]:
        content[start + HEADER_BYTES] ^= 1
    small.write_bytes(content)
    found = check_one(small)
    assert [fault["offset"] for fault in found["faults"]] == starts[1:3], found  # none for START, which is lost
    assert found["records"] == 5 and found["last_step"] == 2


NAN_TIME = value_event(3, "a", wall_time=math.nan)
ONE, TWO = value_event(1, "a"), value_event(2, "a")


@pytest.mark.parametrize(
    "events, at, what",
    [
        ([START, TWO, ONE], 3, 'tag "a": step 1 must be above the tag\'s last one, 2'),
        ([START, ONE, ONE], 3, 'tag "a": step 1 must be above the tag\'s last one, 1'),
        ([START, value_event(1, "a", "a")], 2, 'tag "a": step 1 must be above the tag\'s last one, 1'),
        ([START, value_event(1, "")], 2, 'tag "" is 0 bytes long, 1 to 255 are allowed'),
        ([START, value_event(1, "\u00e4" * 128)], 2, "is 256 bytes long, 1 to 255 are allowed"),
        ([START, value_event(1, "a\nb")], 2, 'tag "a?b": byte 0x0a at 1 is a control character or no UTF-8'),
        ([START, value_event(1, "a\u0085b")], 2, "byte 0xc2 at 1 is a control character or no UTF-8"),
        ([START, value_event(1, "a", "b\0c")], 2, "a tag has a zero byte, which is a control character"),
        ([START, NAN_TIME], 2, "wall_time is nan, it must be finite"),
        ([ONE, START], 1, "values come before SessionLog START"),
        ([STOP], 1, "SessionLog's status is 2, it must be START, 1 here"),
        ([START, START], 2, "SessionLog's status is 1, it must be STOP, 2 here"),
        ([START, STOP, ONE], 3, "a record comes after SessionLog STOP"),
    ],
)
def test_a_wrong_event_is_found(events, at, what, tmp_path):
    path = write(tmp_path / "wrong", events)
    offset, found = fault_of(path)
    assert what in found and offset == starts_of(path.read_bytes())[at]


def test_a_tag_that_is_no_utf_8_is_found(tmp_path):
    good = value_event(1, "aXb").SerializeToString()
    path = write(tmp_path / "wrong", [START])
    path.write_bytes(path.read_bytes() + record(good.replace(b"aXb", b"a\xffb")))
    assert "byte 0xff at 1" in fault_of(path)[1]
    assert dumped(path)[0]["tag"] == "a\ufffdb"


@pytest.mark.parametrize("data, what", [(b"\xff" * 9, "9 bytes are no event"), (b"\x2a\x7f", "2 bytes are no event")])
def test_a_record_that_is_no_event_is_found(data, what, small):
    size = small.stat().st_size
    small.write_bytes(small.read_bytes() + record(data))
    offset, found = fault_of(small)
    assert offset == size and what in found


def test_an_event_that_unpacks_to_too_much_is_found(tmp_path):
    """Empty values of two bytes each, which take a hundred times that."""
    path = write(tmp_path / "large", [START])
    summary = b"\x0a\x00" * (10 << 20)
    bits = len(summary)
    length = bytes([bits & 127 | 128, bits >> 7 & 127 | 128, bits >> 14 & 127 | 128, bits >> 21])
    path.write_bytes(path.read_bytes() + record(b"\x2a" + length + summary))
    assert "bytes to unpack" in fault_of(path)[1]


def test_the_first_event_is_a_file_version(tmp_path):
    path = tmp_path / "first"
    path.write_bytes(record(ONE.SerializeToString()))
    assert "the first event is no file_version" in fault_of(path)[1]
    path.write_bytes(record(event_pb2.Event(file_version="brain.Event:1").SerializeToString()))
    assert fault_of(path) == (0, 'file_version is "brain.Event:1", it must be "brain.Event:2"')


def test_many_faults_are_counted(tmp_path):
    path = write(tmp_path / "many", [START, *[ONE] * 101])
    found = check_one(path)
    assert found["n_faults"] == 100 and len(found["faults"]) == FAULTS_SHOWN
    lines = check(path, status=1).splitlines()
    assert lines[FAULTS_SHOWN:] == [f"{path}: and 80 more", f"{path}: 103 records, 1 tags, steps 1 to 1, 100 faults"]
    assert all(line.startswith(f"{path}: offset ") for line in lines[:FAULTS_SHOWN])


def test_the_worst_file_decides_the_status(small, tmp_path):
    bad = write(tmp_path / "bad", [START, ONE, ONE])
    assert check(small, bad, small, status=1).count(", whole\n") == 2
    result = gradientctl("check", bad, tmp_path / "none", small)
    assert result.returncode == 2 and "No such file" in result.stderr and ", whole\n" in result.stdout
    assert "Is a directory" in gradientctl("check", tmp_path).stderr


@pytest.mark.parametrize(
    "arguments", ["check", "check --json", "check --no x", "dump", "dump --json", "dump --no", "dump a b"]
)
def test_wrong_usage(arguments):
    result = gradientctl(*arguments.split())
    assert result.returncode == 2 and f"usage: gradientctl {arguments.split()[0]} " in result.stderr
