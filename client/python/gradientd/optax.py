"""Optax: a transformation in the chain that hands each step's gradient over.

    run = gradientd.Run(params, logdir="runs/exp1", **gradientd.optax.describe(optax.adam, b2=0.999))
    tx = optax.chain(gradientd.optax.watch(run, 1e-3), optax.adam(1e-3, b2=0.999))
    ...                                                         # train with tx, under jit or not
    run.close()

watch() stands right before the optimizer, behind what changes gradients (clipping, add_decayed_weights before sgd), and
inside what decides whether the optimizer runs (apply_if_finite, masked, inject_hyperparams): there the gradient is as
the optimizer consumes it, and its steps are the optimizer's. Inside optax.MultiSteps it needs every_k.
"""

from __future__ import annotations

import atexit
import inspect
import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental import io_callback

from ._client import log
from ._options import Optimizer
from ._run import Run


class WatchState(NamedTuple):
    """The steps that have been handed over; part of the optimizer's state, and of its checkpoints."""

    steps_watched: jax.Array  # int32 scalar


class _HandOver:
    """What JAX calls with each step, in order, on a thread of its own."""

    def __init__(self, run: Run, batch_size: float, every_k: int | Callable[[int], int]):
        self._run = run
        self._batch_size = batch_size
        self._every_k = every_k
        self._count = -1  # of the last call
        self._calls = 0  # with this count
        self._thread: int | None = None  # that is in a call

    def __call__(self, count: Any, learning_rate: Any, updates: Any) -> None:
        """count: steps before this one. Raises what the run's on_alert raises, and nothing else."""
        count = int(count)
        self._calls = self._calls + 1 if count == self._count else 1
        self._count = count
        calls = self._every_k(count) if callable(self._every_k) else self._every_k
        if self._calls > calls:
            self._run._client.report(
                f"step {count + 1} came {calls + 1} times, and counts with its first {calls}: inside optax.MultiSteps "
                f"give watch() its every_k_schedule as every_k; else let no transformation undo what watch() counts"
            )
        if self._calls != calls:
            return
        self._thread = threading.get_ident()
        try:
            self._run.submit(
                count + 1, updates, float(learning_rate), optimizer_step=count + 1, batch_size=self._batch_size
            )
        finally:
            self._thread = None

    def wait(self) -> None:
        """Until what was dispatched has been handed over; at once within a call, which would wait for itself."""
        if self._thread != threading.get_ident():
            _wait_for_callbacks()


def _wait_for_callbacks() -> None:
    try:
        jax.effects_barrier()
    except Exception as error:  # that of a computation, which the trainer meets where it uses its result
        log.warning("steps that JAX had dispatched are lost: %s", error)


def _refuse_device_by_device() -> None:
    mesh = jax.sharding.get_abstract_mesh()
    devices = math.prod(mesh.shape[axis] for axis in mesh.manual_axes)
    if devices > 1:
        raise ValueError(
            f"watch() is inside a shard_map or pmap over {devices} devices, each of which would hand its step over; "
            f"update the optimizer outside of it, or under jit with sharded arrays"
        )


def watch(
    run: Run,
    learning_rate: Any,
    *,
    batch_size: float = 0.0,
    every_k: int | Callable[[int], int] = 1,
) -> optax.GradientTransformationExtraArgs:
    """A transformation that passes updates through unchanged and hands them to `run` as the step's gradient.

    learning_rate: the optimizer's own: a number, an array, or an optax schedule, called with the count of steps before
        this one, as optax does. batch_size: examples averaged in a gradient, for the noise/ charts; 0: unknown.
    every_k: inside optax.MultiSteps its every_k_schedule; of so many gradients only the last, their average, is a step.

    Step n of the run is the n-th update; its state counts on after a restart from a checkpoint, see describe(). Works
    eagerly, under jit, with arrays sharded over devices too, and in scan. Nothing is raised into the program, but for
    what the run's on_alert raises: JAX then stops it with a JaxRuntimeError, which quotes it.

    While it is traced, update() raises ValueError inside shard_map and pmap over several devices, and JAX raises it
    inside vmap ("Cannot `vmap` ordered IO callback"): a step would be handed over once a device, or an example.
    """
    hand_over = _HandOver(run, batch_size, every_k)
    run._wait_for_steps = hand_over.wait
    atexit.unregister(_wait_for_callbacks)  # at exit it must come before the run's end, and so be registered after it
    atexit.register(_wait_for_callbacks)

    def init(params: Any) -> WatchState:
        del params
        return WatchState(jnp.zeros([], jnp.int32))

    def update(updates: Any, state: WatchState, params: Any = None, **extra_args: Any) -> tuple[Any, WatchState]:
        del params, extra_args
        _refuse_device_by_device()
        count = state.steps_watched
        rate = learning_rate(count) if callable(learning_rate) else learning_rate
        io_callback(hand_over, None, count, rate, updates, ordered=True)
        return updates, WatchState(optax.safe_increment(count))

    return optax.GradientTransformationExtraArgs(init, update)


