"""What running gradientd takes (docs/operations.md, docs/recording.md): memory, disk, deflated transport, recording.

    python bench/operations.py [--json]

Needs the Python package of this tree; the daemon and gradientctl are those that came with it. It takes some minutes.

    daemon     resident memory of a daemon without runs, and what each of 50 runs of 65,536 elements adds to it, without
               what it shares with the trainers
    disk       size of an event file after so many steps, with 8 tensors and Adam's charts
    deflated   how fast the level that transport "inline_deflated" uses packs a small network's gradients in training,
               on one core, and how much smaller they become; bf16: their upper halves
    recording  milliseconds from submit to submit of a trainer that does nothing else, and waits for the daemon rather
               than skip a step (the median run of three), and the size of the recording
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradientd
import numpy as np

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "data" / "digits.csv.gz"
RUNS, RUN_ELEMENTS = 50, 65_536
TENSORS = 8
DISK_STEPS = (1, 100, 1_000, 10_000, 100_000)
RECORDED = {1_000_000: 60, 25_000_000: 10}  # elements: steps
LEVELS = (0, 1)
TURNS = 3
FASTEST = 1  # level of "inline_deflated"


@contextmanager
def daemon(directory: Path) -> Iterator[Path]:
    """The socket of a daemon of its own."""
    socket = directory / "socket"
    command = ["gradientd", "--socket", socket, "--state-directory", directory / "state", "--log-level", "warning"]
    process = subprocess.Popen(command)
    try:
        while not socket.exists():
            if process.poll() is not None:
                raise SystemExit(f"gradientd ended with status {process.returncode}")
            time.sleep(0.01)
        yield socket
    finally:
        process.terminate()
        process.wait()


def own_bytes(socket: Path) -> int:
    """A daemon's resident memory that it shares with no trainer."""
    said = subprocess.run(["gradientctl", "status", "--socket", socket, "--json"], check=True, capture_output=True)
    status = Path("/proc", str(json.loads(said.stdout)["daemon"]["pid"]), "status").read_text()
    return 1024 * sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon:", "RssFile:")))


def measure_daemon(directory: Path) -> dict[str, float]:
    with daemon(directory) as socket:
        empty = own_bytes(socket)
        runs = []
        for i in range(RUNS):
            gradient = {"w": np.ones(RUN_ELEMENTS, np.float32)}
            runs.append(gradientd.Run(gradient, "adam", beta2=0.999, eps=1e-8, logdir=directory / "logs", run=f"r{i}",
                                      socket=str(socket), max_stall=60.0))
            for step in range(1, 21):
                runs[-1].submit(step, gradient, learning_rate=1e-3)
        full = own_bytes(socket)
        for run in runs:
            run.close()
    return {"bytes": empty, "bytes_a_run": (full - empty) / RUNS}


def measure_disk(directory: Path) -> dict[int, int]:
    random = np.random.default_rng(1)
    names = [f"layer{i}" for i in range(TENSORS)]
    sizes = {}
    with daemon(directory) as socket:
        for steps in DISK_STEPS:
            run = gradientd.Run(dict.fromkeys(names, np.zeros(16, np.float32)), "adam", beta2=0.999, eps=1e-8,
                                logdir=directory / "logs", run=f"steps{steps}", socket=str(socket), max_stall=60.0)
            for step in range(1, steps + 1):
                gradient = {name: random.standard_normal(16, np.float32) for name in names}
                run.submit(step, gradient, learning_rate=1e-3)
            run.close()
            (path,) = (directory / "logs" / f"steps{steps}").iterdir()
            sizes[steps] = path.stat().st_size
    return sizes


def gradients_of_a_training() -> Iterator[np.ndarray]:
    """Of a network with 256 hidden units on the handwritten digits, trained by SGD, every tenth of 500 steps."""
    random = np.random.default_rng(1)
    table = np.loadtxt(DIGITS, delimiter=",", dtype=np.float32)
    images, labels = table[:, :64] / 16, table[:, 64].astype(int)
    first = random.standard_normal((64, 256), np.float32) / 8
    second = random.standard_normal((256, 10), np.float32) / 16
    for step in range(500):
        chosen = random.integers(0, len(images), 64)
        hidden = np.maximum(images[chosen] @ first, 0)
        logits = hidden @ second
        error = np.exp(logits - logits.max(axis=1, keepdims=True))
        error /= error.sum(axis=1, keepdims=True)
        error[np.arange(64), labels[chosen]] -= 1
        error /= 64
        gradients = images[chosen].T @ (error @ second.T * (hidden > 0)), hidden.T @ error
        first -= 0.5 * gradients[0]
        second -= 0.5 * gradients[1]
        if step % 10 == 0:
            yield np.concatenate([gradient.ravel() for gradient in gradients])


