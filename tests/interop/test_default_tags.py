"""How many charts a run opens with, whatever its model: stated in docs/dashboard.md."""

import re
from pathlib import Path

import numpy as np
import pytest

from readers import read_events
from trainer import Group, Optimizer, ParameterGroup, Run, SquaredNorm, Step, train

TENSORS = 10_000
STEPS = 40
DASHBOARD = Path(__file__).resolve().parents[2] / "docs" / "dashboard.md"


def stated(what):
    """The number that docs/dashboard.md gives for it."""
    found = re.search(rf"\| {re.escape(what)} \| (\d+) \|", DASHBOARD.read_text(encoding="utf-8"))
    return int(found[1])


def tags_of(path):
    """Every chart, image, histogram and text of the daemon's own."""
    tags = {value.tag for event in read_events(path) for value in event.summary.value}
    return {tag for tag in tags if not tag.startswith(("_hparams_/", "custom_scalars__", "alerts/"))}


def one_run(tensors, rule, **changes):
    groups = [Group(f"block{i // 10}/tensor{i}", 3) for i in range(tensors)]
    return Run(groups, Optimizer(rule), [ParameterGroup(0.9 if rule != "sgd" else 0.0, 1e-8)], **changes)


def records_of(run, seed, **changes):
    random = np.random.default_rng(seed)
    return [
        Step(step, [random.normal(0.2, 1, group.numel).astype(np.float32) for group in run.groups], [1e-3], **changes)
        for step in range(1, STEPS + 1)
    ]


@pytest.mark.parametrize(
    "what, rule, changes",
    [
        ("adam", "adam", {}),
        ("adam, with the batch size", "adam", {"batch_size": 64.0}),
        (
            "adam, with norms of smaller batches",
            "adam",
            {"batch_size": 64.0, "squared_norms": (SquaredNorm(8.0, 9e4),)},
        ),
        ("sgd", "sgd", {}),
        ("other", "other", {}),
    ],
)
def test_ten_thousand_tensors_open_with_what_is_stated(what, rule, changes, daemon, tmp_path):
    run = one_run(TENSORS, rule)
    tags = tags_of(train(run, records_of(run, 1, **changes), daemon.socket, tmp_path))
    assert len(tags) == stated(what) < 60, sorted(tags)


def test_per_layer_when_asked(daemon, tmp_path):
    """Folded to blocks, of which some are chosen."""
    run = one_run(TENSORS, "adam", per_group=True, include=("block1*",), fold_depth=1)
    tags = tags_of(train(run, records_of(run, 2), daemon.socket, tmp_path))
    blocks = {f"block{i}" for i in range(TENSORS // 10) if str(i).startswith("1")}
    assert {tag.removeprefix("group_norm/") for tag in tags if tag.startswith("group_norm/")} == blocks
