"""What docs/gallery.md says of the examples, which reproduce figures and claims of the papers, holds."""

import subprocess

import numpy as np
import pytest

from problems import Q_RATIOS
from readers import read_scalars
from trainer import build_path

SECONDS = 300  # with sanitizers
STEPS = 11_000  # of adam_ratios: a tenth of what the gallery shows


@pytest.fixture(scope="session")
def run_example(tmp_path_factory):
    """run_example(name, *arguments) -> the run's scalars, as tag -> (steps, values); each is run and read once."""
    found = {}

    def run(name, *arguments, suffix=""):
        key = (name, suffix, *arguments)
        if key not in found:
            logdir = tmp_path_factory.mktemp(name)
            command = [build_path(f"examples/{name}"), "--logdir", str(logdir), "--run", "run", "--max-stall", "60"]
            subprocess.run([*command, *map(str, arguments)], check=True, timeout=SECONDS, capture_output=True)
            for directory in logdir.iterdir():
                (path,) = directory.glob("events.out.tfevents.*")
                scalars = {tag: series.arrays() for tag, series in read_scalars(path).items()}
                found[(name, directory.name.removeprefix("run"), *arguments)] = scalars
        return found[key]

    return run


def last(scalars, tag):
    return scalars[tag][1][-1]


def mean_from(scalars, tag, first, end=np.inf):
    steps, values = scalars[tag]
    return values[(steps >= first) & (steps < end)].mean()


def test_coherence_falls_to_the_theorys_values(run_example):
    scalars = run_example("quadratic", "--copies", 2000, "--steps", 2000)
    for lag, expected in Q_RATIOS.items():
        steps, cosines = scalars[f"coherence/cosine_lag{lag}"]
        assert cosines[0] > 0.99
        settled = cosines[steps > 1000]
        assert settled.mean() == pytest.approx(expected, abs=0.002)  # by batch means about four standard errors


def adam_ratios(run_example, problem, optimizer, schedule="constant"):
    return run_example("adam_ratios", "--steps", STEPS, "--problem", problem, "--optimizer", optimizer, "--schedule", schedule)


@pytest.mark.parametrize("schedule", ["constant", "sqrt"])
def test_oscillation_shows_where_adam_fails(run_example, schedule):
    adam = adam_ratios(run_example, "rotating", "adam", schedule)
    assert last(adam, "adam/oscillation") == pytest.approx(0.2, abs=0.005)
    assert last(adam, "train/loss") > 50 * adam["train/loss"][1][0]

    amsgrad = adam_ratios(run_example, "rotating", "amsgrad", schedule)
    assert last(amsgrad, "adam/oscillation") < 1e-3
    assert last(amsgrad, "train/loss") < 0.01


def test_cosine_and_ratio_show_where_sgd_fails(run_example):
    sgd = adam_ratios(run_example, "steep", "sgd")
    assert last(sgd, "adam/B_over_A") == pytest.approx(40_000, rel=1e-5)
    assert np.allclose(sgd["coherence/cosine_lag1"][1], -1, atol=1e-5)
    assert last(sgd, "train/loss") == sgd["train/loss"][1][0]

    amsgrad = adam_ratios(run_example, "steep", "amsgrad")
    assert last(amsgrad, "adam/B_over_A") < 1 and last(amsgrad, "adam/slope_B_over_A") < -0.9
    assert last(amsgrad, "coherence/cosine_lag1") == pytest.approx(1, abs=1e-5)
    assert last(amsgrad, "train/loss") < 1e-4

    # Adam hops over the minimum at the distance of half its step: no descent either, and the same cosine
    adam = adam_ratios(run_example, "steep", "adam")
    assert last(adam, "coherence/cosine_lag1") == pytest.approx(-1, abs=1e-5)
    assert last(adam, "train/loss") == pytest.approx(100 * 0.005**2, rel=1e-3)


# optimizer, rate; by falling coherence
STALENESS_SETTINGS = [("adam", 0.0005), ("sgd", 0.05), ("adam", 0.002), ("sgd", 0.2)]


def stale_run(run_example, optimizer, rate, staleness):
    arguments = ("--steps", 1000, "--optimizer", optimizer, "--learning-rate", rate, "--staleness", staleness)
    return run_example("staleness", *arguments)


def test_higher_coherence_tolerates_more_staleness(run_example):
    coherence, delay = [], []
    for optimizer, rate in STALENESS_SETTINGS:
        fresh, stale = (stale_run(run_example, optimizer, rate, s) for s in (0, 8))
        assert not fresh["staleness/observed"][1].any()
        observed = stale["staleness/observed"][1][8:]
        assert set(observed) == set(range(9)) and observed.mean() == pytest.approx(4, abs=0.3)
        coherence.append(mean_from(fresh, "coherence_probe/cosine_lag2", 0, 101))  # 8 steps apart
        delay.append(last(stale, "train/steps_to_target") / last(fresh, "train/steps_to_target"))

    assert coherence[0] > 0.9 and coherence[-1] < 0.2
    assert delay[0] < 1.1 and delay[-1] > 3
    assert sorted(coherence, reverse=True) == coherence and sorted(delay) == delay


def test_function_stands_while_parameters_move(run_example):
    scalars = run_example("function_space")
    middle = {tag: mean_from(scalars, tag, 400, 600) for tag in scalars}
    assert last(scalars, "function/l2_from_start") < 1.05 * middle["function/l2_from_start"]
    assert last(scalars, "parameters/l2_from_start") > 1.3 * middle["parameters/l2_from_start"]
    per_parameter = scalars["function/per_parameter_from_start"][1]
    assert per_parameter[-1] < 0.3 * per_parameter[0]
    assert mean_from(scalars, "function/per_parameter_step", 1000) > mean_from(
        scalars, "function/per_parameter_step", 2, 50
    )

    by_epoch = run_example("function_space", "--stride", 44)
    assert list(by_epoch["function/l2_step"][0][:3]) == [45, 89, 133]
    assert last(by_epoch, "parameters/l2_from_start") == pytest.approx(
        dict(zip(*scalars["parameters/l2_from_start"]))[by_epoch["parameters/l2_from_start"][0][-1]], rel=1e-5
    )


def test_fisher_trace_rises_and_falls(run_example):
    """At labels that the network predicts, that is; with the data's, it falls from the start on."""
    arguments = ("--steps", 2200, "--networks", 1, "--window", 1, "--recovery", 0)
    fisher = run_example("critical_period", *arguments, suffix="-fisher")
    start, early, late = (mean_from(fisher, "fisher/trace", *span) for span in ((1, 6), (50, 600), (1800, 2201)))
    assert early > 1.3 * start and late < 0.6 * early
    assert "fisher/trace_empirical" not in fisher

    data = run_example("critical_period", *arguments)
    start, early, late = (mean_from(data, "fisher/trace_empirical", *span) for span in ((1, 6), (50, 600), (1800, 2201)))
    assert start > early > late
    onsets, accuracies = data["window/test_accuracy"]
    assert list(onsets) == [44 * epochs for epochs in (0, 5, 10, 20, 30, 40, 60)]
    assert np.all((accuracies > 0.1) & (accuracies <= 1))
