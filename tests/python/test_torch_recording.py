"""gradientctl record and replay of trainings in PyTorch, which find the daemon by their environment alone."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import elements_of, read_recording, record_command, replay
from torch import nn
from training import NO_SKIPS, batch, made, train, weights

import gradientd

STEPS = 12
SOURCE = Path(__file__).parents[2]
ADAM = {"lr": 1e-2, "betas": (0.9, 0.99)}


def job(logdir, kind):
    """A training; its weights before each step, and at the end, become a file."""
    net = made()
    before = []
    if kind == "resumed":  # with second moments that are handed over
        optimizer = torch.optim.Adam(net.parameters(), **ADAM)
        train(net, optimizer, STEPS)
    optimizer = optimizer if kind == "resumed" else torch.optim.Adam(net.parameters(), **ADAM)
    options = {"logdir": logdir, "run": kind, **NO_SKIPS}
    if kind == "streams":
        options["probe_gradients"] = lambda: nn.functional.cross_entropy(net(batch(50)[0]), batch(50)[1])
        options["outputs"] = lambda: net(batch(50)[0]).softmax(1)
        options |= {"probe_gradients_every": 2, "parameters_every": 1, "outputs_every": 3}
    with gradientd.attach(optimizer, net, **options):
        train(net, optimizer, STEPS, first=STEPS, before_step=lambda _: before.append(weights(net).numpy()))
    np.save(Path(logdir) / "before.npy", before)


@pytest.mark.parametrize("kind", ["plain", "streams", "resumed"])
def test_a_training(kind, daemon, tmp_path):
    recording = tmp_path / "run.tfrecord.gz"
    program = f"import test_torch_recording\ntest_torch_recording.job({str(tmp_path)!r}, {kind!r})"
    folders = [str(SOURCE / "tests" / folder) for folder in ("python", "interop")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, os.environ["PYTHONPATH"]])}
    command = [*record_command(recording, daemon.socket), sys.executable, "-c", program]
    subprocess.run(command, check=True, env=environment, timeout=120)
    (path,) = (tmp_path / kind).glob("*.tfevents.*")
    for workers, kernels in ((1, "scalar"), (4, None)):
        replay(recording, tmp_path / "replayed", "--force", "--workers", workers,
               **({"GRADIENTD_KERNELS": kernels} if kernels else {}))  # fmt: skip
        assert (tmp_path / "replayed").read_bytes() == path.read_bytes()

    snapshots = [r for r in read_recording(recording) if r["kind"] == b"Snapshot"]
    assert len(snapshots) == STEPS
    if kind == "streams":
        before = np.load(tmp_path / "before.npy")
        found = {i: elements_of(r, "parameters") for i, r in enumerate(snapshots) if "parameters" in r}
        assert len(found) > STEPS // 2 and all((found[i] == before[i]).all() for i in found)
        assert any("outputs" in r for r in snapshots) and any("probe_gradient" in r for r in snapshots)
    assert any(r["kind"] == b"StartVector" for r in read_recording(recording)) == (kind == "resumed")


def test_an_example(daemon, tmp_path):
    recording = tmp_path / "run.tfrecord.gz"
    command = [*record_command(recording, daemon.socket), sys.executable, SOURCE / "examples/python/torch_digits.py"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120, stdout=subprocess.DEVNULL)
    (path,) = (tmp_path / "runs" / "torch_digits").glob("*.tfevents.*")
    replay(recording, tmp_path / "replayed")
    assert (tmp_path / "replayed").read_bytes() == path.read_bytes()
