"""The examples for frameworks run as they are, and TensorBoard reads what they leave."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from readers import read_scalars

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "python"

# program, steps, a value that it makes possible
RUNS = [
    ("numpy_loop", 500, "train/accuracy"),
    ("jax_optax", 500, "noise_single/S"),
    ("keras_fit", 140, "train/accuracy"),
]


@pytest.mark.parametrize(("program", "steps", "tag"), RUNS)
def test_an_example_leaves_a_run(program, steps, tag, tmp_path):
    path = EXAMPLES / f"{program}.py"
    assert len(path.read_text().splitlines()) < 30
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    (events,) = (tmp_path / "runs" / program).glob("events.out.tfevents.*")
    series = read_scalars(events)
    assert steps / 2 < series["gradient/norm"].steps[-1] <= steps  # a loop that is faster than the daemon skips some
    for expected in ("coherence/cosine_lag1", "adam/C_over_A", "gradientd/observed_fraction", tag):
        assert expected in series

    loaded = EventAccumulator(str(events.parent), {"tensors": 0, "scalars": 0})
    loaded.Reload()
    assert [event.value for event in loaded.Scalars("gradient/norm")] == series["gradient/norm"].values
