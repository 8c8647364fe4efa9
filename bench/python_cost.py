"""What watching costs a PyTorch training: arms that take turns, step by step, in one process.

    python bench/python_cost.py [--steps N] [--threads N] [--batch N] [--json]
    python bench/python_cost.py --tensors N

Each arm trains a model of its own of 25 million parameters on the CPU with Adam:

    bare        nothing watches
    gradientd   gradientd.attach(), a private daemon
    torch       norm, cosines at lags 1 to 5 and the Adam terms A, B, C, computed in the training process
    histograms  torch's SummaryWriter, a histogram of each tensor's gradient
    wandb       wandb.watch(log="gradients", log_freq=1), offline (where wandb is installed)

Per arm: the median step, as a ratio to the bare arm's step of the same round; for gradientd also the share of the step
that the training thread spends in it. --threads: of PyTorch; with one fewer than the machine has cores, a core is left
to the daemon, with as many training saturates them all.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable

import torch
from torch import nn

import gradientd

WIDTH, LAYERS, INPUTS, CLASSES = 2048, 6, 784, 10
LAGS, BETA2, EPS = 5, 0.999, 1e-8


class Arm:
    """One model in training."""

    def __init__(self, name: str, data: tuple[torch.Tensor, torch.Tensor]):
        torch.manual_seed(1)
        layers: list[nn.Module] = [nn.Linear(INPUTS, WIDTH), nn.ReLU()]
        for _ in range(LAYERS):
            layers += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
        self.name = name
        self.model = nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))
        self.optimizer = torch.optim.Adam(self.model.parameters(), betas=(0.9, BETA2), eps=EPS)
        self.data = data
        self.seconds: list[float] = []
        self.after_backward: Callable[[], None] = lambda: None

    def step(self) -> None:
        begun = time.perf_counter()
        self.optimizer.zero_grad()
        inputs, labels = self.data
        nn.functional.cross_entropy(self.model(inputs), labels).backward()
        self.after_backward()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - begun)


class InProcess:
    """The same figures by PyTorch: norm, cosines, and A, B, C of Adam's effective steps (arXiv 1808.02941)."""

    def __init__(self, arm: Arm):
        self.parameters = list(arm.model.parameters())
        self.history: deque[list[torch.Tensor]] = deque(maxlen=LAGS)
        self.second_moment = [torch.zeros_like(p) for p in self.parameters]
        self.effective: list[torch.Tensor] = []
        self.t = 0

    @torch.no_grad()
    def __call__(self) -> None:
        gradients = [p.grad.clone() for p in self.parameters]
        self.t += 1
        sums = [sum(torch.dot(g.flatten(), g.flatten()) for g in gradients)]
        for old in self.history:
            sums.append(sum(torch.dot(g.flatten(), o.flatten()) for g, o in zip(gradients, old, strict=True)))
        self.history.appendleft(gradients)
        torch._foreach_mul_(self.second_moment, BETA2)
        torch._foreach_addcmul_(self.second_moment, gradients, gradients, 1 - BETA2)
        effective = torch._foreach_sqrt(torch._foreach_div(self.second_moment, 1 - BETA2**self.t))
        torch._foreach_add_(effective, EPS)
        torch._foreach_reciprocal_(effective)
        sums.append(sum(e.sum() for e in effective))
        sums.append(sum((e * g).square_().sum() for e, g in zip(effective, gradients, strict=True)))
        if self.effective:
            sums.append(sum((e - o).abs_().sum() for e, o in zip(effective, self.effective, strict=True)))
        self.effective = effective
        torch.stack(sums).tolist()


class OwnTime:
    """Seconds that the training thread spends in a watch at each step."""

    def __init__(self, watch: gradientd.Watch):
        self.seconds: list[float] = []
        self.watch = watch
        self._take = watch._take
        watch._take = self._timed  # type: ignore[method-assign]

    def _timed(self, optimizer: torch.optim.Optimizer) -> None:
        begun = time.perf_counter()
        self._take(optimizer)
        self.seconds.append(time.perf_counter() - begun)


def watch_with_histograms(arm: Arm, directory: str) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(directory)

    def write() -> None:
        for name, parameter in arm.model.named_parameters():
            writer.add_histogram(name, parameter.grad, len(arm.seconds))

    arm.after_backward = write


