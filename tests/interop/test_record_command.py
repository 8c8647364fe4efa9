"""gradientctl record when something does not go well: the command and its runs are what they are without it."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from impostor import frame, welcome
from plain_client import ATTACH, ATTACHED, CLOSE_RUN, HELLO, LAYOUT, OPEN_RUN, field
from readers import last_step
from recorded_runs import END_SECONDS, adam, records_of, small_run
from recordings import read_recording, record_command, replay
from trainer import Trainer, build_path, train
from waiting import wait_until


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


def test_a_later_file_that_is_there(daemon, tmp_path):
    """Its run is not recorded, which is said, and the one after it has the next file."""
    recording, steps = tmp_path / "run.gz", build_path("tests/steps")
    (tmp_path / "run.gz.2").write_bytes(b"precious")
    script = "".join(f'echo 3 | "{steps}" {name} "{tmp_path}" >&2 && ' for name in "abc") + "true"
    result = subprocess.run([*record_command(recording, daemon.socket, "--json"), "sh", "-c", script],
                            capture_output=True, text=True, timeout=END_SECONDS)  # fmt: skip
    assert result.returncode == 1, result
    assert f"{recording}.2: a run is not recorded: the file exists; --force replaces it\n" in result.stderr
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["run"], one["file"]) for one in told] == [("a", str(recording)), ("c", f"{recording}.3")]
    assert (tmp_path / "run.gz.2").read_bytes() == b"precious"
    for one in told:
        (path,) = (tmp_path / one["run"]).iterdir()
        replay(one["file"], tmp_path / "replayed", "--force")
        assert (tmp_path / "replayed").read_bytes() == path.read_bytes()


def test_a_daemon_that_knows_more_than_the_recorder(impostor, tmp_path):
    """It takes a message that this version does not: the recording ends before it, and is not called whole."""
    answers = {HELLO: welcome(), OPEN_RUN: frame(LAYOUT, b""), ATTACH: frame(ATTACHED, field(1, 0) + field(2, 0))}
    later = impostor(lambda kind, _: None if kind == CLOSE_RUN else answers.get(kind, b""))
    trainer = f"""if True:
        import os, struct, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from plain_client import Run

        run = Run(os.environ["GRADIENTD_SOCKET"], {str(tmp_path / "events")!r}, [("w", 1)], transport="raw")
        for step in 1, 2, -3, 4:  # no step of this version is negative
            run.snapshot(step & 2**64 - 1, struct.pack("<f", 1.0), 0.1, 0.0)
        run.close()
    """
    command = [*record_command(tmp_path / "run.gz", later.socket, "--json"), sys.executable, "-c", trainer]
    result = subprocess.run(command, capture_output=True, text=True, timeout=END_SECONDS)
    assert result.returncode == 1, result
    told = json.loads(result.stdout)
    assert (told["whole"], told["snapshots"]) == (False, 2) and "this version" in told["fault"], told


def test_few_descriptors(daemon, tmp_path):
    """Trainers that find none left wait, at no cost, until others have gone; then they are served."""
    waiting = f"""if True:
        import os, resource, select, socket, sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from plain_client import HELLO, field
        from impostor import frame

        def cpu_seconds():
            with open(f"/proc/{{os.getppid()}}/stat") as stat:
                return sum(map(int, stat.read().rpartition(") ")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")

        def answered(trainers, seconds):
            return select.select(trainers, [], [], seconds)[0]

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        trainers = []
        for _ in range(20):
            trainers.append(socket.socket(socket.AF_UNIX))
            trainers[-1].connect(os.environ["GRADIENTD_SOCKET"])
            trainers[-1].send(frame(HELLO, field(1, 1)))
        answered(trainers, {END_SECONDS})
        time.sleep(0.5)
        before = cpu_seconds()
        time.sleep(1)
        served = answered(trainers, 0)
        print("served", len(served), "of 20, by then", cpu_seconds() - before, "s")
        while trainers:
            served = answered(trainers, {END_SECONDS})
            if not served:
                raise SystemExit(f"{{len(trainers)}} are not served")
            for trainer in served:
                assert len(trainer.recv(4096)) > 8, "sent away"
                trainer.close()
                trainers.remove(trainer)
    """
    script = ["sh", "-c", 'ulimit -S -n 40 && exec "$@"', "sh", *record_command(tmp_path / "run.gz", daemon.socket)]
    result = subprocess.run([*script, sys.executable, "-c", waiting], capture_output=True, text=True,
                            timeout=2 * END_SECONDS)  # fmt: skip
    assert "served" in result.stdout and "nothing was recorded" in result.stderr, result
    served, seconds = int(result.stdout.split()[1]), float(result.stdout.split()[6])
    # 6 are let in with 40 descriptors; whoever waits by looking again and again takes the whole second
    assert 0 < served <= 6 and seconds < 0.3, result


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
