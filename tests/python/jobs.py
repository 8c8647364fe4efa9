"""Jobs of numpy arrays that a gradientd.Run watches, described as tests/interop describes runs, so that its references
can judge what comes out."""

import os
import signal

import numpy as np

import gradientd
from compare import compare_values
from readers import read_events, read_steps
from reference import Reference
from side_reference import SideReference
from streams import Stream
from trainer import Group, Optimizer, ParameterGroup, Run
from waiting import wait_until

GROUPS = [Group("layer1/weight", 600), Group("layer1/bias", 30), Group("out", 7)]


def tree(vectors):
    """The groups' flat arrays as the parameters' tree."""
    weight, bias, out = (
        None if v is None else np.reshape(v, shape) for v, shape in zip(vectors, [(20, 30), (30,), (7,)])
    )
    return {"layer1": {"weight": weight, "bias": bias}, "out": out}


def parameters(dtype=np.float32):
    return tree([np.zeros(group.numel, dtype) for group in GROUPS])


def described(rule="adam", beta2=0.999, eps=1e-8, **options):
    return Run(GROUPS, Optimizer(rule), [ParameterGroup(beta2, eps)], **options)


def records_of(run, count, seed=1, **options):
    return Stream(run, seed).steps(count, **options)


def open_run(logdir, rule="adam", *, of=None, beta2=0.999, eps=1e-8, **options):
    """A run of the groups above that skips no step for want of a slot, of parameters `of` (None: floats)."""
    tensors = parameters() if of is None else of
    return gradientd.Run(tensors, rule, beta2=beta2, eps=eps, logdir=logdir, **{"max_stall": 60, **options})


def submit(run, record):
    """Hands over a step as tests/interop describes it."""
    sides = {name: getattr(record, name) for name in ("probe_gradients", "parameters")}
    return run.submit(
        record.step,
        tree(record.gradients),
        record.learning_rates,
        optimizer_step=record.optimizer_step,
        applied=record.applied,
        beta2=record.beta2,
        eps=record.eps,
        model_version=record.model_version,
        scalars=dict(record.scalars),
        batch_size=record.batch_size,
        clip_factor=record.clip_factor,
        squared_norms=[gradientd.SquaredNorm(n.batch_size, n.value, n.per_group) for n in record.squared_norms],
        outputs=record.outputs,
        **{name: None if vectors is None else tree(vectors) for name, vectors in sides.items()},
    )


def submit_all(run, records):
    """Returns the file's path after the run's end."""
    for record in records:
        assert submit(run, record), f"step {record.step}"
    path = run.event_path
    assert run.skipped == 0
    assert run.close()
    return path


def compare(run, records, path):
    """Every value of every step as numpy computes it in double precision, and no other; returns the tags seen."""
    references = [Reference(run), SideReference(run)]
    found = read_steps(path)
    assert list(found) == [record.step for record in records]
    for record in records:
        expected = dict(record.scalars)
        for reference in references:
            expected |= reference.step(record)
        compare_values(record.step, found[record.step], expected, slack=references[0].slack)
    return {tag for values in found.values() for tag in values}


def timeless(path):
    """A whole file's events without the clock's readings: equal for runs of the same steps."""
    events = read_events(path)
    for event in events:
        event.wall_time = 0
        for value in event.summary.value:
            if value.tag.startswith("_hparams_/session_"):  # when it started and ended
                value.metadata.plugin_data.content = b""
    return [event.SerializeToString(deterministic=True) for event in events]


def find_private_daemons(token):
    """Pids of the daemons whose environment has GRADIENTD_TEST_TOKEN=token: they are nobody's children."""
    mark, program = f"GRADIENTD_TEST_TOKEN={token}".encode(), os.path.realpath(os.environ["GRADIENTD_DAEMON"])
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as environment:
                if mark in environment.read().split(b"\0") and os.readlink(f"/proc/{pid}/exe") == program:
                    found.append(int(pid))
        except OSError:  # it has ended, or is not ours to look at
            continue
    return found


def kill_private_daemon(token):
    (pid,) = find_private_daemons(token)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in find_private_daemons(token), 10, "the private daemon is gone")
