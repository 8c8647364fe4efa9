"""Every tag of every step, for every rule and variant, against the reference."""

import math
from dataclasses import replace

import numpy as np
import pytest

from compare import compare_file, compare_values
from readers import read_steps
from reference import Reference
from streams import Stream
from trainer import Group, Optimizer, ParameterGroup, Run, Step, train

# 70,000 elements span two chunks of 65,536
SIZES = (1, 3, 1000, 70_000)

# At b2 = 0.999 the effective step moves by about 1e-3 of itself a step, and its f32 state carries a rounding of about
# 1e-7: each |e_t - e_{t-1}| is off by about 1e-4 of itself, in either direction. Over the 56,000 active coordinates
# that averages to 1e-4 / sqrt(56000) = 4e-7, so the common tolerance of 1e-5 holds for C and D here too.
SLOW = [ParameterGroup(beta2=0.999, eps=1e-8), ParameterGroup(beta2=0.99, eps=1e-3)]
FAST = [ParameterGroup(beta2=0.875, eps=0.0), ParameterGroup(beta2=0.75, eps=1e-3)]

VARIANTS = {
    "sgd": (Optimizer("sgd"), SLOW),
    "adam": (Optimizer("adam"), SLOW),
    "adam-fast": (Optimizer("adam"), FAST),
    "adam-uncorrected": (Optimizer("adam", bias_correction="none"), FAST),
    "adam-eps-root": (Optimizer("adam", eps_root=1e-2), SLOW),
    "adamw": (Optimizer("adamw"), SLOW),
    "rmsprop": (Optimizer("rmsprop"), FAST),
    "rmsprop-eps-root": (Optimizer("rmsprop", eps_root=1e-3), SLOW),
    "rmsprop-corrected": (Optimizer("rmsprop", bias_correction="corrected"), FAST),
    "amsgrad": (Optimizer("amsgrad"), SLOW),
    "amsgrad-raw": (Optimizer("amsgrad", maximum_of="raw_then_corrected"), FAST),
    "amsgrad-corrected": (Optimizer("amsgrad", maximum_of="corrected", eps_root=1e-4), FAST),
    "amsgrad-uncorrected": (Optimizer("amsgrad", maximum_of="uncorrected"), FAST),
    "adagrad": (Optimizer("adagrad"), SLOW),
    "adagrad-accumulator": (Optimizer("adagrad", initial_accumulator=0.1, learning_rate_decay=0.01), FAST),
    "adagrad-eps-root": (Optimizer("adagrad", initial_accumulator=0.1, eps_root=1e-2), FAST),
    "adafom": (Optimizer("adafom"), FAST),
}


def all_sizes(optimizer, parameter_groups, **options):
    groups = [Group(f"layer{i}", size, parameter_group=i % 2) for i, size in enumerate(SIZES)]
    return Run(groups, optimizer, parameter_groups, **options)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_tag_of_every_step(variant, daemon, tmp_path):
    run = all_sizes(*VARIANTS[variant])
    records = [
        replace(step, learning_rates=[1e-2 / math.sqrt(step.step), 3e-3 / step.step])
        for step in Stream(run, seed=1).steps(36)
    ]
    path = train(run, records, daemon.socket, tmp_path)
    compare_file(run, records, path)


# --- the truth table of what a step may be, on small groups
#
# b2 is at most 0.875 here: e moves by 1e-1 of itself a step, so a few coordinates reach 1e-5 as well.

SMALL_RULES = ["sgd", "adam", "rmsprop", "amsgrad", "adagrad", "adafom"]
SMALL_VARIANTS = {
    **{rule: Optimizer(rule) for rule in SMALL_RULES},
    "adagrad-decay": Optimizer("adagrad", learning_rate_decay=0.1),
    "amsgrad-corrected": Optimizer("amsgrad", maximum_of="corrected"),
}
every_rule = pytest.mark.parametrize("variant", SMALL_VARIANTS)


