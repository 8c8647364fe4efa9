"""From tensors to a run's elements: their addresses where they lie as they must, else straight into the slot."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._client import Client, Step

_ELEMENT_TYPES = {torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16"}
_SLOT_DTYPES = {"f32": torch.float32, "f64": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def element_type(tensors: Sequence[Tensor]) -> str:
    """That of all of them, or f32."""
    kinds = {tensor.dtype for tensor in tensors}
    return _ELEMENT_TYPES.get(kinds.pop(), "f32") if len(kinds) == 1 else "f32"


def dtype_of(kind: str) -> torch.dtype:
    return next(dtype for dtype, name in _ELEMENT_TYPES.items() if name == kind)


def on_cpu(tensor: Tensor, kind: str) -> Tensor:
    """Contiguous and of that type; the tensor itself where it is already."""
    return tensor.detach().to("cpu", dtype_of(kind)).contiguous()


@dataclass(frozen=True)
class Consumption:
    """What an optimizer makes of a gradient before it uses it: g, or -g with `maximize`, plus weight_decay x."""

    weight_decay: float = 0.0
    maximize: bool = False

    @property
    def changes(self) -> bool:
        return self.maximize or self.weight_decay != 0.0

    def into(self, out: Tensor, gradient: Tensor, parameter: Tensor) -> None:
        """Writes it to `out`, in out's type."""
        if not self.changes:
            out.copy_(gradient, non_blocking=True)
        elif out.dtype != gradient.dtype or out.device != gradient.device:
            consumed = torch.empty_like(gradient)
            self.into(consumed, gradient, parameter)
            out.copy_(consumed, non_blocking=True)
        elif not self.maximize:
            torch.add(gradient, parameter, alpha=self.weight_decay, out=out)
        elif self.weight_decay == 0.0:
            torch.neg(gradient, out=out)
        else:
            torch.neg(gradient, out=out)
            out.add_(parameter, alpha=self.weight_decay)


class Slots:
    """Tensors over the slots' memory: for each slot one a group, of the parameters' shapes."""

    def __init__(self, parameters: Sequence[Tensor], kind: str):
        self._shapes = [parameter.shape for parameter in parameters]
        self._dtype = _SLOT_DTYPES[kind]
        self._views: dict[int, list[Tensor]] = {}
        self._elements = sum(parameter.numel() for parameter in parameters)

    @property
    def bytes(self) -> int:
        return self._elements * self._dtype.itemsize

    def views(self, address: int) -> list[Tensor]:
        if address not in self._views:
            memory = (ctypes.c_char * self.bytes).from_address(address)
            flat = torch.frombuffer(memory, dtype=self._dtype)
            sizes = [shape.numel() for shape in self._shapes]
            pieces = zip(flat.split(sizes), self._shapes, strict=True)
            self._views[address] = [piece.view(shape) for piece, shape in pieces]
        return self._views[address]


def pointers(tensors: Sequence[Tensor | None] | None) -> list[int | None] | None:
    return None if tensors is None else [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def misfit(gradients: Sequence[Tensor | None], sizes: Sequence[int]) -> bool:
    """Whether a gradient has not as many elements as its group: the parameter's data was replaced."""
    return any(g is not None and g.numel() != size for g, size in zip(gradients, sizes, strict=True))


def addresses(gradients: Sequence[Tensor | None], kind: str) -> list[int | None] | None:
    """Of gradients that lie in memory as the run takes them; None: some do not."""
    dtype = dtype_of(kind)
    found: list[int | None] = []
    for gradient in gradients:
        if gradient is None:
            found.append(None)
        elif gradient.dtype is dtype and gradient.is_cpu and gradient.is_contiguous():
            found.append(gradient.data_ptr())
        else:
            return None
    return found


def submit(
    client: Client,
    step: Step,
    gradients: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    consumptions: Sequence[Consumption],
    slots: Slots,
    kind: str,
    as_they_are: bool,
) -> bool:
    """Hands the gradients over as the optimizer consumes them, with one copy. `as_they_are`: no consumption changes
    them."""
    as_they_lie = addresses(gradients, kind) if as_they_are else None
    if as_they_lie is not None:
        return client.submit(step, as_they_lie)
    address = client.acquire()
    if address is not None:
        for out, gradient, parameter, consumption in zip(
            slots.views(address), gradients, parameters, consumptions, strict=True
        ):
            if gradient is not None:
                consumption.into(out, gradient, parameter)
    return client.commit(step, [gradient is not None for gradient in gradients])
