"""PyTorch: one line beside the optimizer.

    watch = gradientd.attach(optimizer, model, logdir="runs/exp1")

Any torch.optim optimizer. Each step's gradients are taken as the optimizer consumes them: after unscaling, accumulation
and clipping, with coupled weight decay added and negated with `maximize`. Learning rates, betas and eps are read from
the parameter groups at every step.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.optim import Optimizer as TorchOptimizer

from ._client import Alert, Client, Step, check, log
from ._open_run import OpenRun
from ._options import Description, Group, ParameterGroup, RunOptions, Start, options_struct
from ._sampling import Sampling
from ._torch_cuda import CudaCopies
from ._torch_elements import Consumption, Slots, element_type, misfit, pointers, submit
from ._torch_noise import Noise, NoiseStep, rank
from ._torch_parameters import Trained, names
from ._torch_refusals import refuse, refuse_step
from ._torch_rules import (
    SECOND_MOMENT,
    SECOND_MOMENT_MAX,
    consumptions,
    counts_on_cpu,
    found_inf,
    own_class,
    rates,
    rule_of,
    second_moments,
    steps_taken,
)
from ._torch_streams import Streams

__all__ = ["Watch", "attach"]

EARLY_VALUES_MAX = 1024  # logged before the first step


class Watch(OpenRun):
    """What attach() returns: the run of one optimizer."""

    def __init__(
        self,
        optimizer: TorchOptimizer,
        model: torch.nn.Module | None,
        logdir: str | os.PathLike[str] | None,
        first_step: int | None,
        sampling: Sampling,
        noise: Noise,
        streams: Streams,
        on_alert: Callable[[Alert], None] | None,
        options: RunOptions,
    ):
        super().__init__(on_alert)
        self._noise, self._streams = noise, streams
        self._model = model
        self._logdir, self._options = logdir, options
        self._given_first_step, self._first_step = first_step, 0
        self._sampling = sampling
        self._early: deque[tuple[int | None, dict[str, float]]] = deque(maxlen=EARLY_VALUES_MAX)
        self._optimizer_step = 0
        self._ended = rank() != 0  # its first rank has the job's run
        self._stepping = False
        self._must_open = self._state_is_new = True
        self._trained = Trained(optimizer)
        self._sizes: list[int] = []
        self._copies: CudaCopies | None = None
        self._witness: tuple[Tensor, int] | None = None
        if self._ended and not noise.all_ranks:
            noise.close()
        noise.follow(self._trained.parameters)
        check(self._struct(self._describe(optimizer), Start(self._optimizer_step)))
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_load_state_dict_post_hook(self._after_load),
        ]

    # What shapes the run.

    def _groups(self, optimizer: TorchOptimizer, steps: list[int]) -> list[Group]:
        called = names(self._model, optimizer)
        latest = max(steps)
        rows = zip(self._trained.parameters, self._trained.places, steps, strict=True)
        return [Group(called[p], p.numel(), place, latest - own) for p, place, own in rows]

    def _describe(self, optimizer: TorchOptimizer) -> Description:
        optimizer_rule = rule_of(optimizer).optimizer
        self._rule = optimizer_rule.rule
        parameters = self._trained.parameters
        steps = [steps_taken(optimizer, parameter) or 0 for parameter in parameters]
        self._optimizer_step = max(steps)
        self._element_type = element_type([p if p.grad is None else p.grad for p in parameters])
        return Description(
            self._groups(optimizer, steps),
            optimizer_rule,
            [ParameterGroup(*rates(group, self._rule)[1:]) for group in optimizer.param_groups],
            self._element_type,
            stride=self._sampling.stride,
            **self._streams.describe(self._element_type),
        )

    def _struct(self, description: Description, start: Start) -> Any:
        return options_struct(description, self._options, self._logdir, self._step + 1, start)

    # The hooks.

    def _after_load(self, _optimizer: TorchOptimizer) -> None:
        """The optimizer's state is another one: the run goes on from it in a new event file."""
        self._must_open = self._state_is_new = True

    @torch.compiler.disable
    def _before_step(self, optimizer: TorchOptimizer, args: Any, kwargs: dict[str, Any]) -> Any:
        """A closure computes the gradients within step(); they are there when it returns."""
        if self._is_over or (self._stepping and own_class(optimizer) is None):
            return None  # a step() that calls that of the class it derives from runs the hooks for both
        self._stepping = True
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._take(optimizer)
            return None
        taken = False

        def measured() -> Any:
            nonlocal taken
            loss = closure()
            if not taken:
                taken = True
                self._take(optimizer)
            return loss

        if len(args) > 1:
            return (args[0], measured, *args[2:]), kwargs
        return args, {**kwargs, "closure": measured}

    @torch.compiler.disable
    def _after_step(self, optimizer: TorchOptimizer, _args: Any, _kwargs: dict[str, Any]) -> None:
        self._stepping = False
        if self._copies is not None:
            self._copies.hold_back()
        if not self._is_last(optimizer):  # of the hooks, so that it sees what the others make of the gradients
            optimizer._optimizer_step_pre_hooks.move_to_end(self._hooks[0].id)  # type: ignore[attr-defined]

    def _is_last(self, optimizer: TorchOptimizer) -> bool:
        return self._ended or next(reversed(optimizer._optimizer_step_pre_hooks)) == self._hooks[0].id

    @property
    def _is_over(self) -> bool:
        """Whether steps need not be looked at any more; the other ranks may wait for this one to the end."""
        return self._ended and not self._noise.all_ranks

    def _take(self, optimizer: TorchOptimizer) -> None:
        """Whatever fails here ends the watch and not the training."""
        if self._is_over:
            return
        try:
            with torch.no_grad():
                noise = self._take_noise(optimizer)
                if not self._ended:
                    self._take_step(optimizer, noise)
        except Exception as error:
            log.exception("gradientd cannot go on")
            self._give_up(f"training goes on without it: {error}")
        self._tell_alerts()

    def _take_noise(self, optimizer: TorchOptimizer) -> NoiseStep:
        if not self._trained.is_of(optimizer):
            self._trained = Trained(optimizer, self._trained)
            self._noise.follow(self._trained.parameters)
            self._must_open = True
        wanted = not self._ended and (self._must_open or self._sampling.takes(self._step + 1 - self._first_step))
        return self._noise.take([parameter.grad for parameter in self._trained.parameters], wanted)

    def _take_step(self, optimizer: TorchOptimizer, noise: NoiseStep) -> None:
        if self._is_other_state(optimizer):
            self._after_load(optimizer)
        self._settle_step(optimizer)
        gradients = [parameter.grad for parameter in self._trained.parameters]
        reason = refuse_step(optimizer, gradients)
        if reason:
            self._give_up(reason)
            return
        final = self._is_last(optimizer)  # else another hook may change them yet; only this once, see _after_step()
        if final and (self._must_open or misfit(gradients, self._sizes)):
            self._open(optimizer)
            if misfit(gradients, self._sizes):
                raise ValueError("a gradient has not as many elements as its parameter")
        applied = not found_inf(optimizer)
        self._step += 1
        self._optimizer_step += applied
        if final and self._client is not None and self._sampling.takes(self._step - self._first_step):
            self._submit(optimizer, gradients, applied, noise if applied else NoiseStep())
        self._witness = self._next_count(optimizer, gradients, applied)

    def _settle_step(self, optimizer: TorchOptimizer) -> None:
        """The number of the last step, once the optimizer has the state that training goes on from."""
        if not self._state_is_new:
            return
        self._state_is_new = False
        counted = max((steps_taken(optimizer, parameter) or 0 for parameter in self._trained.parameters), default=0)
        self._step = counted or self._step
        if self._given_first_step is not None:
            self._step, self._given_first_step = self._given_first_step - 1, None

    def _next_count(
        self, optimizer: TorchOptimizer, gradients: list[Tensor | None], applied: bool
    ) -> tuple[Tensor, int] | None:
        """A parameter, and what the optimizer's own count of its steps will be after this one."""
        if self._rule not in SECOND_MOMENT:
            return None
        parameter = next((p for p, g in zip(self._trained.parameters, gradients, strict=True) if g is not None), None)
        if parameter is None or not counts_on_cpu(optimizer, parameter):
            return None
        return parameter, (steps_taken(optimizer, parameter) or 0) + applied

    def _is_other_state(self, optimizer: TorchOptimizer) -> bool:
        """Whether the optimizer's state is not what the last step left: it was cleared, or set without
        load_state_dict()."""
        return self._witness is not None and steps_taken(optimizer, self._witness[0]) != self._witness[1]

    def _give_up(self, reason: str) -> None:
        log.warning("gradientd is detached at step %d: %s", self._step, reason)
        self.close()

    def _open(self, optimizer: TorchOptimizer) -> None:
        """Opens the run, or goes on in a new event file with the optimizer's state as it is now."""
        if self._client is not None:
            self._finish_copies()
            self._client.close(failed=False)
            self._client = None
        self._first_step = self._step + 1
        parameters = self._trained.parameters
        self._streams.open(parameters)
        description = self._describe(optimizer)
        self._sizes = [parameter.numel() for parameter in parameters]
        vectors = [
            second_moments(optimizer, self._rule, parameters, which) if self._optimizer_step else None
            for which in (SECOND_MOMENT, SECOND_MOMENT_MAX)
        ]
        start = Start(self._optimizer_step, pointers(vectors[0]), pointers(vectors[1]))
        try:
            self._client = Client(self._struct(description, start), description)
        except (ConnectionError, ValueError) as error:
            self._give_up(f"training goes on without it: {error}")
            return
        self._must_open = False
        self._slots = Slots(parameters, self._element_type)
        if any(parameter.is_cuda for parameter in parameters):
            self._copies = CudaCopies(self._client, self._slots)
        self._sent_rates: list[tuple[float, ...]] = []
        self._sent_consumptions: list[Consumption] = []
        for step, values in self._early:
            self._client.scalars(self._step if step is None else step, values)
        self._early.clear()

    def _consumptions(self, optimizer: TorchOptimizer) -> list[Consumption]:
        """One a group of the run; most optimizers' never change."""
        now = consumptions(optimizer)
        if now != self._sent_consumptions:
            self._sent_consumptions = now
            self._each_consumption = [now[place] for place in self._trained.places]
            self._as_they_are = not any(consumption.changes for consumption in now)
        return self._each_consumption

    def _submit(
        self, optimizer: TorchOptimizer, gradients: list[Tensor | None], applied: bool, noise: NoiseStep
    ) -> None:
        assert self._client is not None
        learning_rates, *others = zip(*(rates(group, self._rule) for group in optimizer.param_groups), strict=True)
        changed = others != self._sent_rates
        self._sent_rates = others
        parameters = self._trained.parameters
        snapshots = self._streams.take(self._step - self._first_step, parameters, self._element_type)
        step = Step(
            self._step,
            learning_rates,
            others[0] if changed else None,
            others[1] if changed else None,
            self._optimizer_step if applied else 0,
            applied,
            batch_size=noise.batch_size,
            clip_factor=noise.clip_factor,
            squared_norms=noise.squared_norms,
            **snapshots,
        )
        consumed = self._consumptions(optimizer)
        if self._copies is None:
            submit(self._client, step, gradients, parameters, consumed, self._slots, self._element_type,
                   self._as_they_are)  # fmt: skip
        else:
            self._copies.submit(step, gradients, parameters, consumed)
            if snapshots:  # which the step only borrows
                self._copies.wait()
        self._streams.release()

    def _finish_copies(self) -> None:
        if self._copies is not None:
            self._copies.finish()
            self._copies = None

    # What the trainer calls.

    @property
    def batch_size(self) -> float:
        """Examples averaged in a step's gradient, of all ranks and backward passes; 0 or None: not known. To be set
        before the backward pass of a step that differs, such as an epoch's last. Raises ValueError for what is no such
        number."""
        return self._noise.batch_size

    @batch_size.setter
    def batch_size(self, value: float | None) -> None:
        self._noise.batch_size = value

    @property
    def clip_factor(self) -> float | None:
        """What clipping multiplies the next step's gradients with, 1 where it leaves them; None: they are clipped by
        clip_grad_norm_() or not at all. Of that step alone. Raises ValueError for what is not above 0 and finite."""
        return self._noise.clip_factor

    @clip_factor.setter
    def clip_factor(self, value: float | None) -> None:
        self._noise.clip_factor = value

    def clip_grad_norm_(self, max_norm: float, **options: Any) -> Tensor:
        """torch.nn.utils.clip_grad_norm_() of the optimizer's parameters, with its options; returns their norm before.
        The step's noise/ and fisher/ charts are then of the gradients before clipping."""
        return self._noise.clip_grad_norm_(max_norm, **options)

    def log(self, values: Mapping[str, float] | None = None, *, step: int | None = None, **named: float) -> bool:
        if self._client is None and not self._ended:  # until the first step opens the run
            self._early.append((step, {**(values or {}), **named}))
            return True
        return super().log(values, step=step, **named)

    log.__doc__ = OpenRun.log.__doc__

    def close(self, failed: bool | None = None) -> bool:
        self._ended = True  # the hooks stay until attach() takes them away: torch may be going through them right now
        self._noise.close()
        self._finish_copies()
        return super().close(failed)

    close.__doc__ = OpenRun.close.__doc__

    def _replace(self) -> int | None:
        """Ends this watch for another one of the same optimizer; returns the step that comes next, if that is known."""
        self.close()
        for hook in self._hooks:
            hook.remove()
        return None if self._state_is_new else self._step + 1