def small(variant, **options):
    lags = options.pop("step_lags", (0, 0, 0))
    groups = [Group(f"w{i}", 50 + i, i % 2, lag) for i, lag in enumerate(lags)]
    return Run(groups, SMALL_VARIANTS[variant], FAST, **options)


def check(run, records, daemon, tmp_path):
    return compare_file(run, records, train(run, records, daemon.socket, tmp_path))


def without(step, *absent):
    return replace(step, gradients=[None if i in absent else g for i, g in enumerate(step.gradients)])


@every_rule
@pytest.mark.parametrize("absent_counts", [False, True])
def test_absent_groups(variant, absent_counts, daemon, tmp_path):
    run = small(variant, absent_counts=absent_counts)
    absences = {1: [2], 2: [2], 4: [0], 5: [0, 1], 6: [1], 9: [0, 1, 2], 12: [0], 13: [1], 20: [2]}
    records = [without(step, *absences.get(step.step, [])) for step in Stream(run, seed=2).steps(24)]
    check(run, records, daemon, tmp_path)


@every_rule
def test_steps_not_applied(variant, daemon, tmp_path):
    run = small(variant)
    records = [replace(step, applied=step.step not in (1, 5, 6, 17)) for step in Stream(run, seed=3).steps(24)]
    expected = check(run, records, daemon, tmp_path)
    assert "adam/A" not in expected[5] and "coherence/cosine_lag1" in expected[5]


@every_rule
@pytest.mark.parametrize("absent_counts", [False, True])
def test_missing_optimizer_steps(variant, absent_counts, daemon, tmp_path):
    run = small(variant, absent_counts=absent_counts)
    optimizer_step = 0
    records = []
    for step in Stream(run, seed=4).steps(24):
        optimizer_step += {4: 2, 9: 5, 10: 3, 20: 40}.get(step.step, 1)
        records.append(replace(step, optimizer_step=optimizer_step))
    records[8] = without(records[8], 1)  # absent in the step that ends a gap
    expected = check(run, records, daemon, tmp_path)
    assert expected[4]["step_sums/C"] == 0 and expected[24]["gradientd/observed_fraction"] == 24 / optimizer_step


@every_rule
def test_missing_steps(variant, daemon, tmp_path):
    """Steps the trainer did not send leave holes in the lags."""
    run = small(variant)
    records = [step for step in Stream(run, seed=5).steps(24) if step.step not in (4, 9, 10, 11, 12, 13, 14, 20)]
    expected = check(run, records, daemon, tmp_path)
    assert "coherence/cosine_lag1" not in expected[5] and "coherence/cosine_lag2" in expected[5]
    assert not any(tag.startswith("coherence/") for tag in expected[15])


@pytest.mark.parametrize("stride", [2, 3, 10])
def test_strides(stride, daemon, tmp_path):
    """Lags count strides, in a run that sends one step a stride; some of them are missing."""
    run = small("adam", stride=stride, first_step=stride)
    records = [replace(step, step=stride * step.step) for step in Stream(run, seed=15).steps(24) if step.step != 9]
    expected = check(run, records, daemon, tmp_path)
    assert "coherence/cosine_lag1" in expected[2 * stride] and "coherence/cosine_lag1" not in expected[10 * stride]


@pytest.mark.parametrize("stride", [2, 10])
def test_steps_closer_than_a_stride(stride, daemon, tmp_path):
    """They block nothing, and every stride a step has all its lags."""
    run = small("adam", stride=stride)
    expected = check(run, Stream(run, seed=16).steps(80), daemon, tmp_path)
    for step in (61, 71):
        assert all(f"coherence/cosine_lag{lag}" in expected[step] for lag in range(1, 6))


