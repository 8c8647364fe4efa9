"""gradientctl replay: where it writes, and what it says of a recording that is not right."""

import json
import random
import subprocess

import pytest

from recorded_runs import record, small_run
from recordings import read_recording, replay, write_recording
from trainer import build_path


@pytest.fixture
def recorded(daemon, tmp_path):
    run, records = small_run()
    return record(run, records, daemon, tmp_path)


def test_replay_overwrites_nothing(recorded, tmp_path):
    path, recording = recorded
    there = tmp_path / "there"
    there.write_bytes(b"precious")
    assert "--force" in replay(recording, there, status=1).stderr
    assert there.read_bytes() == b"precious"
    replay(recording, there, "--force")
    assert there.read_bytes() == path.read_bytes()


def test_replay_spares_its_recording(recorded, tmp_path):
    _, recording = recorded
    before = recording.read_bytes()
    (tmp_path / "link").symlink_to(recording)
    for output in (recording, tmp_path / "link"):
        assert "the recording itself" in replay(recording, output, "--force", status=1).stderr
        assert recording.read_bytes() == before


def test_text_of_a_recording_is_harmless(recorded, tmp_path):
    _, recording = recorded
    records = read_recording(recording)
    records[-1] = {"kind": b"End", "outcome": b"refused", "text": b"\x1b[2J\xe2\x80\xae"}
    write_recording(tmp_path / "crafted", records)
    assert "\\x1b[2J\\u202e\n" in replay(tmp_path / "crafted", tmp_path / "replayed").stderr


def test_where_replay_writes(recorded, tmp_path):
    path, recording = recorded
    tool = [build_path("ctl/gradientctl"), "replay"]
    subprocess.run([*tool, recording], check=True, capture_output=True)
    assert recording.with_name(recording.name + ".tfevents").read_bytes() == path.read_bytes()
    for _ in range(2):
        subprocess.run([*tool, "--logdir", tmp_path / "again", recording], check=True, capture_output=True)
    files = sorted((tmp_path / "again" / "run").iterdir())
    assert len(files) == 2 and all(file.name.startswith("events.out.tfevents.") for file in files)
    assert [file.read_bytes() for file in files] == [path.read_bytes()] * 2


def test_replay_tells_in_json(recorded, tmp_path):
    path, recording = recorded
    told = json.loads(replay(recording, tmp_path / "replayed", "--json").stdout)
    assert told == {"recording": str(recording), "file": str(tmp_path / "replayed"), "run": "run", "snapshots": 12,
                    "bytes": path.stat().st_size, "outcome": "closed", "whole": True}  # fmt: skip


def test_a_replay_into_no_file(recorded):
    _, recording = recorded
    assert "no regular file" in replay(recording, "/dev/full", "--force", status=1).stderr


def test_cuts_are_found(recorded, tmp_path):
    path, recording = recorded
    content, whole = recording.read_bytes(), path.read_bytes()
    for length in sorted({*range(0, len(content), 211), *range(len(content) - 9, len(content))}):
        cut = tmp_path / "cut"
        cut.write_bytes(content[:length])
        result = replay(cut, tmp_path / "part", "--force", status=1)
        assert "record " in result.stderr and ("cut off" in result.stderr or "damaged" in result.stderr), result
        if (tmp_path / "part").exists():
            assert whole.startswith((tmp_path / "part").read_bytes())


HARMLESS = range(4, 10)  # of gzip's header: a time, a level and a system, which nobody reads


def test_flipped_bits_are_found(recorded, tmp_path):
    path, recording = recorded
    content, whole = bytearray(recording.read_bytes()), path.read_bytes()
    rng = random.Random(2)
    for at in sorted({*range(0, 24, 3), *rng.sample(range(len(content)), 40), *range(len(content) - 8, len(content))}):
        flipped = bytearray(content)
        flipped[at] ^= 1 << rng.randrange(8)
        damaged = tmp_path / "damaged"
        damaged.write_bytes(flipped)
        result = replay(damaged, tmp_path / "part", "--force", status=0 if at in HARMLESS else 1)
        assert at in HARMLESS or "record " in result.stderr, (at, result)
        if (tmp_path / "part").exists():
            part = (tmp_path / "part").read_bytes()
            assert whole.startswith(part) and (part == whole or at not in HARMLESS)


