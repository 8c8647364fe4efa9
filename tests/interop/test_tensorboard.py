"""What a real TensorBoard shows, with either of its readers, and that the other readers agree."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX.crc32c import crc32c as tensorboardx_crc32c
from tensorboardX.proto import event_pb2 as tensorboardx_event

from board import START_SECONDS, TensorBoard
from readers import read_descriptions, read_events, read_records, read_scalars
from streams import Stream
from trainer import Group, Optimizer, ParameterGroup, Run, Values, train
from waiting import wait_until

STEPS = 20


def records_of(run, seed, first=1):
    records = []
    for step in Stream(run, seed).steps(STEPS, first=first):
        step.scalars = (("train/loss", 1.0 / step.step), ("train/größe", 2.0))
        records.append(step)
        if step.step % 10 == 0:
            records.append(Values(step.step, (("validation/loss", 0.5 / step.step),)))
    return records


def run_named(name, rule, first_step=1):
    parameter_groups = [ParameterGroup(0.999, 1e-8)]
    return Run([Group("w", 200), Group("b", 5)], Optimizer(rule), parameter_groups, name=name, first_step=first_step)


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    return tmp_path_factory.mktemp("board") / "logs"


@pytest.fixture
def runs(daemon, logdir):
    """name -> event file, of two runs in one directory."""
    found = {}
    for seed, name in enumerate(("adam", "deep/sgd")):
        directory = logdir / name
        if not directory.exists():
            run = run_named(name, name.split("/")[-1])
            train(run, records_of(run, seed), daemon.socket, logdir)
        (found[name],) = directory.glob("events.out.tfevents.*")
    return found


@pytest.fixture(params=["true", "false"])
def board(request, runs, logdir):
    board = TensorBoard(logdir, request.param)
    yield board
    board.stop()


def test_shows_every_run_tag_step_value_and_description(board, runs):
    expected = {name: read_scalars(path) for name, path in runs.items()}

    def loaded():
        shown = board.get("/data/plugin/timeseries/tags")
        tags = shown["scalars"]["runTagInfo"] if shown else {}
        if {name: set(tags.get(name, ())) for name in expected} != {n: set(s) for n, s in expected.items()}:
            return None
        last = board.series("train/loss")
        return shown if all(last.get(name, [(0,)])[-1][0] == STEPS for name in expected) else None

    shown = wait_until(loaded, START_SECONDS, f"all runs and tags: {board.messages()}")
    assert set(board.get("/data/runs")) == set(expected)
    assert shown["scalars"]["runTagInfo"].keys() == expected.keys()

    for tag in {tag for scalars in expected.values() for tag in scalars}:
        found = board.series(tag)
        assert found.keys() == {name for name, scalars in expected.items() if tag in scalars}
        for name, points in found.items():
            series = expected[name][tag]
            assert points == list(zip(series.steps, series.wall_times, series.values)), f"{name} {tag}"

    # The dashboard renders markdown; the sentence's own words are what must arrive
    for path in runs.values():
        for tag, description in read_descriptions(path).items():
            assert bool(shown["scalars"]["tagDescriptions"].get(tag)) == bool(description), tag


def test_own_tags_have_descriptions(runs):
    for path in runs.values():
        for tag, description in read_descriptions(path).items():
            users = tag.startswith(("train/", "validation/"))
            assert bool(description) != users, tag
    adam, sgd = (read_descriptions(path) for path in runs.values())
    assert all(sgd[tag] == description for tag, description in adam.items() if tag in sgd)


def test_trainers_own_values(runs):
    for path in runs.values():
        scalars = read_scalars(path)
        assert scalars["train/loss"].steps == list(range(1, STEPS + 1))
        assert scalars["train/loss"].values == pytest.approx([1 / step for step in range(1, STEPS + 1)])
        assert scalars["validation/loss"].steps == [10, 20]


def test_accumulator_agrees(runs):
    for path in runs.values():
        accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0})
        accumulator.Reload()
        expected = read_scalars(path)
        assert set(accumulator.Tags()["scalars"]) == set(expected)
        for tag, series in expected.items():
            points = accumulator.Scalars(tag)
            assert [point.step for point in points] == series.steps
            assert [point.wall_time for point in points] == series.wall_times
            assert [point.value for point in points] == series.values


def test_tensorboardx_agrees(runs):
    """Its schema parses every record, and its CRC (another implementation than ours) is ours."""
    for path in runs.values():
        events = read_events(path)
        parsed = [tensorboardx_event.Event.FromString(record) for record in read_records(path)]
        assert [event.step for event in parsed] == [event.step for event in events]
        assert [[v.tag for v in event.summary.value] for event in parsed] == [
            [v.tag for v in event.summary.value] for event in events
        ]
        content = path.read_bytes()
        length_crc = int.from_bytes(content[8:12], "little")
        crc = tensorboardx_crc32c(content[:8])
        assert length_crc == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_opening_records(runs):
    for path in runs.values():
        version, start, *_, stop = read_events(path)
        assert version.file_version == "brain.Event:2" and version.source_metadata.writer == "gradientd"
        assert start.session_log.status == start.session_log.START and start.step == 1
        assert stop.session_log.status == stop.session_log.STOP
        assert stop.wall_time == max(event.wall_time for event in read_events(path)[2:])


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_second_attachment_continues_the_curve(load_fast, daemon, tmp_path):
    """A trainer restarted from step 15's checkpoint: a second file, later by name, and no zig-zag."""
    logdir = tmp_path / "logs"
    first = train(run_named("run", "adam"), records_of(run_named("run", "adam"), 5), daemon.socket, logdir)
    resumed = run_named("run", "adam", first_step=16)
    second = train(resumed, records_of(resumed, 6, first=16), daemon.socket, logdir)
    assert first.parent == second.parent and first.name < second.name

    board = TensorBoard(logdir, load_fast)
    try:

        def steps():
            shown = board.get("/data/plugin/timeseries/tags")
            if not shown or "train/loss" not in shown["scalars"]["runTagInfo"].get("run", ()):
                return None
            found = [step for step, _, _ in board.series("train/loss")["run"]]
            return found if found[-1] == 15 + STEPS else None

        assert wait_until(steps, START_SECONDS, "the resumed run's last step") == list(range(1, 16 + STEPS))
    finally:
        board.stop()
