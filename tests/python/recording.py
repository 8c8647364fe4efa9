"""What an optimizer consumes, as it itself shows it after each step, and what a run of it must hold."""

import numpy as np

import trainer
from compare import compare_file
from readers import SESSION_END, session_infos

SUCCESS, FAILURE = 1, 2  # tensorboard.hparams.Status


class Recording:
    """Keeps each step's gradients and learning rates of an Adam or AdamW without coupled weight decay, by its hook
    after the step: it sees the right ones also where a closure computes them within step(), and may be made before
    the trainer loads a checkpoint."""

    def __init__(self, optimizer, model):
        self.names = {parameter: name for name, parameter in model.named_parameters()}
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.groups = [
            trainer.Group(self.names[p], p.numel(), index)
            for index, group in enumerate(optimizer.param_groups)
            for p in group["params"]
        ]
        self.rule = "adamw" if type(optimizer).__name__ == "AdamW" else "adam"
        self.rates = [trainer.ParameterGroup(group["betas"][1], group["eps"]) for group in optimizer.param_groups]
        self.steps = []  # (gradients, learning rates)
        self.start = None  # steps taken, second moments, before the first one that is kept
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._after_step)

    def _before_step(self, optimizer, _arguments, _named):
        if self.start is None:
            states = [optimizer.state.get(p, {}) for p in self.parameters]
            self.start = 0, None
            if states[0]:
                moments = [state["exp_avg_sq"].numpy().ravel().copy() for state in states]
                self.start = int(states[0]["step"]), moments

    def _after_step(self, optimizer, _arguments, _named):
        gradients = [None if p.grad is None else p.grad.float().numpy().ravel().copy() for p in self.parameters]
        self.steps.append((gradients, [group["lr"] for group in optimizer.param_groups]))

    def compare(self, path, values=None, first_step=1, batch_size=0.0, clip_factors=None):
        """Every value of the file and no other; `values`: step -> {tag: value} that the trainer logged. `clip_factors`:
        one a step."""
        taken, moments = self.start
        run = trainer.Run(
            self.groups,
            trainer.Optimizer(self.rule),
            self.rates,
            first_step=first_step,
            start_optimizer_step=taken,
            start_second_moment=moments,
        )
        records = [
            trainer.Step(step, gradients, rates, scalars=tuple((values or {}).get(step, {}).items()))
            for step, (gradients, rates) in enumerate(self.steps, first_step)
        ]
        for index, record in enumerate(records):
            record.batch_size = batch_size
            record.clip_factor = clip_factors[index] if clip_factors else 0.0
        if taken:
            records[0].optimizer_step = taken + 1
        return compare_file(run, records, path)

    def norms(self):
        return [np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in gradients)) for gradients, _ in self.steps]


def outcome(path):
    """SUCCESS, FAILURE, or None where nobody closed the run."""
    infos = session_infos(path, SESSION_END)
    return infos[0].session_end_info.status if infos else None
