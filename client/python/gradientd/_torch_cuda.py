"""Gradients on CUDA devices: copied into the slot on a stream of their own, and committed once the copy is complete.

The trainer's thread waits for nothing. Its CUDA stream waits, behind the optimizer's step, for the copy, because what
comes next may overwrite the gradients (zero_grad, backward); so no gradient is kept alive for longer than without us.
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from ._client import Client, Step, log
from ._torch_elements import Consumption, Slots


class CudaCopies:
    """The copy that is under way, at most one: a slot is acquired when it begins and committed when it is complete."""

    def __init__(self, client: Client, slots: Slots):
        self._client, self._slots = client, slots
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._events: list[torch.cuda.Event] = []
        self._pending: tuple[Step, list[bool]] | None = None
        self._registered: list[int] = []
        self._pageable: set[int] = set()
        finish = weakref.WeakMethod(self.finish)
        self._at_exit = lambda: (method := finish()) and method()
        atexit.register(self._at_exit)

    def submit(
        self,
        step: Step,
        gradients: Sequence[Tensor | None],
        parameters: Sequence[Tensor],
        consumptions: Sequence[Consumption],
    ) -> bool:
        """Begins to copy the step's gradients, unless the last step's are on their way still: then this step is left
        out, which `gradientd/observed_fraction` shows."""
        if not self.commit_complete():
            return False
        present = [gradient is not None for gradient in gradients]
        address = self._client.acquire()
        if address is None:
            return self._client.commit(step, present)
        self._register(address)
        views = self._slots.views(address)
        for out, gradient, parameter, consumption in zip(views, gradients, parameters, consumptions, strict=True):
            if gradient is not None:
                self._copy(out, gradient, parameter, consumption)
        self._events = [stream.record_event() for stream in self._streams.values()]
        self._pending = step, present
        return True

    def _copy(self, out: Tensor, gradient: Tensor, parameter: Tensor, consumption: Consumption) -> None:
        if gradient.device.type != "cuda":
            consumption.into(out, gradient, parameter)
            return
        if consumption.changes:  # on the trainer's stream: the step is about to change the parameter
            consumed = torch.empty_like(gradient)
            consumption.into(consumed, gradient, parameter)
            gradient = consumed
        side = self._stream(gradient.device)
        side.wait_stream(torch.cuda.current_stream(gradient.device))
        with torch.cuda.stream(side):
            out.copy_(gradient, non_blocking=True)
        if consumption.changes:
            gradient.record_stream(side)  # which is freed here, with the copy still to come

    def _stream(self, device: torch.device) -> torch.cuda.Stream:
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        return self._streams[device]

    def hold_back(self) -> None:
        """After the optimizer's step: what the trainer's streams do next comes after the copy."""
        for device, event in zip(self._streams, self._events, strict=False):
            torch.cuda.current_stream(device).wait_event(event)

    def commit_complete(self) -> bool:
        """Hands over the step whose copy is complete. Returns whether none is on its way any more; never waits."""
        if self._pending is not None and all(event.query() for event in self._events):
            pending, self._pending = self._pending, None
            self._client.commit(*pending)
        return self._pending is None

    def wait(self) -> None:
        """Waits for the copy that is under way and hands its step over."""
        for event in self._events:
            event.synchronize()
        self.commit_complete()

    def finish(self) -> None:
        """Before the run is closed: the last step, and the registered memory is given back."""
        atexit.unregister(self._at_exit)
        self.wait()
        for address in self._registered:
            torch.cuda.cudart().cudaHostUnregister(address)
        self._registered.clear()

    def _register(self, address: int) -> None:
        """Makes a slot memory that a device copies to by itself; where that is refused, copies stall the trainer."""
        if address in self._registered or address in self._pageable:
            return
        error = torch.cuda.cudart().cudaHostRegister(address, self._slots.bytes, 0)
        if int(error) == 0:
            self._registered.append(address)
            return
        if not self._pageable:
            log.warning("cudaHostRegister refuses the slots (%s): each step waits for its copy", error)
        self._pageable.add(address)