def nth(records, kind, n=0):
    """Where the record is."""
    return [i for i, record in enumerate(records) if record["kind"] == kind][n]


def change(of_kind, n=0, **features):
    """An edit that gives a record these features; None: takes them away."""

    def edit(records):
        at = nth(records, of_kind, n)
        changed = {name: value for name, value in {**records[at], **features}.items() if value is not None}
        return [*records[:at], changed, *records[at + 1 :]]

    return edit


def without(kind, n=0):
    return lambda records: [record for i, record in enumerate(records) if i != nth(records, kind, n)]


def twice(kind, n=0):
    def edit(records):
        at = nth(records, kind, n)
        return [*records[: at + 1], *records[at:]]

    return edit


def swap(kind, n, m):
    def edit(records):
        records = [*records]
        i, j = nth(records, kind, n), nth(records, kind, m)
        records[i], records[j] = records[j], records[i]
        return records

    return edit


EDITS = {  # what is done, and what is said of which record, counted from 1
    "another format": (change(b"Recording", format=2), 1, "format 2, this version reads 1"),
    "no beginning": (without(b"Recording"), 1, "not the first"),
    "no OpenRun": (without(b"OpenRun"), 2, "an OpenRun must be the second"),
    "two OpenRuns": (twice(b"OpenRun"), 3, "a second beginning"),
    "no table": (change(b"OpenRun", payload=None), 2, "group"),
    "another message": (change(b"OpenRun", message=b""), 2, "payload_bytes is 36"),
    "inline, in slots": (change(b"OpenRun", inline=1), 3, "without memory"),
    "no elements": (change(b"Snapshot", gradient=None, gradient_type=None), 3, "0 streams, its message of 1"),
    "too few elements": (change(b"Snapshot", 1, gradient=bytes(168)), 4, "has 168 bytes, the run's elements take 172"),
    "too many elements": (change(b"Snapshot", 1, gradient=bytes(176)), 4, "gradient has 176 bytes"),
    "another type": (change(b"Snapshot", gradient_type=b"f16"), 3, "type"),
    "another stream": (change(b"Snapshot", outputs=bytes(4), outputs_type=b"f32"), 3, "2 streams, its message of 1"),
    "a Snapshot that is Scalars": (change(b"Snapshot", kind=b"Scalars"), 3, "not the Scalars that it is said to be"),
    "a payload with a slot": (change(b"Snapshot", payload=bytes(172)), 3, "payload"),
    "a missing step": (without(b"Snapshot", 3), 6, "sequence"),
    "a step twice": (twice(b"Snapshot", 3), 7, "sequence"),
    "steps out of order": (swap(b"Snapshot", 2, 3), 5, "sequence"),
    "a garbled message": (change(b"Snapshot", message=b"\xff\xff"), 3, "malformed"),
    "an outcome that is none": (change(b"End", outcome=b"won"), 16, "outcome"),
    "no end": (without(b"End"), 16, "cut off"),
    "a missing step and no end": (lambda records: without(b"Snapshot", 3)(records[:-1]), 6, "sequence"),
    "two ends": (twice(b"End"), 17, "after the end"),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_what_is_not_right_is_said(edit, recorded, tmp_path):
    """Recordings whose every checksum is right: what came before is replayed."""
    path, recording = recorded
    change, number, text = EDITS[edit]
    write_recording(tmp_path / "edited", change(read_recording(recording)))
    message = replay(tmp_path / "edited", tmp_path / "part", status=1).stderr
    assert f"record {number}: " in message and text in message, message
    if number > 2:
        part = (tmp_path / "part").read_bytes()
        assert path.read_bytes().startswith(part) and (len(part) < path.stat().st_size or number > 15)


def test_what_is_added_later_is_left_alone(recorded, tmp_path):
    path, recording = recorded
    write_recording(tmp_path / "edited", [{**record, "note": b"later"} for record in read_recording(recording)])
    replay(tmp_path / "edited", tmp_path / "replayed")
    assert (tmp_path / "replayed").read_bytes() == path.read_bytes()
