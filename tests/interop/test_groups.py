"""The tags of each group, against the reference: which there are, and their values."""

import re
from dataclasses import replace

import numpy as np
import pytest

from compare import compare_file, compare_values
from readers import read_steps
from reference import Reference, series_of
from trainer import Group, Optimizer, ParameterGroup, Run, Step, train

QUANTITIES = "norm max_abs zero_fraction non_finite B_over_A C_over_A step_size_mean".split()


def some_run(names, **changes):
    groups = [Group(name, 17 + 30 * i, parameter_group=i % 2) for i, name in enumerate(names)]
    run = Run(
        groups=groups,
        optimizer=Optimizer("adam"),
        parameter_groups=[ParameterGroup(0.9, 1e-3), ParameterGroup(0.99, 1e-8)],
        max_lag=3,
    )
    return replace(run, **changes)


def some_records(run, steps=24, absent=lambda step, group: False, first_step=1, **changes):
    """Gradients of different sizes with zeros among them; the two parameter groups' rates differ and change."""
    rng = np.random.default_rng(5)
    records = []
    for step in range(first_step, first_step + steps):
        gradients = []
        for index, group in enumerate(run.groups):
            gradient = rng.normal(0.3, 10.0 ** (index % 3), group.numel) * (rng.random(group.numel) > 0.2)
            gradients.append(None if absent(step, index) else gradient.astype(np.float32))
        rates = [0.1 / (1 + 0.1 * (step % 5)), 0.003 * (1 + step % 3)]
        records.append(Step(step, gradients, rates, **changes))
    return records


def group_tags(expected):
    return {tag for values in expected.values() for tag in values if tag.startswith("group_")}


def check(run, records, daemon, tmp_path):
    """Compares the whole file; returns its group tags."""
    expected = compare_file(run, records, train(run, records, daemon.socket, tmp_path))
    return group_tags(expected)


def tags_of(quantities, names):
    return {f"group_{quantity}/{name}" for quantity in quantities for name in names}


def test_a_few_groups_show_norm_and_cosine(daemon, tmp_path):
    run = some_run(["conv", "dense/kernel", "dense/bias"])
    names = [group.name for group in run.groups]
    assert check(run, some_records(run), daemon, tmp_path) == tags_of(["norm", "cosine_lag1"], names)


@pytest.mark.parametrize("groups, shown", [(8, True), (9, False)])
def test_by_default_up_to_eight_are_shown(groups, shown, daemon, tmp_path):
    run = some_run([f"layer{i}" for i in range(groups)], max_lag=5)
    records = some_records(run)
    path = train(run, records, daemon.socket, tmp_path)
    tags = {tag for values in read_steps(path).values() for tag in values}
    assert sum(tag.startswith("group_") for tag in tags) == (16 if shown else 0)
    assert len(tags) < 60
    compare_file(run, records, path)


def test_on_request_every_quantity_is_shown(daemon, tmp_path):
    run = some_run([f"layer{i}.weight" for i in range(9)], per_group=True)
    quantities = QUANTITIES + ["cosine_lag1", "cosine_lag2", "cosine_lag3"]
    names = [group.name for group in run.groups]
    assert check(run, some_records(run), daemon, tmp_path) == tags_of(quantities, names)


def test_on_request_nothing_is_shown(daemon, tmp_path):
    run = some_run(["a", "b"], per_group=False, include=("a",))
    assert not check(run, some_records(run), daemon, tmp_path)


NAMES = ["enc.0.weight", "enc.0.bias", "enc.1.weight", "enc.1.bias", "dec/0/weight", "dec/0/bias", "größe", "head"]


@pytest.mark.parametrize(
    "selection, shown",
    [
        ({"include": ("*.weight",)}, ["enc.0.weight", "enc.1.weight"]),
        ({"exclude": ("*weight", "h*d")}, ["enc.0.bias", "enc.1.bias", "dec/0/bias", "größe"]),
        ({"include": ("enc*", "dec*"), "exclude": ("*bias",)}, ["enc.0.weight", "enc.1.weight", "dec/0/weight"]),
        ({"include": ("gr??e", "hea")}, ["größe"]),
        ({"fold_depth": 1}, ["enc", "dec", "größe", "head"]),
        ({"fold_depth": 2}, ["enc.0", "enc.1", "dec/0", "größe", "head"]),
        ({"fold_depth": 1, "include": ("*weight",)}, ["enc", "dec"]),
        ({"fold_depth": 3, "exclude": ("*",)}, []),
    ],
)
@pytest.mark.parametrize("per_group", [None, True])
def test_groups_are_selected_and_folded(selection, shown, per_group, daemon, tmp_path):
    run = some_run(NAMES, per_group=per_group, **selection)
    assert list(series_of(run)) == shown
    # one group is away now and then: what is folded goes on without it
    records = some_records(run, absent=lambda step, group: group == 1 and step % 5 == 3)
    tags = check(run, records, daemon, tmp_path)
    assert {re.sub("^group_[^/]*/", "", tag) for tag in tags} == set(shown)


