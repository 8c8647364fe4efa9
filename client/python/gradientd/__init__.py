"""gradientd: optimisation diagnostics beside a training job, in TensorBoard.

    gradientd.attach(optimizer, model, logdir="runs/exp1")      # PyTorch
    run = gradientd.Run(parameters, "adam", beta2=0.999, eps=1e-8, logdir="runs/exp1")  # numpy, JAX
    run.submit(step, gradients, learning_rate=1e-3)

Modules for what is built on them, each imported when it is first used: gradientd.torch, gradientd.optax,
gradientd.keras, gradientd.lightning, gradientd.transformers.
"""

from __future__ import annotations

import importlib
import typing

from ._client import Alert, SquaredNorm
from ._options import Group, Optimizer, RunOptions, Stream, Thresholds
from ._run import Run

if typing.TYPE_CHECKING:
    from .torch import Watch, attach

__all__ = [
    "Alert",
    "Group",
    "Optimizer",
    "Run",
    "RunOptions",
    "SquaredNorm",
    "Stream",
    "Thresholds",
    "Watch",
    "attach",
]


_FRAMEWORKS = ("keras", "lightning", "optax", "torch", "transformers")


def __getattr__(name: str) -> typing.Any:
    """What needs a framework is imported when it is first used."""
    if name in _FRAMEWORKS:
        return importlib.import_module("." + name, __name__)
    if name in ("attach", "Watch"):
        return getattr(importlib.import_module(".torch", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