@every_rule
@pytest.mark.parametrize("seed", range(4))
def test_everything_at_once(variant, seed, daemon, tmp_path):
    """Absent groups, steps that are missing or not applied, gaps in the optimiser's count, changing rates, strides."""
    random = np.random.default_rng(seed)
    lags = [0, int(random.integers(0, 3)), 0]
    run = small(variant, step_lags=lags, stride=int(random.integers(1, 4)), absent_counts=bool(random.integers(2)))
    optimizer_step, records = 2, []
    for step in Stream(run, seed=100 + seed).steps(60):
        if step.step > 1 and random.random() < 0.15:
            continue
        applied = bool(random.random() < 0.8)
        optimizer_step += applied * int(random.choice([1, 1, 1, 1, 2, 7]))
        rates = list(10.0 ** random.uniform(-4, -1, 2))
        step = replace(step, applied=applied, learning_rates=rates, optimizer_step=optimizer_step if applied else 0)
        if random.random() < 0.1:
            step = replace(step, beta2=list(random.uniform(0.5, 0.9, 2)), eps=list(10.0 ** random.uniform(-6, -2, 2)))
        records.append(without(step, *np.flatnonzero(random.random(3) < 0.2)))
    check(run, records, daemon, tmp_path)


@every_rule
def test_attached_in_mid_training(variant, daemon, tmp_path):
    """Rules that forget wait for 3 / (1 - 0.875) = 24 steps; those that do not stay silent."""
    run = small(variant, step_lags=(0, 990, 100), first_step=1001)
    records = [
        replace(step, optimizer_step=step.step - 1) for step in Stream(run, seed=6).steps(44, first=run.first_step)
    ]
    expected = check(run, records, daemon, tmp_path)
    begins = {"sgd": 1001, "adam": 1025, "rmsprop": 1025}.get(variant)
    assert next((step for step, values in expected.items() if "adam/A" in values), None) == begins


@every_rule
def test_step_lag(variant, daemon, tmp_path):
    """Slices whose own t begins at 1 though the run's does not are known from their start."""
    run = small(variant, step_lags=(100, 100, 100))
    records = [replace(step, optimizer_step=100 + step.step) for step in Stream(run, seed=7).steps(20)]
    expected = check(run, records, daemon, tmp_path)
    assert "adam/A" in expected[1]


@every_rule
def test_schedules(variant, daemon, tmp_path):
    """Rates, b2 and eps that change on the way."""
    run = small(variant)
    records = []
    for step in Stream(run, seed=8).steps(24):
        step = replace(step, learning_rates=[1e-3 * min(step.step, 10), 1e-2 * 0.8**step.step])
        if step.step in (6, 15):
            step = replace(step, beta2=[0.5 + step.step / 64, 0.75], eps=[1e-3, 1e-4 * step.step])
        records.append(step)
    check(run, records, daemon, tmp_path)


@every_rule
def test_non_finite_elements(variant, daemon, tmp_path):
    """They count, and add zero to every sum: in their step and in those that look back at it."""
    run = small(variant)
    records = Stream(run, seed=9).steps(16)
    records[0].gradients[0][3] = np.nan
    records[4].gradients[1][:7] = np.inf, -np.inf, np.nan, -np.nan, np.inf, np.nan, np.nan
    records[6].gradients[2][:] = np.nan
    records[9].gradients[0][:] = -np.inf
    for gradient in records[12].gradients:
        gradient[:] = np.nan
    expected = check(run, records, daemon, tmp_path)
    assert expected[5]["gradient/non_finite"] == 7 and expected[13]["gradient/norm"] == 0


@every_rule
def test_zero_gradients(variant, daemon, tmp_path):
    run = small(variant)
    records = Stream(run, seed=10).steps(12)
    for i in (0, 5, 6):
        for gradient in records[i].gradients:
            gradient[:] = 0
    expected = check(run, records, daemon, tmp_path)
    assert "coherence/cosine_lag1" not in expected[6] and expected[6]["adam/active_fraction"] == 0


@pytest.mark.parametrize("max_lag", [1, 2, 32])
def test_lags(max_lag, daemon, tmp_path):
    run = Run([Group("w", 300)], Optimizer("sgd"), max_lag=max_lag)
    check(run, Stream(run, seed=11).steps(40), daemon, tmp_path)


