"""Runs keras_cases.py on each backend, which Keras chooses when it is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from readers import read_steps

CASES = Path(__file__).with_name("keras_cases.py")
REFUSED = """
import gradientd.keras, keras
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("adam", "mse")
callback = gradientd.keras.Gradientd()
callback.set_model(model)
try:
    callback.on_train_begin()
except ValueError as error:
    print(error)
"""

DISTRIBUTED = """
import os, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import gradientd.keras, keras, numpy as np
if sys.argv[2] == "distributed":
    keras.distribution.set_distribution(keras.distribution.DataParallel())
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.1), "mse")
x = np.arange(128, dtype=np.float32).reshape(32, 4) / 128
watch = gradientd.keras.Gradientd(sys.argv[1], run=sys.argv[2], max_stall=10)
model.fit(x, x.sum(1), 16, epochs=3, verbose=0, shuffle=False, callbacks=[watch])
"""


def run(backend, *program, **options):
    environment = {**os.environ, "KERAS_BACKEND": backend}
    return subprocess.run(
        [sys.executable, *program], env=environment, capture_output=True, text=True, timeout=200, **options
    )


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_keras(backend):
    done = run(backend, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES), check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0


def test_other_backends_are_refused():
    done = run("numpy", "-c", REFUSED, check=True)
    assert done.stdout == "the Keras backend is numpy; gradientd follows training on torch and jax\n"


def test_data_parallel_training_has_the_steps_of_one_device(tmp_path):
    norms = []
    for name in ("single", "distributed"):
        run("jax", "-c", DISTRIBUTED, str(tmp_path), name, check=True)
        (path,) = (tmp_path / name).glob("events.out.*")
        norms.append({step: values["gradient/norm"] for step, values in read_steps(path).items()})
    single, distributed = norms
    assert list(distributed) == [1, 2, 3, 4, 5, 6] and distributed == pytest.approx(single, rel=1e-5)
