"""attach(batch_size=...): noise/ and fisher/ are of unclipped gradients, or absent."""

import gc
from pathlib import Path

import pytest
import torch
import torch.utils.checkpoint
from noise import check, estimates
from readers import read_steps
from torch import nn
from training import NO_SKIPS, batch, made, train, weights

import gradientd

PARTS, SIZE, STEPS = 4, 32, 8
WARNING = "noise/ and fisher/ are left out where gradients are not what backward() left, times a known factor"


def accumulate(net, step, parts=PARTS, scaler=None):
    images, labels = batch(step, SIZE)
    for piece, own in zip(images.chunk(parts), labels.chunk(parts), strict=True):
        loss = nn.functional.cross_entropy(net(piece), own) / parts
        (scaler.scale(loss) if scaler else loss).backward()


def run(tmp_path, before_step=lambda *_: None, steps=STEPS, parts=PARTS, scaler=None, **options):
    """Trains with accumulation; returns the event file's path and each step's (S, G2)."""
    net = made()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    expected = []
    options = {"batch_size": SIZE, "accumulation": PARTS, "scaler": scaler, **NO_SKIPS, **options}
    with gradientd.attach(optimizer, net, logdir=tmp_path, **options) as watch:
        for step in range(steps):
            optimizer.zero_grad()
            accumulate(net, step, parts, scaler)
            expected.append(estimates(net, step, SIZE, PARTS))
            before_step(watch, net, optimizer, step)
            scaler.step(optimizer) if scaler else optimizer.step()
            if scaler:
                scaler.update()
    return watch.event_path, expected


def test_accumulated_microbatches_tell_the_noise(tmp_path):
    check(*run(tmp_path))


def test_known_clipping_changes_nothing(tmp_path):
    check(*run(tmp_path, lambda watch, net, *_: watch.clip_grad_norm_(0.1)))


def test_clipping_returns_the_norm_and_clips(tmp_path):
    def clip(watch, net, _optimizer, _step):
        before = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in net.parameters()]))
        assert torch.isclose(watch.clip_grad_norm_(0.1), before)
        after = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in net.parameters()]))
        assert torch.isclose(after, torch.tensor(0.1), rtol=1e-4)

    run(tmp_path, clip, steps=2)


def test_factor_said_by_hand(tmp_path):
    def clip(watch, net, *_):
        for p in net.parameters():
            p.grad.mul_(0.25)
        watch.clip_factor = 0.25

    check(*run(tmp_path, clip))


@pytest.mark.parametrize("clips", [False, True])
def test_scaler(clips, tmp_path):
    def clip(watch, _net, optimizer, step):
        if clips:
            scaler.unscale_(optimizer)
            watch.clip_grad_norm_(0.1)

    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    check(*run(tmp_path, clip, scaler=scaler))


def _clip_norm(watch, net, optimizer, step):
    nn.utils.clip_grad_norm_(net.parameters(), 0.1)


def _clip_value(watch, net, optimizer, step):
    nn.utils.clip_grad_value_(net.parameters(), 1e-3)


def _clip_some(watch, net, optimizer, step):
    nn.utils.clip_grad_norm_([net[0].weight], 1e-3)


def _clip_data(watch, net, optimizer, step):
    for p in net.parameters():
        p.grad.data.mul_(0.5)


def _replace(watch, net, optimizer, step):
    for p in net.parameters():
        p.grad = p.grad * 0.5


def _wrong_factor(watch, net, optimizer, step):
    nn.utils.clip_grad_norm_(net.parameters(), 1e-3)
    watch.clip_factor = 1.0


def _clip_twice(watch, net, optimizer, step):
    watch.clip_grad_norm_(0.1)
    nn.utils.clip_grad_norm_(net.parameters(), 0.01)


@pytest.mark.parametrize(
    "change", [_clip_norm, _clip_value, _clip_some, _clip_data, _replace, _wrong_factor, _clip_twice]
)
def test_unknown_change_leaves_the_charts_out_with_one_warning(change, tmp_path, caplog):
    path, _ = run(tmp_path, lambda *args: change(*args) if args[-1] % 2 else None)
    check(path, [estimate if not step % 2 else None for step, estimate in enumerate(_expected(change))])
    assert [record.message[: len(WARNING)] for record in caplog.records] == [WARNING]


def _expected(change):
    """The same training without a watch."""
    net = made()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)

    class Nobody:
        clip_factor = None

        @staticmethod
        def clip_grad_norm_(limit):
            nn.utils.clip_grad_norm_(net.parameters(), limit)

    for step in range(STEPS):
        optimizer.zero_grad()
        accumulate(net, step)
        yield estimates(net, step, SIZE, PARTS)
        if step % 2:
            change(Nobody, net, optimizer, step)
        optimizer.step()


