"""Event files that somebody has cut off, further than the daemon can write them again: what is left and what comes
later is shown by every reader."""

import os
import subprocess

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto import event_pb2

from board import START_SECONDS, TensorBoard
from readers import last_step, read_events, read_records, read_scalars, scalars_of, split_records
from streams import Stream
from trainer import FIRST_WALL_TIME, Group, Optimizer, ParameterGroup, Run, Trainer, build_path
from waiting import wait_until

WRITTEN_SECONDS = 30
LAST_BEFORE = 100  # some 2.5 MB, of which the outbox holds the last
LAST = 110
BALLAST = [f"ballast/{i:04}".ljust(240, "-") for i in range(100)]

# How far each file is cut off: its name, and what is left of it as the scalars of the first steps, with all that comes
# before them, and bytes of another record.
CUTS = {"emptied": (0, 0), "short": (1, 0), "torn": (28, 11), "torn-header": (28, 1)}


def steps_of(run, first, last, seed):
    for step in Stream(run, seed).steps(last - first + 1, first=first):
        step.scalars = (("train/loss", 1.0 / step.step), *((tag, float(step.step)) for tag in BALLAST))
        yield step


def end_of(path, step):
    """Where the step's scalars end."""
    end = 0
    for data in split_records(path.read_bytes())[0] if step > 0 else ():
        end += 16 + len(data)
        event = event_pb2.Event.FromString(data)
        if event.step == step and scalars_of(event):
            break
    return end


def write_cut_off(name, daemon, logdir):
    run = Run([Group("w", 20)], Optimizer("sgd"), [ParameterGroup(0.0, 0.0)], name=name)
    trainer = Trainer(run, daemon.socket, logdir, echo=True)
    path = trainer.event_path
    trainer.send(steps_of(run, 1, LAST_BEFORE, seed=1))
    wait_until(lambda: last_step(path) == LAST_BEFORE, WRITTEN_SECONDS, "all steps are written")
    steps, more_bytes = CUTS[name]
    size = path.stat().st_size
    os.truncate(path, end_of(path, steps) + more_bytes)
    trainer.send(steps_of(run, LAST_BEFORE + 1, LAST, seed=2))
    trainer.finish()
    assert path.stat().st_size > size


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    return tmp_path_factory.mktemp("cut") / "logs"


@pytest.fixture
def files(daemon, logdir):
    """name -> event file, of a run each in one directory."""
    found = {}
    for name in CUTS:
        if not (logdir / name).exists():
            write_cut_off(name, daemon, logdir)
        (found[name],) = (logdir / name).glob("events.out.tfevents.*")
    return found


@pytest.mark.parametrize("name", CUTS)
def test_gradientctl_finds_mended_files_whole(name, files):
    """But for the first event, where that is gone."""
    result = subprocess.run([build_path("ctl/gradientctl"), "check", files[name]], capture_output=True, text=True)
    lines = result.stdout.splitlines()
    if name == "emptied":
        assert result.returncode == 1 and len(lines) == 2 and "the first event is no file_version" in lines[0], result
    else:
        assert result.returncode == 0 and len(lines) == 1 and lines[0].endswith(", whole"), result


def steps_in(path):
    return list(read_scalars(path)["train/loss"].steps)


def test_what_is_left_and_what_the_outbox_holds_and_what_comes_later_is_in_the_file(files):
    for name, path in files.items():
        steps = steps_in(path)
        before = CUTS[name][0]
        first_held = steps[before]
        assert 20 < first_held < LAST_BEFORE, name
        assert steps == list(range(1, before + 1)) + list(range(first_held, LAST + 1)), name
        fillers = [event for event in read_events(path) if event.WhichOneof("what") is None]
        assert fillers and all(event.wall_time == FIRST_WALL_TIME for event in fillers), name


def test_python_readers(files):
    for name, path in files.items():
        assert len(list(EventFileLoader(str(path)).Load())) == len(read_records(path)), name
        accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0})
        accumulator.Reload()
        assert [point.step for point in accumulator.Scalars("train/loss")] == steps_in(path), name
        assert accumulator.FirstEventTimestamp() == FIRST_WALL_TIME


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_tensorboard_shows_it(load_fast, files, logdir):
    board = TensorBoard(logdir, load_fast)

    def loaded():
        tags = board.get("/data/plugin/timeseries/tags")
        shown = board.series("train/loss") if tags and tags["scalars"]["runTagInfo"].keys() == files.keys() else {}
        return shown.keys() == files.keys() and all(points[-1][0] == LAST for points in shown.values()) and shown

    try:
        shown = wait_until(loaded, START_SECONDS, f"all runs: {board.messages()}")
        for name, points in shown.items():
            assert [step for step, _, _ in points] == steps_in(files[name]), name
    finally:
        board.stop()
