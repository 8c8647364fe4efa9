"""attach() where the optimizer's parameters, groups and state change: schedules, checkpoints, absent gradients, AMP."""

import copy
import io

import pytest
import torch
from torch import nn, optim
from training import NO_SKIPS, Recording, backward, made, mlp, train, values_of, weights

import gradientd


def attached(optimizer, net, tmp_path, **options):
    return gradientd.attach(optimizer, net, logdir=tmp_path, **NO_SKIPS, **options)


def two_groups(net):
    return [{"params": net[0].parameters(), "lr": 1e-2, "betas": (0.9, 0.99)}, {"params": net[2].parameters()}]


def test_groups_and_schedulers_are_followed(tmp_path):
    net = made()
    optimizer = optim.AdamW(two_groups(net), lr=1e-3)
    recording = Recording(optimizer, net, "adamw")
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, [0.05, 0.01], total_steps=50)
    with attached(optimizer, net, tmp_path) as watch:
        for step in range(50):
            train(net, optimizer, 1, first=step)
            optimizer.param_groups[1]["betas"] = (0.9, 0.999 - step / 1000)
            scheduler.step()
    recording.compare(watch.event_path)


def test_clipping_and_accumulation_come_before(tmp_path):
    net = made()
    optimizer = optim.Adam(net.parameters())
    recording = Recording(optimizer, net, "adam")
    with attached(optimizer, net, tmp_path) as watch:
        for step in range(20):
            optimizer.zero_grad(set_to_none=step % 2 == 0)
            for part in range(4):
                backward(net, 4 * step + part, size=8, scale=0.25)
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            optimizer.step()
    recording.compare(watch.event_path)
    norms = [values["gradient/norm"] for values in values_of(watch).values()]
    assert max(norms) == pytest.approx(0.1, rel=1e-4)


def test_hook_registered_later_is_waited_for(tmp_path):
    """Its first step is left out, as nobody can say what it makes of the gradients; then it comes before ours."""
    net = made()
    optimizer = optim.Adam(net.parameters())
    with attached(optimizer, net, tmp_path) as watch:
        optimizer.register_step_pre_hook(lambda *_: nn.utils.clip_grad_norm_(net.parameters(), 0.05) and None)
        train(net, optimizer, 10)
    values = values_of(watch)
    assert list(values) == list(range(2, 11))
    assert max(v["gradient/norm"] for v in values.values()) == pytest.approx(0.05, rel=1e-4)


def test_closure_computes_the_gradients(tmp_path):
    net = made()
    optimizer = optim.Adam(net.parameters())
    recorded = []

    def closure(step):
        optimizer.zero_grad()
        loss = backward(net, step)
        recorded.append(torch.cat([p.grad.flatten() for p in net.parameters()]).norm().item())
        return loss

    with attached(optimizer, net, tmp_path) as watch:
        losses = [optimizer.step(lambda step=step: closure(step)) for step in range(5)]
        losses += [optimizer.step(closure=lambda step=step: closure(step)) for step in range(5)]
    assert [v["gradient/norm"] for v in values_of(watch).values()] == pytest.approx(recorded, rel=1e-5)
    assert all(loss > 0 for loss in losses)


def test_parameter_without_a_gradient_is_absent(tmp_path):
    net = made()
    optimizer = optim.Adam(net.parameters())
    recording = Recording(optimizer, net, "adam")

    def drop(step):
        if step % 3 == 1:
            net[0].bias.grad = None
        if step % 4 == 2:
            net[2].weight.grad.zero_()

    with attached(optimizer, net, tmp_path) as watch:
        train(net, optimizer, 30, before_step=drop)
    recording.compare(watch.event_path)


def test_frozen_parameter_stays_in_the_run(tmp_path):
    net = made()
    optimizer = optim.Adam(net.parameters())
    recording = Recording(optimizer, net, "adam")
    with attached(optimizer, net, tmp_path) as watch:
        for step in range(20):
            net[0].requires_grad_(step % 2 == 0)
            train(net, optimizer, 1, first=step)
    recording.compare(watch.event_path)
    assert len(list(tmp_path.iterdir())) == 1


