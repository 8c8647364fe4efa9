"""Trainers that are not beside the daemon: in containers, in other users' namespaces, behind ssh. What
docs/operations.md says of them, with the kernel's real namespaces, real control groups and a real sshd."""

import contextlib
import ctypes
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from readers import last_step, read_events
from streams import Stream
from trainer import Group, Optimizer, ParameterGroup, Run, Trainer, train
from waiting import wait_until

STEPS = 12
ENDS_SECONDS = 5
SSH_SECONDS = 10
CLONE_NEWPID = 0x20000000
MEMORY_GROUPS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))  # version 1, version 2
OWN_MEMORY_BYTES_MAX = 24 << 20  # of a daemon that serves one small model
PORT = 22022

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and other users need root")


@pytest.fixture
def run():
    return Run([Group("a", 70_001), Group("b", 9)], Optimizer("adam"), [ParameterGroup(0.999, 1e-8)], name="run")


@pytest.fixture
def records(run):
    return Stream(run, seed=61).steps(STEPS)


@pytest.fixture
def alone(run, records, daemon, tmp_path):
    """What the run gives beside the daemon."""
    return train(run, records, daemon.socket, tmp_path / "alone").read_bytes()


@contextlib.contextmanager
def children_in_own_pid_namespace():
    """Of this process, what it starts meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/pid", "rb") as before:
        assert libc.unshare(CLONE_NEWPID) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(before.fileno(), CLONE_NEWPID) == 0, os.strerror(ctypes.get_errno())


CONTAINER = ("unshare", "--mount-proc", "--net", "--ipc", "--uts", "--cgroup", "--pid", "--fork", "--kill-child")
# In a build with sanitizers: leaks are looked for with the help of /proc, which is that of another namespace here.
NO_LEAK_CHECK = f"{os.environ.get('ASAN_OPTIONS', '')}:detect_leaks=0"


def test_container_with_a_shared_socket(run, records, alone, daemon, tmp_path):
    """Nothing but the socket's directory and the logdir in common: memory is shared all the same."""
    assert train(run, records, daemon.socket, tmp_path / "container", command=CONTAINER).read_bytes() == alone


def test_daemon_in_a_container_of_its_own(run, records, alone, start_daemon, tmp_path):
    """It cannot see its trainers' processes, so their pid is 0, and knows of their death by the pidfd alone."""
    with children_in_own_pid_namespace():
        sidecar = start_daemon(ASAN_OPTIONS=NO_LEAK_CHECK)
    assert train(run, records, sidecar.socket, tmp_path / "closed").read_bytes() == alone
    assert "attached by pid 0 uid 0" in sidecar.messages()

    trainer = Trainer(run, sidecar.socket, tmp_path / "killed", echo=True)
    trainer.send(records)
    trainer.kill()

    def ended():
        path = trainer.event_path
        return last_step(path) == STEPS and read_events(path)[-1].WhichOneof("what") == "session_log"

    wait_until(ended, ENDS_SECONDS, "the end of a killed trainer's file")


def as_user_of_a_namespace(uid):
    """Root inside, `uid` outside."""
    return ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "unshare", "--user", "--map-root-user")


@pytest.fixture
def open_directory():
    """Where every user may make directories; pytest's own can be entered by root alone."""
    with tempfile.TemporaryDirectory(prefix="gd") as path:
        os.chmod(path, 0o1777)
        yield Path(path)


@pytest.fixture
def public_daemon(start_daemon):
    daemon = start_daemon("--socket-mode", "0666")
    for directory in (daemon.socket.parent, daemon.socket.parent.parent):
        directory.chmod(0o755)
    return daemon


def test_user_namespace(run, records, alone, public_daemon, open_directory):
    """A rootless container's root is its user outside, whose files they are."""
    path = train(run, records, public_daemon.socket, open_directory / "logs", command=as_user_of_a_namespace(1500))
    assert path.read_bytes() == alone
    assert path.stat().st_uid == 1500
    assert "attached by pid" in public_daemon.messages() and "uid 1500:" in public_daemon.messages()


def test_daemon_that_has_no_number_for_its_users(run, records, alone, start_daemon, open_directory):
    """In a user namespace that maps none of them all are the same nobody: they share one quota and one folder, and
    whoever is in reach may see the others' runs. This is why the unit has no PrivateUsers=."""
    with subprocess.Popen(["unshare", "--user", "--map-root-user", "sleep", "60"]) as holder:
        try:
            namespace = Path(f"/proc/{holder.pid}/ns/user")
            wait_until(lambda: namespace.readlink() != Path("/proc/self/ns/user").readlink(), 5, "the namespace")
            confined = start_daemon("--socket-mode", "0666", command=("nsenter", f"--user={namespace}"))
            for directory in (confined.socket.parent, confined.socket.parent.parent):
                directory.chmod(0o755)
            for uid in (1500, 1501):
                user = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
                path = train(run, records, confined.socket, open_directory / str(uid), command=user)
                assert path.read_bytes() == alone
            assert confined.messages().count("uid 65534:") == 2
            assert confined.stop() == 0
        finally:
            holder.kill()


