"""The noise scale, the Fisher trace and the critical period against the reference, and on streams whose noise is known."""

import re
from dataclasses import replace

import numpy as np
import pytest

from compare import compare_file
from readers import read_scalars, read_tensors
from reference import Reference
from trainer import Group, Optimizer, ParameterGroup, Run, SquaredNorm, Step, train


def some_run(**changes):
    groups = [Group("a", 17), Group("b", 300), Group("c.x", 1), Group("c.y", 40)]
    return replace(Run(groups=groups, optimizer=Optimizer("sgd"), max_lag=3), **changes)


def some_records(run, steps=30, seed=1, first=1, spread=1.0, batch_size=lambda t: 64.0, small=(8.0, 8.0, 16.0)):
    """Means over `batch_size` examples of gradients around one that turns slowly, and over smaller batches."""
    rng = np.random.default_rng(seed)
    numels = [group.numel for group in run.groups]
    base, drift = rng.normal(size=sum(numels)), rng.normal(size=sum(numels))
    splits = np.cumsum(numels)[:-1]
    records = []
    for t in range(first, first + steps):
        true = base + 0.02 * t * drift

        def mean_of(b):
            return true + spread * rng.normal(size=true.size) / np.sqrt(b)

        B = batch_size(t)
        norms = []
        for b in small:
            parts = np.split(mean_of(b), splits)
            per_group = [float(part @ part) for part in parts]
            norms.append(SquaredNorm(b, sum(per_group), per_group))
        gradients = [part.astype(np.float32) for part in np.split(mean_of(B or 1.0), splits)]
        records.append(Step(t, gradients, [0.1], batch_size=B, squared_norms=tuple(norms) if B else ()))
    return records


def check(run, records, daemon, logdir):
    return compare_file(run, records, train(run, records, daemon.socket, logdir))


def tags_of(expected, prefix):
    return {tag for values in expected.values() for tag in values if tag.startswith(prefix)}


def test_every_value(daemon, tmp_path):
    run = some_run()
    expected = check(run, some_records(run), daemon, tmp_path)
    assert tags_of(expected, "noise") == {f"noise{n}/{q}" for n in ("", "_single") for q in ("S", "G2", "B_simple")}
    assert tags_of(expected, "fisher/") == {"fisher/trace_empirical"}
    assert tags_of(expected, "group_fisher/") == {f"group_fisher/{name}" for name in ("a", "b", "c.x", "c.y")}


def test_the_published_numbers(daemon, tmp_path):
    run = Run([Group("w", 4)], max_lag=1)
    gradient = np.full(4, np.sqrt(1.3 / 4), np.float32)
    records = [Step(1, [gradient], [0.1], batch_size=512.0, squared_norms=(SquaredNorm(32.0, 4.0),))]
    found = read_scalars(train(run, records, daemon.socket, tmp_path))
    for tag, value in {"noise/S": 92.16, "noise/G2": 1.12, "noise/B_simple": 82.2857, "fisher/trace_empirical": 93.28}.items():
        assert found[tag].values == [pytest.approx(value, rel=1e-5)]


def test_without_a_batch_size_there_are_none(daemon, tmp_path):
    run = some_run()
    records = [replace(record, batch_size=0.0, squared_norms=()) for record in some_records(run)]
    expected = check(run, records, daemon, tmp_path)
    assert not tags_of(expected, "noise") and not tags_of(expected, "fisher/") and not tags_of(expected, "group_fisher/")


def test_a_batch_size_alone_gives_the_single_stream(daemon, tmp_path):
    run = some_run()
    records = [replace(record, squared_norms=()) for record in some_records(run)]
    expected = check(run, records, daemon, tmp_path)
    assert tags_of(expected, "noise") == {"noise_single/S", "noise_single/G2", "noise_single/B_simple"}
    assert not tags_of(expected, "fisher/")


