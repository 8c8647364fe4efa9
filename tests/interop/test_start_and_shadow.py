"""Runs whose optimiser state is handed over in mid-training, and rules that are followed beside the run's own."""

import math
from dataclasses import replace

import numpy as np
import pytest

from compare import compare_file, compare_values
from readers import read_steps
from reference import Reference
from streams import Stream
from test_rules import FAST, VARIANTS, all_sizes, without
from trainer import Group, Optimizer, ParameterGroup, Run, train

SPLIT = 20
STEPS = 40

START_VARIANTS = {
    **{name: variant for name, variant in VARIANTS.items() if name != "sgd"},
    "adagrad-decay": (Optimizer("adagrad", learning_rate_decay=0.1), FAST),
    "adamw-uncorrected": (Optimizer("adamw", bias_correction="none", eps_root=1e-3), FAST),
    "adafom-eps-root": (Optimizer("adafom", eps_root=1e-3), FAST),
}
every_variant = pytest.mark.parametrize("variant", START_VARIANTS)

# These of a step's tags do not depend on where the run began.
PER_STEP = [f"step_sums/{name}" for name in "ABCD"]
PER_STEP += ["adam/step_size_min", "adam/step_size_mean", "adam/active_fraction", "adam/rms"]


def scheduled(run, seed, count=STEPS):
    """Rates that fall from step to step, across the split too."""
    return [
        replace(step, learning_rates=[1e-2 / math.sqrt(step.step), 3e-3 / step.step][: len(step.learning_rates)])
        for step in Stream(run, seed=seed).steps(count)
    ]


def state_of(reference):
    """What an optimiser that keeps its state in f32 has in it."""
    initial = reference.run.optimizer.initial_accumulator
    v = [(initial + state.second_moment).astype(np.float32) for state in reference.groups]
    maximum = [state.maximum.astype(np.float32) for state in reference.groups]
    return v, maximum if reference.rule == "amsgrad" else None


def starting_at(run, reference, first_step, records):
    """The run from `first_step` on, with the state that the reference has reached."""
    v, maximum = state_of(reference)
    rates = records[first_step - 2].learning_rates
    return replace(
        run,
        name="resumed",
        first_step=first_step,
        parameter_groups=[replace(p, start_learning_rate=rate) for p, rate in zip(run.parameter_groups, rates)],
        start_second_moment=v,
        start_second_moment_max=maximum,
        start_optimizer_step=reference.last_optimizer_step,
    )


def run_in_order(reference, records):
    return {record.step: reference.step(record) for record in records}


@every_variant
def test_a_run_goes_on_as_if_never_cut(variant, daemon, tmp_path):
    run = all_sizes(*START_VARIANTS[variant])
    records = scheduled(run, seed=21)
    unbroken = Reference(run)
    run_in_order(unbroken, records[:SPLIT])
    resumed = starting_at(run, unbroken, SPLIT + 1, records)
    path = train(resumed, records[SPLIT:], daemon.socket, tmp_path)
    compare_file(resumed, records[SPLIT:], path)

    found = read_steps(path)
    for step, expected in run_in_order(unbroken, records[SPLIT:]).items():
        per_step = {tag: value for tag, value in expected.items() if tag in PER_STEP}
        assert "step_sums/C" in per_step
        compare_values(step, {tag: value for tag, value in found[step].items() if tag in PER_STEP}, per_step)
        assert ("adam/slope_B_over_A" in found[step]) == (step >= SPLIT + 16)
        assert found[step]["gradientd/observed_fraction"] == 1


def small_run(optimizer, parameter_groups, **options):
    groups = [Group(f"w{i}", 2000 + i, i % len(parameter_groups)) for i in range(3)]
    return Run(groups, optimizer, parameter_groups, **options)


def resumed_after(run, records, **changes):
    """The run as it begins after SPLIT steps, and its reference's file."""
    unbroken = Reference(run)
    run_in_order(unbroken, records[:SPLIT])
    return replace(starting_at(run, unbroken, SPLIT + 1, records), **changes)


