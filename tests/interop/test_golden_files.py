"""Event files of fixed streams keep their bytes: the sums of the files that the daemon wrote before its kernels and its
hot path were made fast. What changes one on purpose changes its line here, and says why.

Usage: python test_golden_files.py   prints the table for the build that $GD_BUILD names
"""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest

from streams import Stream
from trainer import Group, Optimizer, ParameterGroup, Run, Values, train

STEPS = 24
GROUPS = [Group("embedding", 70_001, 0), Group("one", 1, 1), Group("layer.weight", 2_500, 1), Group("layer.bias", 50, 0)]
RATES = [ParameterGroup(0.999, 1e-8), ParameterGroup(0.9, 1e-6)]
SHADOWS = ("amsgrad", "adafom", "sgd")

CASES = {
    "adam": Run(GROUPS, Optimizer("adam"), RATES),
    "adam_bf16": Run(GROUPS, Optimizer("adam"), RATES, element_type="bf16"),
    "adam_f16": Run(GROUPS, Optimizer("adam"), RATES, element_type="f16"),
    "adam_f64": Run(GROUPS, Optimizer("adam"), RATES, element_type="f64"),
    "adam_eps_inside": Run(GROUPS, Optimizer("adam", eps_root=1e-6), RATES, max_lag=1),
    "adamw_12_lags": Run(GROUPS, Optimizer("adamw", "none"), RATES, max_lag=12, inflight=3),
    "rmsprop": Run(GROUPS, Optimizer("rmsprop"), RATES, max_lag=2),
    "amsgrad": Run(GROUPS, Optimizer("amsgrad"), RATES),
    "amsgrad_corrected": Run(GROUPS, Optimizer("amsgrad", maximum_of="corrected"), RATES, max_lag=9),
    "amsgrad_uncorrected": Run(GROUPS, Optimizer("amsgrad", maximum_of="uncorrected"), RATES),
    "adagrad": Run(GROUPS, Optimizer("adagrad", initial_accumulator=0.1, learning_rate_decay=0.01), RATES),
    "adafom": Run(GROUPS, Optimizer("adafom"), RATES),
    "sgd": Run(GROUPS, Optimizer("sgd"), RATES),
    "shadows": Run(GROUPS, Optimizer("adam"), RATES, shadow_rules=SHADOWS, per_group=True),
    "absent_counts": Run(GROUPS, Optimizer("adam"), RATES, absent_counts=True, stride=2),
}

# sha256 of each file's bytes
GOLDEN = {
    "adam": "90fa022f6f69bea46205558b161e2d27bf2666a29c34616ed479396eeed1e9c5",
    "adam_bf16": "e0631ba37274c4644b051a5f35d4a0c9cff43d374085a207ef8f01377568d592",
    "adam_f16": "1de1b779e3932fae848550f88d4cc856193017dd510f193bff370155a75492ee",
    "adam_f64": "2912d126c4f330a61e42bf3626fba2167b9ac976d16408f98f587d5a6626b6fe",
    "adam_eps_inside": "98b19fedb544b289a57cdd666d986ed75d54416a6d9df3755ef896ae8941800c",
    "adamw_12_lags": "e803738ea4fcc893692b7823cf9c78095a691580402af50ff7e8da1f843d9012",
    "rmsprop": "89c8d163490bc4566bc9170e04a98e5a55a960809cd7b6eefe6bdc8bcd7f3165",
    "amsgrad": "05d86fedf977159465573327a092c8b7d2abd71d09f2e6f027cae57d3a8dd527",
    "amsgrad_corrected": "35b843c699968d6b7cb1d5fd430babbd332afec568165eb368fa041d9d50ccff",
    "amsgrad_uncorrected": "ecbef2dfdc16ca397ba6dff218471da96aeed9c84aee8bacdfc5e712b8cf21c7",
    "adagrad": "86c8aa3147cc91de53222fcc7584007905b2d60d72c1f90b536e565cf46ccf37",
    "adafom": "3cdf33626d55501183fc2b51507a80a9ba254d0ad6d5d949ffd3aa3719b353de",
    "sgd": "0a56024bb5c757cb5064e3b0767cbaec5c47170df4a953825cc70f99f08b6977",
    "shadows": "8348c4ea703c152d2e3a78f024ea50dbc882bc5146181b0c44c01ea64653509e",
    "absent_counts": "61434787295cc98ea2699d3badf040fe17702c1ff031add5cfbb4ebfaa343f59",
}


def records_of(run, seed):
    """All that can happen to a stream: groups that are absent, steps not applied or not seen, rates that change,
    elements that are not finite, and values between the steps."""
    records = []
    optimizer_step = 0
    for step in Stream(run, seed).steps(STEPS):
        t = step.step
        optimizer_step += 4 if t == 9 else 1
        step.learning_rates = [1e-3 / t**0.5, 1e-2]
        step.applied = t % 7 != 0
        if step.applied:
            step.optimizer_step = optimizer_step
        else:
            optimizer_step -= 1
        if t in (5, 6, 15):
            step.gradients[t % 4] = None
        if t == 11:
            step.gradients[0] = step.gradients[0].copy()
            step.gradients[0][[3, 1_500, 66_000]] = [np.nan, np.inf, -np.inf]
        if t >= 18:
            step.beta2, step.eps = [0.99, 0.95], [1e-7, 1e-6]
        step.scalars = (("train/loss", 1.0 / t), ("lr", 1e-3))
        records.append(step)
        if t % 10 == 0:
            records.append(Values(t, (("validation/loss", 2.0 / t),)))
    return records


def digest_of(name, socket, logdir):
    run = CASES[name]
    records = records_of(run, sum(name.encode()))
    return hashlib.sha256(train(run, records, socket, logdir).read_bytes()).hexdigest()


def test_every_case_has_a_digest():
    assert GOLDEN.keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_bytes(name, daemon, tmp_path):
    assert digest_of(name, daemon.socket, tmp_path) == GOLDEN[name]


def test_a_changed_element_changes_the_digest(daemon, tmp_path):
    run = CASES["adam"]
    records = records_of(run, sum(b"adam"))
    records[2].gradients[2][7] *= np.float32(1.001)
    path = train(run, records, daemon.socket, tmp_path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() != GOLDEN["adam"]


def print_table():
    from conftest import Daemon

    with tempfile.TemporaryDirectory(prefix="gd") as directory:
        daemon = Daemon(Path(directory), (), {})
        daemon.wait_ready()
        for name in CASES:
            print(f'    "{name}": "{digest_of(name, daemon.socket, Path(directory) / "logs" / name)}",')
        daemon.stop()


if __name__ == "__main__":
    print_table()
