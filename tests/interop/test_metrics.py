"""What the daemon's metrics file says, as prometheus_client's parsers read it: every number is what was done."""

import os
import resource
import signal
import socket
import struct
import time

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

import plain_client
from plain_client import HELLO, field
from streams import Stream
from trainer import Group, Run, Step, Trainer, train
from waiting import wait_until

SECONDS = 20  # that a value may take to appear; a test that passes takes an interval or two, of a second each
CODES = {"protocol", "invalid", "unsupported", "quota", "owned", "memory", "internal", "forbidden"}


def read_open_metrics(text):
    """(name, labels) -> value."""
    found = {}
    for family in parse_open_metrics(text):
        assert family.documentation, family
        assert family.type in ("counter", "gauge"), "a type that Prometheus' older parsers do not know"
        assert not family.unit or family.name.endswith("_" + family.unit), family
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, key
            found[key] = sample.value
    return found


def read_classic(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_classic(text)
        for sample in family.samples
    }


class Metrics:
    """A metrics file at one moment: metrics["runs"], metrics["refused_total", "quota"]."""

    def __init__(self, path):
        text = path.read_text()
        self.values = read_open_metrics(text)
        assert self.values == read_classic(text)

    def __getitem__(self, name):
        name, code = name if isinstance(name, tuple) else (name, None)
        return self.values["gradientd_" + name, (("code", code),) if code else ()]

    def refused(self):
        """code -> count, where there were any."""
        counts = {dict(labels)["code"]: count for (name, labels), count in self.values.items() if "refused" in name}
        assert set(counts) == CODES
        return {code: count for code, count in counts.items() if count}


@pytest.fixture
def start_measured(start_daemon, tmp_path):
    """start_measured(*arguments) -> the daemon and its metrics file."""

    def start(*arguments, path=tmp_path / "metrics" / "gradientd.prom", **more):
        path.parent.mkdir(exist_ok=True)
        return start_daemon("--metrics-file", str(path), "--metrics-interval", "1", *arguments, **more), path

    return start


def wait_for(path, holds):
    """The first metrics that hold."""

    def look():
        metrics = Metrics(path) if path.exists() else None
        return metrics if metrics and holds(metrics) else None

    return wait_until(look, SECONDS, "the metrics say so")


