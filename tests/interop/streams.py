"""Random gradient streams whose coherence is far from zero, so that signs and minima are not decided by rounding."""

import numpy as np

from trainer import Step


class Stream:
    """Gradients g_t = s_t base + noise with s_t = +-1, one in `zero_every` coordinates 0."""

    def __init__(self, run, seed, zero_every=5):
        self.run = run
        self.random = np.random.default_rng(seed)
        self.zero_every = zero_every
        self.base = [self.random.standard_normal(group.numel) for group in run.groups]

    def gradients(self):
        sign = self.random.choice([-1.0, 1.0])
        return [self._group(sign, base) for base in self.base]

    def _group(self, sign, base):
        gradient = sign * base + self.random.standard_normal(base.size)
        # A group of one element is never 0: else whole steps would be inactive
        if base.size > 1:
            gradient[self.random.integers(self.zero_every, size=base.size) == 0] = 0.0
        return gradient.astype(np.float32)

    def steps(self, count, rate=1e-3, first=1):
        """Ordinary training: every group present, one rate for all parameter groups."""
        rates = [rate] * len(self.run.parameter_groups)
        return [Step(step=first + i, gradients=self.gradients(), learning_rates=rates) for i in range(count)]
