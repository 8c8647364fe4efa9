"""Same stream, same bytes: whatever the threads, the kernels, the company and the way elements arrive."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from streams import Stream
from trainer import Group, Optimizer, ParameterGroup, Run, Trainer, train, widened

STEPS = 12


def one_run(name, rule, seed):
    """More than one chunk a group, and groups of less than a chunk."""
    groups = [Group("a", 150_001, 0), Group("b", 7, 1), Group("c", 65_537, 1), Group("d", 20, 0)]
    run = Run(groups, Optimizer(rule), [ParameterGroup(0.999, 1e-8), ParameterGroup(0.9, 1e-6)], name=name)
    records = Stream(run, seed).steps(STEPS)
    for record in records:
        record.scalars = (("train/loss", 1.0 / record.step),)
    return run, records


@pytest.fixture(scope="module")
def adam():
    return one_run("adam", "adam", seed=21)


@pytest.fixture(scope="module")
def amsgrad():
    return one_run("amsgrad", "amsgrad", seed=22)


def content(described, daemon, logdir, **options):
    run, records = described
    return train(run, records, daemon.socket, logdir, **options).read_bytes()


@pytest.fixture
def alone(adam, daemon, tmp_path):
    """What the run gives by itself, on a daemon as it comes."""
    return content(adam, daemon, tmp_path / "alone")


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_worker_threads(workers, adam, alone, start_daemon, tmp_path):
    other = start_daemon("--workers", str(workers))
    assert content(adam, other, tmp_path / "other") == alone


@pytest.mark.parametrize("kernels", ["avx2", "sse4", "scalar"])
def test_kernels(kernels, adam, alone, start_daemon, tmp_path):
    """The daemon as it comes takes the fastest the machine has."""
    flags = open("/proc/cpuinfo", encoding="utf-8").read().split()
    if kernels != "scalar" and {"sse4": "sse4_2"}.get(kernels, kernels) not in flags:
        pytest.skip(f"this processor has no {kernels}")
    other = start_daemon(GRADIENTD_KERNELS=kernels)
    assert content(adam, other, tmp_path / "other") == alone


def test_elements_written_in_place(adam, alone, daemon, tmp_path):
    assert content(adam, daemon, tmp_path / "other", in_place=True) == alone


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("transport", ["raw", "deflated"])
def test_elements_inline(transport, in_place, adam, alone, daemon, tmp_path):
    run, records = adam
    other = replace(run, transport=transport)
    assert content((other, records), daemon, tmp_path / "other", in_place=in_place) == alone


@pytest.mark.parametrize("transport", ["memory", "raw", "deflated"])
@pytest.mark.parametrize("element_type", ["bf16", "f16", "f64"])
def test_element_types(element_type, transport, adam, daemon, tmp_path):
    """As if the values that the type holds had come as f32."""
    run, records = adam
    records = [replace(r, gradients=[g / np.float64(3) for g in r.gradients]) for r in records]  # which no type holds
    held = [replace(r, gradients=[widened(g, element_type) for g in r.gradients]) for r in records]
    expected = content((run, held), daemon, tmp_path / "expected")
    other = replace(run, element_type=element_type, transport=transport)
    assert content((other, records), daemon, tmp_path / "other") == expected


def test_different_stream_differs(adam, alone, daemon, tmp_path):
    """What the comparison can see: one element of one step."""
    run, records = adam
    records = [*records]
    gradients = [gradient.copy() for gradient in records[5].gradients]
    gradients[0][70_000] += 1e-2
    records[5] = type(records[5])(6, gradients, records[5].learning_rates, scalars=records[5].scalars)
    assert content((run, records), daemon, tmp_path / "other") != alone


@pytest.mark.parametrize("inflight", [1, 8])
def test_slots(inflight, adam, alone, daemon, tmp_path):
    run, records = adam
    other = type(run)(**{**vars(run), "inflight": inflight})
    assert content((other, records), daemon, tmp_path / "other") == alone


def test_two_runs_at_once(adam, amsgrad, start_daemon, tmp_path):
    daemon = start_daemon("--workers", "2")
    apart = [content(described, daemon, tmp_path / "apart") for described in (adam, amsgrad)]

    trainers = [Trainer(run, daemon.socket, tmp_path / "together") for run, _ in (adam, amsgrad)]
    threads = [
        threading.Thread(target=trainer.send, args=(records,))
        for trainer, (_, records) in zip(trainers, (adam, amsgrad))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = [trainer.finish().read_bytes() for trainer in trainers]
    assert together == apart


def test_unknown_kernels_are_refused(start_daemon):
    daemon = start_daemon(ready=False, GRADIENTD_KERNELS="bogus")
    assert daemon.process.wait(10) > 0
    assert "bogus" in daemon.messages()