def test_unknown_scaler_leaves_the_charts_out(tmp_path, caplog):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    net = made()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    with gradientd.attach(optimizer, net, logdir=tmp_path, batch_size=SIZE, accumulation=PARTS, **NO_SKIPS) as watch:
        for step in range(3):
            optimizer.zero_grad()
            accumulate(net, step, scaler=scaler)
            scaler.step(optimizer)
            scaler.update()
    check(watch.event_path, [None] * 3)
    assert "give attach() the GradScaler" in caplog.text


def test_wrong_count_of_passes_is_noticed(tmp_path, caplog):
    path, _ = run(tmp_path, parts=2)
    check(path, [None] * STEPS)
    assert len([r for r in caplog.records if "(2) than attach(accumulation=4)" in r.message]) == 1


def test_passes_thrown_away_are_not_counted(tmp_path, caplog):
    net = made()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    expected = []
    with gradientd.attach(optimizer, net, logdir=tmp_path, batch_size=SIZE, accumulation=PARTS, **NO_SKIPS) as watch:
        for step in range(4):
            for number in (step + 100, step):  # as a GradScaler that skips a step
                optimizer.zero_grad()
                accumulate(net, number)
            expected.append(estimates(net, step, SIZE, PARTS))
            optimizer.step()
    check(watch.event_path, expected)
    assert not caplog.records


def test_last_batch_of_an_epoch_is_smaller(tmp_path):
    net = made()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    with gradientd.attach(optimizer, net, logdir=tmp_path, batch_size=SIZE, **NO_SKIPS) as watch:
        for step, size in enumerate((SIZE, 8)):
            watch.batch_size = size
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(batch(step, size)[0]), batch(step, size)[1]).backward()
            optimizer.step()
    a, b = (
        torch.cat([g.flatten() for g in torch.autograd.grad(
            nn.functional.cross_entropy(net(batch(s, n)[0]), batch(s, n)[1]), list(net.parameters()))]).double()
        for s, n in ((0, SIZE), (1, 8))
    )  # fmt: skip
    found = read_steps(Path(watch.event_path))[2]
    assert found["noise_single/S"] == pytest.approx(float((a - b).square().sum() / (1 / SIZE + 1 / 8)), rel=1e-4)


def test_weights_are_bit_identical(tmp_path):
    trained = []
    for attached in (False, True):
        net = made("cnn")
        optimizer = torch.optim.Adam(net.parameters())
        if attached:
            watch = gradientd.attach(optimizer, net, logdir=tmp_path, batch_size=32, accumulation=1, **NO_SKIPS)
        train(net, optimizer, 20, before_step=lambda _: watch.clip_grad_norm_(0.5) if attached
              else nn.utils.clip_grad_norm_(net.parameters(), 0.5))  # fmt: skip
        trained.append(weights(net))
    assert watch.close()
    assert torch.equal(*trained)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": -1}, "batch_size is -1"),
        ({"accumulation": 0}, "accumulation is 0"),
        ({"all_ranks": True}, "all_ranks is True"),
    ],
)
def test_refusals(options, text, tmp_path):
    net = made()
    with pytest.raises(ValueError, match=text):
        gradientd.attach(torch.optim.SGD(net.parameters(), lr=0.1), net, logdir=tmp_path, **options)


def test_closed_watch_leaves_no_hooks(tmp_path):
    net = made()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    watch = gradientd.attach(optimizer, net, logdir=tmp_path, batch_size=32, accumulation=2)
    assert all(p._backward_hooks and p._post_accumulate_grad_hooks for p in net.parameters())
    watch.close()
    assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in net.parameters())


def test_collected_optimizer_leaves_no_hooks(tmp_path):
    net = made()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    gradientd.attach(optimizer, net, logdir=tmp_path, batch_size=32, accumulation=2)
    del optimizer
    gc.collect()
    assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in net.parameters())


@pytest.mark.parametrize("kind", ["compiled", "checkpointed"])
def test_other_ways_through_backward(kind, tmp_path):
    """torch.compile(), and reentrant checkpoints, whose backward passes run within another one."""
    net = made()
    compiled = torch.compile(net, backend="aot_eager")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    expected = []
    options = {"batch_size": SIZE, "accumulation": PARTS, **NO_SKIPS}
    with gradientd.attach(optimizer, net, logdir=tmp_path, **options) as watch:
        for step in range(3):
            optimizer.zero_grad()
            accumulate(compiled if kind == "compiled" else lambda piece: _checkpointed(net, piece), step)
            expected.append(estimates(net, step, SIZE, PARTS))
            optimizer.step()
    check(watch.event_path, expected)


def _checkpointed(net, piece):
    return torch.utils.checkpoint.checkpoint(net, piece.clone().requires_grad_(), use_reentrant=True)
