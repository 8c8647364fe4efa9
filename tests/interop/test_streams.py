"""The streams beside the gradient: every value against numpy, and the promises that hold for the gradient."""

import signal
from dataclasses import replace

import numpy as np
import pytest

from compare import compare_values
from readers import read_steps
from reference import Reference
from side_reference import SideReference
from streams import Stream
from trainer import Group, Optimizer, ParameterGroup, Run, SideStream, Trainer, train

GROUPS = [Group("embedding", 70_001, 0), Group("one", 1, 0), Group("bias", 50, 0)]
EXAMPLES, OUTPUTS = 37, 11


def one_run(rule="sgd", element_type="f32", **changes):
    run = Run(
        GROUPS,
        Optimizer(rule),
        [ParameterGroup(0.9, 1e-8)],
        max_lag=3,
        probe_gradients=SideStream(element_type=element_type),
        parameters=SideStream(element_type=element_type),
        outputs=SideStream(element_type=element_type),
        output_examples=EXAMPLES,
        outputs_per_example=OUTPUTS,
    )
    return replace(run, **changes)


def records_of(run, seed, steps=14):
    """Parameters that drift, probe gradients that turn with them, outputs that move."""
    random = np.random.default_rng(seed)
    records = Stream(run, seed).steps(steps, rate=0.05, first=run.first_step)
    parameters = [random.standard_normal(group.numel) for group in run.groups]
    curvature = [random.uniform(0.5, 2.0, group.numel) for group in run.groups]
    outputs = random.uniform(0, 1, (EXAMPLES, OUTPUTS))
    for index, record in enumerate(records):
        probe = [h * x for h, x in zip(curvature, parameters)]
        parameters = [x - 0.05 * g + 0.01 * random.standard_normal(x.size) for x, g in zip(parameters, probe)]
        outputs = outputs + 0.01 * random.standard_normal(outputs.shape)
        for name, value in (("probe_gradients", probe), ("parameters", parameters), ("outputs", outputs)):
            side = getattr(run, name)
            if side and index % side.stride == 0:
                setattr(record, name, value)
        record.model_version = record.step - index % 4 if index else None
    return records


def compare(run, records, path):
    """Every value of every step, and no other."""
    gradient, sides = Reference(replace(run, probe_gradients=None, parameters=None, outputs=None)), SideReference(run)
    found = read_steps(path)
    assert found.keys() == {record.step for record in records}
    shown = set()
    for record in records:
        expected = sides.step(record)
        shown |= expected.keys()
        compare_values(record.step, found[record.step], gradient.step(record) | dict(record.scalars) | expected)
    return shown


ALL_TAGS = (
    {f"coherence_probe/{kind}_lag{lag}" for kind in ("cosine", "ratio") for lag in (1, 2, 3)}
    | {f"coherence_probe/{name}" for name in ("mu", "mu_past", "tolerable_staleness")}
    | {f"curvature/{name}" for name in ("secant", "lipschitz", "step_times_secant")}
    | {f"function/{name}" for name in ("l2_step", "l2_from_start", "per_parameter_step", "per_parameter_from_start")}
    | {f"parameters/{name}" for name in ("l2_step", "l2_from_start", "update_ratio")}
    | {"staleness/observed", "staleness/lr_bound"}
)


@pytest.mark.parametrize("element_type", ["f32", "bf16", "f16", "f64"])
def test_every_value(element_type, daemon, tmp_path):
    run = one_run(element_type=element_type)
    records = records_of(run, seed=3)
    assert compare(run, records, train(run, records, daemon.socket, tmp_path)) == ALL_TAGS


def test_types_of_their_own(daemon, tmp_path):
    run = one_run(
        probe_gradients=SideStream(1, "bf16"), parameters=SideStream(1, "f32"), outputs=SideStream(1, "f16")
    )
    records = records_of(run, seed=4)
    assert compare(run, records, train(run, records, daemon.socket, tmp_path)) == ALL_TAGS


