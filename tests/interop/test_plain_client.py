"""A client that shares nothing with the project but docs/protocol.md trains the same runs as the C client."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto import event_pb2

import plain_client
from readers import read_steps, split_records
from trainer import FIRST_WALL_TIME, Group, Optimizer, ParameterGroup, Run, Step, Values, bf16, train
from waiting import wait_until

GROUPS = [("layer/weight", 70_001), ("layer/bias", 11), ("gain", 1)]
RULES = {"sgd": 1, "adam": 2}
ELEMENT_TYPES = {"f32": plain_client.F32, "bf16": plain_client.BF16, "f16": plain_client.F16}
STEPS = 25  # more than there are slots
RATE = 1e-3


@pytest.fixture(scope="module")
def gradients():
    """Whole numbers below 2^8, which every type holds. The bias has none in some steps."""
    random = np.random.default_rng(8)
    steps = []
    for step in range(1, STEPS + 1):
        groups = [random.integers(-255, 256, numel).astype(np.float32) for _, numel in GROUPS]
        steps.append([g if step % 4 or i != 1 else None for i, g in enumerate(groups)])
    return steps


def train_by_c(gradients, rule, daemon, directory):
    run = Run([Group(*group) for group in GROUPS], Optimizer(rule), [ParameterGroup(0.99, 1e-8)], max_lag=3)
    records = []
    for step, groups in enumerate(gradients, 1):
        records.append(Step(step, groups, [RATE], scalars=(("train/loss", 1 / step),)))
        if step % 5 == 0:
            records.append(Values(step, (("validation/loss", 2 / step), ("validation/n", 7.0))))
    return train(run, records, daemon.socket, directory)


def as_bytes(groups, element_type):
    whole = np.concatenate([np.zeros(n, np.float32) if g is None else g for g, (_, n) in zip(groups, GROUPS)])
    return (bf16(whole) if element_type == "bf16" else whole.astype({"f32": "<f4", "f16": "<f2"}[element_type])).tobytes()


def open_plain(daemon, path, rule="sgd", transport="memory", element_type="f32", **options):
    return plain_client.Run(daemon.socket, path, GROUPS, transport, ELEMENT_TYPES[element_type], RULES[rule], (0.99, 1e-8),
                            wall_time=FIRST_WALL_TIME, thinning=False, **{"max_lag": 3, **options})  # fmt: skip


def train_by_plain(gradients, daemon, path, **options):
    run = open_plain(daemon, path, **options)
    for step, groups in enumerate(gradients, 1):
        elements = as_bytes(groups, options.get("element_type", "f32"))
        present = None if all(g is not None for g in groups) else [g is not None for g in groups]
        run.snapshot(step, elements, RATE, FIRST_WALL_TIME + step, [("train/loss", 1 / step)], present)
        if step % 5 == 0:
            run.scalars(step, FIRST_WALL_TIME + step, [("validation/loss", 2 / step), ("validation/n", 7.0)])
    assert run.close()
    return path


@pytest.mark.parametrize("rule", RULES)
def test_all_ways_in_give_the_same_file(rule, gradients, daemon, tmp_path):
    expected = train_by_c(gradients, rule, daemon, tmp_path / "c").read_bytes()
    for transport in ("memory", "raw", "deflated"):
        path = train_by_plain(gradients, daemon, tmp_path / transport, rule=rule, transport=transport)
        assert path.read_bytes() == expected, transport
    steps = read_steps(path)
    assert steps[15]["validation/loss"] == pytest.approx(2 / 15)
    assert len([step for step in steps.values() if "gradient/norm" in step]) == STEPS


@pytest.mark.parametrize("element_type", ["bf16", "f16"])
@pytest.mark.parametrize("transport", ["memory", "deflated"])
def test_half_the_bytes_give_the_same_file(element_type, transport, gradients, daemon, tmp_path):
    whole = train_by_plain(gradients, daemon, tmp_path / "f32")
    half = train_by_plain(gradients, daemon, tmp_path / "half", transport=transport, element_type=element_type)
    assert half.read_bytes() == whole.read_bytes()


def is_ended(path):
    records, _ = split_records(path.read_bytes())
    return bool(records) and event_pb2.Event.FromString(records[-1]).session_log.status == event_pb2.SessionLog.STOP


@pytest.mark.parametrize("transport", ["memory", "raw"])
def test_an_error_is_read(transport, gradients, daemon, tmp_path):
    run = open_plain(daemon, tmp_path / "refused", transport=transport)
    elements = as_bytes(gradients[0], "f32")
    run.snapshot(1, elements, RATE, FIRST_WALL_TIME)
    with pytest.raises(plain_client.DaemonError, match="learning_rate is nan") as error:
        run.snapshot(2, elements, float("nan"), FIRST_WALL_TIME)
        run.close()
    assert (error.value.code, error.value.field) == (2, "learning_rate")
    wait_until(lambda: is_ended(tmp_path / "refused"), 20, "the file of a refused run is ended")
    assert "gradient/norm" in read_steps(tmp_path / "refused")[1]


def test_an_open_run_is_refused(daemon, tmp_path):
    with pytest.raises(plain_client.DaemonError, match="max_lag is 33, the limits are 1 and 32"):
        open_plain(daemon, tmp_path / "refused", max_lag=33)


def test_needs_the_standard_library_alone():
    program = Path(plain_client.__file__)
    assert len(program.read_text().splitlines()) < 200
    subprocess.run([sys.executable, "-I", "-S", program], check=True)
