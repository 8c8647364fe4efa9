"""gradientd.Run: what it writes is what numpy computes of the arrays it was given."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import gradientd
from jobs import GROUPS, compare, described, open_run, parameters, records_of, submit, submit_all, tree
from readers import read_scalars, read_steps
from trainer import Optimizer, ParameterGroup, SideStream, SquaredNorm
from waiting import wait_until

STEPS = 40  # slopes begin at 16


def test_values_are_those_of_a_reference(tmp_path):
    run = described()
    records = [replace(record, scalars=(("train/loss", 1 / record.step),)) for record in records_of(run, STEPS)]
    path = submit_all(open_run(tmp_path, run="job"), records)
    assert path.startswith(str(tmp_path / "job" / "events.out.tfevents."))
    tags = compare(run, records, path)
    assert {"coherence/cosine_lag5", "gradient/norm", "adam/A", "adam/B", "adam/C", "adam/slope_B_over_A"} <= tags
    assert "group_norm/layer1/weight" in tags


OPTIMIZERS = {
    "sgd": gradientd.Optimizer("sgd"),
    "adamw without correction": gradientd.Optimizer("adamw", bias_correction=False),
    "rmsprop, eps in the root": gradientd.Optimizer("rmsprop", bias_correction=True, eps_root=1e-6),
    "amsgrad of optax": gradientd.Optimizer("amsgrad", maximum_of="corrected"),
    "adagrad": gradientd.Optimizer("adagrad", initial_accumulator=0.1, learning_rate_decay=0.01),
    "adafom": gradientd.Optimizer("adafom"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_followed(name, tmp_path):
    own = OPTIMIZERS[name]
    correction = {None: "default", True: "corrected", False: "none"}[own.bias_correction]
    optimizer = Optimizer(
        own.rule,
        correction,
        own.maximum_of or "default",
        own.eps_root,
        own.initial_accumulator,
        own.learning_rate_decay,
    )
    run = replace(described(beta2=0.9), optimizer=optimizer)
    records = records_of(run, STEPS)
    assert "adam/A" in compare(run, records, submit_all(open_run(tmp_path, own, beta2=0.9), records))


def test_parameter_groups_and_names_may_be_given(tmp_path):
    groups = [replace(group, parameter_group=i % 2, name=f"t{i}") for i, group in enumerate(GROUPS)]
    run = replace(
        described("adam"), groups=groups, parameter_groups=[ParameterGroup(0.9, 1e-8), ParameterGroup(0.99, 1e-6)]
    )
    records = records_of(run, STEPS)
    own = gradientd.Run(
        [gradientd.Group(group.name, group.numel, group.parameter_group) for group in groups],
        "adam",
        beta2=[0.9, 0.99],
        eps=[1e-8, 1e-6],
        logdir=tmp_path,
        max_stall=60,
        shadow_rules=["amsgrad"],
    )
    for record in records:
        record.learning_rates = [1e-3, 1e-4 / record.step]
        gradients = {group.name: gradient for group, gradient in zip(groups, record.gradients)}
        assert own.submit(record.step, gradients, record.learning_rates)
    assert own.close()
    tags = compare(replace(run, shadow_rules=("amsgrad",)), records, own.event_path)
    assert "shadow_amsgrad/oscillation" in tags


@pytest.mark.parametrize("dtype, element_type", [(np.float16, "f16"), (np.float64, "f64")])
def test_elements_are_of_the_parameters_type(dtype, element_type, tmp_path):
    run = described(element_type=element_type)
    records = records_of(run, 10)
    for record in records:
        record.gradients = [gradient.astype(dtype) for gradient in record.gradients]
    run_of_type = open_run(tmp_path, of=parameters(dtype))
    assert "adam/A" in compare(run, records, submit_all(run_of_type, records))


def test_arrays_need_not_be_contiguous(tmp_path):
    run = described()
    records = records_of(run, 3)
    with open_run(tmp_path) as own:
        for record in records:
            gradients = tree(record.gradients)
            gradients["layer1"]["weight"] = np.asfortranarray(gradients["layer1"]["weight"])
            gradients["out"] = np.repeat(gradients["out"], 2)[::2]
            assert own.submit(record.step, gradients, 1e-3)
    compare(run, records, own.event_path)


@pytest.mark.parametrize("counts", [False, True])
def test_a_tensor_without_gradient_is_absent(counts, tmp_path):
    run = described(absent_counts=counts)
    records = records_of(run, STEPS)
    for record in records:
        if record.step % 7 in (3, 4):
            record.gradients[record.step % 3] = None
    assert "adam/A" in compare(run, records, submit_all(open_run(tmp_path, absent_counts=counts), records))


def test_a_tensor_that_the_tree_leaves_out_is_absent(tmp_path):
    run = described()
    records = records_of(run, 5)
    records[2].gradients[1] = None
    with open_run(tmp_path) as own:
        for record in records:
            gradients = tree(record.gradients)
            if record.gradients[1] is None:
                del gradients["layer1"]["bias"]
            assert own.submit(record.step, gradients, 1e-3)
    compare(run, records, own.event_path)


def test_steps_that_are_not_applied_and_changed_rates(tmp_path):
    run = described("amsgrad", beta2=0.9)
    records = records_of(run, STEPS)
    for record in records:
        record.applied = record.step % 9 != 5
        if record.step == 20:
            record.beta2, record.eps = [0.95], [1e-5]
    compare(run, records, submit_all(open_run(tmp_path, "amsgrad", beta2=0.9), records))


@pytest.mark.parametrize("every, burst, taken", [(10, None, 6), (10, 2, 2), (4, 1, 1), (3, None, 3)])
def test_steps_left_out_are_visible(every, burst, taken, tmp_path):
    run = described(stride=every if burst == 1 else 1)
    own = open_run(tmp_path, every=every, burst=burst)
    kept = []
    for index, record in enumerate(records_of(run, 10 * every)):
        accepted = submit(own, record)
        assert accepted == (index % every < taken)
        if accepted:
            kept.append(replace(record, optimizer_step=record.step))
    assert own.close()
    tags = compare(run, kept, own.event_path)
    lags = {tag for tag in tags if tag.startswith("coherence/cosine_lag")}
    assert len(lags) == (5 if taken in (1, 6) or taken == every else taken - 1)
    fractions = read_scalars(own.event_path)["gradientd/observed_fraction"].values
    assert fractions[-1] == pytest.approx(len(kept) / kept[-1].step)


def test_values_of_steps_left_out_are_kept(tmp_path):
    with open_run(tmp_path, every=10, burst=1) as own:
        for record in records_of(described(), 20):
            submit(own, replace(record, scalars=(("loss", record.step),)))
    series = read_scalars(own.event_path)
    assert series["loss"].steps == list(range(1, 21)) and series["loss"].values == list(range(1, 21))
    assert series["gradient/norm"].steps == [1, 11]


@pytest.mark.parametrize("rule", ["adam", "amsgrad"])
def test_a_start_in_mid_training(rule, tmp_path):
    random = np.random.default_rng(3)
    moments = [[random.random(g.numel, np.float32) + i for g in GROUPS] for i in range(2)]
    run = described(rule, first_step=101, start_optimizer_step=90, start_second_moment=moments[0])
    run.parameter_groups[0].start_learning_rate = 1e-2
    starts = {"start_second_moment": tree(moments[0])}
    if rule == "amsgrad":
        run.start_second_moment_max = moments[1]
        starts["start_second_moment_max"] = tree(moments[1])
    records = records_of(run, STEPS, first=101)
    own = open_run(tmp_path, rule, first_step=101, start_optimizer_step=90, start_learning_rate=1e-2, **starts)
    tags = compare(run, records, submit_all(own, records))
    assert "adam/C" in tags and min(read_steps(own.event_path)) == 101


def side_run():
    return described(
        "sgd",
        probe_gradients=SideStream(2),
        parameters=SideStream(2),
        outputs=SideStream(2, "f64"),
        output_examples=5,
        outputs_per_example=3,
    )


def side_records(run):
    random = np.random.default_rng(5)
    position = [random.standard_normal(g.numel).astype(np.float32) for g in GROUPS]
    for record in records_of(run, 20):
        position = [x - np.float32(0.1) * g for x, g in zip(position, record.gradients)]
        if record.step % 2:
            record.parameters = position
            record.probe_gradients = [x * np.float32(0.5) + np.float32(0.1) for x in position]
            record.outputs = random.random((5, 3))
        record.model_version = record.step - 1
        yield record


def test_streams_beside_the_gradient(tmp_path):
    run = side_run()
    records = list(side_records(run))
    start = [np.ones(g.numel, np.float32) for g in GROUPS]
    run.start_parameters, run.start_outputs = start, np.ones((5, 3))
    own = open_run(
        tmp_path,
        "sgd",
        probe_gradients=gradientd.Stream(2),
        parameters_stream=gradientd.Stream(2),
        outputs=gradientd.Stream(2, "f64"),
        outputs_shape=(5, 3),
        start_parameters=tree(start),
        start_outputs=np.ones((5, 3)),
    )
    tags = compare(run, records, submit_all(own, records))
    assert {"coherence_probe/cosine_lag1", "curvature/secant", "function/l2_from_start"} <= tags
    assert {"parameters/l2_from_start", "staleness/observed", "staleness/lr_bound"} <= tags


def test_noise_of_two_batch_sizes(tmp_path):
    run = described("sgd", labels_from_model=True)
    records = records_of(run, STEPS)
    for record in records:
        squares = [float(np.sum(np.float64(gradient) ** 2)) for gradient in record.gradients]
        per_group = [1.5 * square + 1 for square in squares]
        record.batch_size, record.clip_factor = 512, 0.5
        record.squared_norms = (SquaredNorm(32, 6 * sum(per_group), [6 * each for each in per_group]),)
    own = open_run(tmp_path, "sgd", labels_from_model=True)
    tags = compare(run, records, submit_all(own, records))
    assert {"noise/B_simple", "noise_single/S", "fisher/trace", "group_fisher/out"} <= tags


def test_values_of_the_trainers_own(tmp_path):
    with open_run(tmp_path) as own:
        for record in records_of(described(), 4):
            submit(own, record)
            own.log(**{"loss": record.step / 2})
        own.log({"valid/loss": 7.0}, step=2, accuracy=0.5)
        own.log({"valid/loss": 8.0})
    series = read_scalars(own.event_path)
    assert (series["loss"].steps, series["loss"].values) == ([1, 2, 3, 4], [0.5, 1.0, 1.5, 2.0])
    assert (series["valid/loss"].steps, series["valid/loss"].values) == ([2, 4], [7.0, 8.0])
    assert (series["accuracy"].steps, series["accuracy"].values) == ([2], [0.5])


# --- alerts


def faulty(record):
    """The same step with a NaN in one tensor."""
    gradients = list(record.gradients)
    gradients[1] = np.where(np.arange(30) == 4, np.float32(np.nan), gradients[1])
    return replace(record, gradients=gradients)


def test_alerts_are_polled(tmp_path):
    records = records_of(described(), 3)
    with open_run(tmp_path) as own:
        submit(own, records[0])
        assert list(own.alerts()) == []
        submit(own, faulty(records[1]))
        (alert,) = wait_until(lambda: list(own.alerts()), 10, "an alert")
    assert (alert.step, alert.rule, alert.onset, alert.group) == (2, "non_finite", True, "layer1/bias")
    assert "Step 2: 1 element" in alert.text
    assert list(own.alerts()) == []


def test_alerts_are_told_within_submit(tmp_path):
    told = []
    records = iter(records_of(described(), 5000))
    with open_run(tmp_path, on_alert=told.append) as own:
        submit(own, faulty(next(records)))
        wait_until(lambda: submit(own, next(records)) and told, 10, "an alert")
    assert (told[0].step, told[0].rule, told[0].onset) == (1, "non_finite", True)


def test_what_on_alert_raises_is_raised(tmp_path):
    class Stop(Exception):
        pass

    def stop(alert):
        raise Stop(alert.rule)

    with pytest.raises(Stop, match="non_finite"):
        with open_run(tmp_path, on_alert=stop) as own:
            submit(own, faulty(records_of(described(), 1)[0]))
            wait_until(lambda: submit_next(own), 10, "an alert")


def submit_next(run, steps=itertools.count(2)):
    submit(run, records_of(described(), 1, first=next(steps))[0])


def test_thresholds_are_those_given(tmp_path):
    records = records_of(described(), 30)
    with open_run(tmp_path, thresholds={"zero_group_steps": 5}) as own:
        for record in records:
            record.gradients[2] = np.zeros(7, np.float32)
            submit(own, record)
        (alert,) = wait_until(lambda: list(own.alerts()), 10, "an alert")
    assert (alert.step, alert.rule, alert.group) == (5, "zero_group", "out")
