"""A job that is killed and restarted from its checkpoint: one curve, whichever of TensorBoard's readers looks on."""

import signal

import numpy as np
import pytest

from board import START_SECONDS, TensorBoard
from readers import read_scalars
from streams import Stream
from trainer import Group, Optimizer, ParameterGroup, Run, Trainer
from waiting import wait_until

BETA2 = 0.999  # without v handed over, Adam's family would stay silent for 3,000 steps
LAST_STEP = 150


def second_moment(steps, groups):
    """Adam's v after these steps, as the optimiser's checkpoint holds it."""
    v = [np.zeros(group.numel) for group in groups]
    for step in steps:
        for i, gradient in enumerate(step.gradients):
            v[i] += (1 - BETA2) * (np.float64(gradient) ** 2 - v[i])
    return v


class Job:
    """Attempts of one job, each from the checkpoint before its first step."""

    def __init__(self, socket, logdir):
        self.socket = socket
        self.logdir = logdir
        self.steps = []  # as the checkpoints know them
        self.files = []
        self.firsts = []

    def attempt(self, first, last, killed):
        groups = [Group("w", 200), Group("b", 5)]
        run = Run(groups, Optimizer("adam"), [ParameterGroup(BETA2, 1e-8)], name="job", first_step=first)
        self.steps = self.steps[: first - 1]
        if self.steps:
            run.start_second_moment = second_moment(self.steps, groups)
            run.start_optimizer_step = first - 1
        for step in Stream(run, seed=first).steps(last - first + 1, first=first):
            step.optimizer_step = step.step
            step.scalars = (("train/loss", len(self.files) + 1.0 / step.step),)
            self.steps.append(step)
        trainer = Trainer(run, self.socket, self.logdir, end="kill" if killed else "close")
        trainer.send(self.steps[first - 1 :])
        self.files.append(trainer.finish(status=-signal.SIGKILL if killed else 0))
        self.firsts.append(first)

    def curve(self, tag, keeps):
        """(step, value) of the tag: each attempt's up to where the next one takes over; `keeps`: see below."""
        points = []
        for path, first in zip(self.files, self.firsts):
            series = read_scalars(path).get(tag)
            if series is None:
                later = []
            else:
                later = list(zip(series.steps, series.values))
            start = first if keeps == "session" or not later else later[0][0]
            points = [point for point in points if point[0] < start] + later
        return points


def shown(board, tag):
    return [(step, value) for step, _, value in board.series(tag).get("job", ())]


def wait_for_step(board, step):
    """Until it shows the step, which must be the last."""

    def loaded():
        answer = board.get("/data/plugin/timeseries/tags")
        tags = answer["scalars"]["runTagInfo"].get("job", {}) if answer else {}
        points = shown(board, "train/loss") if "train/loss" in tags else []
        return points and points[-1][0] == step and tags

    return wait_until(loaded, START_SECONDS, f"step {step}: {board.messages()}")


# The Python reader drops what earlier files have from SessionLog START's step on; the Rust one, for each tag, from the
# first step on that the later file has a value at (a cosine at lag m has its first m steps later).
@pytest.mark.parametrize("load_fast, keeps", [("true", "values"), ("false", "session")])
@pytest.mark.parametrize(
    "attempts", [[(1, 100), (60, LAST_STEP)], [(1, 100), (60, 120), (90, LAST_STEP)]], ids=["once", "twice"]
)
def test_restart_continues_the_curve(load_fast, keeps, attempts, daemon, tmp_path):
    """TensorBoard runs all the while, and has shown each attempt to its end before the next one begins."""
    logdir = tmp_path / "logs"
    logdir.mkdir()
    job = Job(daemon.socket, logdir)
    board = TensorBoard(logdir, load_fast)
    try:
        for first, last in attempts:
            job.attempt(first, last, killed=last != LAST_STEP)
            tags = wait_for_step(board, last)

        assert [path.parent for path in job.files] == [logdir / "job"] * len(attempts)
        assert sorted(job.files) == job.files
        assert [step for step, _ in shown(board, "train/loss")] == list(range(1, LAST_STEP + 1))
        for tag in tags:
            points = shown(board, tag)
            steps = [step for step, _ in points]
            assert steps == sorted(set(steps)) and steps[-1] == LAST_STEP, tag
            assert points == job.curve(tag, keeps), tag
    finally:
        board.stop()
