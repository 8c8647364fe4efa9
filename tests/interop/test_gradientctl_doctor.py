"""gradientctl doctor in one broken situation after another: what it finds, and that it says what to do."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from impostor import STATUS, error, field, frame, status, welcome
from live import (ALICE, BOB, Steps, Terminal, as_user, call, command, environment, needs_no_service, needs_users,
                  open_daemon, printed)  # fmt: skip
from trainer import build_path

OK, WARNING, PROBLEM = "ok", "warning", "problem"


def findings(daemon, *arguments, **options):
    """name -> finding. The verdict, the exit status and the worst finding agree, as do both ways of printing."""
    result = call(daemon, "doctor", "--json", *arguments, **options)
    found = json.loads(result.stdout)
    verdicts = [one["verdict"] for one in found["checks"]]
    worst = max(verdicts, key=[OK, WARNING, PROBLEM].index)
    assert found["verdict"] == worst and result.returncode == (worst == PROBLEM) and not result.stderr, result
    for one in found["checks"]:
        assert (one["advice"] is None) == (one["verdict"] == OK) and one["what"], one
    lines = call(daemon, "doctor", *arguments, **options).stdout.splitlines()
    said = [line.split()[:2] for line in lines if not line.lstrip().startswith("->")]
    assert said == [[one["verdict"], one["check"]] for one in found["checks"]], lines
    assert "\x1b" not in result.stdout + "".join(lines)
    return {one["check"]: one for one in found["checks"]}


def bad(found):
    return {name: one["verdict"] for name, one in found.items() if one["verdict"] != OK and name not in MACHINE}


MACHINE = {"memory", "cgroup-memory", "machine-files", "state-space", "service", "user-service", "library"}


@pytest.fixture
def daemon(start_daemon, tmp_path):
    return open_daemon(start_daemon, tmp_path)


def let_in(tmp_path):
    """Other users may come to what is in there."""
    above = [directory for directory in tmp_path.parents if directory.is_relative_to(tempfile.gettempdir())]
    for directory in (tmp_path, *above[:-1]):
        directory.chmod(0o711)


def test_all_is_well(daemon, tmp_path):
    Steps(daemon, "run").finish()
    found = findings(daemon)
    assert bad(found) == {}, found
    assert set(found) >= {"socket", "socket-rights", "connection", "service", "version", "library", "quota-memory",
                          "quota-runs", "daemon-files", "kernels", "writing", "clock", "state-directory",
                          "state-folder", "state-space", "open-files", "shared-memory", "memory"}  # fmt: skip
    assert str(daemon.process.pid) in found["connection"]["what"]
    assert f"{tmp_path}/state/{os.geteuid()} can be read" in found["state-folder"]["what"]


@needs_no_service()
def test_no_daemon_anywhere(tmp_path):
    found = findings(None, XDG_RUNTIME_DIR=str(tmp_path))
    assert found["socket"]["verdict"] == PROBLEM and "systemctl start gradientd.socket" in found["socket"]["advice"]
    assert "shared-memory" in found and "connection" not in found
    assert f"{tmp_path}/gradientd/socket" in printed(None, "doctor", status=1, XDG_RUNTIME_DIR=str(tmp_path))


def test_a_socket_that_a_dead_daemon_left(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    found = findings(None, "--socket", tmp_path / "socket")
    assert bad(found) == {"socket": PROBLEM}
    assert "nobody listens" in found["socket"]["what"] and "start gradientd again" in found["socket"]["advice"]


def test_a_file_where_the_socket_should_be(tmp_path):
    (tmp_path / "socket").write_text("")
    assert bad(findings(None, "--socket", tmp_path / "socket")) == {"socket": PROBLEM}


@needs_users()
def test_a_socket_without_rights(start_daemon, tmp_path):
    daemon = open_daemon(start_daemon, tmp_path)
    daemon.socket.chmod(0o600)
    found = findings(daemon, user=as_user(ALICE))
    assert bad(found) == {"socket": PROBLEM, "socket-rights": PROBLEM}
    assert f"{daemon.socket} (srw------- root root) does not give it to user {ALICE}" in found["socket-rights"]["what"]
    assert "SocketGroup=" in found["socket-rights"]["advice"]


@needs_users()
def test_a_directory_that_does_not_let_in(start_daemon, tmp_path):
    daemon = open_daemon(start_daemon, tmp_path)
    daemon.socket.parent.chmod(0o700)
    found = findings(daemon, user=as_user(ALICE))
    assert f"the directory {daemon.socket.parent} (drwx------ root root) does not let" in found["socket-rights"]["what"]


def test_a_directory_where_others_may_put_another_socket(daemon):
    daemon.socket.parent.chmod(0o777)
    found = findings(daemon)
    assert bad(found) == {"socket-rights": WARNING} and "chmod go-w" in found["socket-rights"]["advice"]
    daemon.socket.parent.chmod(0o1777)
    assert bad(findings(daemon)) == {}


@needs_users()
def test_a_user_whom_the_daemon_does_not_serve(start_daemon, tmp_path):
    let_in(tmp_path)
    daemon = open_daemon(start_daemon, tmp_path, f"--allow-users={ALICE}")
    found = findings(daemon, user=as_user(BOB))
    assert bad(found) == {"connection": PROBLEM}
    assert "user is 1501" in found["connection"]["what"] and "allow-groups" in found["connection"]["advice"]
    assert "quota-memory" not in found
    assert bad(findings(daemon, user=as_user(ALICE))) == {}


def test_a_daemon_that_is_stopped(daemon):
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        found = findings(daemon, "--timeout", "0.2")
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert bad(found) == {"connection": PROBLEM}
    assert str(daemon.process.pid) in found["connection"]["what"] and "kill -CONT" in found["connection"]["advice"]


@pytest.mark.parametrize("files, verdict", [(12, PROBLEM), (100, WARNING), (256, OK)])
def test_too_few_open_files(daemon, files, verdict):
    found = findings(daemon, user=["prlimit", f"--nofile={files}"])
    assert found["open-files"]["verdict"] == verdict and str(files) in found["open-files"]["what"]


def test_a_daemon_with_too_few_open_files(daemon):
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (300, 4096))
    found = findings(daemon)
    assert bad(found) == {"daemon-files": WARNING} and "LimitNOFILE=" in found["daemon-files"]["advice"]


def test_another_version(impostor):
    more = field(6, "scalar") + field(19, 3)
    found = findings(impostor(lambda kind, _: welcome() if kind == 1 else status(version="9.9.9", more=more)))
    assert found["version"]["verdict"] == WARNING and "9.9.9" in found["version"]["what"]
    assert "systemctl restart" in found["version"]["advice"]
    assert found["writing"]["verdict"] == WARNING and "3 tries" in found["writing"]["what"]
    assert found["state-directory"]["verdict"] == WARNING  # none


def test_another_protocol(impostor):
    found = findings(impostor(lambda *_: error(3, "protocol_version is 1, and must be 2")))
    assert bad(found) == {"connection": PROBLEM} and "different versions" in found["connection"]["advice"]


def test_another_program_at_the_socket(impostor):
    found = findings(impostor(lambda *_: b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    assert bad(found) == {"connection": PROBLEM} and "another program" in found["connection"]["advice"]


def test_an_old_library(daemon, tmp_path):
    library = Path(build_path("client/libgradientd.so.0")).resolve()
    same, old = tmp_path / "same", tmp_path / "old"
    for directory, name in ((same, library.name), (old, "libgradientd.so.0.0.9")):
        directory.mkdir()
        shutil.copy(library, directory / name)
        (directory / "libgradientd.so.0").symlink_to(name)
    assert findings(daemon, LD_LIBRARY_PATH=str(same))["library"]["verdict"] == OK
    found = findings(daemon, LD_LIBRARY_PATH=str(old))
    assert found["library"]["verdict"] == WARNING and "0.0.9" in found["library"]["what"]


def test_kernels_slower_than_the_processor_s(start_daemon, tmp_path):
    daemon = open_daemon(start_daemon, tmp_path, GRADIENTD_KERNELS="scalar")
    found = findings(daemon)
    expected = WARNING if "processor is fastest with scalar" not in found["kernels"]["what"] else OK
    assert found["kernels"]["verdict"] == expected and "uses scalar" in found["kernels"]["what"]


def test_a_quota_that_is_used_up(start_daemon, tmp_path):
    daemon = open_daemon(start_daemon, tmp_path, "--runs-per-user=1")
    trainer = Steps(daemon, "only")
    found = findings(daemon)
    assert bad(found) == {"quota-runs": PROBLEM}
    assert "runs-per-user raised in gradientd.conf" in found["quota-runs"]["advice"]
    trainer.finish()


@needs_users()
def test_a_folder_that_its_user_cannot_read(start_daemon, tmp_path):
    let_in(tmp_path)
    daemon = open_daemon(start_daemon, tmp_path)
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "state" / str(ALICE)).mkdir(mode=0o700)
    found = findings(daemon, user=as_user(ALICE))
    assert bad(found) == {"state-folder": WARNING} and "setfacl" in found["state-folder"]["advice"]
    assert findings(daemon, user=as_user(BOB))["state-folder"]["verdict"] == OK  # there is none yet


def test_a_state_directory_that_is_none(start_daemon, tmp_path):
    daemon = open_daemon(start_daemon, tmp_path)
    (tmp_path / "state").write_text("")
    found = findings(daemon)
    assert bad(found) == {"state-directory": WARNING} and "Not a directory" in found["state-directory"]["what"]


def test_a_clock_that_was_turned(impostor):
    said = frame(STATUS, field(2, field(1, "0.1.0") + field(4, 4e9)))
    assert findings(impostor(lambda kind, _: welcome() if kind == 1 else said))["clock"]["verdict"] == WARNING


def test_text_with_escape_sequences_is_harmless(impostor):
    said = status(version="\x1b[2J", more=field(6, "\x1b]0;x\x07") + field(7, "/\x1b[31m"))
    fake = impostor(lambda kind, _: welcome() if kind == 1 else said)
    assert r"\x1b[2J" in printed(fake, "doctor", status=call(fake, "doctor").returncode)
    findings(fake)


def test_colours_at_a_terminal(daemon):
    terminal = Terminal(command("doctor"), environment(daemon, TERM="xterm"))
    assert terminal.end() == (0, True)
    terminal.close()
    assert "\x1b[32mok      \x1b[m socket" in terminal.text


def test_wrong_usage():
    for arguments in (("--follow",), ("x",)):
        result = call(None, "doctor", *arguments)
        assert result.returncode == 2 and "usage: gradientctl doctor" in result.stderr


def test_memory_that_cannot_be_made(daemon):
    """As under a seccomp profile: memfd_create is refused to a process whose memory is at its limit."""
    words = ["prlimit", "--fsize=1", *command("doctor", "--json")]
    result = subprocess.run(words, env=environment(daemon), capture_output=True, text=True,
                            preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN))  # fmt: skip
    found = {one["check"]: one for one in json.loads(result.stdout)["checks"]}
    assert result.returncode == 1 and found["shared-memory"]["verdict"] == PROBLEM, found
    assert "File too large" in found["shared-memory"]["what"]
