"""attach() in jobs of DistributedDataParallel: real gloo processes, noise/ against double precision."""

import multiprocessing

import numpy as np
import pytest
import torch
from ddp_jobs import SIZE, STEPS, job
from noise import check, estimates, gradient
from torch import nn
from training import batch, made

SCENARIOS = {
    "ranks": {"all_ranks": True},
    "bucket_views": {"all_ranks": True, "clip": True, "wrapper": {"gradient_as_bucket_view": True}},
    "static_graph": {"all_ranks": True, "wrapper": {"static_graph": True}},
    "accumulated": {"all_ranks": True, "parts": 2, "clip": True},
    "own": {},
    "first_alone": {"attached": "first"},
    "inside": {"inside": True, "parts": 2},
    "probes_ddp": {"probes_ddp": True},
    "no_daemon": {"all_ranks": True, "socket": "/nowhere/socket", "private_daemon": False},
    "without": {"attached": "none"},
    "static_graph_without": {"attached": "none", "wrapper": {"static_graph": True}},
}
WARNINGS = {
    "inside": "give attach() that module as `model`",
    "probes_ddp": "call the module inside (model.module)",
    "no_daemon": "training goes on without it",
}


@pytest.fixture(scope="module", params=[2, 4])
def finished(request, tmp_path_factory):
    """(ranks, directory) of a job that has run all scenarios."""
    world, directory = request.param, tmp_path_factory.mktemp("ddp")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    processes = [
        context.Process(target=job, args=(rank, world, SCENARIOS, directory / "store", directory))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        if process.is_alive():
            process.kill()
    assert [process.exitcode for process in processes] == [0] * world
    return world, directory


def _event_file(directory, name):
    (path,) = (directory / name).glob("events*")
    return path


def _training(clip=False):
    """The same training in this process; yields the model before each step."""
    net = made()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for step in range(STEPS):
        yield step, net
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(batch(step, SIZE)[0]), batch(step, SIZE)[1]).backward()
        if clip:
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "parts"), [("ranks", 1), ("bucket_views", 1), ("static_graph", 1), ("accumulated", 2)]
)
def test_all_ranks_and_microbatches_tell_the_noise(name, parts, finished):
    world, directory = finished
    clip = SCENARIOS[name].get("clip", False)
    expected = [estimates(net, step, SIZE, world * parts) for step, net in _training(clip)]
    check(_event_file(directory, name), expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["own", "first_alone"])
def test_first_ranks_own_norms(name, finished):
    world, directory = finished
    expected = []
    for step, net in _training():
        images, labels = batch(step, SIZE)
        b = SIZE // world
        small = np.sum(gradient(net, images[:b], labels[:b]) ** 2)
        big = np.sum(gradient(net, images, labels) ** 2)
        expected.append(((small - big) / (1 / b - 1 / SIZE), (SIZE * big - b * small) / (SIZE - b)))
    check(_event_file(directory, name), expected, rtol=1e-3)


def test_weights_are_bit_identical(finished):
    _, directory = finished
    trained = {name: torch.load(directory / f"{name}.pt") for name in SCENARIOS}
    for name in ("ranks", "own", "first_alone", "probes_ddp", "no_daemon"):
        assert torch.equal(trained[name], trained["without"]), name
    assert torch.equal(trained["static_graph"], trained["static_graph_without"])


def test_module_inside_tells_no_noise(finished):
    check(_event_file(finished[1], "inside"), [None] * STEPS)


def test_first_rank_warns_where_it_must_and_no_other(finished):
    world, directory = finished
    for rank in range(world):
        warnings, name = {}, None
        for line in (directory / f"rank{rank}.log").read_text().splitlines():
            if ":scenario " in line:
                name = line.split()[-1]
            elif ":gradientd:" in line:
                warnings.setdefault(name, []).append(line)
        expected = WARNINGS if rank == 0 else {}
        assert warnings.keys() == expected.keys()
        assert all(len(lines) == 1 and expected[name] in lines[0] for name, lines in warnings.items())
