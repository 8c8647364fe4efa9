"""Values that a framework's trainer logs, beside the steps of a watch."""

from __future__ import annotations

from collections.abc import Mapping

from .torch import Watch


class TrainerValues:
    """Hands a trainer's values to the watch at its last step, each tag at most once a step: trainers say some of them
    again when an epoch or the training ends at the step they were said at."""

    def __init__(self, watch: Watch):
        self._watch = watch
        self._latest: dict[str, int] = {}

    def log(self, values: Mapping[str, float]) -> None:
        step = self._watch.step
        new = {tag: float(value) for tag, value in values.items() if self._latest.get(tag, -1) < step}
        if new:
            self._latest.update(dict.fromkeys(new, step))
            self._watch.log(new, step=step)
