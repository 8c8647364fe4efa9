"""Hugging Face's Trainer: one callback.

trainer = Trainer(model, args, train_dataset=data, callbacks=[Gradientd()])
"""

from __future__ import annotations

import os
import weakref
from typing import Any

import transformers
from accelerate.optimizer import AcceleratedOptimizer
from transformers.integrations import rewrite_logs

from ._trainer_values import TrainerValues
from .torch import Watch, attach

__all__ = ["Gradientd"]

SUBDIRECTORY = "gradientd"  # one writer per directory: the Trainer's own TensorBoard callback has those beside it


def _innermost(optimizer: Any) -> Any:
    """The optimizer that steps, without accelerate's wrappers."""
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    return optimizer


class Gradientd(transformers.TrainerCallback):
    """Watches the optimizer of a training from its start to its end; one that does not come to its end is a failed run.

    logdir: None: the run is `gradientd` in $TENSORBOARD_LOGGING_DIR, or in the directory runs below the Trainer's
        output_dir; a search's trials have theirs below it. A training that is resumed with the same output_dir goes on
        in the same run.
    options: what attach() takes: every, on_alert, hparams, ...; first_step is the Trainer's global step + 1.

    What the Trainer logs is written by the names its own TensorBoard callback has: train/loss, eval/loss, ... `watch`
    has the Watch. Only the process of world rank zero writes.
    """

    def __init__(self, logdir: str | os.PathLike[str] | None = None, **options: Any):
        self.watch: Watch | None = None
        self._logdir, self._options = logdir, options
        self._values: TrainerValues | None = None
        self._abandoned: weakref.finalize | None = None

    def _place(self, args: transformers.TrainingArguments, state: transformers.TrainerState) -> tuple[str, str]:
        """The log directory and the run below it."""
        theirs = os.environ.get("TENSORBOARD_LOGGING_DIR") or os.path.join(str(args.output_dir), "runs")
        logdir = theirs if self._logdir is None else os.fspath(self._logdir)
        below = os.path.realpath(logdir) == os.path.realpath(theirs)
        names = [SUBDIRECTORY] if below else []
        if state.is_hyper_param_search and state.trial_name is not None:
            names.append(state.trial_name)
        return logdir, self._options.get("run", os.path.join("", *names))

    def _close(self, failed: bool) -> None:
        if self._abandoned is not None:
            self._abandoned.detach()
        if self.watch is not None:
            self.watch.close(failed)
        self._values = self._abandoned = None

    def on_train_begin(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        self._close(failed=True)  # an earlier training that an exception has ended
        if not state.is_world_process_zero:
            return
        logdir, run = self._place(args, state)
        options: dict[str, Any] = {**self._options, "logdir": logdir, "run": run, "first_step": state.global_step + 1}
        self.watch = attach(_innermost(optimizer), model, **options)
        self._values = TrainerValues(self.watch)

    def on_pre_optimizer_step(self, args: transformers.TrainingArguments, *_: Any, **__: Any) -> None:
        """Clipping comes earlier, and its factor is not told; without it the Trainer multiplies with 1, in place."""
        if self.watch is not None and self.watch.batch_size and not args.max_grad_norm:
            self.watch.clip_factor = 1.0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """The run is open now: from here on it has failed if the trainer or the process goes before on_train_end(). A
        TrainerCallback is not told of exceptions."""
        if self.watch is not None and self._abandoned is None:
            self._abandoned = weakref.finalize(self, self.watch.close, True)

    def on_log(self, *_: Any, logs: dict[str, Any] | None = None, **__: Any) -> None:
        if self._values is not None:
            values = rewrite_logs(logs or {})
            self._values.log({tag: value for tag, value in values.items() if isinstance(value, (int, float))})

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._close(failed=False)
