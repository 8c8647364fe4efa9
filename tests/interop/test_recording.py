"""gradientctl record and replay: the run is what it is without, and replayed it is the same, byte for byte."""

import json
import os
import pty
import random
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import test_noise
import test_streams
from readers import last_step
from recordings import elements_of, read_recording, record_command, replay, write_recording
from streams import Stream
from trainer import Group, Optimizer, ParameterGroup, Run, Trainer, Values, build_path, elements, train
from waiting import wait_until

STEPS = 30
END_SECONDS = 30
GROUPS = [Group("layer/w", 150_001, 0), Group("layer/b", 7, 1), Group("head/w", 65_537, 1), Group("head/b", 20, 0)]
RATES = [ParameterGroup(0.999, 1e-8), ParameterGroup(0.9, 1e-6)]


def adam(**changes):
    run = Run(GROUPS, Optimizer("adam"), RATES, shadow_rules=("amsgrad", "rmsprop"), per_group=True,
              hparams={"layers": 2.0, "model": "mlp", "wide": True}, no_thinning=False)  # fmt: skip
    return replace(run, **changes)


def records_of(run, count=STEPS):
    """Absent groups, steps that are not applied, rates and b2 that change, values at the steps and between them."""
    records = []
    for step in Stream(run, seed=5).steps(count, first=run.first_step):
        if step.step % 7 == 3:
            step.gradients[1] = None
        step.applied = step.step % 11 != 5
        step.scalars = (("train/loss", 1.0 / step.step),)
        if step.step % 9 == 4:
            step.beta2, step.eps = [0.99, 0.9][: len(step.learning_rates)], [1e-8, 1e-7][: len(step.learning_rates)]
        records.append(step)
        if step.step % 10 == 0:
            records.append(Values(step.step, (("test/loss", 2.0 / step.step),)))
    return records


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


def record(run, records, daemon, directory, *options, status=0, **how):
    """A recorded run: its event file and its recording."""
    recording = directory / "run.tfrecord.gz"
    command = record_command(recording, daemon.socket, *options)
    trainer = Trainer(run, None, directory / "recorded", command=command, **how)
    trainer.send(records)
    return trainer.finish(status), recording


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


# ---- what does not go well


def small_run():
    run = Run([Group("w", 40), Group("b", 3)], Optimizer("adam"), [ParameterGroup(0.999, 1e-8)], max_lag=2)
    return run, [replace(step, scalars=(("loss", 1.0),)) for step in Stream(run, seed=1).steps(12)]


def test_a_full_disk(daemon, tmp_path):
    run, records = small_run()
    without = train(run, records, daemon.socket, tmp_path / "without").read_bytes()
    command = record_command("/dev/full", daemon.socket, "--force")
    trainer = Trainer(run, None, tmp_path / "logs", command=command)
    trainer.send(records)
    output, _ = trainer.process.communicate(timeout=END_SECONDS)
    trainer.messages.seek(0)
    messages = trainer.messages.read().decode()
    assert trainer.process.returncode == 1 and output == b"skipped 0\n"
    assert messages.count("No space left on device") == 1 and "not whole" in messages
    assert trainer.event_path.read_bytes() == without


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
def test_a_disk_that_becomes_full(daemon, tmp_path):
    """What fitted is there, and the run is whole."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], capture_output=True).returncode != 0:
        pytest.skip("no right to mount")
    try:
        run = adam()
        records = records_of(run)
        without = train(run, records, daemon.socket, tmp_path / "without").read_bytes()
        trainer = Trainer(run, None, tmp_path / "logs", command=record_command(disk / "run.gz", daemon.socket))
        trainer.send(records)
        trainer.process.communicate(timeout=END_SECONDS)
        assert trainer.process.returncode == 1
        assert trainer.event_path.read_bytes() == without
        result = replay(disk / "run.gz", tmp_path / "part", status=1)
        assert "cut off" in result.stderr
        part = (tmp_path / "part").read_bytes()
        assert len(part) > 1000 and without.startswith(part)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_no_daemon(tmp_path):
    """The trainer sees what it would see without the recorder."""
    recording = tmp_path / "run.gz"
    command = [*record_command(recording, tmp_path / "nobody"), build_path("tests/steps"), "run", tmp_path]
    result = subprocess.run(command, input="", capture_output=True, text=True, timeout=END_SECONDS)
    assert result.returncode == 1
    assert "no daemon answers" in result.stderr and "Connection refused" in result.stderr
    assert not recording.exists()


def test_a_command_without_a_run(daemon, tmp_path):
    recording = tmp_path / "run.gz"
    result = subprocess.run([*record_command(recording, daemon.socket), "true"], capture_output=True, text=True)
    assert result.returncode == 1 and "nothing was recorded" in result.stderr
    assert not recording.exists()


def test_what_is_no_file_stays(daemon, tmp_path):
    """A file without a run is removed, a pipe or a device is not."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    result = subprocess.run([*record_command(pipe, daemon.socket, "--force"), "true"], capture_output=True, text=True)
    os.close(reader)
    assert result.returncode == 1 and "nothing was recorded" in result.stderr
    assert pipe.is_fifo()


