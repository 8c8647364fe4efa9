"""Streams beside the gradient: gradients on fixed samples, the parameters, outputs on fixed examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypedDict

import torch
from torch import Tensor

from ._client import log
from ._options import Stream
from ._sampling import Sampling
from ._torch_elements import on_cpu
from ._torch_noise import data_parallel


class Addresses(TypedDict, total=False):
    """A step's snapshots, as Step takes them."""

    probe_gradients: Sequence[int]
    parameters: Sequence[int]
    outputs: int


def _refuse_forward(_module: torch.nn.Module, _inputs: Any) -> None:
    raise RuntimeError("it calls the DistributedDataParallel module, whose forward waits for the other ranks; call the "
                       "module inside (model.module)")  # fmt: skip


class Streams:
    """What attach() was asked to send beside the gradients, each every so many steps; 0: never.

    probe_gradients: returns the loss, a scalar tensor, on fixed samples. outputs: returns f32 [examples, outputs per
    example] after the softmax. What they draw does not change the random state of PyTorch.
    """

    def __init__(
        self,
        model: torch.nn.Module | None,
        probe_gradients: Callable[[], Tensor] | None,
        parameters: bool,
        outputs: Callable[[], Tensor] | None,
        every: dict[str, int],
        sampling: Sampling,
    ):
        asked = {
            "probe_gradients": probe_gradients is not None, "parameters": parameters, "outputs": outputs is not None
        }  # fmt: skip
        self._strides = {name: every[name] for name, is_asked in asked.items() if is_asked}
        for name, stride in self._strides.items():
            if stride < 1 or stride % sampling.every:
                raise ValueError(f"{name}_every is {stride}; it must be a multiple of every, {sampling.every}, and at "
                                 f"least 1")  # fmt: skip
        self._model = model
        self._loss, self._outputs = probe_gradients, outputs
        self._first_outputs: Tensor | None = None
        self._shape = (0, 0)
        self._failed: set[str] = set()
        self._held: list[Any] = []

    def describe(self, element_type: str) -> dict[str, Any]:
        """The streams for the run's Description; outputs only where open() has learnt their shape."""
        streams: dict[str, Any] = {
            name: Stream(stride, element_type) for name, stride in self._strides.items() if name != "outputs"
        }
        if all(self._shape):
            streams.update(outputs=Stream(self._strides["outputs"]), outputs_shape=self._shape)
        return streams

    def open(self, parameters: Sequence[Tensor]) -> None:
        """Learns the outputs' shape, before the run's first step."""
        if self._outputs is None:
            return
        self._shape = (0, 0)
        self._first_outputs = self._attempt("outputs", self._get_outputs, parameters)
        if self._first_outputs is not None:
            examples, outputs = self._first_outputs.shape
            self._shape = (examples, outputs)

    def take(self, index: int, parameters: Sequence[Tensor], element_type: str) -> Addresses:
        """The snapshots of the step `index`, counted from the first one; what they point to is held until the next."""
        taken: Addresses = {}
        self._held = []
        if self._is_due("probe_gradients", index):
            gradients = self._attempt("probe_gradients", lambda: self._get_gradients(parameters), parameters)
            if gradients is not None:
                taken["probe_gradients"] = self._hold(gradients, element_type)
        if self._is_due("parameters", index):
            taken["parameters"] = self._hold(parameters, element_type)
        if self._is_due("outputs", index) and all(self._shape):
            outputs, self._first_outputs = self._first_outputs, None
            if index or outputs is None:
                outputs = self._attempt("outputs", self._get_outputs, parameters)
            if outputs is not None:
                taken["outputs"] = self._hold([outputs], "f32")[0]
        return taken

    def release(self) -> None:
        """The snapshots have been handed over."""
        self._held = []

    def _is_due(self, name: str, index: int) -> bool:
        return name in self._strides and index % self._strides[name] == 0

    def _hold(self, tensors: Sequence[Tensor], element_type: str) -> list[int]:
        own = [on_cpu(tensor, element_type) for tensor in tensors]
        self._held.append(own)
        return [tensor.data_ptr() for tensor in own]

    def _get_gradients(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        assert self._loss is not None
        with torch.enable_grad():
            trained = [parameter for parameter in parameters if parameter.requires_grad]
            gradients = dict(zip(trained, torch.autograd.grad(self._loss(), trained, allow_unused=True), strict=True))
        found = [gradients.get(parameter) for parameter in parameters]
        return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]

    def _get_outputs(self) -> Tensor:
        assert self._outputs is not None
        with torch.no_grad():
            outputs = self._outputs()
        if outputs.ndim != 2 or 0 in outputs.shape:
            shape = tuple(outputs.shape)
            raise ValueError(f"it returned the shape {shape}; it must be (examples, outputs per example)")
        if all(self._shape) and tuple(outputs.shape) != self._shape:
            raise ValueError(f"it returned the shape {tuple(outputs.shape)}; it was {self._shape} when the run began")
        return outputs

    def _attempt(self, name: str, call: Callable[[], Any], parameters: Sequence[Tensor]) -> Any:
        """What a callable of the trainer's gives; None where it raises, which is logged once."""
        devices = {parameter.device for parameter in parameters if parameter.is_cuda}
        try:
            with ExitStack() as stack:
                stack.enter_context(torch.random.fork_rng(list(devices)))
                wrapper = data_parallel(self._model)
                if wrapper is not None:
                    stack.enter_context(wrapper.register_forward_pre_hook(_refuse_forward))
                return call()
        except Exception as error:
            if name not in self._failed:
                self._failed.add(name)
                log.warning("there is no %s where attach()'s callable fails: %s: %s", name, type(error).__name__, error)
            return None
