"""What the daemon owes while it runs and when it is told to end."""

import os
import signal
import threading
import time

import pytest

from readers import last_step, read_steps
from streams import Stream
from trainer import Group, Optimizer, ParameterGroup, Run, Trainer
from waiting import wait_until

VISIBLE_SECONDS = 1.0  # by contract: written at least every second
SCHEDULING_SECONDS = 0.5  # a busy machine's share of it
PACE_SECONDS = 0.04
PACED_STEPS = 60


def run_named(name):
    return Run([Group("w", 50_000), Group("b", 11)], Optimizer("adam"), [ParameterGroup(0.999, 1e-8)], name=name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_drains(number, start_daemon, tmp_path):
    """Every step the client had handed over is in the file when the daemon is gone."""
    daemon = start_daemon()
    run = run_named("run")
    trainer = Trainer(run, daemon.socket, tmp_path, echo=True)
    trainer.send(Stream(run, seed=41).steps(30))

    assert daemon.stop(number) == 0, daemon.messages()
    assert list(read_steps(trainer.event_path)) == list(range(1, 31))
    trainer.kill()


def test_signal_drains_under_load(start_daemon, tmp_path):
    """The signal comes while steps are on their way: the file is whole and has every step from the first on."""
    daemon = start_daemon()
    run = run_named("run")
    trainer = Trainer(run, daemon.socket, tmp_path, echo=True)
    records = Stream(run, seed=42).steps(20)
    sent = []

    def send():
        step = 0
        try:
            while True:
                step += 1
                record = records[step % len(records)]
                trainer.send([type(record)(step, record.gradients, record.learning_rates)])
                sent.append(step)
        except (AssertionError, OSError):  # the daemon's end is the trainer's
            pass

    thread = threading.Thread(target=send)
    thread.start()
    wait_until(lambda: len(sent) >= 50, 30, "50 steps")
    handed_over = len(sent)
    status = daemon.stop()
    trainer.process.kill()
    thread.join()
    trainer.process.wait()

    assert status == 0, daemon.messages()
    steps = list(read_steps(trainer.event_path))
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= handed_over


def test_written_every_second(daemon, tmp_path):
    """While steps arrive at a steady pace, each is on disk within a second: TensorBoard sees the run live."""
    run = run_named("run")
    trainer = Trainer(run, daemon.socket, tmp_path, echo=True)
    submitted = {}
    lateness = []
    for record in Stream(run, seed=43).steps(PACED_STEPS):
        trainer.send([record])
        now = time.monotonic()
        submitted[record.step] = now
        on_disk = last_step(trainer.event_path) or 0
        waiting = [at for step, at in submitted.items() if step > on_disk]
        lateness.append(now - min(waiting, default=now))
        time.sleep(PACE_SECONDS)  # the trainer's own work between steps
    assert max(lateness) < VISIBLE_SECONDS + SCHEDULING_SECONDS

    visible = VISIBLE_SECONDS + SCHEDULING_SECONDS
    wait_until(lambda: last_step(trainer.event_path) == PACED_STEPS, visible, "the last step, without another one")
    trainer.finish()


def test_opening_is_no_empty_file(daemon, tmp_path):
    """The opening records are on disk before any step."""
    trainer = Trainer(run_named("run"), daemon.socket, tmp_path)
    wait_until(lambda: trainer.event_path.stat().st_size > 0, VISIBLE_SECONDS + SCHEDULING_SECONDS, "the first records")
    trainer.finish()


def test_no_file_descriptor_is_left(daemon, tmp_path):
    """Runs come and go; what the daemon holds open does not grow."""

    def open_descriptors():
        return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))

    run = run_named("run")
    records = Stream(run, seed=44).steps(2)
    before = open_descriptors()
    for i, end in enumerate(["close", "exit", "close", "exit"]):
        trainer = Trainer(run, daemon.socket, tmp_path / str(i), end=end)
        trainer.send(records)
        trainer.finish()
    wait_until(lambda: open_descriptors() == before, 5, f"{before} descriptors again")