def measure_deflated() -> dict[str, dict[str, float]]:
    found = {}
    gradients = list(gradients_of_a_training())
    for name in ("f32", "bf16"):
        plain = packed = seconds = 0.0
        for gradient in gradients:
            elements = (gradient if name == "f32" else (gradient.view(np.uint32) >> 16).astype(np.uint16)).tobytes()
            begun = time.process_time()
            packed += len(zlib.compress(elements, FASTEST))
            seconds += time.process_time() - begun
            plain += len(elements)
        found[name] = {"megabytes_a_second": plain / seconds / 1e6, "smaller_by": 1 - packed / plain}
    return found


def train(elements: int, steps: int, logdir: str) -> None:
    """The trainer that is recorded: prints its milliseconds from submit to submit."""
    random = np.random.default_rng(1)
    gradients = [{"w": random.standard_normal(elements, np.float32)} for _ in range(2)]
    with gradientd.Run(gradients[0], "adam", beta2=0.999, eps=1e-8, logdir=logdir, private_daemon=False,
                       max_stall=600.0, close_timeout=600.0) as run:  # fmt: skip
        run.submit(1, gradients[1], learning_rate=1e-3)  # which faults its slots in
        begun = time.perf_counter()
        for step in range(2, steps + 1):
            run.submit(step, gradients[step % 2], learning_rate=1e-3)
        print(1e3 * (time.perf_counter() - begun) / (steps - 1))


def measure_recording(directory: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    with daemon(directory) as socket:
        environment = {**os.environ, "GRADIENTD_SOCKET": str(socket)}
        for elements, steps in RECORDED.items():
            trainer = [sys.executable, __file__, "--train", str(elements), str(steps), str(directory / "logs")]
            milliseconds: dict[int | None, list[float]] = {level: [] for level in (None, *LEVELS)}
            sizes: dict[int | None, int] = {}
            for _ in range(TURNS):
                for level in milliseconds:
                    recording = directory / "recording"
                    record = ["gradientctl", "record", "--force", "--level", str(level), "--socket", str(socket),
                              str(recording), "--"]  # fmt: skip
                    said = subprocess.run([*(record if level is not None else []), *trainer], env=environment,
                                          check=True, text=True, capture_output=True)  # fmt: skip
                    milliseconds[level].append(float(said.stdout))
                    if level is not None:
                        sizes[level] = recording.stat().st_size
                        recording.unlink()
            found += [{"elements": elements, "steps": steps, "level": level, "bytes": sizes.get(level),
                       "milliseconds_a_step": statistics.median(values)}
                      for level, values in milliseconds.items()]  # fmt: skip
    return found


def print_tables(found: dict[str, Any]) -> None:
    own = found["daemon"]
    print(f"daemon {own['bytes'] / 1e6:.1f} MB, and {own['bytes_a_run'] / 1e6:.2f} MB a run")
    for steps, size in found["disk"].items():
        print(f"event file, {TENSORS} tensors, {steps:,} steps: {size / 1e6:.2f} MB")
    for name, one in found["deflated"].items():
        print(f"deflated {name}: {one['megabytes_a_second']:.0f} MB/s, smaller by {100 * one['smaller_by']:.0f} %")
    for one in found["recording"]:
        level = "not recorded" if one["level"] is None else f"--level {one['level']}, {one['bytes'] / 1e6:,.0f} MB"
        run = f"{one['elements']:,} elements, {one['steps']} steps, {level}"
        print(f"{run}: {one['milliseconds_a_step']:.1f} ms a step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--train", nargs=3, metavar=("ELEMENTS", "STEPS", "LOGDIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(int(arguments.train[0]), int(arguments.train[1]), arguments.train[2])
        return
    found: dict[str, Any] = {"deflated": measure_deflated()}
    for name, measure in (("daemon", measure_daemon), ("disk", measure_disk), ("recording", measure_recording)):
        with tempfile.TemporaryDirectory() as directory:
            found[name] = measure(Path(directory))
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        print_tables(found)


if __name__ == "__main__":
    main()