def attach(
    optimizer: TorchOptimizer,
    model: torch.nn.Module | None = None,
    *,
    logdir: str | os.PathLike[str] | None = None,
    first_step: int | None = None,
    every: int = 1,
    burst: int | None = None,
    batch_size: float | None = None,
    accumulation: int = 1,
    scaler: torch.amp.GradScaler | None = None,
    all_ranks: bool = False,
    probe_gradients: Callable[[], Tensor] | None = None,
    probe_gradients_every: int = 10,
    parameters_every: int = 0,
    outputs: Callable[[], Tensor] | None = None,
    outputs_every: int = 10,
    on_alert: Callable[[Alert], None] | None = None,
    **options: Unpack[RunOptions],
) -> Watch:
    """Watches an optimizer's steps until it is collected, the process exits or close() is called.

    optimizer: any torch.optim optimizer; its class and parameter groups say which update rule the adam/ charts follow.
        Where they have none, a sentence is logged and everything else works. Attached again, it is watched anew: the
        run before ends there.
    model: names the parameters; None: by their places in the optimizer.
    logdir: a local directory for the event file, created if missing; None: the daemon's own state directory.
    first_step: number of the next step; None: one after those that the optimizer's state has seen, which is right for
        restarts from a checkpoint too (SGD counts none: say it there).
    every, burst: of each `every` steps the first `burst` are handed over; None: max_lag + 1.
    batch_size: examples averaged in a step's gradient, of all ranks and backward passes, for the noise/ and fisher/
        charts; None: not known. They are of unclipped gradients: clip with Watch.clip_grad_norm_(). See
        Watch.batch_size, Watch.clip_factor.
    accumulation: backward passes a step, each of a loss divided by that number.
    scaler: the GradScaler in use.
    all_ranks: with DistributedDataParallel, the squared norms of all ranks feed the noise/ charts, not the first one's
        alone. To be given on every rank: each step then waits for an all_reduce of one number.
    probe_gradients: returns the loss on fixed samples, a scalar tensor; its gradient is taken at every
        `probe_gradients_every`-th step. It is called before the step, and brings what it needs itself: eval mode,
        autocast; with DistributedDataParallel, the module inside. Where it raises, a warning is logged.
    parameters_every: steps between snapshots of the parameters; 0: none.
    outputs: likewise, without gradients: [examples, outputs per example] after the softmax, on fixed examples.
    on_alert: called within optimizer.step() with each Alert; what it raises ends the step.
    options: see RunOptions.

    Raises TypeError or ValueError, in one sentence that says what to do instead, where the gradients could not be had
    as the optimizer consumes them, or an option is wrong. The run is opened at the first step; a daemon that cannot be
    reached, and what only a step can show, costs one warning of the logger "gradientd", and training goes on.
    """
    refuse(optimizer, model)
    for hook in list(optimizer._optimizer_step_pre_hooks.values()):
        if isinstance(getattr(hook, "__self__", None), Watch):
            next_step = hook.__self__._replace()  # type: ignore[attr-defined]
            first_step = next_step if first_step is None else first_step
    unsupported = rule_of(optimizer).unsupported
    if unsupported:
        log.warning("there are no adam/ charts: %s", unsupported)
    sampling = Sampling(every, burst, options.get("max_lag", 5))
    noise = Noise(model, accumulation, scaler, all_ranks)
    noise.batch_size = batch_size
    every_of = {
        "probe_gradients": probe_gradients_every, "parameters": parameters_every, "outputs": outputs_every
    }  # fmt: skip
    streams = Streams(model, probe_gradients, parameters_every != 0, outputs, every_of, sampling)
    return Watch(optimizer, model, logdir, first_step, sampling, noise, streams, on_alert, options)
