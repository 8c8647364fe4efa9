"""gradientctl record and replay: the run is what it is without, and replayed it is the same, byte for byte."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import test_noise
import test_streams
from readers import last_step
from recorded_runs import END_SECONDS, GROUPS, STEPS, adam, record, records_of
from recordings import elements_of, read_recording, record_command, replay
from trainer import Group, Optimizer, Run, Trainer, Values, build_path, elements, train
from waiting import wait_until


def starting(**changes):
    rng = np.random.default_rng(3)
    v = [rng.uniform(0, 1, group.numel).astype(np.float32) for group in GROUPS]
    return adam(start_second_moment=v, start_optimizer_step=40, first_step=41, **changes)


def thinned():
    return Run([Group("w", 3), Group("b", 1)], no_thinning=False, max_lag=2)


def sides(**changes):
    run = test_streams.one_run("adam", **changes)
    rng = np.random.default_rng(4)
    run = replace(run, start_parameters=[rng.standard_normal(group.numel) for group in run.groups])
    return replace(run, start_outputs=rng.uniform(size=(run.output_examples, run.outputs_per_example)))


def amsgrad():
    run = starting(start_second_moment_max=None)
    maximum = [2 * v for v in run.start_second_moment]
    return replace(run, optimizer=Optimizer("amsgrad", maximum_of="raw_then_corrected"), shadow_rules=("adagrad",),
                   start_second_moment_max=maximum)  # fmt: skip


def strided_sides():
    run = sides(element_type="f16")
    return replace(run, stride=2, parameters=replace(run.parameters, stride=3), outputs=replace(run.outputs, stride=5))


def with_sides(run):
    return test_streams.records_of(run, seed=8)


CASES = {
    "adam": (adam, records_of),
    "bf16": (lambda: adam(element_type="bf16"), records_of),
    "many steps": (thinned, lambda run: records_of(run, 12_000)),
    "start vectors": (starting, records_of),
    "amsgrad's start vectors": (amsgrad, records_of),
    "side streams": (sides, with_sides),
    "strides": (strided_sides, with_sides),
    "noise": (lambda: test_noise.some_run(labels_from_model=True), test_noise.some_records),
    "raw": (lambda: adam(transport="raw"), records_of),
    "deflated": (lambda: adam(transport="deflated"), records_of),
    "deflated start vectors": (lambda: starting(transport="deflated"), records_of),
    "one slot in flight": (lambda: adam(inflight=1), records_of),
    "no step": (adam, lambda run: []),
}


def check_replays(recording, expected, directory):
    """As it comes, on more threads than there are groups, and without vector instructions."""
    plain, threads, scalar = (directory / name for name in ("plain", "threads", "scalar"))
    replay(recording, plain, "--workers", 1)
    replay(recording, threads, "--workers", 4)
    replay(recording, scalar, "--workers", 2, GRADIENTD_KERNELS="scalar")
    assert [path.read_bytes() == expected for path in (plain, threads, scalar)] == [True] * 3


@pytest.mark.parametrize("case", CASES)
def test_the_same_bytes(case, daemon, tmp_path):
    make_run, make_records = CASES[case]
    run = make_run()
    records = make_records(run)
    without = train(run, records, daemon.socket, tmp_path / "without").read_bytes()
    path, recording = record(run, records, daemon, tmp_path)
    assert path.read_bytes() == without
    check_replays(recording, without, tmp_path)


@pytest.mark.parametrize("transport", ["memory", "raw"])
@pytest.mark.parametrize("end, status", [("failure", 0), ("exit", 0), ("kill", 128 + signal.SIGKILL)])
def test_the_end_of_the_trainer(end, status, transport, daemon, tmp_path):
    """With thinning, what the end has to say is more than an end."""
    run = adam(transport=transport)
    records = records_of(run)
    recording = tmp_path / "run.tfrecord.gz"
    trainer = Trainer(run, None, tmp_path / "logs", end=end, command=record_command(recording, daemon.socket))
    trainer.send(records)
    trainer.process.communicate(timeout=END_SECONDS)
    assert trainer.process.returncode == status
    wait_until(lambda: "ended after" in daemon.messages(), END_SECONDS, "the daemon has ended the file")
    outcome = read_recording(recording)[-1]["outcome"]
    assert outcome == (b"closed" if end == "failure" else b"trainer_gone")
    check_replays(recording, trainer.event_path.read_bytes(), tmp_path)


def test_a_trainer_that_is_killed_from_outside(daemon, tmp_path):
    """SIGKILL in mid-stream, with steps on their way: what the daemon has seen of them is what is recorded."""
    run = adam()
    recording = tmp_path / "run.tfrecord.gz"
    shell = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', tmp_path / "pid"]
    command = [*record_command(recording, daemon.socket), *map(str, shell)]
    trainer = Trainer(run, None, tmp_path / "logs", command=command)
    trainer.send(records_of(run))
    trainer.process.stdin.flush()
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    trainer.process.communicate(timeout=END_SECONDS)
    assert trainer.process.returncode == 128 + signal.SIGKILL
    wait_until(lambda: "ended after" in daemon.messages(), END_SECONDS, "the daemon has ended the file")
    check_replays(recording, trainer.event_path.read_bytes(), tmp_path)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_daemon_that_is_restarted(how, start_daemon, tmp_path):
    """One recording, and the file of a run that was never disturbed."""
    run = adam()
    records = records_of(run)
    daemon = start_daemon()
    without = train(run, records, daemon.socket, tmp_path / "without").read_bytes()
    daemon.stop()
    daemon = start_daemon(ready=False, at=daemon)
    daemon.wait_ready()

    recording = tmp_path / "run.tfrecord.gz"
    trainer = Trainer(run, None, tmp_path / "logs", command=record_command(recording, daemon.socket))
    for part in range(3):
        trainer.send(records[part * 10 : part * 10 + 10])
        trainer.process.stdin.flush()
        daemon.stop(how)
        daemon = start_daemon(ready=False, at=daemon)
        daemon.wait_ready()
    trainer.send(records[30:])
    path = trainer.finish()
    daemon.stop()
    assert path.read_bytes() == without
    assert not (tmp_path / "run.tfrecord.gz.2").exists()
    sequence = [r["step"] for r in read_recording(recording) if r["kind"] == b"Snapshot"]
    assert sequence == list(range(1, STEPS + 1))
    check_replays(recording, without, tmp_path)


def test_a_run_that_its_daemon_leaves(start_daemon, tmp_path):
    """Its event file has no end, and neither has the one that is replayed."""
    run = adam()
    daemon = start_daemon()
    recording = tmp_path / "run.tfrecord.gz"
    trainer = Trainer(run, None, tmp_path / "logs", end="exit", echo=True,
                      command=record_command(recording, daemon.socket))  # fmt: skip
    records = [record for record in records_of(run) if not isinstance(record, Values)]
    trainer.send(records)
    wait_until(lambda: last_step(trainer.event_path) == STEPS, END_SECONDS, "all is written")
    daemon.stop()
    trainer.process.communicate(timeout=END_SECONDS)
    assert read_recording(recording)[-1]["outcome"] == b"left"
    check_replays(recording, trainer.event_path.read_bytes(), tmp_path)


REFUSED_CLIENT = """
import os, sys
import plain_client
run = plain_client.Run(os.environ["GRADIENTD_SOCKET"], sys.argv[1], [("w", 50)], sys.argv[2])
for step in range(1, 10):
    run.snapshot(step, bytes(range(200)), 0.1, 1.7e9)
