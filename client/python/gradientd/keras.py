"""Keras 3, on its torch and jax backends: a callback of fit().

    model.fit(x, y, callbacks=[gradientd.keras.Gradientd("runs/exp1")])

The gradient is taken where the optimizer consumes it: without the loss scale, averaged where gradients are accumulated,
and clipped. Keras decays weights apart from the gradient, whatever the optimizer.
"""

from __future__ import annotations

import atexit
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import keras

from ._client import Alert, log
from ._options import Group, Optimizer, RunOptions
from ._run import ELEMENT_TYPES, Run


@dataclass(frozen=True)
class _Followed:
    """How the effective steps of a Keras optimizer come about.

    second_moment, second_moment_max: its variables, one a variable of the model. eps_beside_raw: eps is added to
    sqrt(v), not to sqrt(v / (1 - beta2^t)).
    """

    optimizer: Optimizer
    beta2: float = 0.0
    eps: float = 0.0
    eps_beside_raw: bool = False
    second_moment: Sequence[Any] | None = None
    second_moment_max: Sequence[Any] | None = None

    def eps_at(self, step: int) -> float:
        """What is added to the root of the corrected second moment at step t; 0: before the first one."""
        if not self.eps_beside_raw or step == 0:
            return self.eps
        return self.eps / math.sqrt(1.0 - self.beta2**step)


def _adam(optimizer: Any) -> _Followed:
    """Kingma and Ba's epsilon hat: a sqrt(1 - beta2^t) / (sqrt(v) + eps)."""
    rule = "amsgrad" if optimizer.amsgrad else type(optimizer).__name__.lower()
    largest = optimizer._velocity_hats if optimizer.amsgrad else None
    return _Followed(Optimizer(rule), optimizer.beta_2, optimizer.epsilon, True, optimizer._velocities, largest)


def _nadam(optimizer: Any) -> _Followed:
    return _Followed(Optimizer("adam"), optimizer.beta_2, optimizer.epsilon, False, optimizer._velocities)


def _rmsprop(optimizer: Any) -> _Followed | None:
    if optimizer.centered:
        return None
    followed = Optimizer("rmsprop", eps_root=optimizer.epsilon)
    return _Followed(followed, optimizer.rho, second_moment=optimizer._velocities)


def _adagrad(optimizer: Any) -> _Followed:
    initial = optimizer.initial_accumulator_value
    followed = Optimizer("adagrad", initial_accumulator=initial, eps_root=optimizer.epsilon)
    return _Followed(followed, second_moment=optimizer._accumulators)


def _sgd(optimizer: Any) -> _Followed:
    del optimizer
    return _Followed(Optimizer("sgd"))


_FOLLOWED: dict[str, Callable[[Any], _Followed | None]] = {
    "SGD": _sgd,
    "Adam": _adam,
    "AdamW": _adam,
    "Nadam": _nadam,
    "RMSprop": _rmsprop,
    "Adagrad": _adagrad,
}


def _follow(optimizer: Any) -> _Followed:
    kind = type(optimizer)
    follow = _FOLLOWED.get(kind.__name__) if kind.__module__.startswith("keras.") else None
    followed = follow(optimizer) if follow is not None else None
    if followed is None:
        log.warning("keras %s has steps of another kind as it is set: there are no adam/ charts", kind.__name__)
        return _Followed(Optimizer("other"))
    return followed


def _unique_names(variables: Sequence[Any]) -> list[str]:
    """The variables' paths, the later ones of a path with a number."""
    names: list[str] = []
    for variable in variables:
        name, number = variable.path, 1
        while name in names:
            number += 1
            name = f"{variable.path}_{number}"
        names.append(name)
    return names


def _element_type(variables: Sequence[Any]) -> str:
    """That of all variables, or f32."""
    dtypes = {keras.backend.standardize_dtype(variable.dtype) for variable in variables}
    return ELEMENT_TYPES.get(dtypes.pop(), "f32") if len(dtypes) == 1 else "f32"