def _adam(rule: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def follow(given: dict[str, Any]) -> dict[str, Any]:
        return {"optimizer": Optimizer(rule, eps_root=given["eps_root"]), "beta2": given["b2"], "eps": given["eps"]}

    return follow


def _amsgrad(given: dict[str, Any]) -> dict[str, Any]:
    maximum_of = "corrected" if given["bias_correction_nu"] else "uncorrected"
    optimizer = Optimizer("amsgrad", maximum_of=maximum_of, eps_root=given["eps_root"])
    return {"optimizer": optimizer, "beta2": given["b2"], "eps": given["eps"]}


def _rmsprop(given: dict[str, Any]) -> dict[str, Any] | None:
    if given["centered"] or given["initial_scale"] != 0.0:
        return None
    in_root, eps = given["eps_in_sqrt"], given["eps"]
    optimizer = Optimizer("rmsprop", bias_correction=given["bias_correction"], eps_root=eps if in_root else 0.0)
    return {"optimizer": optimizer, "beta2": given["decay"], "eps": 0.0 if in_root else eps}


def _adagrad(given: dict[str, Any]) -> dict[str, Any]:
    initial = given["initial_accumulator_value"]
    return {"optimizer": Optimizer("adagrad", initial_accumulator=initial, eps_root=given["eps"])}


def _sgd(given: dict[str, Any]) -> dict[str, Any]:
    del given
    return {"optimizer": Optimizer("sgd")}


_FOLLOWED = {
    optax.adam: _adam("adam"),
    optax.nadam: _adam("adam"),
    optax.adamw: _adam("adamw"),
    optax.nadamw: _adam("adamw"),
    optax.amsgrad: _amsgrad,
    optax.rmsprop: _rmsprop,
    optax.adagrad: _adagrad,
    optax.sgd: _sgd,
}


def describe(optimizer: Callable[..., Any], *arguments: Any, opt_state: Any = None, **named: Any) -> dict[str, Any]:
    """What Run takes of the optimizer that optax makes with optimizer(*arguments, **named), as Run's own arguments.

    optimizer: optax.adam, adamw, nadam, nadamw, amsgrad, rmsprop, adagrad or sgd, followed with optax's defaults where
        an argument is left out; another one, centred rmsprop, and rmsprop with an initial_scale have coherence, noise
        and health alone, and one logged sentence.
    opt_state: after a restart, the state of a chain with watch() in it, from a checkpoint: the run goes on at the step
        after it, with the optimizer's second moment.

    Raises TypeError for arguments that the optax function does not take.
    """
    bound = inspect.signature(optimizer).bind_partial(*arguments, **named)
    bound.apply_defaults()
    follow = _FOLLOWED.get(optimizer)
    followed = follow(bound.arguments) if follow is not None else None
    if followed is None:
        name = getattr(optimizer, "__name__", repr(optimizer))
        log.warning("optax.%s has steps of another kind with these arguments: there are no adam/ charts", name)
        followed = {"optimizer": Optimizer("other")}
    followed["absent_counts"] = True  # optax has one count for all tensors, masked ones too
    return followed | _start(followed["optimizer"].rule, opt_state, bound.arguments.get("learning_rate", 0.0))


_MOMENTS = {
    "adam": ("nu",),
    "adamw": ("nu",),
    "rmsprop": ("nu",),
    "amsgrad": ("nu", "nu_max"),
    "adagrad": ("sum_of_squares",),
}


def _start(rule: str, opt_state: Any, learning_rate: Any) -> dict[str, Any]:
    """Run's arguments for a start with this state; none where no step has been taken."""
    steps = None if opt_state is None else optax.tree_utils.tree_get(opt_state, "steps_watched")
    if opt_state is not None and steps is None:
        raise ValueError("opt_state has no WatchState; it must be of a chain with watch()")
    if not steps:
        return {}
    steps = int(steps)
    start: dict[str, Any] = {"first_step": steps + 1, "start_optimizer_step": steps}
    moments = _MOMENTS.get(rule, ())
    for argument, name in zip(("start_second_moment", "start_second_moment_max"), moments, strict=False):
        start[argument] = optax.tree_utils.tree_get(opt_state, name)
    if moments:
        start["start_learning_rate"] = float(learning_rate(steps - 1) if callable(learning_rate) else learning_rate)
    return start
