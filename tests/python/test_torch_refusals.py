"""Where correct gradients cannot be had: attach() says so, and what to do instead; training is never harmed."""

import subprocess
import sys

import pytest
import torch
from torch import nn, optim
from torch.distributed.optim import _apply_optimizer_in_backward
from training import NO_SKIPS, backward, made, train, values_of, weights

import gradientd


class Wrapper(optim.Optimizer):
    """As accelerate's: an Optimizer by name, which holds the real one."""

    def __init__(self, inside):
        self.inside = inside


def in_backward(net):
    _apply_optimizer_in_backward(optim.SGD, net.parameters(), {"lr": 0.1})
    return optim.SGD(net.parameters(), lr=0.1)


REFUSED = {
    "no optimizer": (lambda net: net, TypeError, "must be a torch.optim.Optimizer"),
    "wrapper": (lambda net: Wrapper(optim.SGD(net.parameters())), TypeError, "hand over the optimizer inside"),
    "lbfgs": (lambda net: optim.LBFGS(net.parameters()), ValueError, "use gradientd.Run"),
    "sparse-adam": (lambda net: optim.SparseAdam(list(net.parameters())), ValueError, "sparse=False"),
    "frozen": (
        lambda net: optim.SGD(net.requires_grad_(False).parameters()),
        ValueError,
        "no parameter with requires_grad",
    ),
    "in backward": (in_backward, ValueError, "take it out of backward"),
    "complex": (
        lambda net: optim.SGD([nn.Parameter(torch.ones(3, dtype=torch.complex64))]),
        ValueError,
        "view_as_real",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_attach_refuses_and_says_what_to_do(case, tmp_path):
    make, kind, words = REFUSED[case]
    net = made()
    with pytest.raises(kind, match=words):
        gradientd.attach(make(net), net, logdir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_sparse_embedding_is_refused_by_its_name(tmp_path):
    net = nn.ModuleDict({"words": nn.Embedding(10, 4, sparse=True)})
    with pytest.raises(ValueError, match="words has sparse gradients.*sparse=False"):
        gradientd.attach(optim.SGD(net.parameters()), net, logdir=tmp_path)


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
def test_parameter_that_is_stepped_twice_is_refused(tmp_path):
    net = made()
    with pytest.raises(ValueError, match="twice"):
        gradientd.attach(optim.SGD([net[0].bias, net[0].bias]), net, logdir=tmp_path)


SHARDED = """
import sys, torch, gradientd
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer

def refused(optimizer, model, kind):
    try:
        gradientd.attach(optimizer, model, logdir=sys.argv[1] + "/runs")
    except ValueError as error:
        assert f"sharded ({kind})" in str(error) and "watch the run of" in str(error), error
        print("refused", flush=True)

torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/store", rank=0, world_size=1)
net = fully_shard(torch.nn.Linear(8, 8), mesh=torch.distributed.init_device_mesh("cpu", (1,)))
refused(torch.optim.Adam(net.parameters()), None, "DTensor")
net = FullyShardedDataParallel(torch.nn.Linear(8, 8), device_id=torch.device("cpu"))
refused(torch.optim.Adam(net.parameters()), None, "FlatParameter")
net = FullyShardedDataParallel(torch.nn.Linear(8, 8), device_id=torch.device("cpu"), use_orig_params=True)
refused(torch.optim.Adam(net.parameters()), net, "FullyShardedDataParallel")
net = torch.nn.Linear(8, 8)
refused(ZeroRedundancyOptimizer(net.parameters(), torch.optim.Adam), net, "ZeroRedundancyOptimizer")
torch.distributed.destroy_process_group()
"""


def test_sharded_parameters_are_refused(tmp_path):
    """In a process of its own: torch.distributed is one for all of it."""
    done = subprocess.run([sys.executable, "-c", SHARDED, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "refused\n" * 4
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("logdir", ["s3://bucket/runs", "gs://bucket/runs"])
def test_object_store_is_refused_with_a_hint(logdir):
    net = made()
    with pytest.raises(ValueError, match="local directory.*copy it"):
        gradientd.attach(optim.SGD(net.parameters()), net, logdir=logdir)


def test_wrong_option_is_named_at_attach():
    net = made()
    optimizer = optim.SGD(net.parameters())
    with pytest.raises(TypeError, match="max_lags"):
        gradientd.attach(optimizer, net, max_lags=3)
    with pytest.raises(ValueError, match="run"):
        gradientd.attach(optimizer, net, run="../elsewhere")
    with pytest.raises(ValueError, match="burst is 4"):
        gradientd.attach(optimizer, net, every=3, burst=4)
    assert not optimizer._optimizer_step_pre_hooks


def trained(net, optimizer):
    """Weights after a training in which step 5 may find a reason to detach."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step in range(10):
        optimizer.zero_grad()
        scaled = step >= 5
        backward(net, step, scale=scaler.scale(torch.ones(())).item() if scaled else 1.0)
        if scaled:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
    return weights(net)


def test_fused_optimizer_that_unscales_in_step_is_left(tmp_path, caplog):
    """What was right until then stays in a whole file; other hooks and the training do not notice."""
    finals = []
    for watched in (False, True):
        net = made()
        optimizer = optim.Adam(net.parameters(), fused=True)
        watch = gradientd.attach(optimizer, net, logdir=tmp_path, **NO_SKIPS) if watched else None
        optimizer.register_step_pre_hook(lambda *_: None)
        finals.append(trained(net, optimizer))
    assert torch.equal(*finals)
    assert "scaler.unscale_(optimizer)" in caplog.text
    assert list(values_of(watch)) == [2, 3, 4, 5]  # the hook that came later took the first one


def test_sparse_gradient_that_only_a_step_shows_is_left(tmp_path, caplog):
    rows = nn.Parameter(torch.ones(10, 4))
    optimizer = optim.SGD([rows], lr=0.1)
    gradientd.attach(optimizer, logdir=tmp_path)
    nn.functional.embedding(torch.tensor([1, 2]), rows, sparse=True).sum().backward()
    optimizer.step()
    assert "a gradient is sparse" in caplog.text
    assert rows[1, 0].item() == pytest.approx(0.9)


def test_no_daemon_costs_one_warning(tmp_path, caplog):
    net = made()
    optimizer = optim.Adam(net.parameters())
    gradientd.attach(optimizer, net, logdir=tmp_path, private_daemon=False)
    train(net, optimizer, 5)
    assert len([r for r in caplog.records if r.name == "gradientd"]) == 1
    assert "training goes on without it" in caplog.text


def test_failure_within_the_hook_does_not_reach_the_training(tmp_path, caplog):
    net = made()
    optimizer = optim.AdamW(net.parameters())
    watch = gradientd.attach(optimizer, net, logdir=tmp_path, **NO_SKIPS)
    train(net, optimizer, 3)
    optimizer.param_groups[0]["betas"] = ("no", "number")
    optimizer.zero_grad()
    backward(net, 3)
    with pytest.raises(Exception) as raised:  # torch's own, for there is no such beta
        optimizer.step()
    assert "gradientd" not in str(raised.value) and "could not convert" not in str(raised.value)
    assert "gradientd cannot go on" in caplog.text
    optimizer.param_groups[0]["betas"] = (0.9, 0.999)
    train(net, optimizer, 3)
    assert list(values_of(watch)) == [1, 2, 3]


@pytest.mark.parametrize("prefix", ["", "x"])
def test_names_that_do_not_fit_are_cut(prefix, tmp_path):
    net = nn.Sequential()
    net.add_module(prefix + "layer" * 80, nn.Linear(64, 10))
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    with gradientd.attach(optimizer, net, logdir=tmp_path, **NO_SKIPS) as watch:
        train(net, optimizer, 2)
    shown = [tag.removeprefix("group_norm/") for tag in values_of(watch)[1] if tag.startswith("group_norm/")]
    assert all(name.startswith("...") and name.endswith(("layer.weight", "layer.bias")) for name in shown)
    assert len(shown) == 2