try:
    run.snapshot(int(sys.argv[3]), bytes(200), float(sys.argv[4]), 1.7e9)
    run.scalars(10, 1.7e9, [("after", 1.0)])
    run.close()
except plain_client.DaemonError as error:
    sys.exit(0)
sys.exit("it was not refused")
"""


@pytest.mark.parametrize("transport", ["memory", "raw"])
@pytest.mark.parametrize("step, rate", [(10, "nan"), (3, "0.1")], ids=["what decode refuses", "what the run refuses"])
def test_a_run_that_the_daemon_refuses(step, rate, transport, daemon, tmp_path):
    recording, path = tmp_path / "run.gz", tmp_path / "events"
    client = [sys.executable, "-c", REFUSED_CLIENT, path, transport, str(step), rate]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}
    subprocess.run([*record_command(recording, daemon.socket), *client], check=True, env=environment)
    wait_until(lambda: "ended after 9 snapshots" in daemon.messages(), END_SECONDS, "the daemon has ended the file")
    end = read_recording(recording)[-1]
    assert end["outcome"] == b"refused" and (b"learning_rate" if rate == "nan" else b"step is 3") in end["text"]
    check_replays(recording, path.read_bytes(), tmp_path)


def sent(record, run, stream):
    """What a trainer has sent of a stream, absent groups as None."""
    name = {"gradient": "gradients", "probe_gradient": "probe_gradients"}.get(stream, stream)
    element_type = run.element_type if stream == "gradient" else getattr(run, name).element_type
    arrays = getattr(record, name)
    arrays = [arrays.ravel()] if stream == "outputs" else arrays
    return [None if array is None else elements(array, element_type) for array in arrays]


def check_elements(found, record, run, stream):
    numels = [run.output_examples * run.outputs_per_example]
    if stream != "outputs":
        numels = [group.numel for group in run.groups]
    parts = np.split(elements_of(found, stream), np.cumsum(numels)[:-1])
    for part, array in zip(parts, sent(record, run, stream), strict=True):
        assert array is None or (part == array).all()


@pytest.mark.parametrize("case", ["adam", "bf16", "side streams", "strides"])
def test_what_others_read(case, daemon, tmp_path):
    make_run, make_records = CASES[case]
    run = make_run()
    records = make_records(run)
    _, recording = record(run, records, daemon, tmp_path)
    found = read_recording(recording)
    assert [r["kind"] for r in found[:2]] == [b"Recording", b"OpenRun"]
    assert found[0]["format"] == 1 and found[0]["text"].startswith(b"gradientd ")
    assert found[-2]["kind"] == b"CloseRun"
    assert found[-1]["kind"] == b"End" and found[-1]["outcome"] == b"closed"

    snapshots = [r for r in found if r["kind"] == b"Snapshot"]
    steps = [record for record in records if not isinstance(record, Values)]
    assert [r["step"] for r in snapshots] == [step.step for step in steps]
    for snapshot, step in zip(snapshots, steps):
        check_elements(snapshot, step, run, "gradient")
        there = {stream for stream in ("probe_gradient", "parameters", "outputs") if stream in snapshot}
        names = {"probe_gradient": "probe_gradients"}
        assert there == {s for s in ("probe_gradient", "parameters", "outputs")
                         if getattr(step, names.get(s, s), None) is not None}  # fmt: skip
        for stream in there:
            check_elements(snapshot, step, run, stream)


def test_start_vectors_are_read(daemon, tmp_path):
    run = amsgrad()
    _, recording = record(run, records_of(run, 3), daemon, tmp_path)
    vectors = {}
    for found in read_recording(recording):
        if found["kind"] == b"StartVector":
            vectors |= {name: elements_of(found, name) for name in found if f"{name}_type" in found}
    assert vectors.keys() == {"start_second_moment", "start_second_moment_max"}
    for name in vectors:
        assert (vectors[name] == np.concatenate(getattr(run, name))).all()


def test_several_runs_of_a_command(daemon, tmp_path):
    """Two trainers at the same time, which train in C and send no steps or some."""
    recording, logs = tmp_path / "runs.gz", tmp_path / "logs"
    steps = build_path("tests/steps")
    script = f'(echo 7 | "{steps}" a "{logs}") & (echo 4000 | "{steps}" b "{logs}") & wait'
    result = subprocess.run(
        [*record_command(recording, daemon.socket, "--json"), "sh", "-c", script],
        capture_output=True, text=True, timeout=END_SECONDS)  # fmt: skip
    assert result.returncode == 0, result
    told = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [one["file"] for one in told] == [str(recording), f"{recording}.2"]
    assert {one["run"]: one["snapshots"] for one in told} == {"a": 7, "b": 4000}
    assert [(one["outcome"], one["whole"]) for one in told] == [("closed", True)] * 2
    for one in told:
        (path,) = (logs / one["run"]).iterdir()
        replay(one["file"], tmp_path / one["run"])
        assert (tmp_path / one["run"]).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("program, arguments", [
    ("digits", ["--optimizer", "adam", "--steps", "150"]),
    ("function_space", ["--steps", "60"]),
    ("staleness", ["--steps", "60", "--staleness", "3"]),
    ("adam_ratios", ["--steps", "15000"]),
])  # fmt: skip
def test_the_examples(program, arguments, daemon, tmp_path):
    recording, logs = tmp_path / "runs.gz", tmp_path / "logs"
    command = [*record_command(recording, daemon.socket, "--json"), build_path(f"examples/{program}")]
    result = subprocess.run([*command, *arguments, "--logdir", logs], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result
    told = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert told
    for one in told:
        (path,) = (logs / one["run"]).glob("*.tfevents.*")
        replay(one["file"], tmp_path / "replayed", "--force")
        assert (tmp_path / "replayed").read_bytes() == path.read_bytes()
