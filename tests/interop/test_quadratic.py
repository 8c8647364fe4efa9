"""Problem Q: the coherence of gradient descent on a noisy quadratic is slightly negative at stationarity."""

import numpy as np
import pytest

from problems import Q_RATE, Q_RATIOS, q_gradients
from readers import read_scalars
from trainer import Group, Run, Step, train

STEPS = 120_000
BATCHES = 100  # of 1,200 steps: long against the 1 / (0.1 x 0.1) = 100 steps of the slow direction's memory


@pytest.fixture(scope="module")
def gradients():
    return q_gradients(STEPS, seed=7)


def ratio_of_sums(products, squares):
    """sum products / sum squares, and its standard error by batch means."""
    ratio = products.sum() / squares.sum()
    residuals = (products - ratio * squares).reshape(BATCHES, -1).sum(axis=1)
    return ratio, residuals.std(ddof=1) * np.sqrt(BATCHES) / squares.sum()


def test_stationary_ratios(gradients, daemon, tmp_path):
    steps = (Step(step=i + 1, gradients=[g], learning_rates=[Q_RATE]) for i, g in enumerate(gradients))
    path = train(Run([Group("x", 2)]), steps, daemon.socket, tmp_path)

    scalars = read_scalars(path)
    norm_steps, norms = scalars["gradient/norm"].arrays()
    assert np.array_equal(norm_steps, np.arange(1, STEPS + 1))
    for lag, expected in Q_RATIOS.items():
        ratio_steps, ratios = scalars[f"coherence/ratio_lag{lag}"].arrays()
        assert np.array_equal(ratio_steps, np.arange(lag + 1, STEPS + 1))
        products, squares = np.zeros(STEPS), norms**2
        products[lag:] = ratios * squares[lag:]

        ratio, error = ratio_of_sums(products, squares)
        assert 3 * error < 0.5 * abs(expected)  # so that 0, or the wrong lag's sign, would be seen
        assert abs(ratio - expected) < 3 * error
