"""What a run's event file must hold, from the gradients that went in: tests/interop's reference, in double."""

import numpy as np
import trainer
from compare import compare_file, compare_values  # noqa: F401
from gradientd._tree import flatten
from readers import read_steps  # noqa: F401
from reference import Reference  # noqa: F401

BIAS_CORRECTIONS = {None: "default", True: "corrected", False: "none"}


def reference_run(parameters, optimizer, beta2=0.0, eps=0.0, **options):
    """The reference's description of Run(parameters, optimizer, beta2=..., eps=...)."""
    groups = [trainer.Group(name, int(np.size(leaf))) for name, leaf in flatten(parameters).items()]
    followed = trainer.Optimizer(
        optimizer.rule,
        bias_correction=BIAS_CORRECTIONS[optimizer.bias_correction],
        maximum_of=optimizer.maximum_of or "default",
        eps_root=optimizer.eps_root,
        initial_accumulator=optimizer.initial_accumulator,
    )
    return trainer.Run(groups, followed, [trainer.ParameterGroup(beta2, eps)], **options)


def record(run, step, gradients, learning_rate, **more):
    """A step for the reference; `gradients` is a tree, tensors that are not in it are absent."""
    leaves = {name: np.asarray(leaf, np.float32).ravel() for name, leaf in flatten(gradients).items()}
    assert leaves.keys() <= {group.name for group in run.groups}
    return trainer.Step(step, [leaves.get(group.name) for group in run.groups], [float(learning_rate)], **more)