def test_a_parent_that_ignores_the_end_of_its_children(daemon, tmp_path):
    """An ignored SIGCHLD is inherited, and takes an ended command's status away."""
    command = [*record_command(tmp_path / "run.gz", daemon.socket), "sh", "-c", "exit 7"]
    ignoring = """if True:
        import os, signal, sys
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.execv(sys.argv[1], sys.argv[1:])
    """
    result = subprocess.run([sys.executable, "-c", ignoring, *command], capture_output=True, timeout=END_SECONDS)
    assert result.returncode == 7


def test_a_file_that_is_there(daemon, tmp_path):
    recording = tmp_path / "run.gz"
    recording.write_bytes(b"precious")
    command = [*record_command(recording, daemon.socket), "touch", tmp_path / "ran"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and "--force" in result.stderr
    assert recording.read_bytes() == b"precious" and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("command, status", [
    (["sh", "-c", "exit 7"], 7),
    (["sh", "-c", "kill -SEGV $$"], 128 + signal.SIGSEGV),
    (["/nowhere/trainer"], 127),
    (["/etc/passwd"], 126),
])  # fmt: skip
def test_exit_status(command, status, daemon, tmp_path):
    result = subprocess.run([*record_command(tmp_path / "run.gz", daemon.socket), *command], capture_output=True)
    assert result.returncode == status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_command(number, daemon, tmp_path):
    """Ctrl-C goes to the whole foreground, a signal to the recorder alone goes on to the command: once each."""
    script = f"""if True:
        import signal, sys
        signal.signal({int(number)}, lambda *_: (print("hit"), sys.exit(5)))
        print("up", flush=True)
        signal.pause()
    """
    command = [*record_command(tmp_path / "run.gz", daemon.socket), sys.executable, "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == b"up\n"
    process.send_signal(number)
    output, _ = process.communicate(timeout=END_SECONDS)
    assert output == b"hit\n" and process.returncode == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_when_the_command_has_ended(number, daemon, tmp_path):
    """What it left running is recorded on, until somebody ends the recorder."""
    os.mkfifo(tmp_path / "steps")
    (tmp_path / "out").touch()
    left = f'"{build_path("tests/steps")}" run "{tmp_path}" <"{tmp_path}/steps" >"{tmp_path}/out" 2>/dev/null'
    script = f'{left} & until grep -q step "{tmp_path}/out"; do :; done'
    command = [*record_command(tmp_path / "run.gz", daemon.socket, "--json"), "sh", "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        with open(tmp_path / "steps", "w") as steps:
            print(3, file=steps, flush=True)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            wait_until(lambda: children.read_text() == "", END_SECONDS, "the command has ended")
            process.send_signal(number)
            output, messages = process.communicate(timeout=END_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1 and b"interrupted" in messages
    told = json.loads(output)
    assert (told["snapshots"], told["whole"], told["outcome"]) == (3, False, "left")
    assert "cut off" in replay(tmp_path / "run.gz", tmp_path / "replayed", status=1).stderr
    assert last_step(tmp_path / "replayed") == 3


def test_ctrl_c(daemon, tmp_path):
    """From a terminal it comes to both, and to the command once."""
    script = """if True:
        import signal, sys
        hits = []
        signal.signal(signal.SIGINT, lambda *_: (hits.append(1), print("hit", flush=True)))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(len(hits)))
        print("up", flush=True)
        while True:
            signal.pause()
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(build_path("ctl/gradientctl"),
                 [*record_command(tmp_path / "run.gz", daemon.socket), sys.executable, "-c", script])  # fmt: skip
    with os.fdopen(terminal, "r+b", buffering=0) as output:
        assert output.readline() == b"up\r\n"
        os.kill(pid, signal.SIGSTOP)  # so that the command has taken it before the recorder may do anything
        output.write(b"\x03")
        while b"hit" not in output.readline():
            pass
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGTERM)  # goes on to the command after all that came before
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_a_file_that_hangs(daemon, tmp_path):
    """A pipe that nobody reads: the run is whole, and the recorder ends."""
    run = adam()
    records = records_of(run)
    without = train(run, records, daemon.socket, tmp_path / "without").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    trainer = Trainer(run, None, tmp_path / "logs",
                      command=record_command(tmp_path / "pipe", daemon.socket, "--force"))  # fmt: skip
    trainer.send(records)
    trainer.process.communicate(timeout=END_SECONDS)
    os.close(reader)
    trainer.messages.seek(0)
    assert trainer.process.returncode == 1
    assert b"the file system does not answer" in trainer.messages.read()
    assert trainer.event_path.read_bytes() == without


def test_closed_standard_descriptors(daemon, tmp_path):
    """What is said about a second run, which has no file, is not written into the first one's."""
    (tmp_path / "run.gz.2").write_bytes(b"precious")
    steps, out = f'"{build_path("tests/steps")}"', f'"{tmp_path}/out"'
    second = f'until grep -q step {out}; do :; done; {steps} b "{tmp_path}" </dev/null >&2; true'
    script = f'touch {out}; {{ echo 5; {second}; }} | {steps} a "{tmp_path}" >{out}'
    command = ["sh", "-c", 'exec >&- 2>&-; exec "$@"', "sh", *record_command(tmp_path / "run.gz", daemon.socket)]
    assert subprocess.run([*command, "sh", "-c", f"exec 2>/dev/null; {script}"], timeout=END_SECONDS).returncode == 1
    assert (tmp_path / "run.gz.2").read_bytes() == b"precious"
    replay(tmp_path / "run.gz", tmp_path / "replayed")
    (path,) = (tmp_path / "a").iterdir()
    assert (tmp_path / "replayed").read_bytes() == path.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="a /run of its own takes root")
def test_a_stale_socket_is_passed_over(daemon, tmp_path):
    """As clients do: where nobody answers at the place of the user's daemon, that of the machine's is next."""
    (tmp_path / "gradientd").mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "gradientd" / "socket"))
    own_run = f"mount -t tmpfs none /run && mkdir /run/gradientd && ln -s {daemon.socket} /run/gradientd/socket"
    own_run = ["unshare", "--mount", "--propagation=private", "sh", "-c", f'{own_run} && exec "$@"', "sh"]
    command = [*own_run, build_path("ctl/gradientctl"), "record", tmp_path / "run.gz", "--", build_path("tests/steps")]
    kept = {key: value for key, value in os.environ.items() if key != "GRADIENTD_SOCKET"}
    result = subprocess.run([*command, "run", tmp_path], input=b"3\n", capture_output=True,
                            env={**kept, "XDG_RUNTIME_DIR": str(tmp_path)}, timeout=END_SECONDS)  # fmt: skip
    assert result.returncode == 0, result
    assert read_recording(tmp_path / "run.gz")[-1]["outcome"] == b"closed"


def test_the_daemon_is_found_as_clients_find_it(daemon, tmp_path):
    tool, steps = build_path("ctl/gradientctl"), build_path("tests/steps")
    command = [tool, "record", tmp_path / "run.gz", "--", steps, "run", tmp_path]
    for environment in ({"GRADIENTD_SOCKET": str(daemon.socket)}, {"XDG_RUNTIME_DIR": str(tmp_path)}):
        (tmp_path / "gradientd").mkdir(exist_ok=True)
        (tmp_path / "gradientd" / "socket").unlink(missing_ok=True)
        (tmp_path / "gradientd" / "socket").symlink_to(daemon.socket)
        subprocess.run(command, input=b"3\n", check=True, env=environment, stdout=subprocess.DEVNULL)
        (tmp_path / "run.gz").unlink()


def test_a_recorder_that_is_killed(daemon, tmp_path):
    """All but the last second is there."""
    run, records = small_run()
    recording = tmp_path / "run.gz"
    trainer = Trainer(run, None, tmp_path / "logs", echo=True, command=record_command(recording, daemon.socket))
    trainer.send(records)
    wait_until(lambda: recording.stat().st_size > 1000, END_SECONDS, "it is flushed")
    trainer.kill()
    result = replay(recording, tmp_path / "replayed", status=1)
    assert "cut off" in result.stderr
    wait_until(lambda: "ended after 12 snapshots" in daemon.messages(), END_SECONDS, "the run has ended")
    assert trainer.event_path.read_bytes().startswith((tmp_path / "replayed").read_bytes())
    assert "12 snapshots" in result.stdout


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
