"""A run in the hands of the C client: the thinnest layer over gradientd_open() .. gradientd_close()."""

from __future__ import annotations

import ctypes
import logging
import operator
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _binding as binding
from ._options import Description, addresses

log = logging.getLogger("gradientd")

_library = binding.library


@dataclass(frozen=True)
class SquaredNorm:
    """The squared norm of a gradient averaged over fewer examples than the step's own, before clipping: a worker's
    before the all-reduce, or a microbatch's. Several of one batch size count as their mean (arXiv 1812.06162).

    batch_size: examples. value: the squared norm over all groups. per_group: of each group; None: not known.
    """

    batch_size: float
    value: float
    per_group: Sequence[float] | None = None


@dataclass(frozen=True)
class Alert:
    """What one of the daemon's rules has found, or, where `onset` is false, that it is over.

    rule: non_finite, norm_spike, rms, cosine, oscillation, zero_group or silence. text: one sentence, markdown.
    group: the first tensor at fault, "" where the rule names none.
    """

    step: int
    rule: str
    onset: bool
    text: str
    group: str


@dataclass
class Step:
    """One step as gradientd_submit() takes it; streams are addresses, one a group (of outputs one in all)."""

    step: int
    learning_rates: Sequence[float]  # one a parameter group
    beta2: Sequence[float] | None = None  # likewise, where they change
    eps: Sequence[float] | None = None
    optimizer_step: int = 0  # t of the bias correction; 0: one after the last applied one
    applied: bool = True
    model_version: int | None = None
    scalars: Mapping[str, float] | None = None
    probe_gradients: Sequence[int | None] | None = None
    parameters: Sequence[int | None] | None = None
    outputs: int | None = None
    batch_size: float = 0.0  # 0: unknown, and no noise/ tags
    clip_factor: float = 0.0  # 0: not clipped
    squared_norms: Sequence[SquaredNorm] = ()


class _Failure:
    """Whether an exception that nobody caught ends this process: the runs then end as failed."""

    seen = False

    @classmethod
    def watch(cls) -> None:
        before = sys.excepthook

        def hook(*exception: Any) -> None:
            cls.seen = True
            before(*exception)

        sys.excepthook = hook


_Failure.watch()


def _warn(_context: int, text: bytes) -> None:
    log.warning("%s", text.decode(errors="replace"))


def _close(handle: int | None, warn: Any, outcome: int | None = None) -> int:
    """Ends the run. `warn` is kept alive until then."""
    if outcome is None:
        outcome = binding.FAILURE if _Failure.seen else binding.SUCCESS
    return _library.gradientd_close(handle, outcome)


def check(struct: binding.OptionsStruct) -> None:
    """Raises ValueError where gradientd_open() would find the options wrong; connects to nobody."""
    error = binding.ErrorStruct()
    if _library.gradientd_check(ctypes.byref(struct), ctypes.byref(error)) < 0:
        raise ValueError(error.text.decode(errors="replace"))


def integer(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}; it must be an integer") from None


def _scalar(tag: Any, value: Any) -> tuple[bytes, float]:
    if not isinstance(tag, str):
        raise ValueError(f"tag is {tag!r}; it must be a string")
    try:
        return tag.encode(), float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{tag!r} is {value!r}; it must be a number") from None


def _scalars(values: Mapping[str, float]) -> ctypes.Array[binding.ScalarStruct]:
    return (binding.ScalarStruct * len(values))(
        *(binding.ScalarStruct(*_scalar(tag, value)) for tag, value in values.items())
    )