def _vectors(names: Sequence[str], variables: Sequence[Any] | None) -> dict[str, Any] | None:
    if variables is None:
        return None
    pairs = zip(names, variables, strict=True)
    return {name: keras.ops.convert_to_numpy(variable) for name, variable in pairs if variable is not None}


def _array(gradient: Any) -> Any:
    """What Run takes: the same memory, where it is the CPU's."""
    if keras.backend.backend() == "jax":
        return gradient
    if keras.backend.standardize_dtype(gradient.dtype) == "bfloat16":
        return keras.ops.convert_to_numpy(gradient)
    return gradient.detach().cpu().numpy()


class Gradientd(keras.callbacks.Callback):
    """Watches the training of fit(): each step of the optimizer, and what Keras logs at each epoch's end, under train/
    and valid/.

    logdir: a local directory, created if missing; None: the daemon's own state directory. batch_size: fit()'s, for the
    noise/ charts, which take each batch as full; 0: unknown. every, burst: see Run. on_alert: called with each Alert as
    it comes; it may set model.stop_training. options: see RunOptions.

    Steps are those of optimizer.iterations. SGD, Adam (with amsgrad too), AdamW, Nadam, RMSprop and Adagrad are
    followed exactly; centred RMSprop and other optimizers, one's own subclasses too, have coherence, noise and health
    alone, and one logged sentence. Another fit() goes on in a new file with the optimizer's state. `run` is the open
    Run, for values of one's own; None between trainings. Where no daemon serves the run, training goes on without, with
    a warning.

    Training that an exception ends leaves its run open until the next fit() with this callback or the end of the
    process; it then ends as failed.

    Raises ValueError at the begin of training for wrong options, on other backends, for MultiOptimizer, and on jax in
    several processes (keras.distribution in one process is followed).
    """

    def __init__(
        self,
        logdir: str | os.PathLike[str] | None = None,
        *,
        batch_size: float = 0.0,
        every: int = 1,
        burst: int | None = None,
        on_alert: Callable[[Alert], None] | None = None,
        **options: Unpack[RunOptions],
    ):
        super().__init__()
        self.run: Run | None = None
        self._logdir = logdir
        self._batch_size = batch_size
        self._sampling: dict[str, Any] = {"every": every, "burst": burst}
        self._on_alert = on_alert
        self._options = options
        self._optimizer: Any = None  # the one that is wrapped
        self._followed = _Followed(Optimizer("other"))  # until training begins
        self._names: dict[int, str] = {}  # of variables, by id

    def on_train_begin(self, logs: Any = None) -> None:
        if self.run is not None:  # an exception ended the last training
            self._end(failed=True)
        optimizer = _inner_optimizer(self.model)
        variables = self.model.trainable_variables
        names = _unique_names(variables)
        self._followed = _follow(optimizer)
        self._names = {id(variable): name for variable, name in zip(variables, names, strict=True)}
        try:
            self.run = self._open(variables, names, int(optimizer.iterations))
        except ConnectionError as error:
            log.warning("training goes on without gradientd: %s", error)
            return
        atexit.register(self._end, failed=True)  # before the client's own end, which would call it a success
        self._wrap(optimizer)

    def _open(self, variables: Sequence[Any], names: Sequence[str], steps: int) -> Run:
        """The run, from the state that the optimizer has after so many steps."""
        followed = self._followed
        start: dict[str, Any] = {}
        if steps > 0:
            start = {
                "first_step": steps + 1,
                "start_optimizer_step": steps,
                "start_second_moment": _vectors(names, followed.second_moment),
                "start_second_moment_max": _vectors(names, followed.second_moment_max),
            }
        return Run(
            [Group(name, math.prod(variable.shape)) for name, variable in zip(names, variables, strict=True)],
            followed.optimizer,
            logdir=self._logdir,
            beta2=followed.beta2,
            eps=followed.eps_at(steps),
            absent_counts=True,  # Keras has one count for all variables
            element_type=_element_type(variables),
            on_alert=self._on_alert,
            **start,
            **self._sampling,
            **self._options,
        )

    def _wrap(self, optimizer: Any) -> None:
        """Puts the hand-over before the optimizer's own step, on this instance alone."""
        update_step = optimizer._backend_update_step
        on_jax = keras.backend.backend() == "jax"
        hand_over = _jax_hand_over(optimizer, self._submit) if on_jax else self._submit

        def hand_over_and_update(grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any) -> Any:
            gradients = {self._names[id(v)]: g for v, g in zip(trainable_variables, grads, strict=True)}
            hand_over(optimizer.iterations, learning_rate, gradients)
            return update_step(grads, trainable_variables, learning_rate)

        optimizer._backend_update_step = hand_over_and_update
        self._optimizer = optimizer
        if on_jax:
            self.model.make_train_function(force=True)  # fit() has made it before; it is traced at its first call

    def _submit(self, iterations: Any, learning_rate: Any, gradients: Mapping[str, Any]) -> None:
        """One step. Raises what on_alert raises, and nothing else."""
        assert self.run is not None
        step = int(iterations) + 1
        self.run.submit(
            step,
            {name: _array(gradient) for name, gradient in gradients.items()},
            float(learning_rate),
            optimizer_step=step,
            eps=self._followed.eps_at(step),
            batch_size=self._batch_size,
        )

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.run is None:
            return
        values = {
            f"valid/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}": float(value)
            for name, value in (logs or {}).items()
            if isinstance(value, (int, float)) or getattr(value, "shape", None) == ()
        }
        if values:
            self.run.log(values, step=int(_inner_optimizer(self.model).iterations))

    def on_train_end(self, logs: Any = None) -> None:
        if self.run is not None:
            self._end(failed=False)

    def _end(self, failed: bool) -> None:
        assert self.run is not None
        atexit.unregister(self._end)
        del self._optimizer._backend_update_step
        if keras.backend.backend() == "jax":
            _wait_for_callbacks()
            self.model.train_function = None  # it has the hand-over in it
        self.run.close(failed)
        self.run = self._optimizer = None


