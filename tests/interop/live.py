"""gradientctl beside a live daemon: calls of it, trainers that go on when they are told to, other users, terminals."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from daemons import accepts
from trainer import build_path

CALL_SECONDS = 60
SCREEN_SECONDS = 20
ROOT = os.geteuid() == 0
ALICE, BOB, CAROL = 1500, 1501, 1502  # users without names
ADMINS = 1600  # a group


def as_user(uid, gid=None, groups=()):
    """What setpriv needs before a command of another user."""
    chosen = [f"--groups={','.join(map(str, groups))}"] if groups else ["--clear-groups"]
    return ["setpriv", f"--reuid={uid}", f"--regid={gid or uid}", *chosen]


def needs_no_service():
    """Marks a test that looks where a daemon is by default, and is to find none."""
    return pytest.mark.skipif(accepts("/run/gradientd/socket"), reason="a daemon runs at /run/gradientd/socket")


def open_daemon(start_daemon, tmp_path, *arguments, **options):
    """A daemon whose socket every user reaches, with a state directory of its own."""
    daemon = start_daemon("--socket-mode=0666", f"--state-directory={tmp_path}/state", *arguments, **options)
    daemon.wait_ready()
    daemon.socket.parent.parent.chmod(0o711)
    return daemon


def needs_users():
    """Marks a test that takes other users than its own, who can run what was built."""
    words = [*as_user(ALICE), build_path("ctl/gradientctl"), "--help"]
    able = ROOT and subprocess.run(words, capture_output=True).returncode == 0
    return pytest.mark.skipif(not able, reason="needs root, and a build that other users can run")


def environment(daemon=None, **more):
    """Without what would lead to another daemon, or colour the output."""
    dropped = ("GRADIENTD_SOCKET", "XDG_RUNTIME_DIR", "NO_COLOR")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {**kept, **({"GRADIENTD_SOCKET": str(daemon.socket)} if daemon else {}), **more}


def command(*arguments):
    return [build_path("ctl/gradientctl"), *map(str, arguments)]


def call(daemon, *arguments, user=(), **more):
    return subprocess.run(
        [*user, *command(*arguments)],
        env=environment(daemon, **more),
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
    )


def printed(daemon, *arguments, status=0, **options):
    """What a call prints on standard output; it ends with that status and says something on standard error, or not."""
    result = call(daemon, *arguments, **options)
    assert result.returncode == status, result
    assert bool(result.stderr) == (status != 0 and arguments[0] != "doctor"), result
    return result.stdout


def status_of(daemon, *arguments, **options):
    return json.loads(printed(daemon, "status", "--json", *arguments, **options))


def run_of(daemon, name, **options):
    """The one run of that name."""
    [run] = [run for run in status_of(daemon, **options)["runs"] if run["run"] == name]
    return run


def table_of(text):
    """The rows below the titles of a table, by title; a cell is where its title's column begins or ends."""
    lines = text.splitlines()
    [at] = [i for i, line in enumerate(lines) if line.startswith("RUN ")]
    titles = lines[at].split()
    return [dict(zip(titles, re.split(r"  +", line.rstrip()))) for line in lines[at + 1 :] if line]


def ends_when_not_read(daemon, *arguments, lines=0):
    """The exit status of a command whose reader goes away after so many lines."""
    process = subprocess.Popen(command(*arguments), env=environment(daemon), stdout=subprocess.PIPE)
    try:
        for _ in range(lines):
            assert process.stdout.readline()
        process.stdout.close()
        return process.wait(SCREEN_SECONDS)
    finally:
        process.kill()
        process.wait()


class Steps:
    """tests/tools/steps.c: a trainer without a log directory, unless there is one."""

    def __init__(self, daemon, name, *logdir, user=()):
        self.process = subprocess.Popen(
            [*user, build_path("tests/steps"), name, *map(str, logdir)],
            env=environment(daemon),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        assert line.startswith("event "), line
        self.event_path = Path(line.removeprefix("event ").rstrip("\n"))
        self.pid = self.process.pid  # setpriv becomes what it starts

    def go_to(self, step):
        self.process.stdin.write(f"{step}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == f"step {step}\n"

    def finish(self):
        self.process.stdin.close()
        assert self.process.wait(CALL_SECONDS) == 0


class Terminal:
    """A command in a pseudoterminal: what it has written, and keys for it."""

    def __init__(self, words, env, columns=80, rows=24):
        self.master, slave = pty.openpty()
        self.resize(columns, rows, tell=False)
        self.modes = termios.tcgetattr(slave)
        self.slave = slave  # kept open: its modes are looked at when the program has ended
        self.text = ""
        self.process = subprocess.Popen(
            words, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def resize(self, columns, rows, tell=True):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)  # the kernel tells the foreground group as well

    def read(self, seconds=0.0):
        """Takes what is there; returns all of it so far."""
        while select.select([self.master], [], [], seconds)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                break
            self.text += data.decode()
            seconds = 0.0
        return self.text

    def wait_for(self, found, what):
        """Until found(text) is true, of all that was written since the last call; returns that text."""
        deadline = time.monotonic() + SCREEN_SECONDS
        while not found(self.read(0.05)):
            assert time.monotonic() < deadline, f"not within {SCREEN_SECONDS} s: {what}, in {self.text[-3000:]!r}"
            assert self.process.poll() is None, self.read()[-3000:]
        text, self.text = self.text, ""
        return text

    def press(self, keys):
        os.write(self.master, keys.encode())

    def end(self):
        """Waits for the end; returns the exit status and whether the terminal is as it was."""
        deadline = time.monotonic() + SCREEN_SECONDS
        while self.process.poll() is None:
            self.read(0.01)
            assert time.monotonic() < deadline, self.text[-3000:]
        self.read()
        same = termios.tcgetattr(self.slave) == self.modes
        return self.process.returncode, same

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def frames(text):
    """What was shown on the alternate screen: each frame without its sequences."""
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame).replace("\r", "") for frame in text.split("\x1b[H")[1:]]
