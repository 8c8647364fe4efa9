"""The daemon under test, and the fixtures that start it: $GD_BUILD names the build directory."""

import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from trainer import build_path
from waiting import wait_until

START_SECONDS = 10
STOP_SECONDS = 30


def accepts(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


class Daemon:
    def __init__(self, directory, arguments, environment, command=()):
        self.socket = directory / "socket"
        self.log = open(directory / "log", "w+b")
        self.process = subprocess.Popen(
            [*command, build_path("daemon/gradientd"), "--socket", str(self.socket), *arguments],
            env={**os.environ, **environment},
            stdout=self.log,
            stderr=self.log,
        )

    def wait_ready(self):
        def ready():
            assert self.process.poll() is None, self.messages()
            return accepts(self.socket)

        wait_until(ready, START_SECONDS, "the daemon's socket accepts")

    def messages(self):
        return (Path(self.log.name)).read_text(errors="replace")

    def stop(self, signal_number=signal.SIGTERM):
        """Ends the daemon and returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the daemon did not end: {self.messages()}") from None


@pytest.fixture
def start_daemon():
    """start_daemon(*arguments, ready=True, at=None, command=(), **environment) -> Daemon, at the place of the daemon `at`,
    which has ended. `command` starts the program that is appended to it. Those still alive at the end of the test are
    stopped, and must end well unless `ready` is false."""
    daemons = []
    with tempfile.TemporaryDirectory(prefix="gd") as directory:  # short: a socket's path holds 107 bytes

        def start(*arguments, ready=True, at=None, command=(), **environment):
            own = at.socket.parent if at else Path(directory) / str(len(daemons))
            own.mkdir(exist_ok=True)
            daemon = Daemon(own, arguments, environment, command)
            daemons.append((daemon, ready))
            if ready:
                daemon.wait_ready()
            return daemon

        yield start
        ends = [(daemon.stop(), daemon, must_end_well) for daemon, must_end_well in daemons]
        for status, daemon, must_end_well in ends:
            assert status == 0 or not must_end_well, f"status {status}: {daemon.messages()}"


@pytest.fixture
def daemon(start_daemon):
    return start_daemon()