@pytest.fixture
def memory_groups():
    """The directories of two control groups that count memory."""
    root = next((path for path in MEMORY_GROUPS if has_memory_controller(path)), None)
    if root is None:
        pytest.skip("no memory controller can be used here")
    groups = [root / f"gradientd-{os.getpid()}-{name}" for name in ("job", "daemon")]
    for group in groups:
        group.mkdir()
    yield groups
    for group in groups:
        wait_until(lambda group=group: not (group / "cgroup.procs").read_text(), ENDS_SECONDS, f"{group} is empty")
        group.rmdir()


def has_memory_controller(root):
    if (root / "memory.usage_in_bytes").exists():
        return True
    control = root / "cgroup.subtree_control"
    return control.exists() and "memory" in control.read_text().split()


def joining(group):
    return ("sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh")


def used_bytes(group):
    version_1 = group / "memory.usage_in_bytes"
    return int((version_1 if version_1.exists() else group / "memory.current").read_text())


def test_who_pays_for_the_memory(start_daemon, memory_groups, tmp_path):
    """The trainer's control group, for slots and state; the daemon's has the same for a model of any size. Also after a
    restart of the daemon."""
    job, own = memory_groups
    large = Run([Group("w", 4_000_000)], Optimizer("adam"), [ParameterGroup(0.999, 1e-8)], name="large")
    slots_bytes = (large.max_lag + 1 + large.inflight) * 4 * 4_000_000
    daemon = start_daemon(command=joining(own))
    trainer = Trainer(large, daemon.socket, tmp_path, echo=True, command=joining(job))
    records = Stream(large, seed=62).steps(4)
    trainer.send(records[:2])
    assert used_bytes(job) > slots_bytes
    assert used_bytes(own) < OWN_MEMORY_BYTES_MAX

    daemon.stop()
    restarted = start_daemon(at=daemon, command=joining(own))
    trainer.send(records[2:])
    trainer.finish()
    assert "attached by" in restarted.messages()
    assert used_bytes(own) < OWN_MEMORY_BYTES_MAX
    assert restarted.stop() == 0


# ---- ssh ------------------------------------------------------------------------------------------------------------

SERVER = """
set -eu
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
cp /etc/passwd /run/passwd
grep -q ^sshd: /run/passwd || echo 'sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin' >>/run/passwd
mount --bind /run/passwd /etc/passwd
exec "$@"
"""


def unpacked_sshd(directory):
    """Debian's, without installing it: that would start a server."""
    download = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "openssh-server"]
    if subprocess.run(download, cwd=directory, check=False).returncode != 0:
        pytest.skip("the package openssh-server cannot be downloaded")
    package = next(directory.glob("openssh-server*.deb"))
    subprocess.run(["dpkg-deb", "-x", package, directory / "root"], check=True)
    return directory / "root/usr/sbin/sshd"


@pytest.fixture
def forward(tmp_path):
    """forward(socket) -> the same socket as it is seen at the other end of an ssh connection."""
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name], check=True)
    processes = []

    def start(*command):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        processes.append(process)
        return process

    def options(**values):
        return [argument for name, value in values.items() for argument in ("-o", f"{name}={value}")]

    start(
        *("unshare", "--mount", "--propagation=private", "bash", "-c", SERVER, "bash", unpacked_sshd(keys), "-D", "-e"),
        *("-f", "/dev/null", "-h", keys / "host", "-p", str(PORT)),
        *options(ListenAddress="127.0.0.1", PidFile="none", UsePAM="no", StrictModes="no", PermitRootLogin="yes"),
        *options(AuthorizedKeysFile=keys / "user.pub"),
    )
    client = ["ssh", "-N", "-F", "/dev/null", "-i", keys / "user", "-p", str(PORT), "root@127.0.0.1"]
    client += options(IdentitiesOnly="yes", StrictHostKeyChecking="no", UserKnownHostsFile="/dev/null")
    client += options(LogLevel="ERROR", ExitOnForwardFailure="yes", ConnectionAttempts=SSH_SECONDS)

    with tempfile.TemporaryDirectory(prefix="gd") as directory:

        def forward(socket):
            near = Path(directory) / "socket"
            process = start(*client, "-L", f"{near}:{socket}")

            def there():
                assert process.poll() is None, "ssh ended"
                return near.exists()

            wait_until(there, SSH_SECONDS, "the forwarded socket")
            return near

        yield forward
        for process in reversed(processes):
            process.terminate()
            process.wait()


@pytest.mark.parametrize("transport", ["deflated", "raw"])
def test_ssh(transport, run, records, alone, start_daemon, forward, tmp_path):
    """The event file lies where the daemon runs, and is the one that a trainer beside it makes."""
    state = tmp_path / "state"
    far = start_daemon("--state-directory", str(state))
    path = train(replace(run, transport=transport), records, forward(far.socket), None)
    assert path.is_relative_to(state) and path.read_bytes() == alone


def test_ssh_says_what_it_does_not_pass(run, start_daemon, forward, tmp_path):
    far = forward(start_daemon().socket)
    advice = "a forwarded socket passes none: there, send elements inline and leave out"
    for other, logdir in ((run, None), (replace(run, transport="deflated"), tmp_path / "logs")):
        with pytest.raises(AssertionError, match=advice):
            Trainer(other, far, logdir)
