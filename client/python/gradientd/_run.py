"""Runs of trainers whose gradients are arrays: numpy loops, JAX, and whatever has its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from ._client import Alert, Client, SquaredNorm, Step, check, integer
from ._open_run import OpenRun
from ._options import Description, Group, Optimizer, ParameterGroup, RunOptions, Start, Stream, options_struct
from ._sampling import Sampling
from ._tree import flatten

ELEMENT_TYPES = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16"}
_DTYPES: dict[str, np.dtype[Any]] = {"f32": np.dtype("<f4"), "f64": np.dtype("<f8"), "f16": np.dtype("<f2")}


def _name_of_dtype(array: Any) -> str:
    return np.dtype(array.dtype).name if hasattr(array, "dtype") else np.asarray(array).dtype.name


def _common_element_type(arrays: Sequence[Any]) -> str:
    """That of all arrays, or f32."""
    names = {_name_of_dtype(array) for array in arrays}
    return ELEMENT_TYPES.get(names.pop(), "f32") if len(names) == 1 else "f32"


def _elements(array: Any, element_type: str) -> np.ndarray:
    """A contiguous array of that type; the same memory where it is one already."""
    if element_type == "bf16":
        own = np.ascontiguousarray(array)
        if own.dtype.name != "bfloat16":
            raise ValueError(f"elements are {own.dtype.name}; the run's are bfloat16")
        return own
    return np.ascontiguousarray(array, _DTYPES[element_type])


def _per_group(values: float | Sequence[float], count: int, name: str) -> list[float]:
    """One value a parameter group."""
    given = np.asarray(values, np.float64)
    listed = [float(given)] * count if given.ndim == 0 else given.tolist()
    if len(listed) != count:
        raise ValueError(f"{name} has {len(listed)} values; there are {count} parameter groups")
    return listed


class Run(OpenRun):
    """One training run: its gradients go in, a TensorBoard event file comes out.

        run = gradientd.Run(parameters, "adam", beta2=0.999, eps=1e-8, logdir="runs/exp1")
        for step in range(1, steps + 1):
            gradients = ...                                     # the same tree as the parameters
            run.submit(step, gradients, learning_rate=1e-3)
        run.close()

    parameters: a tree (nested dicts, lists, tuples; any pytree where JAX is in use) of arrays, of which only names,
        sizes and types are taken, or a list of Group.
    optimizer: "sgd", "adam", ... or an Optimizer, for the adam/ charts.
    logdir: a local directory, created if missing; None: the daemon's own state directory.
    beta2, eps: of the optimizer, one for all or one a parameter group.
    absent_counts: a tensor's own step count runs on while it has no gradient (optax; PyTorch's stands still).
    first_step: of the first submit(); a later one after a restart from a checkpoint, when TensorBoard drops what
        earlier files have from there on.
    element_type: f32, bf16, f16, f64; None: that of the parameters, f32 where they differ.
    start_optimizer_step, start_second_moment, start_second_moment_max: what the optimizer's state holds before the
        first step of a start in mid-training, trees of arrays of the same shapes; without them the adam/ charts wait.
    start_learning_rate: with them, that of the step before; 0: the first step's.
    probe_gradients, parameters_stream, outputs: streams beside the gradient, see submit(); outputs_shape: (examples,
        outputs per example).
    start_parameters, start_outputs: after a restart, what distances from the start are measured from.
    every, burst: of each `every` steps the first `burst` are handed over (None: max_lag + 1); submit() drops the rest.
    on_alert: called within submit() with each Alert that has come; what it raises, submit() raises.
    options: see RunOptions.

    Raises ValueError where an argument is wrong, ConnectionError where no daemon serves the run. After that nothing
    raises or waits (beyond max_stall): a lost daemon costs one warning of the logger "gradientd". In a forked child the
    run does nothing. A `with` block that an exception leaves ends the run as failed.
    """

    def __init__(
        self,
        parameters: Any,
        optimizer: str | Optimizer = "sgd",
        *,
        logdir: str | os.PathLike[str] | None = None,
        beta2: float | Sequence[float] = 0.0,
        eps: float | Sequence[float] = 0.0,
        absent_counts: bool = False,
        first_step: int = 1,
        element_type: str | None = None,
        start_optimizer_step: int = 0,
        start_learning_rate: float | Sequence[float] = 0.0,
        start_second_moment: Any = None,
        start_second_moment_max: Any = None,
        probe_gradients: Stream | None = None,
        parameters_stream: Stream | None = None,
        outputs: Stream | None = None,
        outputs_shape: tuple[int, int] = (0, 0),
        start_parameters: Any = None,
        start_outputs: Any = None,
        every: int = 1,
        burst: int | None = None,
        on_alert: Callable[[Alert], None] | None = None,
        **options: Unpack[RunOptions],
    ):
        super().__init__(on_alert)
        self._client: Client
        if isinstance(parameters, list) and parameters and all(isinstance(entry, Group) for entry in parameters):
            groups, common = parameters, "f32"
        else:
            leaves = flatten(parameters)
            groups = [Group(name, int(np.size(leaf))) for name, leaf in leaves.items()]
            common = _common_element_type(list(leaves.values()))
        self._sampling = Sampling(every, burst, options.get("max_lag", 5))
        n = 1 + max((group.parameter_group for group in groups), default=0)
        by_name = {"beta2": beta2, "eps": eps, "start_learning_rate": start_learning_rate}
        rates = zip(*(_per_group(values, n, name) for name, values in by_name.items()), strict=True)
        self._description = Description(
            groups,
            optimizer if isinstance(optimizer, Optimizer) else Optimizer(optimizer),
            [ParameterGroup(*values) for values in rates],
            element_type or common,
            absent_counts,
            self._sampling.stride,
            probe_gradients,
            parameters_stream,
            outputs,
            outputs_shape,
        )
        held: list[np.ndarray] = []  # what the start's addresses point into
        start = Start(
            start_optimizer_step,
            self._start(start_second_moment, "start_second_moment", "f32", held),
            self._start(start_second_moment_max, "start_second_moment_max", "f32", held),
            self._start(start_parameters, "start_parameters", self._type_of("parameters"), held),
            None if start_outputs is None else self._hold(start_outputs, self._type_of("outputs"), held),
        )
        struct = options_struct(self._description, options, logdir, first_step, start)
        check(struct)
        self._client = Client(struct, self._description)
        self._first_step = self._step = first_step
        self._optimizer_step = start_optimizer_step

    def _type_of(self, stream: str) -> str:
        described = getattr(self._description, stream)
        return described.element_type if described else "f32"

    @staticmethod
    def _hold(array: Any, element_type: str, held: list[np.ndarray]) -> int:
        held.append(_elements(array, element_type))
        return held[-1].ctypes.data

    def _vector(self, tree: Any, name: str, element_type: str, held: list[np.ndarray]) -> list[int | None]:
        """An address a group. Raises ValueError for an array of another size or without a group."""
        leaves = flatten(tree)
        pointers: list[int | None] = []
        for group in self._description.groups:
            leaf = leaves.pop(group.name, None)
            if leaf is not None and np.size(leaf) != group.numel:
                raise ValueError(f"{name}[{group.name!r}] has {np.size(leaf)} elements; the group has {group.numel}")
            pointers.append(None if leaf is None else self._hold(leaf, element_type, held))
        if leaves:
            raise ValueError(f"{name} has {next(iter(leaves))!r}, which is no group of the run")
        return pointers

    def _start(self, tree: Any, name: str, element_type: str, held: list[np.ndarray]) -> list[int | None] | None:
        return None if tree is None else self._vector(tree, name, element_type, held)

    def submit(
        self,
        step: int,
        gradients: Any,
        learning_rate: float | Sequence[float],
        *,
        optimizer_step: int = 0,
        applied: bool = True,
        beta2: float | Sequence[float] | None = None,
        eps: float | Sequence[float] | None = None,
        model_version: int | None = None,
        scalars: Mapping[str, float] | None = None,
        batch_size: float = 0.0,
        clip_factor: float = 0.0,
        squared_norms: Sequence[SquaredNorm] = (),
        probe_gradients: Any = None,
        parameters: Any = None,
        outputs: Any = None,
    ) -> bool:
        """Hands one step's gradients over; they are copied once, straight into shared memory.

        step: strictly increasing. gradients: a tree like the parameters', as the optimizer consumes it; where it has no
        entry, or None, the tensor has no gradient this step (absent, which is not zero). learning_rate: one, or one a
        parameter group. optimizer_step: t of the bias correction, from 1; 0: one after the last applied one.
        applied: False: the optimizer did not move. beta2, eps: where they change.
        model_version: the step whose parameters the gradient was computed at. scalars: the trainer's own values.
        batch_size: examples averaged in this gradient; 0: unknown, and no noise/ and fisher/ charts. clip_factor: what
        clipping multiplied the gradient with; 0: not clipped. squared_norms: of smaller batches.
        probe_gradients: on fixed samples. parameters: those the gradient was computed at. outputs: (examples, outputs
        per example), after the softmax.

        Returns whether the step is taken; False: it was left out, no slot was free (`skipped` counts it), no daemon is
        there, or an argument is wrong, which is logged.
        """
        try:
            step, optimizer_step = integer(step, "step"), integer(optimizer_step, "optimizer_step")
        except ValueError as error:
            self._client.report(f"steps are dropped: {error}")
            return False
        self._step = step
        if applied:
            self._optimizer_step = optimizer_step or self._optimizer_step + 1
        if not self._sampling.takes(step - self._first_step):
            if scalars:
                self._client.scalars(step, scalars)
            return False
        held: list[np.ndarray] = []
        n = len(self._description.parameter_groups)
        try:
            pointers = self._vector(gradients, "gradients", self._description.element_type, held)
            record = Step(
                step,
                _per_group(learning_rate, n, "learning_rate"),
                None if beta2 is None else _per_group(beta2, n, "beta2"),
                None if eps is None else _per_group(eps, n, "eps"),
                self._optimizer_step if applied else 0,
                applied,
                model_version,
                scalars,
                self._start(probe_gradients, "probe_gradients", self._type_of("probe_gradients"), held),
                self._start(parameters, "parameters", self._type_of("parameters"), held),
                None if outputs is None else self._hold(outputs, self._type_of("outputs"), held),
                batch_size,
                clip_factor,
                squared_norms,
            )
        except (TypeError, ValueError) as error:
            self._client.report(f"steps are dropped: {error}")
            return False
        accepted = self._client.submit(record, pointers)
        self._tell_alerts()
        return accepted
