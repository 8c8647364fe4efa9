"""A trainer that goes without a word loses nothing it submitted, and disturbs no other run."""

import signal
import subprocess

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from board import START_SECONDS, TensorBoard
from readers import last_step, read_events, read_records, read_scalars, read_steps
from streams import Stream
from trainer import Group, Optimizer, ParameterGroup, Run, Trainer, build_path, train
from waiting import wait_until

STEPS = 25
EXITS = 60
DEADLINE_SECONDS = 1.0  # TensorBoard shows what is there; a trainer's last steps are what its user looks at


def run_named(name):
    return Run([Group("w", 40_000), Group("b", 5)], Optimizer("adam"), [ParameterGroup(0.999, 1e-8)], name=name)


def assert_whole(path):
    """Every step, and the end record: the run is over."""

    def ended():
        return last_step(path) == STEPS and read_events(path)[-1].WhichOneof("what") == "session_log"

    wait_until(ended, DEADLINE_SECONDS, f"step {STEPS} and the end in {path}, which has {last_step(path)}")
    assert list(read_steps(path)) == list(range(1, STEPS + 1))


def test_exit_without_close(daemon, tmp_path):
    """Again and again: whether the trainer leaves an answer unread in its socket is a matter of microseconds, and an
    unread answer resets the connection behind the last steps."""
    run = run_named("exits")
    records = Stream(run, seed=31).steps(STEPS)
    for attempt in range(EXITS):
        path = train(run, records, daemon.socket, tmp_path / str(attempt), end="exit")
        assert_whole(path)


def test_kill_after_submit(daemon, tmp_path):
    run = run_named("killed")
    trainer = Trainer(run, daemon.socket, tmp_path, end="kill")
    trainer.send(Stream(run, seed=32).steps(STEPS))
    path = trainer.finish(status=-signal.SIGKILL)
    assert_whole(path)


def test_kill_in_mid_stream(daemon, tmp_path):
    """Killed while it waits for its next step; meanwhile another run goes on as if alone."""
    other = run_named("other")
    records = Stream(other, seed=33).steps(STEPS)
    alone = train(other, records, daemon.socket, tmp_path / "alone").read_bytes()

    undisturbed = Trainer(other, daemon.socket, tmp_path, echo=True)
    undisturbed.send(records[:10])
    run = run_named("killed")
    trainer = Trainer(run, daemon.socket, tmp_path, echo=True)
    trainer.send(Stream(run, seed=34).steps(STEPS))
    trainer.kill()
    assert_whole(trainer.event_path)

    undisturbed.send(records[10:])
    assert undisturbed.finish().read_bytes() == alone


def test_same_bytes_as_closed_run(daemon, tmp_path):
    """Only the outcome differs: up to its end record the file is the one a closed run leaves."""
    run = run_named("run")
    records = Stream(run, seed=35).steps(STEPS)
    closed = train(run, records, daemon.socket, tmp_path / "closed")
    exited = train(run, records, daemon.socket, tmp_path / "exited", end="exit")
    assert_whole(exited)
    steps = read_records(closed)[:-2]  # without the outcome and the end
    assert read_records(exited)[: len(steps)] == steps


def shown_last_steps(logdir, load_fast, expected):
    """run -> the last step that TensorBoard shows, once all are there."""
    board = TensorBoard(logdir, load_fast)
    try:

        def loaded():
            tags = board.get("/data/plugin/timeseries/tags")
            runs = tags["scalars"]["runTagInfo"] if tags else {}
            if not all("train/loss" in runs.get(run, ()) for run in expected):
                return None
            last = {run: points[-1][0] for run, points in board.series("train/loss").items()}
            return last if last == expected else None

        return wait_until(loaded, START_SECONDS, f"every run to its end: {board.messages()}")
    finally:
        board.stop()


def test_killed_at_any_instant(tmp_path):
    """What tests/crash leaves behind of killed trainers, as TensorBoard's readers see it. Few of them: its own Python
    reader takes some two seconds a run."""
    trainers = ["--trainers", "5", "--seed", "11", "--directory", str(tmp_path)]
    subprocess.run([build_path("tests/crash/crash"), *trainers, build_path("daemon/gradientd-faults")], check=True)
    expected = {}
    for path in tmp_path.glob("killed-*/events.*"):
        loss = read_scalars(path).get("train/loss")  # none where it was killed before its first step
        if loss:
            expected[path.parent.name] = loss.steps[-1]
            accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
            assert [point.step for point in accumulator.Scalars("train/loss")] == list(range(1, loss.steps[-1] + 1))
    assert len(expected) > 2
    for load_fast in ("true", "false"):
        assert shown_last_steps(tmp_path, load_fast, expected) == expected
