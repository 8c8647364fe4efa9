"""PyTorch's optimizers as update rules: what their parameter groups and their state say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer as TorchOptimizer

from ._options import Optimizer
from ._torch_elements import Consumption, on_cpu

ParamGroup = dict[str, Any]

# A rule's own second moment in the optimizer's state, and the maximum beside it.
SECOND_MOMENT = {
    "adam": "exp_avg_sq",
    "adamw": "exp_avg_sq",
    "amsgrad": "exp_avg_sq",
    "rmsprop": "square_avg",
    "adagrad": "sum",
}
SECOND_MOMENT_MAX = {"amsgrad": "max_exp_avg_sq"}


@dataclass(frozen=True)
class Rule:
    """What an optimizer is for the adam/ charts. `unsupported` says in one sentence why there are none."""

    optimizer: Optimizer
    unsupported: str = ""


def number(value: Any) -> float:
    """Of a rate that may be a tensor."""
    return float(value.item()) if isinstance(value, Tensor) else float(value)


def _adam(groups: Sequence[ParamGroup]) -> Rule:
    if len({bool(group.get("amsgrad", False)) for group in groups}) > 1:
        return _other("amsgrad differs between its parameter groups")
    if groups[0].get("amsgrad", False):
        return Rule(Optimizer("amsgrad", maximum_of="raw_then_corrected"))
    return Rule(Optimizer("adamw" if _is_decoupled(groups[0]) else "adam"))


def _nadam(_groups: Sequence[ParamGroup]) -> Rule:
    return Rule(Optimizer("adam"))  # Nesterov momentum changes what is stepped along, not the effective step


def _sgd(_groups: Sequence[ParamGroup]) -> Rule:
    return Rule(Optimizer("sgd"))


def _rmsprop(groups: Sequence[ParamGroup]) -> Rule:
    if any(group["centered"] for group in groups):
        return _other("centered RMSprop subtracts a mean that is not kept here")
    return Rule(Optimizer("rmsprop"))


def _adagrad(groups: Sequence[ParamGroup]) -> Rule:
    variants = {(number(g["initial_accumulator_value"]), number(g["lr_decay"])) for g in groups}
    if len(variants) > 1:
        return _other("initial_accumulator_value or lr_decay differ between its parameter groups")
    initial, decay = variants.pop()
    return Rule(Optimizer("adagrad", initial_accumulator=initial, learning_rate_decay=decay))


def _other(reason: str) -> Rule:
    return Rule(Optimizer("other"), reason)


_RULES: dict[type, Callable[[Sequence[ParamGroup]], Rule]] = {
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.NAdam: _nadam,
    torch.optim.SGD: _sgd,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: _adagrad,
}

_REASONS = {
    torch.optim.RAdam: "RAdam's effective step is rectified",
    torch.optim.Adamax: "Adamax divides by a maximum norm",
    torch.optim.Adadelta: "Adadelta's effective step depends on its own past updates",
    torch.optim.Adafactor: "Adafactor keeps its second moment in rows and columns",
    torch.optim.Muon: "Muon's step is a matrix, not an effective step per element",
    torch.optim.Rprop: "Rprop steps by the gradient's sign",
    torch.optim.ASGD: "ASGD's effective step decays in its own way",
}

# Those that add weight_decay x to the gradient, unless a group says decoupled_weight_decay. Adafactor, Muon shrink x.
_COUPLED = _RULES.keys() | {torch.optim.RAdam, torch.optim.Adamax, torch.optim.Adadelta, torch.optim.ASGD}

_LOW_PRECISION = (torch.bfloat16, torch.float16)


def _bare(step: Any) -> Any:
    """Without the hooks that torch puts around it, on the class of the first optimizer made."""
    while getattr(step, "hooked", False):
        step = step.__wrapped__
    return step


def own_class(optimizer: TorchOptimizer) -> type[TorchOptimizer] | None:
    """PyTorch's class whose step() the optimizer runs; None: it has one of its own."""
    kind: type[TorchOptimizer] = next(
        kind for kind in type(optimizer).__mro__ if kind.__module__.startswith("torch.optim")
    )
    return kind if _bare(kind.step) is _bare(type(optimizer).step) else None


def rule_of(optimizer: TorchOptimizer) -> Rule:
    """The rule that the optimizer follows. One that derives from a class of PyTorch's may step in its own way, and is
    only taken for it where it does not define step()."""
    kind = own_class(optimizer)
    if kind is None:
        return _other(f"the effective step of {type(optimizer).__name__} is not known here, nor what it makes of its "
                      f"gradients, which are taken as they are")  # fmt: skip
    if kind not in _RULES:
        return _other(_REASONS.get(kind, f"the effective step of {kind.__name__} is not known here"))
    rule = _RULES[kind](optimizer.param_groups)
    if rule.optimizer.rule in SECOND_MOMENT and any(p.dtype in _LOW_PRECISION for p in _parameters(optimizer)):
        return _other("a second moment in bfloat16 or float16 is mostly rounding; keep the "
                      "parameters in float32 and compute under torch.autocast")  # fmt: skip
    return rule


def _parameters(optimizer: TorchOptimizer) -> Iterator[Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"])


def _is_decoupled(group: ParamGroup) -> bool:
    return bool(group.get("decoupled_weight_decay", False))


def consumptions(optimizer: TorchOptimizer) -> list[Consumption]:
    """Of each parameter group, what the optimizer makes of its gradients before it uses them."""
    kind = own_class(optimizer)
    if kind is None:
        return [Consumption() for _ in optimizer.param_groups]
    return [
        Consumption(
            number(group.get("weight_decay", 0.0)) if kind in _COUPLED and not _is_decoupled(group) else 0.0,
            bool(group.get("maximize", False)),
        )
        for group in optimizer.param_groups
    ]


def rates(group: ParamGroup, rule: str) -> tuple[float, float, float]:
    """Learning rate, decay of the second moment, eps; 0 for what the rule has not."""
    learning_rate = number(group.get("lr", 0.0))
    if rule not in SECOND_MOMENT:
        return learning_rate, 0.0, 0.0
    beta2 = group["betas"][1] if "betas" in group else group.get("alpha", 0.0)
    return learning_rate, number(beta2), number(group["eps"])


def steps_taken(optimizer: TorchOptimizer, parameter: Tensor) -> int | None:
    """How many steps the optimizer's state of the parameter has seen; None: it does not count them."""
    step = optimizer.state[parameter].get("step") if parameter in optimizer.state else None
    return None if step is None else int(number(step))


def counts_on_cpu(optimizer: TorchOptimizer, parameter: Tensor) -> bool:
    """Whether steps_taken() of the parameter waits for no device."""
    step = optimizer.state[parameter].get("step") if parameter in optimizer.state else None
    return not isinstance(step, Tensor) or step.is_cpu


def found_inf(optimizer: TorchOptimizer) -> bool:
    """Whether a fused optimizer is about to leave its parameters alone, because a GradScaler has found Inf or NaN."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and number(found) != 0.0


def second_moments(
    optimizer: TorchOptimizer, rule: str, parameters: Sequence[Tensor], which: Mapping[str, str]
) -> list[Tensor | None] | None:
    """The optimizer's own array of each parameter as floats on the CPU, None for one it has no state of yet; None: the
    rule keeps no such array, or there is no state at all."""
    key = which.get(rule)
    found = [optimizer.state.get(parameter, {}).get(key) for parameter in parameters]
    if key is None or all(array is None for array in found):
        return None
    return [None if array is None else on_cpu(array, "f32") for array in found]