@pytest.mark.parametrize("stride", [1, 2])
def test_gaps_absent_groups_clipping_and_what_is_not_finite(stride, daemon, tmp_path):
    run = some_run(stride=stride, optimizer=Optimizer("adam"), parameter_groups=[ParameterGroup(0.9, 1e-8)], inflight=4)
    records = []
    for record in some_records(run, steps=60, batch_size=lambda t: (64.0, 128.0, 8.0, 0.0)[t // 9 % 4]):
        t = record.step
        if t in (7, 8, 21):  # not seen
            continue
        if t % 13 == 5:
            record.gradients[1] = None
        if t % 17 == 6:
            record.gradients[3] = np.where(np.arange(40) == t % 40, np.inf, record.gradients[3]).astype(np.float32)
        if t % 4 == 1:
            factor = 1.0 / (1 + t % 5)
            record.gradients = [None if g is None else (factor * g).astype(np.float32) for g in record.gradients]
            record.clip_factor = factor
        if t % 19 == 4 and record.squared_norms:
            record.squared_norms = (replace(record.squared_norms[0], value=float("nan")),)
        if t % 11 == 3 and record.squared_norms:
            record.squared_norms = (replace(record.squared_norms[0], per_group=None), *record.squared_norms[1:])
        record.applied = t % 10 != 2
        record.optimizer_step = t
        records.append(record)
    expected = check(run, records, daemon, tmp_path)
    assert "noise_single/S" in expected[3] and "noise/S" in expected[2]  # 2 and 12 were not applied
    assert "noise/S" not in expected[5] and "group_fisher/a" in expected[5]
    assert "noise_single/S" not in expected[22 - 1 + stride] and "noise/S" not in expected[18]
    assert len(tags_of(expected, "noise")) == 6


def test_groups_add_up_to_the_whole(daemon, tmp_path):
    run = some_run(fold_depth=1, per_group=True)
    path = train(run, some_records(run), daemon.socket, tmp_path)
    scalars = read_scalars(path)
    names = [tag for tag in scalars if tag.startswith("group_fisher/")]
    assert names == ["group_fisher/a", "group_fisher/b", "group_fisher/c"]
    total = sum(np.array(scalars[name].values) for name in names)
    assert total == pytest.approx(np.array(scalars["fisher/trace_empirical"].values), rel=1e-5)


def test_labels_from_the_model(daemon, tmp_path):
    run = some_run(labels_from_model=True)
    assert tags_of(check(run, some_records(run), daemon, tmp_path), "fisher/") == {"fisher/trace"}


def test_the_estimates_find_the_noise_that_was_put_in(daemon, tmp_path):
    """Independent means over 8 and 64 of examples whose covariance has trace 40 * 9, around a gradient of norm^2 10."""
    rng = np.random.default_rng(3)
    run = Run([Group("w", 40)], max_lag=1)
    true = np.full(40, 0.5)
    records = []
    for t in range(1, 3001):
        small, big = (true + 3.0 * rng.normal(size=40) / np.sqrt(b) for b in (8, 64))
        norm = SquaredNorm(8.0, float(small @ small))
        records.append(Step(t, [big.astype(np.float32)], [0.0], batch_size=64.0, squared_norms=(norm,)))
    scalars = read_scalars(train(run, records, daemon.socket, tmp_path))
    for family, trace, G2 in (("noise", 0.03, 0.08), ("noise_single", 0.03, 0.08)):
        assert np.mean(scalars[f"{family}/S"].values) == pytest.approx(360.0, rel=trace)
        assert np.mean(scalars[f"{family}/G2"].values) == pytest.approx(10.0, rel=G2)
        last = scalars[f"{family}/B_simple"].values[-1000:]
        assert np.median(last) == pytest.approx(36.0, rel=0.15)
    assert np.mean(scalars["fisher/trace_empirical"].values) == pytest.approx(370.0, rel=0.03)


def test_the_critical_periods_end_is_told_once(daemon, tmp_path):
    """A trace that rises and falls: one text, at the step and with the peak the reference finds."""
    run = Run([Group("w", 30)], max_lag=1, no_thinning=True)
    rng = np.random.default_rng(4)
    records = []
    for t in range(1, 601):
        spread = 1.0 + 9.0 * np.exp(-(((t - 120) / 60) ** 2))
        small, big = (0.3 + spread * rng.normal(size=30) / np.sqrt(b) for b in (4, 32))
        norm = SquaredNorm(4.0, float(small @ small))
        records.append(Step(t, [big.astype(np.float32)], [0.0], batch_size=32.0, squared_norms=(norm,)))
    path = train(run, records, daemon.socket, tmp_path)
    reference = Reference(run)
    for record in records:
        reference.step(record)
    end, peak_step, peak = reference.critical_period_end
    ((step, value),) = read_tensors(path)["fisher/critical_period"]
    assert step == end
    assert value.metadata.plugin_data.plugin_name == "text" and value.metadata.summary_description
    text = value.tensor.string_val[0].decode()
    found = re.search(r"`fisher/trace_empirical` peaked at step (\d+) with ([\d.e+-]+), .* by step (\d+)\.$", text)
    assert found, text
    assert (int(found[1]), int(found[3])) == (peak_step, end)
    assert float(found[2]) == pytest.approx(peak, rel=1e-5)


def test_a_resumed_checkpoint_begins_its_averages_anew(daemon, tmp_path):
    run = some_run()
    records = some_records(run, steps=40)
    check(run, records[:20], daemon, tmp_path)
    check(replace(run, first_step=21), records[20:], daemon, tmp_path / "second")
