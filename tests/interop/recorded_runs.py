"""Runs for the tests of gradientctl record and replay."""

from dataclasses import replace

from recordings import record_command
from streams import Stream
from trainer import Group, Optimizer, ParameterGroup, Run, Trainer, Values

STEPS = 30
END_SECONDS = 30
GROUPS = [Group("layer/w", 150_001, 0), Group("layer/b", 7, 1), Group("head/w", 65_537, 1), Group("head/b", 20, 0)]
RATES = [ParameterGroup(0.999, 1e-8), ParameterGroup(0.9, 1e-6)]


def adam(**changes):
    run = Run(GROUPS, Optimizer("adam"), RATES, shadow_rules=("amsgrad", "rmsprop"), per_group=True,
              hparams={"layers": 2.0, "model": "mlp", "wide": True}, no_thinning=False)  # fmt: skip
    return replace(run, **changes)


def records_of(run, count=STEPS):
    """Absent groups, steps that are not applied, rates and b2 that change, values at the steps and between them."""
    records = []
    for step in Stream(run, seed=5).steps(count, first=run.first_step):
        if step.step % 7 == 3:
            step.gradients[1] = None
        step.applied = step.step % 11 != 5
        step.scalars = (("train/loss", 1.0 / step.step),)
        if step.step % 9 == 4:
            step.beta2, step.eps = [0.99, 0.9][: len(step.learning_rates)], [1e-8, 1e-7][: len(step.learning_rates)]
        records.append(step)
        if step.step % 10 == 0:
            records.append(Values(step.step, (("test/loss", 2.0 / step.step),)))
    return records


def small_run():
    run = Run([Group("w", 40), Group("b", 3)], Optimizer("adam"), [ParameterGroup(0.999, 1e-8)], max_lag=2)
    return run, [replace(step, scalars=(("loss", 1.0),)) for step in Stream(run, seed=1).steps(12)]


def record(run, records, daemon, directory, *options, status=0, **how):
    """A recorded run: its event file and its recording."""
    recording = directory / "run.tfrecord.gz"
    command = record_command(recording, daemon.socket, *options)
    trainer = Trainer(run, None, directory / "recorded", command=command, **how)
    trainer.send(records)
    return trainer.finish(status), recording
