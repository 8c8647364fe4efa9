"""Runs of the rule other: all that there is but for the Adam-type ratios, as it is for every rule."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from board import START_SECONDS, TensorBoard
from compare import compare_file
from readers import read_events, read_scalars, read_tensors, scalars_of
from streams import Stream
from test_streams import compare, one_run, records_of
from trainer import Group, Optimizer, ParameterGroup, Run, train
from waiting import wait_until

STEPS = 40
RATES = [ParameterGroup(0.875, 1e-3), ParameterGroup(0.75, 1e-2)]
OF_THE_FAMILY = ("adam/", "step_sums/", "group_B_over_A/", "group_C_over_A/", "group_step_size_mean/")


def run_of(rule, **options):
    groups = [Group("embedding", 70_001, 0), Group("layer.weight", 300, 1), Group("layer.bias", 7, 0)]
    return Run(groups, Optimizer(rule), RATES, name=rule, per_group=True, **options)


def stream_of(run, seed=61):
    """A group that is absent, steps not applied and not seen, an element that is not finite, rates that change."""
    records = []
    for step in Stream(run, seed).steps(STEPS):
        if step.step in (9, 10):
            continue
        applied = step.step % 7 != 0
        if step.step == 12:
            step.gradients[0][3] = np.nan
        gradients = [None if step.step == 15 and i == 1 else g for i, g in enumerate(step.gradients)]
        rates = [1e-3 * 10.0 ** (step.step % 3)] * 2
        optimizer_step = step.step if applied else 0
        records.append(
            replace(step, gradients=gradients, applied=applied, learning_rates=rates, optimizer_step=optimizer_step)
        )
    return records


def bits_of(path):
    """(step, tag, the float's bits) of every scalar but those of the Adam family."""
    return [
        (event.step, value.tag, struct.pack("<f", value.simple_value))
        for event in read_events(path)
        for value in scalars_of(event)
        if not value.tag.startswith(OF_THE_FAMILY)
    ]


def test_every_value_is_the_references_and_none_of_the_adam_family(daemon, tmp_path):
    run = run_of("other")
    path = train(run, stream_of(run), daemon.socket, tmp_path)
    compare_file(run, stream_of(run), path)
    tags = read_scalars(path).keys() | read_tensors(path).keys()
    assert not [tag for tag in tags if tag.startswith(OF_THE_FAMILY)]
    for tag in ("coherence/mu", "gradient/norm", "subspace/top_share", "group_norm/layer.bias", "gradient/log2_abs"):
        assert tag in tags
    observed = read_scalars(path)["gradientd/observed_fraction"].values
    assert observed[-1] == np.float32(sum(record.applied for record in stream_of(run)) / STEPS)


def test_what_does_not_need_the_rule_is_what_sgd_has(daemon, tmp_path):
    other, sgd = (
        bits_of(train(run, stream_of(run), daemon.socket, tmp_path)) for run in (run_of("other"), run_of("sgd"))
    )
    assert other == sgd and len(sgd) > 20 * STEPS


def test_streams_beside_the_gradient(daemon, tmp_path):
    """All but the learning rate times the secant, which is about sgd's step."""
    run = one_run("other")
    records = records_of(run, seed=62)
    shown = compare(run, records, train(run, records, daemon.socket, tmp_path))
    assert "curvature/secant" in shown and "curvature/step_times_secant" not in shown


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_tensorboard_shows_all_of_it(load_fast, daemon, tmp_path):
    run = run_of("other", shadow_rules=("adam",))
    path = train(run, stream_of(run), daemon.socket, tmp_path / "logs")
    expected = {tag: list(zip(s.steps, s.wall_times, s.values)) for tag, s in read_scalars(path).items()}
    board = TensorBoard(tmp_path / "logs", load_fast)
    try:
        wait_until(lambda: tags_of(board) == expected.keys(), START_SECONDS, f"all tags: {board.messages()}")
        for tag, points in expected.items():
            assert board.series(tag)["other"] == points, tag
    finally:
        board.stop()


def tags_of(board):
    shown = board.get("/data/plugin/timeseries/tags")
    return set(shown["scalars"]["runTagInfo"].get("other", ())) if shown else None
