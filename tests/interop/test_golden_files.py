"""Event files of fixed streams keep their bytes. What changes one on purpose changes its line here, and says why.

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
    "other": Run(GROUPS, Optimizer("other"), RATES, shadow_rules=SHADOWS),
    "shadows": Run(GROUPS, Optimizer("adam"), RATES, shadow_rules=SHADOWS, per_group=True),
    "absent_counts": Run(GROUPS, Optimizer("adam"), RATES, absent_counts=True, stride=2),
}

# sha256 of each file's bytes
GOLDEN = {
    "adam": "5e3bf2079627836750411974638358d0f67505648c265024f784f48717e160e2",
    "adam_bf16": "ebeac7ffd3fde7aed38f7ad0fa78a984253e46d81ba997baca5401eb4241cc9d",
    "adam_f16": "19ba6bec05ac79d064d73d539e0b73f4d48acee60b17516f8f804f40f83bfaec",
    "adam_f64": "7ea9b9ae3edb5323c843b903c7e328d4fe425e6d2776c831a0f3f2663e78f49a",
    "adam_eps_inside": "f55eafc201541a90e13a3cdaa8965bea77a5c99e3bd7de98a25a57ffed341b41",
    "adamw_12_lags": "1eb135d74e0533a1052bc3aa62ce0b2c969bd8364271aed44005674ce3ec2995",
    "rmsprop": "62e4c9de190eff003fdf194943dc3f015fa9dcec47866517c32814da42c0792b",
    "amsgrad": "c520f1f9a77dec117d32dbf8b57662945ee7561043653a88762d604f7e3e611b",
    "amsgrad_corrected": "962f00baacd4256e7ab48632940ceefaf40cb68dbbf3f9d5e43e440ce2e4d5f7",
    "amsgrad_uncorrected": "8703f3ce1e987a0ef0bcef64a00d1da9b72dd7c0d94881ea5b669e3e2741b897",
    "adagrad": "f0e9712ce141dc537281a611e10f4a0200e8d2d8ff1eefcc4fbadced0f3c2188",
    "adafom": "777fad05455170f6d311120e2198d191db23563cacd923e4d972711613d5b992",
    "sgd": "2bba997f0d7f3153cb6838b617fd08836feb724dd8b36376bf944f9b5cfeebc1",
    "other": "a467b54f4d5246d77454bf2a512cec15fbc88aba9b0245c9b4382857b73008f8",
    "shadows": "e414d8fecad9a157faf6bb9bdc28fc785e15dcb1379349d25b0316d42122a986",
    "absent_counts": "e5a6b3a1b062b2be18cf33dc3a2f121693d0d2774e31043c016fd1347848b12c",
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
    from daemons import Daemon

    with tempfile.TemporaryDirectory(prefix="gd") as directory:
        daemon = Daemon(Path(directory), (), {})
        daemon.wait_ready()
        for name in CASES:
            print(f'    "{name}": "{digest_of(name, daemon.socket, Path(directory) / "logs" / name)}",')
        daemon.stop()


if __name__ == "__main__":
    print_table()
