"""Which of an optimizer's parameters a run has a group for, and what they are called."""

from __future__ import annotations

from collections.abc import Iterator
from operator import is_
from typing import cast

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer as TorchOptimizer

NAME_BYTES_MAX = 255  # of a group's name

# What wraps a module, and the attribute it keeps it under. It is in the parameters' names, but not in the model's.
_WRAPPERS = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
_WRAPPED_NAMES = ("_orig_mod.", "_checkpoint_wrapped_module.")  # of torch.compile, and of activation checkpointing


def _all(optimizer: TorchOptimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _is_trained(parameter: Tensor) -> bool:
    if is_lazy(parameter):  # of a lazy module before its first batch
        return False
    return (parameter.requires_grad or parameter.grad is not None) and parameter.numel() > 0


class Trained:
    """The parameters that the optimizer steps, in the order of its parameter groups. One that is frozen later stays,
    and is absent while it has no gradient: some trainers toggle requires_grad at every step."""

    def __init__(self, optimizer: TorchOptimizer, before: Trained | None = None):
        stay: set[Tensor] = set(before.parameters) if before is not None else set()
        self._all = _all(optimizer)
        self._sizes = [len(group["params"]) for group in optimizer.param_groups]
        self.parameters: list[Tensor] = [p for p in self._all if p in stay or _is_trained(p)]
        kept = set(self.parameters)
        self._left_out = [p for p in self._all if p not in kept]
        self.places = [
            index for index, group in enumerate(optimizer.param_groups) for p in group["params"] if p in kept
        ]  # of the parameter group that each belongs to

    def is_of(self, optimizer: TorchOptimizer) -> bool:
        """Whether the optimizer still steps these."""
        now = _all(optimizer)
        return (
            len(now) == len(self._all)
            and all(map(is_, now, self._all))
            and self._sizes == [len(group["params"]) for group in optimizer.param_groups]
            and not any(map(_is_trained, self._left_out))
        )


def _named(model: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    while isinstance(model, _WRAPPERS) or hasattr(model, "_orig_mod"):
        model = cast(torch.nn.Module, model.module if isinstance(model, _WRAPPERS) else model._orig_mod)
    for name, parameter in model.named_parameters():
        for wrapped in _WRAPPED_NAMES:
            name = name.replace(wrapped, "")
        yield name, parameter


def _fitting(name: str) -> str:
    """The name as a group may have it; of one that is too long the end, which tells more."""
    name = "".join(c if c.isprintable() else "_" for c in name) or "_"
    if len(name.encode()) <= NAME_BYTES_MAX:
        return name
    return "..." + name.encode()[-(NAME_BYTES_MAX - 3) :].decode(errors="ignore")


def names(model: torch.nn.Module | None, optimizer: TorchOptimizer) -> dict[Tensor, str]:
    """The model's names of the optimizer's parameters, else those it was given with, else their places in it."""
    found = {
        p: group["param_names"][place] if "param_names" in group else f"group{index}.parameter{place}"
        for index, group in enumerate(optimizer.param_groups)
        for place, p in enumerate(group["params"])
    }
    found.update({p: name for name, p in _named(model)} if model is not None else {})
    return {parameter: _fitting(name) for parameter, name in found.items()}