def watch_with_wandb(arm: Arm, directory: str) -> None:
    os.environ["WANDB_MODE"], os.environ["WANDB_SILENT"] = "offline", "true"
    import wandb

    run = wandb.init(dir=directory, project="cost")
    run.watch(arm.model, log="gradients", log_freq=1)
    arm.after_backward = lambda: run.log({"step": len(arm.seconds)})


def measure(steps: int, batch: int, directory: str) -> dict[str, object]:
    data = torch.randn(batch, INPUTS), torch.randint(0, CLASSES, (batch,))
    names = ["bare", "gradientd", "torch", "histograms"] + ["wandb"] * (importlib.util.find_spec("wandb") is not None)
    arms = {name: Arm(name, data) for name in names}
    watched = arms["gradientd"]
    own = OwnTime(gradientd.attach(watched.optimizer, watched.model, logdir=f"{directory}/gradientd"))
    arms["torch"].after_backward = InProcess(arms["torch"])
    watch_with_histograms(arms["histograms"], f"{directory}/histograms")
    if "wandb" in arms:
        watch_with_wandb(arms["wandb"], directory)
    for _ in range(steps):
        for arm in arms.values():
            arm.step()
    own.watch.close()

    bare = arms["bare"].seconds[1:]  # the first step allocates
    ratios = {name: [s / b for s, b in zip(arm.seconds[1:], bare, strict=True)] for name, arm in arms.items()}
    return {
        "parameters": sum(p.numel() for p in watched.model.parameters()),
        "batch": batch,
        "threads": torch.get_num_threads(),
        "steps": steps - 1,
        "bare_step_seconds": statistics.median(bare),
        "step_ratio": {name: statistics.median(values) for name, values in ratios.items()},
        "step_ratio_quartiles": {name: statistics.quantiles(values)[::2] for name, values in ratios.items()},
        "own_seconds": statistics.median(own.seconds[1:]),
        "own_share": statistics.median(o / b for o, b in zip(own.seconds[1:], bare, strict=True)),
        "skipped": own.watch.skipped,
    }


def measure_hook(tensors: int, steps: int, directory: str, **options: float) -> float:
    """Median microseconds a step in gradientd with so many tensors of 8 elements; options: of attach()."""
    model = nn.ParameterList(torch.randn(8) for _ in range(tensors))
    optimizer = torch.optim.Adam(model.parameters())
    watch = gradientd.attach(optimizer, model, logdir=directory, inflight=64, **options)
    own = OwnTime(watch)
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(int(options.get("accumulation", 1))):
            torch.stack([p.square().sum() for p in model]).sum().backward()
        optimizer.step()
    watch.close()
    return 1e6 * statistics.median(own.seconds[1:])


def print_hook(tensors: int) -> None:
    for name, options in {
        "attach()": {},
        "with batch_size": {"batch_size": 64},
        "with batch_size and accumulation=2": {"batch_size": 64, "accumulation": 2},
    }.items():
        with tempfile.TemporaryDirectory() as directory:
            print(
                f"{name:36} {measure_hook(tensors, 200, directory, **options):8.0f} us a step in the optimizer's hook"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=20, help="of each arm (default: 20)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch (default: its own)")
    parser.add_argument("--batch", type=int, default=512, help="examples a step (default: 512)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--tensors", type=int, help="only the hook's own time with so many small tensors")
    arguments = parser.parse_args()
    if arguments.tensors:
        print_hook(arguments.tensors)
        return
    if arguments.steps < 4:
        parser.error(f"--steps is {arguments.steps}; it must be at least 4")
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as directory:
        result = measure(arguments.steps, arguments.batch, directory)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['parameters']:,} parameters, batch {result['batch']}, {result['threads']} threads, "
          f"{result['steps']} steps an arm; a bare step takes {result['bare_step_seconds']:.3f} s")  # fmt: skip
    for name, ratio in result["step_ratio"].items():
        low, high = result["step_ratio_quartiles"][name]
        print(f"{name:12} {ratio:6.3f} x the bare step ({low:.3f} to {high:.3f})")
    print(f"the training thread is in gradientd for {1e3 * result['own_seconds']:.2f} ms, "
          f"{100 * result['own_share']:.2f} % of the step; {result['skipped']} steps skipped")  # fmt: skip


if __name__ == "__main__":
    main()
