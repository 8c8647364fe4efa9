"""Probe gradients, parameters and outputs beside a training, against double precision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from noise import gradient
from readers import read_steps
from torch import nn
from training import NO_SKIPS, batch, made, train, weights

import gradientd

PROBE = batch(50)
STEPS = 9


def _run(tmp_path, before_step=None, **options):
    net = made()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    taken = []

    def probe():
        return nn.functional.cross_entropy(net(PROBE[0]), PROBE[1])

    def outputs():
        return net(PROBE[0]).softmax(1)

    def note(_step):
        taken.append((gradient(net, *PROBE), weights(net).double().numpy(), outputs().detach().double().numpy()))

    options = {"probe_gradients": probe, "outputs": outputs, "probe_gradients_every": 2, "parameters_every": 2,
               "outputs_every": 2, **NO_SKIPS, **options}  # fmt: skip
    with gradientd.attach(optimizer, net, logdir=tmp_path, **options) as watch:
        train(net, optimizer, STEPS, before_step=note)
    return read_steps(Path(watch.event_path)), taken


def test_snapshots_are_at_the_gradients_parameters(tmp_path):
    steps, taken = _run(tmp_path)
    for step in range(3, STEPS + 1, 2):
        (g, x, f), (g0, x0, f0), (_, start, _) = taken[step - 1], taken[step - 3], taken[0]
        found = steps[step]
        expected = {
            "coherence_probe/cosine_lag1": g @ g0 / np.linalg.norm(g) / np.linalg.norm(g0),
            "parameters/l2_step": np.linalg.norm(x - x0),
            "parameters/l2_from_start": np.linalg.norm(x - start),
            "function/l2_step": np.sqrt(np.mean(np.sum((f - f0) ** 2, axis=1))),
            "curvature/secant": (x - x0) @ (g - g0) / np.sum((x - x0) ** 2),
            "curvature/lipschitz": np.linalg.norm(g - g0) / np.linalg.norm(x - x0),
        }
        assert {tag: found[tag] for tag in expected} == pytest.approx(expected, rel=2e-4)
        assert "parameters/l2_step" not in steps[step - 1]


def _draw():
    torch.rand(3)
    return torch.zeros(2, 3)


def test_weights_are_bit_identical(tmp_path):
    trained = []
    for watched in (False, True):
        net = nn.Sequential(nn.Linear(64, 16), nn.Dropout(0.3), nn.Linear(16, 10))
        torch.manual_seed(3)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.1)
        optimizer = torch.optim.Adam(net.parameters())
        if watched:
            watch = gradientd.attach(
                optimizer, net, logdir=tmp_path, batch_size=16, accumulation=2, outputs=_draw, outputs_every=1,
                probe_gradients=lambda: nn.functional.cross_entropy(net(PROBE[0]), PROBE[1]),
                probe_gradients_every=1, parameters_every=1, **NO_SKIPS,
            )  # fmt: skip
        train(net, optimizer, 10)
        trained.append(weights(net))
    assert watch.close()
    assert torch.equal(*trained)


def test_callable_that_raises_is_left_out_with_one_warning(tmp_path, caplog):
    calls = []

    def probe():
        calls.append(0)
        raise ZeroDivisionError("no samples")

    steps, _ = _run(tmp_path, probe_gradients=probe)
    assert len(calls) == 5
    assert len([record for record in caplog.records if "no samples" in record.message]) == 1
    assert "parameters/l2_step" in steps[9] and "curvature/secant" not in steps[9]


def test_outputs_without_a_shape_are_left_out(tmp_path, caplog):
    steps, _ = _run(tmp_path, outputs=lambda: torch.zeros(3))
    assert "(examples, outputs per example)" in caplog.text
    assert "function/l2_step" not in steps[9] and "curvature/secant" in steps[9]


@pytest.mark.parametrize("every", [1, 3, -1])
def test_stride_must_fit_the_sampling(every, tmp_path):
    net = made()
    with pytest.raises(ValueError, match=f"parameters_every is {every}; it must be a multiple of every, 2"):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        gradientd.attach(optimizer, net, logdir=tmp_path, every=2, parameters_every=every)
