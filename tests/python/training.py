"""Real trainings in PyTorch on handwritten digits, and what a run of them must show.

`Recording` stands beside the optimizer as attach() does, in code of its own: it keeps each step's gradients as the
optimizer consumes them, from which tests/interop/reference.py computes every value in double precision.
"""

import functools
import mmap
import os
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from compare import compare_file
from readers import last_step, read_steps
from trainer import Group, Optimizer, ParameterGroup, Run, Step
from waiting import wait_until

PAGE_BYTES = 4096
NO_SKIPS = {"max_stall": 10.0, "close_timeout": 30.0}  # options of attach() with which each step is in the file
ADAM_FAMILY = ("adam/", "step_sums/")  # what an optimizer without a rule has not
SECOND_MOMENTS = {"adam": "exp_avg_sq", "adamw": "exp_avg_sq", "amsgrad": "exp_avg_sq", "rmsprop": "square_avg",
                  "adagrad": "sum"}  # fmt: skip


@functools.cache
def digits():
    """1,797 images of 8 x 8 pixels in 0..1, f32 [1797, 64], and their labels, i64 [1797]."""
    data = load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


def mlp(hidden=16):
    return nn.Sequential(nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10))


def cnn():
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


class Transformer(nn.Module):
    """Reads an image as 8 rows."""

    def __init__(self, width=16):
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(torch.zeros(8, width))
        self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, images):
        rows = self.embed(images.view(-1, 8, 8)) + self.position
        return self.head(self.layer(rows).mean(1))


MODELS = {"mlp": mlp, "cnn": cnn, "transformer": Transformer}


def made(model="mlp", seed=0):
    """A model with weights that the seed alone decides."""
    torch.manual_seed(seed)
    return MODELS[model]()


def batch(step, size=32):
    """The images and labels of a step: the same at each call."""
    images, labels = digits()
    rows = torch.arange(step * size, (step + 1) * size) % len(images)
    return images[rows], labels[rows]


def backward(model, step, size=32, scale=1.0):
    """Computes the gradients of a step's batch; returns the loss."""
    images, labels = batch(step, size)
    images = images.to(next(model.parameters()).dtype)
    loss = nn.functional.cross_entropy(model(images), labels)
    (loss * scale).backward()
    return loss.detach()


def train(model, optimizer, steps, first=0, before_step=None):
    """`steps` steps, from number `first` on; `before_step(step)` is called between backward and the optimizer."""
    for step in range(first, first + steps):
        optimizer.zero_grad()
        backward(model, step)
        if before_step is not None:
            before_step(step)
        optimizer.step()


def weights(model):
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


SHRINKING = (torch.optim.Adafactor, torch.optim.Muon)  # whose weight decay is no part of the gradient


def _coupled(optimizer, group):
    if group.get("decoupled_weight_decay") or isinstance(optimizer, SHRINKING):
        return 0.0
    return float(group.get("weight_decay", 0.0))


def _doubles(optimizer, name, default=0.0):
    return [float(group.get(name, default)) for group in optimizer.param_groups]


def _decays(optimizer, rule):
    """beta2 and eps, one each a parameter group, 0 where the rule has none."""
    if rule not in SECOND_MOMENTS:
        return [[0.0] * len(optimizer.param_groups)] * 2
    beta2 = [float(g["betas"][1]) if "betas" in g else float(g.get("alpha", 0.0)) for g in optimizer.param_groups]
    return beta2, _doubles(optimizer, "eps")