def resumed(optimizer, net, tmp_path, rule, steps):
    """Trains on in a watch of its own and compares all of it, from a start in mid-training."""
    taken = int(optimizer.state[next(net.parameters())]["step"])
    recording = Recording(optimizer, net, rule, first_step=taken + 1)
    with attached(optimizer, net, tmp_path) as watch:
        train(net, optimizer, steps, first=taken)
    recording.compare(watch.event_path)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda p: optim.Adam(p), "adam"),
        (lambda p: optim.Adam(p, amsgrad=True, fused=True), "amsgrad"),
        (lambda p: optim.RMSprop(p), "rmsprop"),
        (lambda p: optim.Adagrad(p, initial_accumulator_value=0.1), "adagrad"),
    ],
    ids=["adam", "amsgrad", "rmsprop", "adagrad"],
)
def test_attached_in_mid_training_starts_exact(make, rule, tmp_path):
    net = made()
    optimizer = make(net.parameters())
    train(net, optimizer, 30)
    resumed(optimizer, net, tmp_path, rule, 20)


def test_checkpoint_goes_on_in_a_new_process_as_here(tmp_path):
    net = made()
    optimizer = optim.Adam(net.parameters())
    with attached(optimizer, net, tmp_path / "first"):
        train(net, optimizer, 20)
        file = io.BytesIO()
        torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file)
    net = mlp()
    optimizer = optim.Adam(net.parameters())
    net.load_state_dict(saved["net"])
    optimizer.load_state_dict(saved["optimizer"])
    resumed(optimizer, net, tmp_path / "second", "adam", 15)