class Client:
    """An open run. Closed by close(), else when it is collected or the process exits. Steps come from one thread at a
    time; values, alerts and the end from any (JAX calls back on a thread of its own).

    Opening raises ValueError for wrong options and ConnectionError where no daemon serves the run; nothing after that
    raises: wrong arguments are logged once each, and the step or value is dropped.
    """

    def __init__(self, struct: binding.OptionsStruct, description: Description):
        self.groups = description.groups
        self._warn = binding.WARN(_warn)
        struct.warn = self._warn
        handle, error = ctypes.c_void_p(), binding.ErrorStruct()
        if _library.gradientd_open(ctypes.byref(struct), ctypes.byref(handle), ctypes.byref(error)) < 0:
            text = error.text.decode(errors="replace")
            raise ValueError(text) if error.code == 22 else ConnectionError(error.code, text)  # EINVAL
        self._handle: int | None = handle.value
        self._finalizer = weakref.finalize(self, _close, handle.value, self._warn)
        self._gradients = (ctypes.c_void_p * len(self.groups))()
        self._present = (ctypes.c_bool * len(self.groups))()
        n = len(description.parameter_groups)
        self._rates = {name: (ctypes.c_double * n)() for name in ("learning_rates", "beta2", "eps")}
        self._reported: set[str] = set()
        self._lock = threading.Lock()  # the C client is for one thread at a time
        self._last_event_path: str | None = None

    def _judge(self, result: int) -> bool:
        """Whether what was handed over is taken; logs once what was wrong with it."""
        if result < 0:
            self.report(self.last_error)
        return result == binding.OK

    def report(self, text: str) -> None:
        """Logs an error, once."""
        if text not in self._reported:
            self._reported.add(text)
            log.error("%s", text)

    def _fill(self, step: Step) -> binding.StepStruct:
        struct = binding.StepStruct(not_applied=not step.applied)
        struct.step = integer(step.step, "step")
        struct.optimizer_step = integer(step.optimizer_step, "optimizer_step")
        for name, array in self._rates.items():
            values = getattr(step, name)
            if values is not None:
                array[:] = values
                setattr(struct, name, array)
        if step.model_version is not None:
            struct.has_model_version, struct.model_version = True, integer(step.model_version, "model_version")
        if step.scalars:
            struct.scalars, struct.n_scalars = _scalars(step.scalars), len(step.scalars)
        if step.probe_gradients is not None:
            struct.probe_gradients = ctypes.cast(addresses(step.probe_gradients), ctypes.POINTER(ctypes.c_void_p))
        if step.parameters is not None:
            struct.parameters = ctypes.cast(addresses(step.parameters), ctypes.POINTER(ctypes.c_void_p))
        struct.outputs = step.outputs
        struct.batch_size, struct.clip_factor = step.batch_size, step.clip_factor
        if step.squared_norms:
            struct.squared_norms, struct.n_squared_norms = self._norms(step.squared_norms), len(step.squared_norms)
        return struct

    def _fill_or_report(self, step: Step) -> binding.StepStruct | None:
        try:
            return self._fill(step)
        except (TypeError, ValueError) as error:
            self.report(f"steps are dropped: {error}")
            return None

    def _norms(self, norms: Sequence[SquaredNorm]) -> ctypes.Array[binding.SquaredNormStruct]:
        structs = (binding.SquaredNormStruct * len(norms))()
        for struct, norm in zip(structs, norms, strict=True):
            struct.batch_size, struct.value = norm.batch_size, norm.value
            if norm.per_group is not None:
                if len(norm.per_group) != len(self.groups):
                    raise ValueError(f"per_group has {len(norm.per_group)} values; there are {len(self.groups)} groups")
                struct.per_group = (ctypes.c_double * len(self.groups))(*norm.per_group)
        return structs

    def submit(self, step: Step, gradients: Sequence[int | None]) -> bool:
        """Hands one step over: an address of numel elements a group, None where it has no gradient this step. The
        elements are copied before the call returns. Returns whether the step is taken; else it is skipped."""
        self._gradients[:] = list(gradients)
        return self._hand_over(_library.gradientd_submit, step, self._gradients)

    def _hand_over(self, function: Any, step: Step, array: Any) -> bool:
        struct = self._fill_or_report(step)
        if struct is None:
            return False
        with self._lock:
            return self._judge(function(self._handle, ctypes.byref(struct), array))

    def acquire(self) -> int | None:
        """The address of a free slot, all groups one after the other, to be written and then committed; None: there is
        none, and the step is to be committed all the same, which counts it as skipped."""
        with self._lock:
            return _library.gradientd_acquire(self._handle)

    def commit(self, step: Step, present: Sequence[bool]) -> bool:
        """Hands over the slot that was acquired; `present`: which groups are in it."""
        self._present[:] = list(present)
        return self._hand_over(_library.gradientd_commit, step, self._present)

    def scalars(self, step: int, values: Mapping[str, float]) -> bool:
        """The trainer's own values at a step; per tag the steps must rise."""
        try:
            structs, step = _scalars(values), integer(step, "step")
        except ValueError as error:
            self.report(f"values are dropped: {error}")
            return False
        with self._lock:
            return self._judge(_library.gradientd_scalars(self._handle, step, 0.0, structs, len(structs)))

    def alerts(self) -> Iterator[Alert]:
        """Those that have come since the last call; never waits."""
        struct = binding.AlertStruct()
        while self._next_alert(struct):
            rule, text, group = (getattr(struct, name).decode(errors="replace") for name in ("rule", "text", "group"))
            yield Alert(struct.step, rule, struct.onset, text, group)

    def _next_alert(self, struct: binding.AlertStruct) -> bool:
        with self._lock:
            return _library.gradientd_next_alert(self._handle, ctypes.byref(struct)) > 0

    @property
    def skipped(self) -> int:
        """Steps that were dropped because no slot was free."""
        with self._lock:
            return _library.gradientd_skipped(self._handle)

    @property
    def event_path(self) -> str | None:
        """The run's event file, after the end too."""
        path = _library.gradientd_event_path(self._handle)
        return self._last_event_path if path is None else path.decode(errors="surrogateescape")

    @property
    def last_error(self) -> str:
        return _library.gradientd_last_error(self._handle).decode(errors="replace")

    def close(self, failed: bool | None = None) -> bool:
        """Ends the run as a success or as failed (None: failed if an exception ends this process) and waits, at most
        close_timeout, until its event file is complete. Returns whether it is."""
        outcome = None if failed is None else binding.FAILURE if failed else binding.SUCCESS
        with self._lock:
            if self._finalizer.detach() is None:
                return False
            self._last_event_path = self.event_path
            handle, self._handle = self._handle, None
            return _close(handle, self._warn, outcome) == binding.OK