class Recording:
    """The run of an optimizer, as tests/interop describes runs, and its steps so far.

    `rule`: what the optimizer is for the adam/ charts; a start in
    mid-training is taken from its state. `first_step`: the number of the first step.
    """

    def __init__(self, optimizer, model, rule, first_step=1, **run):
        self.optimizer = optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        places = {p: index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
        names = {p: name for name, p in model.named_parameters()}
        maximum_of = "raw_then_corrected" if rule == "amsgrad" else "default"
        variant = {"initial_accumulator": _doubles(optimizer, "initial_accumulator_value")[0],
                   "learning_rate_decay": _doubles(optimizer, "lr_decay")[0]}  # fmt: skip
        rates = zip(*_decays(optimizer, rule), strict=True)
        self.run = Run(
            [Group(names[p], p.numel(), places[p]) for p in self.parameters],
            Optimizer(rule, maximum_of=maximum_of, **variant),
            [ParameterGroup(beta2, eps) for beta2, eps in rates],
            first_step=first_step,
            **run,
        )
        self.steps = []
        self._take_start(rule)
        hook = optimizer.register_step_pre_hook(self._take)
        optimizer._optimizer_step_pre_hooks.move_to_end(hook.id, last=False)  # attach() wants to be the last one

    def _take_start(self, rule):
        taken = [int(self.optimizer.state.get(p, {}).get("step", 0)) for p in self.parameters]
        self.run.start_optimizer_step = max(taken)
        for group, own in zip(self.run.groups, taken, strict=True):
            group.step_lag = max(taken) - own
        if self.run.start_optimizer_step:
            self.run.start_second_moment = self.state(SECOND_MOMENTS[rule])
            self.run.start_second_moment_max = self.state("max_exp_avg_sq") if rule == "amsgrad" else None

    def state(self, key):
        """The optimizer's own arrays, one a group; zeros where it has none yet."""
        held = [self.optimizer.state.get(p, {}).get(key, torch.zeros_like(p)) for p in self.parameters]
        return [array.detach().flatten().float().numpy().copy() for array in held]

    def _take(self, optimizer, _args, _kwargs):
        gradients = []
        for group in optimizer.param_groups:
            sign, decay = -1.0 if group.get("maximize") else 1.0, _coupled(optimizer, group)
            for p in group["params"]:
                consumed = None if p.grad is None else sign * p.grad.double() + decay * p.detach().double()
                gradients.append(None if consumed is None else consumed.flatten().float().numpy().copy())
        beta2, eps = _decays(optimizer, self.run.optimizer.rule)
        self.steps.append(
            Step(
                self.run.first_step + len(self.steps),
                gradients,
                _doubles(optimizer, "lr"),
                optimizer_step=self.run.start_optimizer_step + len(self.steps) + 1,
                beta2=beta2,
                eps=eps,
            )
        )

    def compare(self, path, without=()):
        """Every value of every step in the event file, and no other; of the prefixes `without` none is expected."""
        return compare_file(self.run, self.steps, Path(path), without=without)


def values_of(watch):
    """step -> {tag: value} of a watch's event file."""
    return read_steps(Path(watch.event_path))


def wait_for_step(path, step):
    """Waits until the step is in the event file, which has it after the daemon has committed it."""
    wait_until(lambda: (last_step(Path(path)) or 0) >= step, 30, f"step {step} is in {path}")


def _memory_of_newest_run():
    """The mapped memory that this process shares with the daemon for the run it opened last."""
    entries = [(int(number), f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    shared = [
        (number, link) for number, link in entries if os.path.islink(link) and "memfd:gradientd" in os.readlink(link)
    ]
    number, _ = max(shared)
    return mmap.mmap(number, 0, prot=mmap.PROT_READ)


def _pages(bytes_):
    return -(-bytes_ // PAGE_BYTES) * PAGE_BYTES


def daemon_second_moments(numels, arrays=1, max_lag=5, inflight=2):
    """The v that the daemon holds for the run this process opened last: for each of the two halves of its state, an
    array a group (daemon/layout.c: roots, the groups at 64 bytes, just below the gradients' slots at the memory's end).

    The run has one rule with `arrays` state arrays, f32 gradients and no other streams.
    """
    memory = _memory_of_newest_run()
    slots_bytes = (max_lag + 1 + inflight) * _pages(4 * sum(numels))
    half_bytes = _pages(4 * sum(-(-numel // 16) * 16 for numel in numels))
    halves = []
    for half in range(2):
        at = len(memory) - slots_bytes - (2 - half) * arrays * half_bytes
        groups = []
        for numel in numels:
            groups.append(np.frombuffer(memory, np.float32, numel, at).astype(np.float64) ** 2)
            at += 4 * (-(-numel // 16) * 16)
        halves.append(groups)
    return halves