@every_variant
def test_without_the_last_rate_the_first_holds(variant, daemon, tmp_path):
    run = small_run(*START_VARIANTS[variant])
    records = scheduled(run, seed=22)
    resumed = resumed_after(run, records, parameter_groups=run.parameter_groups)
    expected = compare_file(resumed, records[SPLIT:], train(resumed, records[SPLIT:], daemon.socket, tmp_path))
    assert expected[SPLIT + 1]["step_sums/C"] > 0


@every_variant
@pytest.mark.parametrize("absent_counts", [False, True])
def test_missing_steps_before_the_first(variant, absent_counts, daemon, tmp_path):
    run = small_run(*START_VARIANTS[variant], absent_counts=absent_counts)
    records = scheduled(run, seed=23)
    resumed = resumed_after(run, records, first_step=SPLIT + 4)
    later = [replace(step, optimizer_step=step.step) for step in records[SPLIT + 3 :]]
    later[0] = without(later[0], 1)  # absent right after the gap
    expected = compare_file(resumed, later, train(resumed, later, daemon.socket, tmp_path))
    assert expected[SPLIT + 4]["step_sums/C"] == 0 and expected[SPLIT + 5]["step_sums/C"] > 0
    assert expected[STEPS]["gradientd/observed_fraction"] == pytest.approx(17 / 20)


@every_variant
def test_a_group_that_has_taken_no_step(variant, daemon, tmp_path):
    """A layer that was just added: whatever its part of the vector holds, it begins with the first snapshot."""
    run = small_run(*START_VARIANTS[variant])
    records = scheduled(run, seed=24)
    resumed = resumed_after(run, records)
    resumed.groups = [*run.groups[:2], replace(run.groups[2], step_lag=SPLIT)]
    first_not_applied = [replace(records[SPLIT], applied=False), *records[SPLIT + 1 :]]
    compare_file(resumed, first_not_applied, train(resumed, first_not_applied, daemon.socket, tmp_path))


@every_variant
def test_elements_that_are_no_second_moments(variant, daemon, tmp_path):
    run = small_run(*START_VARIANTS[variant])
    records = scheduled(run, seed=25)
    resumed = resumed_after(run, records)
    resumed.start_second_moment[0][:4] = -1.0, np.nan, -np.inf, -0.0
    if resumed.start_second_moment_max is not None:
        resumed.start_second_moment_max[0][:4] = -1.0, np.nan, -np.inf, -0.0
    compare_file(resumed, records[SPLIT:], train(resumed, records[SPLIT:], daemon.socket, tmp_path))


@pytest.mark.parametrize("variant", ["adam", "amsgrad-corrected"])
def test_inline_vectors_give_the_same_file(variant, daemon, tmp_path):
    run = all_sizes(*START_VARIANTS[variant])
    records = scheduled(run, seed=26)
    resumed = resumed_after(run, records)
    files = [
        train(replace(resumed, transport=transport, name=transport), records[SPLIT:], daemon.socket, tmp_path)
        for transport in ("memory", "raw", "deflated")
    ]
    contents = [path.read_bytes() for path in files]
    assert contents[0] == contents[1] == contents[2]


# --- shadows

RULES = ("sgd", "adam", "adamw", "rmsprop", "amsgrad", "adagrad", "adafom")
OWNERS = {
    **{rule: Optimizer(rule) for rule in (*RULES, "other")},
    "adam-uncorrected": Optimizer("adam", bias_correction="none"),
    "rmsprop-corrected": Optimizer("rmsprop", bias_correction="corrected", eps_root=1e-3),
    "amsgrad-uncorrected": Optimizer("amsgrad", maximum_of="uncorrected"),
    "adagrad-accumulator": Optimizer("adagrad", initial_accumulator=0.1, learning_rate_decay=0.01, eps_root=1e-3),
}
every_owner = pytest.mark.parametrize("owner", OWNERS)