def _inner_optimizer(model: Any) -> Any:
    """The one that updates the variables. Raises ValueError where there is none that can be followed."""
    backend = keras.backend.backend()
    if backend not in ("torch", "jax"):
        raise ValueError(f"the Keras backend is {backend}; gradientd follows training on torch and jax")
    if backend == "jax" and _jax_processes() > 1:
        raise ValueError("JAX runs in several processes; gradientd follows Keras in one, over all devices it has")
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    if type(optimizer).__name__ == "MultiOptimizer":
        raise ValueError("the optimizer is a MultiOptimizer; gradientd follows a single one")
    return optimizer


def _jax_processes() -> int:
    import jax

    return jax.process_count()


def _jax_hand_over(optimizer: Any, submit: Callable[[Any, Any, Any], None]) -> Callable[[Any, Any, Any], None]:
    """submit as a traced program calls it: in order, and with gradient accumulation only where the step is one."""
    import jax
    from jax.experimental import io_callback

    def hand_over(iterations: Any, learning_rate: Any, gradients: Mapping[str, Any]) -> None:
        arguments = (*map(keras.ops.convert_to_tensor, (iterations, learning_rate)), gradients)
        every = optimizer.gradient_accumulation_steps
        if not every:
            io_callback(submit, None, *arguments, ordered=True)
            return
        is_step = (keras.ops.convert_to_tensor(optimizer._iterations) + 1) % every == 0
        jax.lax.cond(is_step, lambda: io_callback(submit, None, *arguments, ordered=True), lambda: None)

    return hand_over


def _wait_for_callbacks() -> None:
    import jax

    jax.effects_barrier()
