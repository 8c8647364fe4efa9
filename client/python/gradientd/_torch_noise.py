"""What the noise and Fisher charts take: gradients as they were before clipping, at a known batch size, and the squared
norms of the smaller batches that backward passes and ranks average over."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ._client import SquaredNorm, log

_ROW = 4096  # elements whose squares are added in float; one sum of 25 M floats was 0.1 % off, of rows 5e-9
_SAMPLES = 4  # gradients that are copied after each backward pass, the smallest ones


def rank() -> int:
    """Of this process; 0 where torch.distributed is not in use."""
    return torch.distributed.get_rank() if _is_distributed() else 0


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def data_parallel(model: torch.nn.Module | None) -> DistributedDataParallel | None:
    """The DistributedDataParallel module that `model` is or holds."""
    modules = model.modules() if model is not None and _is_distributed() else ()
    return next((module for module in modules if isinstance(module, DistributedDataParallel)), None)


def norms_of_rows(gradient: Tensor) -> Tensor:
    """Norms whose squares add up to that of the gradient, on its device."""
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    if gradient.numel() <= 16 * _ROW:
        return torch.linalg.vector_norm(gradient.detach(), dtype=dtype)
    flat = gradient.detach().reshape(-1)
    whole = flat.numel() // _ROW * _ROW
    rows = torch.linalg.vector_norm(flat[:whole].view(-1, _ROW), dim=1, dtype=dtype)
    return torch.cat([rows, torch.linalg.vector_norm(flat[whole:], dtype=dtype).view(1)])


def _sum_of_squares(norms: Sequence[Tensor]) -> float:
    """In double; one wait per device."""
    devices = {tensor.device for tensor in norms}
    joined = [torch.cat([tensor.view(-1) for tensor in norms if tensor.device == device]) for device in devices]
    return sum(float(tensor.to("cpu").double().square().sum()) for tensor in joined)


def _later(call: Any, rounds: int) -> None:
    """Calls it at the end of the running backward pass, after those that asked for the same before: a round later than
    DistributedDataParallel, which copies the averages into the gradients there, from a second round of its own in the
    first step of a static graph."""
    engine = torch.autograd.Variable._execution_engine
    engine.queue_callback(partial(_later, call, rounds - 1) if rounds else call)


@dataclass
class _Left:
    """A gradient as a backward pass left it."""

    address: int
    version: int

    @classmethod
    def of(cls, gradient: Tensor | None) -> _Left | None:
        if gradient is None or gradient.layout is not torch.strided:
            return None
        return cls(gradient.data_ptr(), gradient._version)


class _Passes:
    """The backward passes since the last step. Written by hooks of the parameters, in the thread of the pass."""

    def __init__(self, parameters: Sequence[Tensor], measures: bool):
        self.parameters = parameters
        self.measures = measures  # what each pass adds to the gradients
        self.is_new = True  # no step yet: what was before is not known
        self._hooked = [index for index, parameter in enumerate(parameters) if parameter.requires_grad]
        self.left: list[_Left | None] = []
        self.samples: dict[int, Tensor] = {}  # copies of the smallest gradients, by parameter
        self._is_queued = False
        self._seen: list[Tensor | None] = [None] * len(parameters)
        self._was_none = [False] * len(parameters)
        self._norms: list[list[Tensor]] = [[] for _ in parameters]

    def hook(self) -> list[Any]:
        handles = []
        for index in self._hooked:
            parameter = self.parameters[index]
            if self.measures:
                handles.append(parameter.register_hook(partial(self._see, index)))
            handles.append(parameter.register_post_accumulate_grad_hook(partial(self._accumulated, index)))
        return handles

    def _see(self, index: int, gradient: Tensor) -> None:
        """Of one pass alone, before it is added and averaged. torch.autograd.grad() comes here too, and no further."""
        if gradient.layout is torch.strided:
            self._seen[index] = norms_of_rows(gradient)
        self._was_none[index] = self.parameters[index].grad is None

    def _accumulated(self, index: int, _parameter: Tensor) -> None:
        if not self._is_queued:
            self._is_queued = True
            if self.measures and self._are_thrown_away(index):
                self._forget()
            _later(self._end, 2)
        seen, self._seen[index] = self._seen[index], None
        if seen is not None:
            self._norms[index].append(seen)

    def _are_thrown_away(self, first: int) -> bool:
        """Whether the gradients of the passes before this one, which begins with that parameter, are gone without a
        step, as where a GradScaler skips it."""
        return any(
            left is not None and (self._was_none[first] if index == first else parameter.grad is None)
            for index, (left, parameter) in enumerate(zip(self.left, self.parameters, strict=False))
        )

    def _end(self) -> None:
        self._is_queued = False
        gradients = [parameter.grad for parameter in self.parameters]
        self.left = [_Left.of(gradient) for gradient in gradients]
        held = [(index, g) for index, g in enumerate(gradients) if g is not None and self.left[index] is not None]
        smallest = sorted(held, key=lambda pair: pair[1].numel())[:_SAMPLES]
        self.samples = {index: gradient.detach().clone() for index, gradient in smallest}

    @property
    def misses_some(self) -> bool:
        """Whether a parameter has a gradient that could not be hooked: it was frozen then."""
        hooked = set(self._hooked)
        return any(p.grad is not None and index not in hooked for index, p in enumerate(self.parameters))

    @property
    def count(self) -> int:
        """How many there were."""
        return max(map(len, self._norms), default=0)

    def squared_norms(self) -> float:
        """The sum over the passes of the squared norm of what each has added."""
        return _sum_of_squares([norms for own in self._norms for norms in own])

    def _forget(self) -> None:
        self.left, self.samples = [], {}
        for own in self._norms:
            own.clear()

    def clear(self) -> None:
        """Begins the next step."""
        self._forget()
        self._is_queued = self.is_new = False


def _touched(left: Sequence[_Left | None], gradients: Sequence[Tensor | None], clippings: int, unscales: bool) -> bool:
    """Whether something else than so many clippings has changed gradients in place, or put others there.

    A tensor's version counts changes in place, together with all tensors of one DistributedDataParallel bucket. A
    GradScaler that unscales may count or not: PyTorch 2.13 does not."""
    if not left:
        return True
    storages = [0 if g is None else g.untyped_storage().data_ptr() for g in gradients] if clippings or unscales else []
    sharing = Counter(storages)
    for index, (own, gradient) in enumerate(zip(left, gradients, strict=True)):
        if gradient is None:
            continue
        if own is None or own.address != gradient.data_ptr():
            return True
        shared = sharing[storages[index]] if storages else 0
        if not clippings * shared <= gradient._version - own.version <= (clippings + unscales) * shared:
            return True
    return False


def _is_multiple(after: Tensor | None, before: Tensor, ratio: float) -> bool:
    """Whether a gradient is what it was, times ratio; what tensor.data changes has no version."""
    if after is None or after.shape != before.shape:
        return False
    now, expected = after.to("cpu").double(), before.to("cpu").double() * ratio
    limits = torch.finfo(after.dtype)
    return torch.allclose(now, expected, rtol=max(1e-4, 2.0 * limits.eps), atol=limits.tiny, equal_nan=True)


@dataclass(frozen=True)
class NoiseStep:
    """What a step says of its batch; the defaults: nothing."""

    batch_size: float = 0.0
    clip_factor: float = 0.0
    squared_norms: tuple[SquaredNorm, ...] = ()


class Noise:
    """Follows the gradients of one optimizer's parameters from backward to step.

    model: the one in training. accumulation: backward passes a step, each of a loss divided by that number. scaler: the
    GradScaler in use. all_ranks: the squared norms of all ranks are averaged, in one all_reduce a step.
    """

    def __init__(self, model: torch.nn.Module | None, accumulation: int, scaler: Any, all_ranks: bool):
        if accumulation < 1:
            raise ValueError(f"accumulation is {accumulation}; it must be at least 1")
        self._wrapper = data_parallel(model)
        self._is_over = False
        if all_ranks and self._wrapper is None:
            raise ValueError("all_ranks is True, and the model is no DistributedDataParallel module; give attach() "
                             "that module, after torch.distributed.init_process_group()")  # fmt: skip
        self.all_ranks = all_ranks
        self._accumulation, self._scaler = accumulation, scaler
        self._ranks = torch.distributed.get_world_size(self._wrapper.process_group) if self._wrapper is not None else 1
        self._batch_size = 0.0
        self._factor: float | None = None
        self._clippings: list[Tensor] = []
        self._parameters: Sequence[Tensor] = ()
        self._passes: _Passes | None = None
        self._unhook: weakref.finalize | None = None
        self._warned: set[str] = set()

    # What the trainer says.

    @property
    def batch_size(self) -> float:
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: float | None) -> None:
        value = float(value or 0.0)
        if not (value >= 0.0 and math.isfinite(value)):
            raise ValueError(f"batch_size is {value:g}; it must be above 0 and finite, or None where it is not known")
        self._batch_size = value
        if value and self._passes is None:
            self.follow(self._parameters)

    @property
    def clip_factor(self) -> float | None:
        return self._factor

    @clip_factor.setter
    def clip_factor(self, value: float | None) -> None:
        if value is not None and not (value > 0.0 and math.isfinite(value)):
            raise ValueError(f"clip_factor is {value:g}; it must be above 0 and finite, 1 where nothing was clipped")
        self._factor = value

    def clip_grad_norm_(self, max_norm: float, **options: Any) -> Tensor:
        """torch.nn.utils.clip_grad_norm_() of the parameters; the factor is remembered until the step."""
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, max_norm, **options)
        if self._passes is not None:
            self._clippings.append((max_norm / (norm.detach() + 1e-6)).clamp(max=1.0))
        return norm

    # Hooks.

    def follow(self, parameters: Sequence[Tensor]) -> None:
        """These are the optimizer's parameters from here on."""
        self.unhook()
        self._parameters = parameters
        if self._batch_size and not self._is_over:
            self._passes = _Passes(parameters, self._has_smaller_batches())
            handles = self._passes.hook()
            self._unhook = weakref.finalize(self, lambda: [handle.remove() for handle in handles])
            self._unhook.atexit = False

    def close(self) -> None:
        """Looks at no gradient any more."""
        self._is_over = True
        self.unhook()

    def unhook(self) -> None:
        if self._unhook is not None:
            self._unhook()
        self._passes = self._unhook = None

    def _has_smaller_batches(self) -> bool:
        """Whether a step averages over several, and each can be told apart."""
        if self._accumulation * self._ranks == 1:
            return False
        averaged: set[Tensor] = set()
        if self._wrapper is not None:
            ignored = self._wrapper.parameters_to_ignore
            averaged = {p for name, p in self._wrapper.module.named_parameters() if name not in ignored}
        elif not _is_distributed() or torch.distributed.get_world_size() == 1:
            return True
        if averaged.issuperset(self._parameters):
            return True
        self._warn(
            "noise/ and fisher/ are left out: torch.distributed is in use, and not all of the optimizer's parameters "
            "are of a DistributedDataParallel module; give attach() that module as `model`"
        )
        return False

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            log.warning("%s", text)

    # The step.

    def take(self, gradients: Sequence[Tensor | None], wanted: bool) -> NoiseStep:
        """What there is to say of this step, whose gradients these are, and forgets it; nothing where it is not wanted.
        With all_ranks it waits for the other ranks in any case."""
        factor, clippings = self._factor, self._clippings
        self._factor, self._clippings = None, []
        passes, small = self._passes, math.nan
        if passes is not None and passes.measures and (wanted or self.all_ranks):
            small = self._smaller_batch(passes)
        if self._wrapper is not None and self.all_ranks:
            small = self._mean_of_ranks(small, self._wrapper.process_group)
        if passes is None:
            return NoiseStep()
        step = self._judge(passes, gradients, factor, clippings, small) if wanted and self._batch_size else NoiseStep()
        passes.clear()
        if passes.misses_some:
            self.follow(self._parameters)
        return step

    def _judge(self, passes: _Passes, gradients: Sequence[Tensor | None], given: float | None,
               clippings: Sequence[Tensor], small: float) -> NoiseStep:  # fmt: skip
        factor = math.prod(map(float, clippings)) if given is None else given
        if not (factor > 0.0 and math.isfinite(factor)):  # clipped to nothing, or by a norm that is not finite
            return NoiseStep()
        if not self._is_explained(passes, gradients, given is not None, len(clippings), factor):
            if not passes.is_new:
                self._warn("noise/ and fisher/ are left out where gradients are not what backward() left, times a "
                           "known factor: clip with watch.clip_grad_norm_(), or set watch.clip_factor before each step "
                           "(1.0: not clipped), and give attach() the GradScaler in use as `scaler`")  # fmt: skip
            return NoiseStep()
        norms = (SquaredNorm(self._smaller_batch_size, small),) if math.isfinite(small) else ()
        return NoiseStep(self._batch_size, factor if clippings or given is not None else 0.0, norms)

    def _is_explained(self, passes: _Passes, gradients: Sequence[Tensor | None], is_given: bool, clippings: int,
                      factor: float) -> bool:  # fmt: skip
        if is_given and not passes.left:  # gradients that no backward pass has put there
            return True
        if not is_given and _touched(passes.left, gradients, clippings, self._scales):
            return False
        ratio = factor / self._scale
        samples = [(gradients[index], before) for index, before in passes.samples.items()]
        return bool(samples) and all(_is_multiple(after, before, ratio) for after, before in samples)

    @property
    def _scales(self) -> bool:
        return self._scaler is not None and self._scaler.is_enabled()

    @property
    def _scale(self) -> float:
        """What the losses of this step were multiplied with."""
        return float(self._scaler.get_scale()) if self._scales else 1.0

    @property
    def _smaller_batch_size(self) -> float:
        return self._batch_size / (self._accumulation * self._ranks)

    def _smaller_batch(self, passes: _Passes) -> float:
        """The mean squared norm of this rank's smaller batches; NaN: not known."""
        if passes.misses_some:
            return math.nan
        if passes.count != self._accumulation:
            if not passes.is_new:
                self._warn(f"noise/ and fisher/ are left out where a step has another number of backward passes "
                           f"({passes.count}) than attach(accumulation={self._accumulation}) says")  # fmt: skip
            return math.nan
        return self._accumulation * passes.squared_norms() / self._scale**2  # k^2 |g/k|^2, as a mean of k

    def _mean_of_ranks(self, value: float, group: Any) -> float:
        """NaN where one rank does not know its own."""
        total = torch.tensor([value], dtype=torch.float64, device=self._parameters[0].device)
        torch.distributed.all_reduce(total, group=group)
        return float(total) / self._ranks
