"""attach() in real trainings: what the event file says, and what it must not change."""

import pytest
import torch
from training import NO_SKIPS, Recording, daemon_second_moments, made, train, wait_for_step, weights

import gradientd


@pytest.mark.parametrize("model", ["mlp", "cnn", "transformer"])
def test_event_file_holds_what_double_precision_says(model, tmp_path):
    net = made(model)
    optimizer = torch.optim.Adam(net.parameters())
    recording = Recording(optimizer, net, "adam")
    with gradientd.attach(optimizer, net, logdir=tmp_path, **NO_SKIPS) as watch:
        train(net, optimizer, 40)
    recording.compare(watch.event_path)


@pytest.mark.parametrize("model", ["mlp", "cnn", "transformer"])
def test_weights_are_bit_identical_with_and_without(model, tmp_path):
    trained = []
    for attached in (False, True):
        net = made(model)
        optimizer = torch.optim.AdamW(net.parameters())
        watch = gradientd.attach(optimizer, net, logdir=tmp_path, **NO_SKIPS) if attached else None
        train(net, optimizer, 60)
        trained.append(weights(net))
    assert watch.close()
    assert torch.equal(*trained)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_daemon_has_the_optimizers_second_moment_after_1000_steps(dtype, tmp_path):
    """In f32, torch multiplies with 0.999 rounded to float, which alone takes single elements of its v off by up to
    1.3e-5, always the same way; in f64 each element must agree."""
    net = made().to(dtype)
    optimizer = torch.optim.Adam(net.parameters())
    with gradientd.attach(optimizer, net, logdir=tmp_path, **NO_SKIPS) as watch:
        train(net, optimizer, 1000)
        wait_for_step(watch.event_path, 1000)
        own = [optimizer.state[p]["exp_avg_sq"].flatten().double() for p in net.parameters()]
        halves = daemon_second_moments([len(v) for v in own])
    kept = torch.cat([torch.from_numpy(v) for v in halves[1000 % 2]])
    own = torch.cat(own)
    assert (kept - own).norm() <= 1e-5 * own.norm()
    torch.testing.assert_close(kept, own, rtol=1e-5 if dtype is torch.float64 else 1.5e-5, atol=1e-37)
