"""Where correct gradients cannot be had: one sentence that says so, and what to do instead."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

_SHARDED = {"DTensor", "ShardedTensor"}


def _sharded_by(optimizer: Optimizer, model: torch.nn.Module | None, parameters: Sequence[Tensor]) -> str:
    kinds = {type(parameter).__name__ for parameter in parameters} & _SHARDED
    kinds |= {"FlatParameter" for parameter in parameters if getattr(parameter, "_is_flat_param", False)}  # of FSDP
    if model is not None:
        kinds |= {type(m).__name__ for m in model.modules()} & {"FullyShardedDataParallel", "DeepSpeedEngine"}
    return type(optimizer).__name__ if "ZeroRedundancy" in type(optimizer).__name__ else ", ".join(sorted(kinds))


def refuse(optimizer: Optimizer, model: torch.nn.Module | None) -> None:
    """Raises TypeError or ValueError for what attach() cannot watch."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer is a {type(optimizer).__name__}; it must be a torch.optim.Optimizer (of a wrapper, "
                        f"hand over the one inside)")  # fmt: skip
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        raise TypeError(f"{type(optimizer).__name__} is a wrapper without hooks of its own; hand over the optimizer "
                        f"inside, before it is wrapped")  # fmt: skip
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise ValueError("SparseAdam takes sparse gradients, which are not supported yet; set sparse=False on the "
                         "embedding and use Adam")  # fmt: skip
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("LBFGS takes several gradients a step, and none of them is the step's; use gradientd.Run and "
                         "submit the one you mean")  # fmt: skip
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not any(parameter.requires_grad for parameter in parameters):
        raise ValueError("the optimizer has no parameter with requires_grad")
    if len(set(parameters)) < len(parameters):
        raise ValueError("a parameter is in the optimizer twice, which steps it twice; hand it over once")
    sharded = _sharded_by(optimizer, model, parameters)
    if sharded:
        raise ValueError(f"the parameters are sharded ({sharded}), and no process sees a whole gradient, which is not "
                         f"supported yet; watch the run of a single process or of DistributedDataParallel")  # fmt: skip
    if any(hasattr(parameter, "_in_backward_optimizers") for parameter in parameters):
        raise ValueError("the optimizer steps within backward() and frees its gradients; take it out of backward, or "
                         "use gradientd.Run and submit from your own hook")  # fmt: skip
    if any(parameter.is_complex() for parameter in parameters):
        raise ValueError("a parameter is complex, which is not supported; use torch.view_as_real for it")
    for name, module in model.named_modules() if model is not None else ():
        if isinstance(module, (torch.nn.Embedding, torch.nn.EmbeddingBag)) and module.sparse:
            raise ValueError(f"{name or type(module).__name__} has sparse gradients, which are not supported yet; set "
                             f"sparse=False on it")  # fmt: skip


def refuse_step(optimizer: Optimizer, gradients: Sequence[Tensor | None]) -> str:
    """Why this step's gradients are not what the optimizer consumes; "": they are."""
    if getattr(optimizer, "grad_scale", None) is not None:
        return ("the fused optimizer divides its gradients by the GradScaler's scale only within step(); call "
                "scaler.unscale_(optimizer) before scaler.step(optimizer), or use foreach=True")  # fmt: skip
    if any(gradient is not None and gradient.layout is not torch.strided for gradient in gradients):
        return "a gradient is sparse, which is not supported yet; set sparse=False on its embedding"
    return ""