def shadowed(owner, **options):
    optimizer = OWNERS[owner]
    others = tuple(rule for rule in RULES if rule != optimizer.rule)
    return small_run(optimizer, FAST, shadow_rules=others, **options)


def varied(run, count=STEPS):
    """Steps with all that moves a rule's state in its own way."""
    records = scheduled(run, seed=27, count=count)
    records[4] = replace(records[4], applied=False)
    records[6] = without(records[6], 1)
    for i in range(9, count):
        records[i] = replace(records[i], optimizer_step=i + 3)
    records[11] = replace(records[11], beta2=[0.8, 0.7], eps=[1e-4, 1e-3])
    return records


@every_owner
def test_each_shadow_follows_its_formula(owner, daemon, tmp_path):
    run = shadowed(owner)
    records = varied(run)
    compare_file(run, records, train(run, records, daemon.socket, tmp_path))


# What a shadow is, as a run of its own.
def own_run(run, rule):
    reference = Reference(replace(run, shadow_rules=(rule,)))
    return replace(reference.shadows[rule].run, name=rule)


@every_owner
def test_each_shadow_equals_a_run_of_its_own(owner, daemon, tmp_path):
    run = shadowed(owner, no_thinning=False, first_step=9_981)
    records = [replace(step, step=step.step + 9_980) for step in varied(run)]  # across where thinning begins
    shadows = read_steps(train(run, records, daemon.socket, tmp_path))
    for rule in run.shadow_rules:
        own = read_steps(train(own_run(run, rule), records, daemon.socket, tmp_path))
        prefix = f"shadow_{rule}/"
        for step in own.keys() | shadows.keys():
            expected = {tag: value for tag, value in own[step].items() if tag.startswith("adam/")}
            found = {
                "adam/" + tag.removeprefix(prefix): value
                for tag, value in shadows[step].items()
                if tag.startswith(prefix)
            }
            assert found == expected and (found or step == 9_985), (rule, step)


@every_owner
def test_shadows_change_nothing_else(owner, daemon, tmp_path):
    run = shadowed(owner)
    records = varied(run)
    with_shadows = read_steps(train(run, records, daemon.socket, tmp_path))
    without_any = read_steps(train(replace(run, name="plain", shadow_rules=()), records, daemon.socket, tmp_path))
    for step, values in with_shadows.items():
        assert {tag: value for tag, value in values.items() if not tag.startswith("shadow_")} == without_any[step]


@pytest.mark.parametrize("owner", ["sgd", "adam", "amsgrad"])
def test_shadows_in_mid_training(owner, daemon, tmp_path):
    """Rules that forget wait for 3 / (1 - 0.875) = 24 steps; those that do not stay silent."""
    run = shadowed(owner)
    records = [replace(step, optimizer_step=step.step + 500) for step in scheduled(run, seed=28)]
    expected = compare_file(run, records, train(run, records, daemon.socket, tmp_path))
    tags = {tag.partition("/")[0] for tag in expected[STEPS]}
    assert tags.isdisjoint({"shadow_amsgrad", "shadow_adagrad", "shadow_adafom"}) and "shadow_rmsprop" in tags
    assert not any(tag.startswith("shadow_rmsprop/") for tag in expected[24])


def test_start_vectors_are_the_runs_own(daemon, tmp_path):
    """The run begins exact, its shadows wait."""
    run = shadowed("adam")
    records = scheduled(run, seed=29, count=STEPS + SPLIT)
    resumed = resumed_after(run, records)
    expected = compare_file(resumed, records[SPLIT:], train(resumed, records[SPLIT:], daemon.socket, tmp_path))
    first = expected[SPLIT + 1]
    assert "adam/A" in first and "shadow_sgd/A" in first and "shadow_adamw/A" not in first
    assert "shadow_adamw/A" in expected[STEPS + SPLIT]
