"""Histograms of log2 |g| and of log2 of effective steps, counted again with numpy."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from daemons import Daemon
from readers import read_tensor
from reference import Reference
from streams import Stream
from trainer import Group, Optimizer, ParameterGroup, Run, Trainer, train, widened
from waiting import wait_until

BINS = 30
GRADIENT, STEP_SIZE = "gradient/log2_abs", "adam/log2_step_size"
STEPS = 26
SHOWN = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24]  # of the snapshots, counted from 1
CHUNK, BLOCK, EVERY, SAMPLED_NUMEL = 65536, 1024, 8, 1 << 20


def sampled_weights(numel):
    """How many elements of a group each one stands for: of a large one, those of one block in eight for eight."""
    weights = np.ones(numel)
    if numel < SAMPLED_NUMEL:
        return weights
    for start in range(0, numel, CHUNK):
        elems = min(CHUNK, numel - start)
        whole = elems - elems % (EVERY * BLOCK)
        pattern = np.zeros((whole // (EVERY * BLOCK), EVERY, BLOCK))
        pattern[:, 0] = EVERY
        weights[start : start + whole] = pattern.reshape(-1)
    return weights


def counts_of(values, weights):
    """Left edge -> count, of the magnitudes that are normal floats."""
    size = np.abs(values)
    shown = np.isfinite(size) & (size >= 2.0**-126) & (size < 2.0**128)
    exponents = np.frexp(size[shown])[1] - 1
    return {int(e): float(np.sum(weights[shown][exponents == e])) for e in np.unique(exponents)}


def binned(counts):
    """As the daemon has them: up to the largest, and what is smaller than the first in the first."""
    top = max(counts)
    first = top - BINS + 1
    bins = np.array([[first + i, first + i + 1, 0.0] for i in range(BINS)])
    for exponent, count in counts.items():
        bins[max(exponent - first, 0), 2] += count
    return bins


def expected_gradient(step):
    present = [np.asarray(g, np.float32).astype(np.float64) for g in step.gradients if g is not None]
    if not present:
        return None
    counts = counts_of(np.concatenate(present), np.concatenate([sampled_weights(g.size) for g in present]))
    return binned(counts) if counts else None


def check_gradient(records, path):
    expected = [(r.step, expected_gradient(r)) for i, r in enumerate(records, 1) if i in SHOWN]
    expected = [(step, bins) for step, bins in expected if bins is not None]
    found = read_tensor(path, GRADIENT)
    assert [step for step, _, _ in found] == [step for step, _ in expected]
    for (step, _, bins), (_, wanted) in zip(found, expected):
        np.testing.assert_array_equal(bins, wanted, err_msg=f"step {step}")


def effective_steps(run, records):
    """Per step the effective steps of active coordinates and their weights; none where the family is silent."""
    reference = Reference(run)
    for step in records:
        reference.step(step)
        terms = reference.group_terms
        if not terms:
            yield None
            continue
        weights = []
        for i in terms:
            g = np.asarray(step.gradients[i], np.float32)
            of_all = sampled_weights(g.size) if run.optimizer.rule != "sgd" else np.ones(g.size)
            weights.append(of_all[np.isfinite(g) & (g != 0)])
        yield np.concatenate([sizes for _, sizes in terms.values()]), np.concatenate(weights)


def expect_close(step, bins, sizes, weights):
    """Up to those that lie so near a power of 2 that float arithmetic may put them on its other side."""
    log2 = np.log2(np.abs(sizes))
    near = np.abs(log2 - np.round(log2)) < 2e-5
    assert np.sum(weights[near]) < 0.01 * np.sum(weights) or np.all(near)
    assert np.sum(bins[:, 2]) == np.sum(weights), f"step {step}: all are counted"
    for left, right, _ in bins[1:]:
        assert right == left + 1
        below, wanted = np.sum(bins[bins[:, 0] < left, 2]), np.sum(weights[log2 < left])
        unsure = np.sum(weights[near & (np.abs(log2 - left) < 2e-5)])
        assert abs(below - wanted) <= unsure, f"step {step}: {below} of {wanted} +- {unsure} below {left}"


def check_step_sizes(run, records, path):
    expected = []
    for i, (step, steps) in enumerate(zip(records, effective_steps(run, records)), 1):
        if i in SHOWN and steps is not None and np.any(steps[1]) and np.any(steps[0]):
            expected.append((step.step, *steps))
    found = read_tensor(path, STEP_SIZE)
    assert [step for step, _, _ in found] == [step for step, _, _ in expected]
    for (step, _, bins), (_, sizes, weights) in zip(found, expected):
        expect_close(step, bins, sizes, weights)
    return found


def rates_of(rule, eps=1e-8):
    decays = rule not in ("sgd", "adagrad", "adafom")
    return [ParameterGroup(0.9 if decays else 0.0, 0.0 if rule == "sgd" else eps) for _ in range(2)]


def two_groups(rule, eps=1e-8, **options):
    groups = [Group("a", 70_001, 0), Group("b", 77, 1)]
    return Run(groups, Optimizer(rule, **options), rates_of(rule, eps), name="run")


# --- the gradient


@pytest.mark.parametrize("element_type", ["f32", "bf16", "f16", "f64"])
def test_gradient_of_every_element_type(element_type, daemon, tmp_path):
    run = replace(two_groups("sgd"), element_type=element_type)
    records = Stream(run, seed=51).steps(STEPS)
    for i, record in enumerate(records):
        scales = np.ldexp(1.0, np.random.default_rng(i).integers(-40, 8, 70_001))  # beyond 30 bins, and f16's range
        record.gradients = [(record.gradients[0] * scales).astype(np.float64), record.gradients[1].astype(np.float64)]
    path = train(run, records, daemon.socket, tmp_path)
    held = [replace(r, gradients=[widened(g, element_type) for g in r.gradients]) for r in records]
    check_gradient(held, path)


def test_what_is_not_shown(daemon, tmp_path):
    """Zeros, subnormals, infinities and NaN; a step that has nothing else has no histogram."""
    run = two_groups("adam")
    records = Stream(run, seed=52).steps(8)
    special = np.array([0.0, -0.0, 1e-40, -1e-45, np.inf, -np.inf, np.nan], np.float32)
    for record in records:
        record.gradients[1][:7] = special
    records[2].gradients = [np.resize(special, 70_001), np.resize(special, 77)]
    records[3].gradients = [None, records[3].gradients[1]]
    records[4].gradients = [None, None]
    path = train(run, records, daemon.socket, tmp_path)
    check_gradient(records, path)
    assert [step for step, _, _ in read_tensor(path, GRADIENT)] == [1, 2, 4, 6, 8]


@pytest.mark.parametrize("numel", [SAMPLED_NUMEL - 1, SAMPLED_NUMEL + 3 * BLOCK + 5])
def test_a_large_group_is_sampled(numel, daemon, tmp_path):
    run = Run([Group("large", numel), Group("small", 50)], Optimizer("adam"), [ParameterGroup(0.9, 1e-8)], max_lag=1)
    random = np.random.default_rng(53)
    records = Stream(run, seed=53).steps(3)
    for record in records:
        record.gradients[0] *= np.ldexp(1.0, random.integers(-20, 20, numel)).astype(np.float32)
    path = train(run, records, daemon.socket, tmp_path)
    check_gradient(records, path)
    check_step_sizes(run, records, path)


# --- effective steps


@pytest.mark.parametrize(
    "run",
    [
        two_groups("sgd"),
        two_groups("adam"),
        two_groups("adam", eps=0.0),
        two_groups("adam", eps=0.5),
        two_groups("adam", eps_root=1e-3),
        two_groups("adamw", bias_correction="none"),
        two_groups("rmsprop"),
        two_groups("amsgrad"),
        two_groups("amsgrad", maximum_of="corrected"),
        two_groups("amsgrad", maximum_of="uncorrected", eps_root=0.1),
        two_groups("adagrad", initial_accumulator=0.1, learning_rate_decay=0.1),
        two_groups("adafom"),
    ],
    ids=lambda run: "-".join(str(v) for v in (*vars(run.optimizer).values(), run.parameter_groups[0].eps)),
)
def test_step_sizes(run, daemon, tmp_path):
    records = Stream(run, seed=54).steps(STEPS, rate=1e-3)
    for i, record in enumerate(records):
        record.learning_rates = [1e-3 / (i + 1), 3e-3]
        record.gradients[0] *= np.float32(0.1 if i % 5 else 3.0)
    path = train(run, records, daemon.socket, tmp_path)
    found = check_step_sizes(run, records, path)
    assert [step for step, _, _ in found] == SHOWN
    check_gradient(records, path)


@pytest.mark.parametrize("element_type", ["bf16", "f16", "f64"])
def test_step_sizes_of_every_element_type(element_type, daemon, tmp_path):
    run = replace(two_groups("amsgrad"), element_type=element_type)
    records = Stream(run, seed=55).steps(STEPS)
    path = train(run, records, daemon.socket, tmp_path)
    held = [replace(r, gradients=[widened(g, element_type) for g in r.gradients]) for r in records]
    check_step_sizes(run, held, path)
    check_gradient(held, path)


@pytest.mark.parametrize("rule", ["sgd", "adam", "amsgrad"])
def test_absent_groups_and_steps_not_applied(rule, daemon, tmp_path):
    """A step that was not applied has a gradient, but no effective step."""
    run = two_groups(rule)
    records = Stream(run, seed=56).steps(STEPS)
    for i, record in enumerate(records, 1):
        record.applied = i not in (3, 8)
        if i % 4 == 2:
            record.gradients[i // 4 % 2] = None
    records[4].gradients = [None, None]
    path = train(run, records, daemon.socket, tmp_path)
    check_gradient(records, path)
    found = check_step_sizes(run, records, path)
    assert [step for step, _, _ in found] == [step for step in SHOWN if step not in (3, 5, 8)]


def test_a_silent_family_has_none(daemon, tmp_path):
    """In mid-training without v, until 3 / (1 - b2) = 6 steps have passed."""
    run = Run([Group("w", 500)], Optimizer("adam"), [ParameterGroup(0.5, 1e-8)])
    records = Stream(run, seed=57).steps(STEPS)
    for record in records:
        record.optimizer_step = 100 + record.step
    path = train(run, records, daemon.socket, tmp_path)
    found = check_step_sizes(run, records, path)
    assert [step for step, _, _ in found] == [step for step in SHOWN if step > 6]


def test_sgd_has_one_bin_a_rate(daemon, tmp_path):
    run = two_groups("sgd")
    records = Stream(run, seed=58).steps(3)
    for record in records:
        record.learning_rates = [0.5, 0.375]
    for _, _, bins in read_tensor(train(run, records, daemon.socket, tmp_path), STEP_SIZE):
        filled = bins[bins[:, 2] > 0]
        assert filled[:, 0].tolist() == [-2.0, -1.0] and filled[0, 2] < 77 < filled[1, 2]


def test_a_rate_of_0_moves_nothing(daemon, tmp_path):
    run = two_groups("adam")
    path = train(run, Stream(run, seed=59).steps(3, rate=0.0), daemon.socket, tmp_path)
    assert read_tensor(path, GRADIENT) and not read_tensor(path, STEP_SIZE)


# --- the same bytes


def large_stream():
    """A group that is sampled, in dozens of chunks, and one that is not."""
    groups = [Group("large", 2_300_001, 0), Group("small", 150_000, 1)]
    run = Run(groups, Optimizer("amsgrad", eps_root=7e-7), rates_of("amsgrad"), name="run", max_lag=1)
    random = np.random.default_rng(60)
    records = Stream(run, seed=60).steps(6)
    for record in records:
        for gradient in record.gradients:
            gradient *= np.ldexp(1.0, random.integers(-20, 20, gradient.size)).astype(np.float32)
    return run, records


@pytest.fixture(scope="module")
def large():
    return large_stream()


@pytest.fixture
def alone(large, daemon, tmp_path):
    run, records = large
    path = train(run, records, daemon.socket, tmp_path / "alone")
    assert len(read_tensor(path, GRADIENT)) == len(read_tensor(path, STEP_SIZE)) == len(records)
    return path.read_bytes()


@pytest.mark.parametrize(
    "arguments, environment",
    [
        (("--workers", "1"), {}),
        (("--workers", "5"), {}),
        ((), {"GRADIENTD_KERNELS": "scalar"}),
    ],
)
def test_workers_and_kernels_change_nothing(arguments, environment, large, alone, start_daemon, tmp_path):
    run, records = large
    other = start_daemon(*arguments, **environment)
    assert train(run, records, other.socket, tmp_path / "other").read_bytes() == alone


def restarted(daemon):
    """SIGKILL, and another daemon at its place."""
    daemon.process.send_signal(signal.SIGKILL)
    daemon.process.wait()
    os.unlink(daemon.socket)
    other = Daemon(daemon.socket.parent, (), {})
    other.wait_ready()
    return other


def test_sigkill_changes_nothing(large, alone, start_daemon, tmp_path):
    run, records = large
    daemon = start_daemon(ready=False)
    daemon.wait_ready()
    trainer = Trainer(replace(run, inflight=6, hparams={"seed": 1}), daemon.socket, tmp_path / "other", echo=True)
    others = []
    try:
        for i, record in enumerate(records):
            trainer.send([record])
            if i % 2 == 0:
                daemon = restarted(daemon)
                others.append(daemon)
        path = trainer.finish()
    finally:
        for other in others:
            other.stop()
    undisturbed = Trainer(replace(run, inflight=6, hparams={"seed": 1}), start_daemon().socket, tmp_path / "undisturbed")
    undisturbed.send(records)
    assert path.read_bytes() == undisturbed.finish().read_bytes()
    assert len(read_tensor(path, STEP_SIZE)) == len(records)