def send_frame(path, message):
    """Sends one message and waits for the daemon to end the connection."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
        client.sendall(struct.pack("<II", len(message), 0) + message)
        while client.recv(4096):
            pass


def hello(version):
    return field(HELLO, field(1, version))


def resident_bytes(process):
    with open(f"/proc/{process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def test_of_an_idle_daemon(start_measured):
    begun = time.time()
    daemon, path = start_measured("--workers", "2")
    metrics = wait_for(path, lambda metrics: True)
    assert os.stat(path).st_mode & 0o7777 == 0o644
    assert begun - 1 < metrics["start_time_seconds"] < time.time() + 1
    assert metrics["workers"] == 2
    assert 0.5 < metrics["resident_memory_bytes"] / resident_bytes(daemon.process) < 2
    assert metrics.refused() == {}
    info = [dict(labels) for (name, labels) in metrics.values if name == "gradientd_build_info"]
    assert len(info) == 1 and info[0]["version"] and info[0]["kernels"]
    known = {"build_info", "start_time_seconds", "workers", "resident_memory_bytes", "refused_total"}
    known |= {"connections", "connections_accepted_total"}  # where the fixture has looked
    rest = {name: value for (name, labels), value in metrics.values.items() if name[len("gradientd_") :] not in known}
    assert len(rest) == 11 and set(rest.values()) == {0}, rest


def test_counts_what_trainers_do(start_measured, tmp_path):
    daemon, path = start_measured("--workers", "2")
    looked = wait_for(path, lambda metrics: metrics["connections_accepted_total"] > 0 and not metrics["connections"])
    accepted = looked["connections_accepted_total"]  # the fixture's
    begun = time.monotonic()
    groups = [Group("a", 300), Group("b", 7)]
    runs = [
        Run(groups, name="memory"),
        Run(groups, name="half", element_type="bf16"),
        Run(groups, name="inline", transport="deflated"),
    ]
    trainers = [Trainer(run, daemon.socket, tmp_path / "logs", echo=True) for run in runs]
    metrics = wait_for(path, lambda metrics: metrics["runs"] == 3)
    assert metrics["connections"] == 3 and metrics["runs_attached_total"] == 3

    counts = [200, 300, 100]
    for trainer, run, count in zip(trainers, runs, counts):
        trainer.send(Stream(run, seed=1).steps(count))
    metrics = wait_for(path, lambda metrics: metrics["snapshots_total"] == sum(counts))
    assert metrics["element_bytes_total"] == 307 * (4 * 200 + 2 * 300 + 4 * 100)
    assert metrics["runs"] == metrics["connections"] == 3
    assert metrics["queued_submissions"] == 0

    files = [trainer.finish() for trainer in trainers]
    metrics = wait_for(path, lambda metrics: metrics["connections"] == metrics["runs"] == 0)
    assert metrics["event_bytes_total"] == sum(file.stat().st_size for file in files)
    assert metrics["connections_accepted_total"] == accepted + 3
    assert metrics["runs_attached_total"] == 3
    assert metrics["skipped_steps_total"] == metrics["write_errors_total"] == 0
    assert 0 < metrics["analysis_seconds_total"] < 3 * (time.monotonic() - begun)  # the loop's thread works too
    assert metrics.refused() == {}


def test_counts_alerts_and_refusals(start_measured, tmp_path):
    daemon, path = start_measured("--connections-per-user", "4")
    run = Run([Group("a", 50)], name="faulty")
    gradients = [np.full(50, np.nan, np.float32)]
    train(run, [Step(1, gradients, [0.1])], daemon.socket, tmp_path / "logs")
    for message in (hello(7), hello(8), b"GET / HTTP/1.1\r\n", field(HELLO, b"")):
        send_frame(daemon.socket, message)
    wait_for(path, lambda metrics: metrics["connections"] == 0)

    waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(6)]
    for client in waiting:
        client.connect(str(daemon.socket))
    metrics = wait_for(path, lambda metrics: metrics["connections"] == 4)
    assert metrics.refused() == {"unsupported": 2, "protocol": 2, "quota": 2}
    assert metrics["alerts_total"] == 1
    for client in waiting:
        client.close()


def test_counts_skipped_steps(start_measured, tmp_path):
    """Of two clients, one of which tells of more in its last message."""
    daemon, path = start_measured()
    elements = np.ones(50, np.float32).tobytes()
    clients = [plain_client.Run(daemon.socket, tmp_path / name, [("a", 50)], "raw") for name in "xy"]
    for client, skipped in zip(clients, (8, 30)):
        place, payload = client.place(elements)
        message = field(1, 1) + field(2, 1 + skipped) + field(5, 1.7e9)
        message += field(6, field(1, plain_client.GRADIENT) + place) + field(8, field(1, 0.1)) + field(14, skipped)
        client.send(plain_client.SNAPSHOT, message, payload)
    wait_for(path, lambda metrics: metrics["skipped_steps_total"] == 38)
    clients[1].send(plain_client.CLOSE_RUN, field(1, 2) + field(2, plain_client.SUCCESS) + field(3, 34) + field(4, 40))
    metrics = wait_for(path, lambda metrics: metrics["runs"] == 1)
    assert metrics["skipped_steps_total"] == 42
    assert metrics["snapshots_total"] == 2


def test_counts_write_errors(start_measured, tmp_path):
    daemon, path = start_measured()
    run = Run([Group("a", 50)], name="full")
    trainer = Trainer(run, daemon.socket, tmp_path / "logs", echo=True)
    steps = Stream(run, seed=1).steps(400)
    trainer.send(steps[:200])
    wait_for(path, lambda metrics: metrics["event_bytes_total"] == trainer.event_path.stat().st_size > 20000)
    size = trainer.event_path.stat().st_size
    unlimited = resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (size, unlimited[1]))
    trainer.send(steps[200:])
    assert wait_for(path, lambda metrics: metrics["write_errors_total"] > 0)["event_bytes_total"] == size
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, unlimited)
    file = trainer.finish()
    wait_for(path, lambda metrics: metrics["event_bytes_total"] == file.stat().st_size)


def test_last_write_has_all(start_measured, tmp_path):
    daemon, path = start_measured()
    run = Run([Group("a", 50)], name="last")
    trainer = Trainer(run, daemon.socket, tmp_path / "logs", echo=True)
    trainer.send(Stream(run, seed=1).steps(37))
    assert daemon.stop() == 0
    metrics = Metrics(path)
    assert metrics["snapshots_total"] == 37
    assert metrics["event_bytes_total"] == trainer.event_path.stat().st_size
    trainer.kill()


def test_is_never_torn(start_measured, tmp_path):
    """Read in a tight loop while it is written again as often as the daemon can: SIGHUP has it written at once."""
    daemon, path = start_measured()
    run = Run([Group("a", 50)], name="busy")
    trainer = Trainer(run, daemon.socket, tmp_path / "logs")
    steps = iter(Stream(run, seed=1).steps(5000))
    wait_for(path, lambda metrics: True)
    versions, last, until = set(), 0, time.monotonic() + 60
    while len(versions) < 200:
        assert time.monotonic() < until, f"written {len(versions)} times"
        trainer.send([step for _, step in zip(range(20), steps)])
        os.kill(daemon.process.pid, signal.SIGHUP)
        for _ in range(20):
            with open(path, "rb") as file:
                status, text = os.fstat(file.fileno()), file.read()
            assert text.endswith(b"\n# EOF\n") and len(text) == status.st_size
            versions.add((status.st_ino, status.st_mtime_ns))
        snapshots = read_open_metrics(text.decode())["gradientd_snapshots_total", ()]
        assert snapshots >= last
        last = snapshots
    assert last > 0
    trainer.finish()
    assert [name for name in os.listdir(path.parent) if name not in (path.name, path.name + ".tmp")] == []


def test_a_directory_that_comes_later(start_measured, tmp_path):
    directory = tmp_path / "metrics"
    daemon, path = start_measured()
    wait_for(path, lambda metrics: True)
    directory.rename(tmp_path / "elsewhere")
    wait_until(lambda: "not written" in daemon.messages(), SECONDS, "the log tells")
    run = Run([Group("a", 50)], name="beside")
    train(run, Stream(run, seed=1).steps(10), daemon.socket, tmp_path / "logs")
    time.sleep(1.5)  # an interval more, which the log does not tell of
    directory.mkdir()
    assert wait_for(path, lambda metrics: metrics["snapshots_total"] == 10)
    wait_until(lambda: "written again" in daemon.messages(), SECONDS, "the log tells")
    assert daemon.messages().count("metrics file") == 2, daemon.messages()
