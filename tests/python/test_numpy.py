"""gradientd.Run in a training loop of numpy's."""

import subprocess
import sys
from pathlib import Path

import gradientd
import numpy as np

from digits import batches, initial_parameters, numpy_gradients
from expected import compare_file, record, reference_run

STEPS = 60
B1, B2, EPS = 0.9, 0.99, 1e-8


def train(run=None):
    """Adam by hand; returns the parameters and (step, gradients, learning rate) of each step."""
    parameters = initial_parameters()
    moments = {layer: {name: [0.0, 0.0] for name in tensors} for layer, tensors in parameters.items()}
    steps = []
    for step, (images, digits) in enumerate(zip(*batches(STEPS)), 1):
        gradients, rate = numpy_gradients(parameters, images, digits), 1e-2 / np.sqrt(step)
        if run is not None:
            assert run.submit(step, gradients, learning_rate=rate)
        steps.append((step, gradients, rate))
        for layer, tensors in gradients.items():
            for name, g in tensors.items():
                m, v = moments[layer][name]
                m, v = moments[layer][name] = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g * g
                parameters[layer][name] -= rate * (m / (1 - B1**step)) / (np.sqrt(v / (1 - B2**step)) + EPS)
    return parameters, steps


def test_the_file_holds_what_the_loop_does(tmp_path):
    parameters = initial_parameters()
    with gradientd.Run(parameters, "adam", beta2=B2, eps=EPS, logdir=tmp_path, max_stall=10) as run:
        trained, steps = train(run)
    reference = reference_run(parameters, gradientd.Optimizer("adam"), B2, EPS)
    compare_file(reference, [record(reference, *step) for step in steps], Path(run.event_path))
    plain, _ = train()
    for layer, tensors in plain.items():
        for name, values in tensors.items():
            np.testing.assert_array_equal(trained[layer][name], values)


def test_a_framework_is_imported_where_it_is_used():
    program = """
import sys, gradientd
assert not {"torch", "jax", "keras"} & sys.modules.keys()
assert gradientd.optax.watch and "jax" in sys.modules and "torch" not in sys.modules
assert gradientd.attach and "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
