"""Handwritten digits, and a small network for them in JAX and in numpy."""

from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[2] / "examples/data/digits.csv.gz"
WIDTH = 16


def load_digits():
    """(images 1797 x 64 in 0..1, digits), f32 and int."""
    rows = np.loadtxt(DATA, delimiter=",", dtype=np.float32)
    return rows[:, :64] / 16, rows[:, 64].astype(np.int32)


def initial_parameters(seed=0):
    random = np.random.default_rng(seed)

    def layer(inputs, outputs):
        weight = random.normal(0, np.sqrt(2 / inputs), (inputs, outputs)).astype(np.float32)
        return {"weight": weight, "bias": np.zeros(outputs, np.float32)}

    return {"hidden": layer(64, WIDTH), "out": layer(WIDTH, 10)}


def batches(count, size=50, seed=0):
    """(images, digits) with a first axis of steps."""
    images, digits = load_digits()
    chosen = np.random.default_rng(seed).integers(0, len(images), (count, size))
    return images[chosen], digits[chosen]


def numpy_gradients(parameters, images, digits):
    """Of the mean cross-entropy."""
    hidden = images @ parameters["hidden"]["weight"] + parameters["hidden"]["bias"]
    active = np.maximum(hidden, 0)
    logits = active @ parameters["out"]["weight"] + parameters["out"]["bias"]
    softmax = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax /= softmax.sum(axis=1, keepdims=True)
    softmax[np.arange(len(digits)), digits] -= 1
    at_logits = softmax / len(digits)
    at_hidden = (at_logits @ parameters["out"]["weight"].T) * (hidden > 0)
    return {
        "hidden": {"weight": images.T @ at_hidden, "bias": at_hidden.sum(axis=0)},
        "out": {"weight": active.T @ at_logits, "bias": at_logits.sum(axis=0)},
    }
