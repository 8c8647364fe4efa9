"""The bash completions beside what the programs' --help says, with a live daemon's runs, and in an interactive bash."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from impostor import run, status, welcome
from live import Steps, Terminal, environment, open_daemon
from trainer import build_path

SOURCE = Path(__file__).resolve().parents[2]
SCRIPTS = {"gradientctl": SOURCE / "ctl/gradientctl.bash", "gradientd": SOURCE / "daemon/gradientd.bash"}
PATHS = {"gradientctl": "ctl/gradientctl", "gradientd": "daemon/gradientd"}
CALL = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _"${0}" "$1"; printf "%s\\n" "${COMPREPLY[@]}"'


def completed(program, *words, daemon=None):
    """What the last of these words may become."""
    words = [build_path(PATHS[program]), *words]
    result = subprocess.run(
        ["bash", "--norc", "-c", CALL, program, str(SCRIPTS[program]), *words],
        env=environment(daemon), capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert result.returncode == 0 and not result.stderr, result
    return sorted(result.stdout.split())


def help_of(program):
    return subprocess.run([build_path(PATHS[program]), "--help"], capture_output=True, text=True, check=True).stdout


def described_commands():
    """command -> its arguments."""
    return dict(re.findall(r"^  ([a-z]+) (.+)$", help_of("gradientctl"), re.MULTILINE))


def test_commands_are_those_of_help():
    commands = described_commands()
    assert {"check", "dump", "status", "top", "alerts", "doctor"} <= set(commands)
    assert completed("gradientctl", "") == sorted([*commands, "--help", "--version"])
    assert completed("gradientctl", "st") == ["status"]
    assert completed("gradientctl", "none") == []


def test_options_are_those_of_help():
    for command, arguments in described_commands().items():
        expected = {*re.findall(r"--[a-z-]+", arguments), "--help"}
        assert completed("gradientctl", command, "-") == sorted(expected), command
    assert completed("gradientctl", "top", "--in") == ["--interval"]
    assert completed("gradientctl", "none", "-") == ["--help"]


def test_options_of_the_daemon_are_those_of_help():
    expected = set(re.findall(r"^  (--[a-z-]+)", help_of("gradientd"), re.MULTILINE))
    assert completed("gradientd", "-") == sorted(expected) and "--socket" in expected
    assert "root" in completed("gradientd", "--allow-users", "ro")
    assert "root" in completed("gradientd", "--admin-group", "ro")


def test_names_of_runs(start_daemon, tmp_path):
    daemon = open_daemon(start_daemon, tmp_path)
    trainers = [Steps(daemon, name) for name in ("digits/adam", "digits/sgd", "other")]
    assert completed("gradientctl", "status", "", daemon=daemon) == ["digits/adam", "digits/sgd", "other"]
    assert completed("gradientctl", "status", "--json", "digits/a", daemon=daemon) == ["digits/adam"]
    assert completed("gradientctl", "status", "--socket", str(daemon.socket), "o") == ["other"]
    assert completed("gradientctl", "status", "--timeout", "", daemon=daemon) == []
    assert completed("gradientctl", "doctor", "", daemon=daemon) == []
    for trainer in trainers:
        trainer.finish()


def test_names_that_no_run_can_have_are_left_out(impostor):
    said = status(run("$(touch x)"), run("a b"), run('"; id; "'), run("good"), run("\x1b[2J"), run(""))
    fake = impostor(lambda kind, _: welcome() if kind == 1 else said)
    assert completed("gradientctl", "status", "", daemon=fake) == [".", "good"]


def test_a_daemon_that_does_not_answer_costs_little(impostor):
    begun = time.monotonic()
    fake = impostor(lambda *_: b"")
    assert completed("gradientctl", "status", "", daemon=fake) == []
    assert completed("gradientctl", "status", "", "--socket", "/none", "") == []
    assert time.monotonic() - begun < 10


@pytest.fixture
def shell(start_daemon, tmp_path):
    """An interactive bash with both completions and one daemon, whose run is named digits/adam."""
    daemon = open_daemon(start_daemon, tmp_path)
    trainer = Steps(daemon, "digits/adam")
    (tmp_path / "events.out").write_text("")
    path = ":".join([str(Path(build_path(path)).parent) for path in PATHS.values()] + [os.environ["PATH"]])
    more = {"PATH": path, "TERM": "dumb", "PS1": "ready> ", "INPUTRC": "/dev/null", "HISTFILE": "/dev/null"}
    terminal = Terminal(["bash", "--norc", "--noprofile", "-i"], environment(daemon, **more), columns=200)
    terminal.press(f"cd {tmp_path}; " + "; ".join(f"source {script}" for script in SCRIPTS.values()) + "; PS1='ok> '\n")
    terminal.wait_for(lambda text: text.endswith("ok> "), "the prompt")
    yield terminal
    terminal.close()
    trainer.finish()


@pytest.mark.parametrize("typed, becomes", [
    ("gradientctl sta", "gradientctl status "),
    ("gradientctl status d", "gradientctl status digits/adam "),
    ("gradientctl dump ev", "gradientctl dump events.out "),
    ("gradientctl alerts --f", "gradientctl alerts --follow "),
    ("gradientctl status --socket ev", "gradientctl status --socket events.out "),
    ("gradientd --socket ev", "gradientd --socket events.out "),
    ("gradientd --attach", "gradientd --attach-timeout "),
])  # fmt: skip
def test_in_an_interactive_bash(shell, typed, becomes):
    shell.press(f"{typed}\t")
    shell.wait_for(lambda text: text == becomes, becomes)
