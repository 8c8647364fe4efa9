"""What noise/ and fisher/ must show, in double precision from the gradients themselves."""

from pathlib import Path

import numpy as np
import torch
from readers import read_steps
from torch import nn
from training import batch


def gradient(model, images, labels):
    """Of the mean loss on these examples: a flat double array; leaves the model as it was."""
    loss = nn.functional.cross_entropy(model(images), labels)
    grads = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([g.detach().double().flatten() for g in grads]).numpy()


def estimates(model, step, size, parts):
    """(S, G2) of a step's batch and its `parts` smaller ones, by arXiv 1812.06162 (A.1)."""
    images, labels = batch(step, size)
    smaller = zip(images.chunk(parts), labels.chunk(parts), strict=True)
    small = np.mean([np.sum(gradient(model, *piece) ** 2) for piece in smaller])
    big = np.sum(gradient(model, images, labels) ** 2)
    b = size / parts
    return (small - big) / (1 / b - 1 / size), (size * big - b * small) / (size - b)


def check(path, expected, rtol=1e-4):
    """The noise/ and fisher/ values of an event file's steps, and of no other step, from [(S, G2)] or None a step."""
    steps = read_steps(Path(path))
    average_S = average_G2 = 0.0
    for step, pair in enumerate(expected, 1):
        found = steps[step]
        if pair is None:
            assert not any(tag.startswith(("noise/", "fisher/")) for tag in found), step
            continue
        S, G2 = pair
        average_S, average_G2 = 0.99 * average_S + 0.01 * S, 0.99 * average_G2 + 0.01 * G2
        np.testing.assert_allclose(found["noise/S"], S, rtol=rtol)
        np.testing.assert_allclose(found["noise/G2"], G2, rtol=rtol, atol=rtol * S)
        np.testing.assert_allclose(found["fisher/trace_empirical"], S + G2, rtol=rtol)
        if average_G2 > 0.05 * average_S / 32:
            np.testing.assert_allclose(found["noise/B_simple"], average_S / average_G2, rtol=100 * rtol)
