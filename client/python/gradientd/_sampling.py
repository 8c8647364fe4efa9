"""Which steps are handed over."""

from __future__ import annotations


class Sampling:
    """Of each `every` steps the first `burst`: so many that all lags have a value, unless something else is asked for.

    A burst of 1 sends every `every`-th step, and lag m is the step m * every earlier. Steps that are left out cost
    nothing and are visible: `gradientd/observed_fraction` says what share was seen.
    """

    def __init__(self, every: int, burst: int | None, max_lag: int):
        if every < 1:
            raise ValueError(f"every is {every}; it must be at least 1")
        if burst is not None and not 1 <= burst <= every:
            raise ValueError(f"burst is {burst}; it must be from 1 to every, {every}")
        self.every = every
        self.burst = burst if burst is not None else min(every, max_lag + 1)

    @property
    def stride(self) -> int:
        return self.every if self.burst == 1 else 1

    def takes(self, index: int) -> bool:
        """Whether step `index`, counted from 0, is handed over."""
        return index % self.every < self.burst
