"""The golden problems of docs/diagnostics.md."""

import math

import numpy as np

from trainer import Group, Optimizer, ParameterGroup, Run, Step

P2_BETA2 = 0.1


def p2_gradient(t, x):
    if (t - 1) % 11 == 0:
        return 11.0 * x if abs(x) <= 1 else math.copysign(11.0, x)
    return -x if abs(x) <= 1 else -math.copysign(1.0, x)


def p2_run(rule, **options):
    maximum_of = "uncorrected" if rule == "amsgrad" else "default"
    optimizer = Optimizer(rule=rule, bias_correction="none" if rule == "adam" else "default", maximum_of=maximum_of)
    # One lag, the fewest there are: the golden values are the Adam ratios'
    return Run([Group("x", 1)], optimizer, [ParameterGroup(beta2=P2_BETA2)], max_lag=1, **options)


def p2_steps(rule, rate_of, count):
    """The trajectory of problem P2 in double precision, from x_1 = 2."""
    x, v, maximum = 2.0, 0.0, 0.0
    for t in range(1, count + 1):
        g = p2_gradient(t, x)
        rate = rate_of(t)
        yield Step(step=t, gradients=[np.array([g], np.float32)], learning_rates=[rate])
        v = P2_BETA2 * v + (1 - P2_BETA2) * g * g
        maximum = max(maximum, v)
        x -= rate / math.sqrt(maximum if rule == "amsgrad" else v) * g


# rule, a_t, T, then A, B, C, D
P2_GOLDEN = {
    "adam-11": ("adam", lambda t: 1.0, 11, (9.02793065, 9.56242962, 0.904173399, 0.268001584)),
    "adam-110000": ("adam", lambda t: 1.0, 110_000, (90243.2753, 95662.5000, 18083.4431, 10853.7567)),
    "amsgrad-110000": (
        "amsgrad",
        lambda t: 1 / math.sqrt(t),
        110_000,
        (63.3955099, 1.67727523, 0.0955378003, 0.00106865814),
    ),
}

Q_RATE = 0.1
Q_CURVATURES = np.array([1.0, 0.1])
Q_RATIOS = {1: -0.028021, 5: -0.019128}  # E<g_{t+m}, g_t> / E|g|^2 at stationarity
# exp(-0.1 x 0.1 x 2000) = 2e-9: the slow direction has forgotten the start
Q_BURN_IN = 2000


def q_gradients(count, seed):
    """Problem Q's gradients, stationary, one row a step."""
    noise = np.random.default_rng(seed).standard_normal((Q_BURN_IN + count, 2))
    found = np.empty_like(noise)
    x = np.zeros(2)
    for i, n in enumerate(noise):
        g = Q_CURVATURES * x + n
        found[i] = g
        x = x - Q_RATE * g
    return found[Q_BURN_IN:].astype(np.float32)