def test_groups_of_one_name_are_one_series(daemon, tmp_path):
    run = some_run(["w", "b", "w", "w"], per_group=True)
    tags = check(run, some_records(run), daemon, tmp_path)
    assert {tag for tag in tags if "norm" in tag} == {"group_norm/w", "group_norm/b"}


def test_absent_groups(daemon, tmp_path):
    """Each stays away for a while, in the end all of them do."""
    run = some_run(["a", "b", "c"], per_group=True)

    def absent(step, group):
        return step >= 22 or (step % 7 + group) % 4 == 0

    records = some_records(run, absent=absent)
    expected = compare_file(run, records, train(run, records, daemon.socket, tmp_path))
    assert not any(tag.startswith("group_") for step in (22, 23, 24) for tag in expected[step])
    assert "group_norm/a" not in expected[7] and "group_norm/b" in expected[7]
    assert "group_cosine_lag1/a" not in expected[8] and "group_cosine_lag2/a" in expected[8]


def test_steps_that_were_not_applied(daemon, tmp_path):
    run = some_run(["a", "b"], per_group=True)
    records = [replace(record, applied=record.step % 4 != 2) for record in some_records(run)]
    expected = compare_file(run, records, train(run, records, daemon.socket, tmp_path))
    assert "group_B_over_A/a" not in expected[2] and "group_norm/a" in expected[2]
    assert "group_step_size_mean/a" not in expected[6]


@pytest.mark.parametrize("rule", ["sgd", "rmsprop", "adagrad", "amsgrad"])
def test_rules(rule, daemon, tmp_path):
    optimizer = Optimizer(rule, maximum_of="corrected" if rule == "amsgrad" else "default")
    run = some_run(["a.x", "a.y", "b.x"], per_group=True, fold_depth=1, optimizer=optimizer)
    check(run, some_records(run, steps=40), daemon, tmp_path)


def test_elements_that_are_not_finite(daemon, tmp_path):
    run = some_run(["a", "b"], per_group=True)
    records = some_records(run)
    for step in (3, 4, 9):
        records[step].gradients[1][:step] = [np.nan, np.inf, -np.inf, 0, 1, np.nan, 2, 3, 4][:step]
    expected = compare_file(run, records, train(run, records, daemon.socket, tmp_path))
    assert [expected[step]["group_non_finite/b"] for step in (1, 4, 5, 10)] == [0, 3, 3, 4]
    assert expected[4]["group_non_finite/a"] == 0


def test_a_run_attached_in_mid_training_is_silent_for_each_group(daemon, tmp_path):
    run = some_run(["a", "b"], per_group=True, parameter_groups=[ParameterGroup(0.8, 1e-3), ParameterGroup(0.75, 1e-8)])
    records = some_records(run, steps=30)
    records = [replace(record, optimizer_step=1000 + record.step) for record in records]
    expected = compare_file(run, records, train(run, records, daemon.socket, tmp_path))
    assert "group_B_over_A/a" not in expected[15] and "group_B_over_A/a" in expected[16]
    assert "group_norm/a" in expected[1]


def test_thinned_series_carry_the_windows_maxima(daemon, tmp_path):
    """Past 10,000 the first snapshot of each ten is written, with maxima since the one before, and the last."""
    run = some_run(["a", "b"], per_group=True, no_thinning=False, first_step=9990)
    records = some_records(run, steps=58, first_step=9990, absent=lambda step, group: group == 1 and step == 10020)
    records[10014 - 9990].gradients[0][:3] = [500.0, np.nan, np.nan]
    records[10017 - 9990].gradients[1][0] = -7000.0
    path = train(run, records, daemon.socket, tmp_path)

    reference = Reference(run)
    window, expected = {}, {}
    for record in records:
        values = reference.step(record)
        for tag in values:
            if tag.startswith(("group_max_abs/", "group_non_finite/")) or tag in MAXIMA:
                values[tag] = window[tag] = max(values[tag], window.get(tag, 0))
        if record.step < 10000 or record.step % 10 == 0 or record is records[-1]:
            expected[record.step] = values
            for tag in values:
                window.pop(tag, None)
    found = read_steps(path)
    assert found.keys() == expected.keys()
    for step, values in expected.items():
        compare_values(step, found[step], values)
    assert expected[10020]["group_non_finite/a"] == 2 and expected[10030]["group_max_abs/b"] == 7000


MAXIMA = ("gradient/norm_max", "gradient/max_abs", "gradient/non_finite")
