"""Lightning: one callback.

    trainer = Trainer(callbacks=[Gradientd()])

For whichever of the packages lightning and pytorch_lightning is in use.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any

import torch
from torch import Tensor

if "pytorch_lightning" in sys.modules and "lightning" not in sys.modules:
    import pytorch_lightning as pl
else:
    try:
        import lightning.pytorch as pl  # type: ignore[no-redef]
    except ImportError:
        import pytorch_lightning as pl  # type: ignore[no-redef]

from ._trainer_values import TrainerValues
from .torch import Watch, attach

__all__ = ["Gradientd"]

SUBDIRECTORY = "gradientd"  # one writer per directory: the trainer's own logger has the one above


def _clip_factor(trainer: pl.Trainer, module: pl.LightningModule, optimizer: torch.optim.Optimizer) -> float | None:
    """What Lightning is about to multiply the gradients with, as torch.nn.utils.clip_grad_norm_ has it; None: unknown,
    or nothing."""
    if not trainer.gradient_clip_val or trainer.gradient_clip_algorithm == "value":
        return None
    if type(module).configure_gradient_clipping is not pl.LightningModule.configure_gradient_clipping:
        return None
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
    norm = float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
    return min(1.0, trainer.gradient_clip_val / (norm + 1e-6)) if math.isfinite(norm) else None


class Gradientd(pl.Callback):
    """Watches the optimizers of a training from its start to its end; one that an exception ends is a failed run.

    logdir: None: `gradientd` below the trainer's log_dir. A directory where a TensorBoardLogger writes has the run in
        its subdirectory `gradientd`, any other one has it directly.
    options: what attach() takes: batch_size, every, on_alert, hparams, ...; first_step is the trainer's.

    Of several optimizers each has a run of its own, optimizer0, optimizer1, ...; `watches` has their Watch objects.
    What the module logs for its loggers is written into the first one's, at every step that log_every_n_steps names and
    at the end of epochs and validations, by the names the loggers have. Only the process of rank zero writes.
    """

    def __init__(self, logdir: str | os.PathLike[str] | None = None, **options: Any):
        self.watches: list[Watch] = []
        self._logdir, self._options = logdir, options
        self._values: TrainerValues | None = None
        self._seen: dict[str, Tensor] = {}

    # Where the runs go.

    def _place(self, trainer: pl.Trainer) -> tuple[str, str]:
        """The log directory and the run below it."""
        logdir = os.fspath(self._logdir or trainer.log_dir or trainer.default_root_dir)
        taken = {
            os.path.realpath(logger.log_dir)
            for logger in trainer.loggers
            if isinstance(logger, pl.loggers.TensorBoardLogger)
        }
        below = self._logdir is None or os.path.realpath(logdir) in taken
        return logdir, self._options.get("run", SUBDIRECTORY if below else "")

    def _attach(self, trainer: pl.Trainer, logdir: str, run: str) -> None:
        options: dict[str, Any] = {**self._options, "logdir": logdir, "run": run}
        if "batch_size" in options:
            options.setdefault("accumulation", trainer.accumulate_grad_batches)
            options.setdefault("scaler", getattr(trainer.precision_plugin, "scaler", None))
        if len(trainer.optimizers) == 1:
            self.watches = [attach(trainer.optimizers[0], trainer.model, first_step=trainer.global_step + 1, **options)]
            return
        for index, optimizer in enumerate(trainer.optimizers):  # the global step counts the steps of all of them
            options["run"] = os.path.join(run, f"optimizer{index}")
            self.watches.append(attach(optimizer, trainer.model, **options))

    def _close(self, failed: bool) -> None:
        for watch in self.watches:
            watch.close(failed)
        self._values = None

    # The trainer's values.

    def _is_new(self, tag: str, value: Tensor) -> bool:
        seen = self._seen.get(tag)
        return seen is None or seen.data_ptr() != value.data_ptr()

    def _log(self, trainer: pl.Trainer, write: bool = True) -> None:
        """The trainer keeps the values of all its loops; those in other memory than at the last call are new."""
        if self._values is None:
            return
        metrics = dict(trainer.logged_metrics)
        if write:
            self._values.log({tag: float(value) for tag, value in metrics.items() if self._is_new(tag, value)})
        self._seen = metrics

    # Lightning's hooks.

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.watches, self._seen = [], {}
        logdir, run = self._place(trainer)
        if trainer.is_global_zero and trainer.optimizers:
            self._attach(trainer, logdir, run)
            self._values = TrainerValues(self.watches[0])

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        for watch, own in zip(self.watches, trainer.optimizers):
            factor = _clip_factor(trainer, pl_module, own) if watch.batch_size and own is optimizer else None
            if factor is not None:
                watch.clip_factor = factor

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        step, every = (self.watches[0].step if self.watches else 0), trainer.log_every_n_steps  # type: ignore[attr-defined]
        self._log(trainer, write=every > 0 and step > 0 and step % every == 0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close(failed=False)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close(failed=True)