def test_state_loaded_while_attached_starts_a_new_file(tmp_path):
    net = made()
    optimizer = optim.Adam(net.parameters())
    watch = attached(optimizer, net, tmp_path)
    train(net, optimizer, 10)
    saved = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    train(net, optimizer, 10, first=10)
    net.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    recording = Recording(optimizer, net, "adam", first_step=11)
    train(net, optimizer, 5, first=10)
    train(net, optimizer, 10, first=15)
    assert watch.close()
    recording.compare(watch.event_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_cleared_state_starts_a_new_file(tmp_path):
    net = made()
    optimizer = optim.Adam(net.parameters())
    watch = attached(optimizer, net, tmp_path)
    train(net, optimizer, 10)
    optimizer.state.clear()
    recording = Recording(optimizer, net, "adam", first_step=11)
    train(net, optimizer, 10, first=10)
    assert watch.close()
    recording.compare(watch.event_path)


def test_parameter_added_later_joins_in_a_new_file(tmp_path):
    net = made()
    optimizer = optim.Adam(net[0].parameters())
    watch = attached(optimizer, net, tmp_path)
    train(net, optimizer, 10)
    optimizer.add_param_group({"params": net[2].parameters(), "lr": 1e-2})
    recording = Recording(optimizer, net, "adam", first_step=11)
    train(net, optimizer, 10, first=10)
    assert watch.close()
    recording.compare(watch.event_path)


def test_copies_of_a_watched_optimizer_are_not_watched(tmp_path):
    net = made()
    optimizer = optim.Adam(net.parameters())
    watch = attached(optimizer, net, tmp_path)
    train(net, optimizer, 3)
    other_net, other = copy.deepcopy((net, optimizer))
    train(other_net, other, 7)
    watch.close()
    assert list(values_of(watch)) == [1, 2, 3]


@pytest.mark.parametrize("fused", [False, True])
def test_grad_scaler_with_unscaled_gradients(fused, tmp_path):
    """Of the steps that found Inf, the fused optimizer's are seen and not applied; else there is no step."""
    net = made()
    optimizer = optim.Adam(net.parameters(), fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=5)
    norms, infinite = [], {4, 9}
    with attached(optimizer, net, tmp_path) as watch:
        for step in range(20):
            optimizer.zero_grad()
            backward(net, step, scale=scaler.scale(torch.ones(())).item())
            if step in infinite:
                net[0].weight.grad[0, 0] = float("inf")
            scaler.unscale_(optimizer)
            if step not in infinite:
                norms.append(torch.cat([p.grad.flatten() for p in net.parameters()]).norm().item())
            scaler.step(optimizer)
            scaler.update()
    assert optimizer.state[net[0].weight]["step"] == 18
    values = values_of(watch)
    assert len(values) == (20 if fused else 18)
    applied = [v for v in values.values() if not v["gradient/non_finite"]]
    assert [v["gradient/norm"] for v in applied] == pytest.approx(norms, rel=1e-5)
    v = torch.cat([optimizer.state[p]["exp_avg_sq"].flatten() for p in net.parameters()]).double()
    g = torch.cat([p.grad.flatten() for p in net.parameters()])
    sizes = 1e-3 / ((v / (1 - 0.999**18)).sqrt() + 1e-8)
    assert applied[-1]["adam/step_size_mean"] == pytest.approx(sizes[g != 0].mean().item(), rel=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_parameters_have_all_but_adam(dtype, tmp_path, caplog):
    net = made().to(dtype)
    optimizer = optim.AdamW(net.parameters(), lr=1e-3, eps=1e-4)
    recording = Recording(optimizer, net, "sgd", element_type="f16" if dtype is torch.float16 else "bf16")
    with attached(optimizer, net, tmp_path) as watch:
        train(net, optimizer, 15)
    recording.compare(watch.event_path, without=("adam/", "step_sums/"))
    assert "torch.autocast" in caplog.text


def test_sgd_in_bf16_has_its_effective_steps(tmp_path):
    net = made().to(torch.bfloat16)
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    recording = Recording(optimizer, net, "sgd", element_type="bf16")
    with attached(optimizer, net, tmp_path) as watch:
        train(net, optimizer, 15)
    recording.compare(watch.event_path)


def test_channels_last_gradients_keep_the_logical_order(tmp_path):
    """Also where an optimizer is attached in mid-training: v is handed over in the same order."""
    net = made("cnn").to(memory_format=torch.channels_last)
    optimizer = optim.Adam(net.parameters(), weight_decay=0.01)
    train(net, optimizer, 10)
    conv = net[5].weight
    assert not conv.grad.is_contiguous() and not optimizer.state[conv]["exp_avg_sq"].is_contiguous()
    resumed(optimizer, net, tmp_path, "adam", 20)


def test_two_optimizers_have_a_run_each(tmp_path):
    net = made()
    halves = [(optim.Adam(net[0].parameters()), "adam"), (optim.SGD(net[2].parameters(), lr=0.1), "sgd")]
    recordings = [Recording(optimizer, net, rule) for optimizer, rule in halves]
    watches = [attached(optimizer, net, tmp_path / rule) for optimizer, rule in halves]
    for step in range(20):
        backward(net, step)
        for optimizer, _ in halves:
            optimizer.step()
            optimizer.zero_grad()
    for recording, watch in zip(recordings, watches, strict=True):
        assert watch.close()
        recording.compare(watch.event_path)


def test_every_and_burst_leave_steps_out(tmp_path):
    net = made()
    optimizer = optim.Adam(net.parameters())
    with attached(optimizer, net, tmp_path, every=10, burst=3, max_lag=2) as watch:
        train(net, optimizer, 30)
    assert list(values_of(watch)) == [1, 2, 3, 11, 12, 13, 21, 22, 23]


def test_training_with_tied_weights_is_untouched(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode, self.decode, self.head = nn.Linear(64, 8), nn.Linear(8, 64), nn.Linear(64, 10)
            self.decode.weight = nn.Parameter(self.encode.weight.T.clone())
            self.again = self.decode

        def forward(self, images):
            return self.head(self.again(torch.tanh(self.encode(images))))

    trained = []
    for watched in (False, True):
        torch.manual_seed(0)
        net = Tied()
        optimizer = optim.Adam(net.parameters())
        watch = attached(optimizer, net, tmp_path) if watched else None
        train(net, optimizer, 10)
        trained.append(weights(net))
    assert watch.close()
    assert torch.equal(*trained)
    assert "group_norm/decode.weight" in values_of(watch)[1]