@pytest.mark.parametrize("strides", [(2, 2, 2), (1, 3, 3), (3, 1, 2)])
def test_strides_of_their_own(strides, daemon, tmp_path):
    """Those of two streams fit together where both have the same stride."""
    probe, parameters, outputs = (SideStream(stride) for stride in strides)
    run = one_run(probe_gradients=probe, parameters=parameters, outputs=outputs)
    records = records_of(run, seed=5, steps=30)
    shown = compare(run, records, train(run, records, daemon.socket, tmp_path))
    assert ("curvature/secant" in shown) == (probe.stride == parameters.stride)
    assert ("function/per_parameter_step" in shown) == (outputs.stride == parameters.stride)


@pytest.mark.parametrize("stream", ["probe_gradients", "parameters", "outputs"])
def test_each_by_itself(stream, daemon, tmp_path):
    others = {name: None for name in ("probe_gradients", "parameters", "outputs") if name != stream}
    run = one_run("adam", **others)
    records = records_of(run, seed=6)
    shown = compare(run, records, train(run, records, daemon.socket, tmp_path))
    families = {tag.split("/")[0] for tag in shown}
    own = {"probe_gradients": "coherence_probe", "parameters": "parameters", "outputs": "function"}[stream]
    assert families == {own, "staleness"}


def test_a_restarted_run_says_from_where_it_measures(daemon, tmp_path):
    run = one_run(first_step=1200)
    records = records_of(run, seed=7)
    shown = compare(run, records, train(run, records, daemon.socket, tmp_path))
    assert {"parameters/l2_from_step1200", "function/l2_from_step1200", "function/per_parameter_from_step1200"} <= shown


@pytest.mark.parametrize("handed_over", [("parameters",), ("outputs",), ("parameters", "outputs")])
def test_a_restarted_run_that_hands_its_start_over_measures_from_there(handed_over, start_daemon, tmp_path):
    """With the optimiser's state beside it, and a daemon that is killed before the first step and later."""
    began = records_of(one_run("adam"), seed=20, steps=2)[0]
    run = one_run("adam", first_step=1200, start_optimizer_step=1199, parameters=SideStream(2), outputs=SideStream(2))
    run.start_second_moment = [np.full(group.numel, 1e-3, np.float32) for group in GROUPS]
    for name in handed_over:
        setattr(run, f"start_{name}", getattr(began, name))
    records = records_of(run, seed=21)
    for index, record in enumerate(records):
        record.optimizer_step = 1200 + index

    daemon = start_daemon(ready=False)
    daemon.wait_ready()
    trainer = Trainer(run, daemon.socket, tmp_path, echo=True)
    for first in range(0, len(records), 5):
        daemon.stop(signal.SIGKILL)
        daemon = start_daemon(ready=False, at=daemon)
        daemon.wait_ready()
        trainer.send(records[first : first + 5])
    shown = compare(run, records, trainer.finish())
    for name, family in (("parameters", "parameters"), ("outputs", "function")):
        assert f"{family}/l2_from_{'start' if name in handed_over else 'step1200'}" in shown
    assert ("function/per_parameter_from_start" in shown) == (len(handed_over) == 2)


def adversarial(random):
    """By name: what a stream's vectors may be."""
    n = GROUPS[0].numel + GROUPS[1].numel + GROUPS[2].numel
    wide = random.standard_normal(n) * 10.0 ** random.uniform(-30, 15, n)
    nan = random.standard_normal(n)
    nan[::7], nan[3::11] = np.nan, np.inf
    return {
        "zeros": lambda t: np.zeros(n),
        "identical": lambda t: wide,
        "opposite": lambda t: random.standard_normal(1) * (-1.0) ** t * np.ones(n),
        "huge_range": lambda t: wide * (1 + 0.1 * t),
        "not_finite": lambda t: np.roll(nan, t) * (1 + t),
    }


@pytest.mark.parametrize("kind", ["zeros", "identical", "opposite", "huge_range", "not_finite"])
def test_adversarial_vectors(kind, daemon, tmp_path):
    run = one_run()
    records = records_of(run, seed=8, steps=8)
    make = adversarial(np.random.default_rng(9))[kind]
    bounds = np.cumsum([group.numel for group in GROUPS])[:-1]
    for record in records:
        record.probe_gradients = np.split(make(record.step).astype(np.float32), bounds)
        record.parameters = np.split(make(record.step + 1).astype(np.float32), bounds)
        record.outputs = make(record.step)[: EXAMPLES * OUTPUTS].astype(np.float32)
    path = train(run, records, daemon.socket, tmp_path)
    compare(run, records, path)
    if kind == "identical":
        values = read_steps(path)[records[-1].step]
        assert values["coherence_probe/cosine_lag1"] == pytest.approx(1.0, abs=1e-6)
        assert values["function/l2_step"] == values["parameters/l2_from_start"] == 0.0