@every_rule
def test_long_run_of_slopes(variant, daemon, tmp_path):
    """Slopes and oscillation at every n up to 150: odd halves and the grid's spacings 1, 2, 4 and 8."""
    run = small(variant)
    records = [
        replace(step, learning_rates=[1e-2 / math.sqrt(step.step)] * 2) for step in Stream(run, seed=12).steps(150)
    ]
    check(run, records, daemon, tmp_path)


def test_far_scales(daemon, tmp_path):
    """Scales from 1e-12 to 1e6 in one run."""
    run = Run([Group("small", 500), Group("large", 500)], Optimizer("adam"), [ParameterGroup(0.875, 1e-16)])
    scales = (1e-12, 1e6)
    records = [
        Step(step.step, [(g * scale).astype(np.float32) for g, scale in zip(step.gradients, scales)], [1e-3])
        for step in Stream(run, seed=13).steps(20)
    ]
    check(run, records, daemon, tmp_path)


@pytest.mark.parametrize("rule", ["adam", "amsgrad"])
def test_gradients_far_below_eps(rule, daemon, tmp_path):
    """Where eps rules, e hardly changes: C is what is left of it, and not rounding."""
    run = Run([Group("w", 2000)], Optimizer(rule), [ParameterGroup(0.875, 1e-4)])
    records = [
        Step(step.step, [(g * 1e-10).astype(np.float32) for g in step.gradients], [1e-3])
        for step in Stream(run, seed=16).steps(30)
    ]
    check(run, records, daemon, tmp_path)


@pytest.mark.parametrize("variant", ["rmsprop", "adam"])
def test_group_that_comes_late(variant, daemon, tmp_path):
    """Its uncorrected v starts low, and must not raise the alarm that adam/rms is."""
    run = small(variant, step_lags=(0, 0))
    records = [without(step, *([1] if step.step < 60 else [])) for step in Stream(run, seed=17).steps(100)]
    expected = check(run, records, daemon, tmp_path)
    assert all(values["adam/rms"] < 2.3 for step, values in expected.items() if "adam/rms" in values)


def test_square_beyond_float(daemon, tmp_path):
    """One finite element whose square is not: that step's cosines are absent, and the totals go on."""
    run = Run([Group("w", 100)], Optimizer("sgd"), [ParameterGroup(0.0, 0.0)])
    records = Stream(run, seed=18).steps(20)
    records[9].gradients[0][5] = 3e19
    found = read_steps(train(run, records, daemon.socket, tmp_path))
    assert found[10]["gradient/norm"] == np.inf
    assert not any(tag.startswith("coherence/") for tag in found[10]) and "coherence/cosine_lag1" not in found[11]
    assert "coherence/cosine_lag1" in found[12] and np.isfinite(found[20]["adam/B"])


def test_thinned_series_carry_maxima(daemon, tmp_path):
    """Past 20,000 one step in ten is written; what spiked between two of them shows in the later one."""
    run = Run([Group("w", 100)], Optimizer("adam"), [ParameterGroup(0.875, 1e-8)], first_step=20_000, no_thinning=False)
    records = Stream(run, seed=14).steps(48, first=run.first_step)
    records[13].gradients[0][7] = 1000.0
    records[24].gradients[0][8:12] = np.nan
    found = read_steps(train(run, records, daemon.socket, tmp_path))

    reference = Reference(run)
    expected = {record.step: reference.step(record) for record in records}
    assert list(found) == [20_000, 20_010, 20_020, 20_030, 20_040, 20_047]
    before = run.first_step - 1
    for step, values in found.items():
        since = [expected[one] for one in range(before + 1, step + 1)]
        expected[step]["gradient/norm_max"] = max(one["gradient/norm"] for one in since)
        for tag in ("gradient/max_abs", "gradient/non_finite"):
            expected[step][tag] = max(one[tag] for one in since)
        compare_values(step, values, expected[step])
        before = step
    assert found[20_020]["gradient/norm_max"] > 1000 > found[20_020]["gradient/norm"]
    assert found[20_030]["gradient/non_finite"] == 4
