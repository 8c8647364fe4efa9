"""Jobs of several processes that test_torch_ddp.py starts; each rank runs one function."""

import contextlib
import logging

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from training import NO_SKIPS, batch, made, weights

import gradientd

SIZE, STEPS = 32, 6


def _accumulate(ddp, step, rank, world, parts):
    """This rank's share of the step's batch, in `parts` microbatches."""
    images, labels = batch(step, SIZE)
    pieces = list(zip(images.chunk(world * parts), labels.chunk(world * parts), strict=True))
    own = pieces[rank * parts : (rank + 1) * parts]
    for number, (piece, truth) in enumerate(own):
        with ddp.no_sync() if number < parts - 1 else contextlib.nullcontext():
            (nn.functional.cross_entropy(ddp(piece), truth) / parts).backward()


def _train(rank, world, name, logdir, attached="all", parts=1, clip=False, wrapper={}, inside=False, probes_ddp=False,
           **options):  # fmt: skip
    """`inside`: attach() is given the module inside; `probes_ddp`: a probe calls the wrapper. Returns the weights."""
    net = made()
    ddp = DistributedDataParallel(net, **wrapper)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    watch = None
    if attached == "all" or (attached == "first" and rank == 0):
        options = {"batch_size": SIZE, "accumulation": parts, "logdir": logdir, "run": name, **NO_SKIPS, **options}
        if probes_ddp:
            options["probe_gradients"] = lambda: ddp(batch(0)[0]).square().sum()
        watch = gradientd.attach(optimizer, net if inside else ddp, **options)
    for step in range(STEPS):
        optimizer.zero_grad()
        _accumulate(ddp, step, rank, world, parts)
        if clip and watch is not None:
            watch.clip_grad_norm_(0.1)
        elif clip:
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
        if watch is not None:
            watch.log(loss=1.0)
    if watch is not None:
        serves = rank == 0 and "socket" not in options
        assert watch.close() == serves
        assert (watch.event_path is not None) == serves
    return weights(net)


def job(rank, world, scenarios, store, logdir):
    """All scenarios, one after the other; the weights of rank 0 go to <logdir>/<name>.pt."""
    torch.set_num_threads(1)
    logging.basicConfig(filename=f"{logdir}/rank{rank}.log")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    for name, options in scenarios.items():
        logging.getLogger("gradientd").warning("scenario %s", name)
        trained = _train(rank, world, name, logdir, **options)
        if rank == 0:
            torch.save(trained, f"{logdir}/{name}.pt")
    dist.destroy_process_group()