def content(run, records, daemon, logdir, **options):
    return train(run, records, daemon.socket, logdir, **options).read_bytes()


@pytest.mark.parametrize("workers", [1, 3])
def test_worker_threads(workers, start_daemon, tmp_path):
    run = one_run()
    records = records_of(run, seed=10)
    expected = content(run, records, start_daemon(), tmp_path / "expected")
    assert content(run, records, start_daemon("--workers", str(workers)), tmp_path / "other") == expected


@pytest.mark.parametrize("kernels", ["avx2", "sse4", "scalar"])
@pytest.mark.parametrize("element_type", ["f32", "bf16", "f16"])
def test_kernels(kernels, element_type, start_daemon, tmp_path):
    flags = open("/proc/cpuinfo", encoding="utf-8").read().split()
    if kernels != "scalar" and {"sse4": "sse4_2"}.get(kernels, kernels) not in flags:
        pytest.skip(f"this processor has no {kernels}")
    run = one_run(element_type=element_type)
    records = records_of(run, seed=11)
    expected = content(run, records, start_daemon(), tmp_path / "expected")
    assert content(run, records, start_daemon(GRADIENTD_KERNELS=kernels), tmp_path / "other") == expected


def test_elements_written_in_place(daemon, tmp_path):
    run = one_run()
    records = records_of(run, seed=12)
    expected = content(run, records, daemon, tmp_path / "expected")
    assert content(run, records, daemon, tmp_path / "other", in_place=True) == expected


def test_streams_that_never_come_change_no_value(daemon, tmp_path):
    run = one_run()
    records = [replace(r, probe_gradients=None, parameters=None, outputs=None) for r in records_of(run, seed=13)]
    plain = replace(run, probe_gradients=None, parameters=None, outputs=None)
    expected = read_steps(train(plain, records, daemon.socket, tmp_path / "expected"))
    assert read_steps(train(run, records, daemon.socket, tmp_path / "other")) == expected


@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_daemon_loses_nothing(workers, start_daemon, tmp_path):
    """SIGKILL every three steps: starts, histories and running maxima go on where they were."""
    run = one_run(parameters=SideStream(2), outputs=SideStream(2), inflight=3)
    records = records_of(run, seed=14, steps=24)
    expected = content(run, records, start_daemon(), tmp_path / "expected")

    daemon = start_daemon("--workers", str(workers), ready=False)
    daemon.wait_ready()
    trainer = Trainer(run, daemon.socket, tmp_path / "other", echo=True)
    for first in range(0, len(records), 3):
        trainer.send(records[first : first + 3])
        daemon.stop(signal.SIGKILL)
        daemon = start_daemon("--workers", str(workers), ready=False, at=daemon)
        daemon.wait_ready()
    path = trainer.finish()
    assert path.read_bytes() == expected


def test_long_runs_are_thinned_per_stream(daemon, tmp_path):
    """Beyond step 10,000 the first snapshot of each ten steps is written; a stream of its own stride by its own count,
    and its last values at the end, at their own step."""
    groups = [Group("weights", 8)]
    run = replace(one_run(groups=groups, no_thinning=False, first_step=9_990), parameters=SideStream(7))
    run = replace(run, probe_gradients=None, outputs=None)
    records = records_of(run, seed=15, steps=60)
    reference = SideReference(run)
    expected = {record.step: reference.step(record) for record in records}
    found = read_steps(train(run, records, daemon.socket, tmp_path))

    sent = [record.step for record in records if record.parameters is not None]
    written, window = [], None
    for step in sent:
        if step < 10_000 or step // 10 != window:
            written.append(step)
        window = step // 10
    written.append(sent[-1])
    tag = "parameters/l2_from_step9990"
    assert sorted(step for step, values in found.items() if tag in values) == sorted(set(written[1:]))
    for step in set(written[1:]):
        assert found[step][tag] == pytest.approx(expected[step][tag], rel=1e-6)
