"""What is wrong with a run's arguments: an error at the start names it, and later it is logged and costs that step."""

import logging
from dataclasses import replace

import numpy as np
import pytest

import gradientd
from jobs import compare, described, open_run, parameters, records_of, submit, tree

# ConnectionError: what the daemon judges and refuses
WRONG = {
    "rule": ({"rule": "adamax"}, ValueError, ["optimizer.rule", "'adamax'", "'adamw'", "'other'"]),
    "beta2": ({"beta2": 1.0}, ConnectionError, ["beta2 is 1", "below 1"]),
    "beta2's count": ({"beta2": [0.9, 0.99]}, ValueError, ["beta2 has 2 values", "1 parameter group"]),
    "eps": ({"eps": -1e-8}, ConnectionError, ["eps", "-1e-08"]),
    "every": ({"every": 0}, ValueError, ["every is 0", "at least 1"]),
    "burst": ({"every": 10, "burst": 11}, ValueError, ["burst is 11", "1 to every, 10"]),
    "max_lag": ({"max_lag": 33}, ConnectionError, ["max_lag", "33", "32"]),
    "inflight": ({"inflight": 0}, ConnectionError, ["inflight", "0", "1", "64"]),
    "copy_threads": ({"copy_threads": 17}, ValueError, ["copy_threads", "17", "16"]),
    "first_step": ({"first_step": -1}, ConnectionError, ["first_step", "-1"]),
    "element_type": ({"element_type": "f8"}, ValueError, ["element_type is 'f8'", "'f32'", "'bf16'"]),
    "transport": ({"transport": "tcp"}, ValueError, ["transport is 'tcp'", "'memory'", "'inline'"]),
    "per_group": ({"per_group": "all"}, ValueError, ["per_group is 'all'", "True"]),
    "run": ({"run": "../elsewhere"}, ValueError, ["run", "../elsewhere"]),
    "shadow_rules": ({"shadow_rules": ["lion"]}, ValueError, ["shadow_rules is 'lion'", "'amsgrad'"]),
    "thresholds": ({"thresholds": {"rmse": 2}}, ValueError, ["thresholds has 'rmse'", "rms"]),
    "an option": ({"log_dir": "runs"}, TypeError, ["unknown option 'log_dir'", "max_stall"]),
    "hparams": ({"hparams": {"seed": float("nan")}}, ValueError, ["hparams[0].number is nan", "finite"]),
    "no parameters": ({"of": {}}, ValueError, ["group"]),
    "an empty tensor": ({"of": {"w": np.zeros(0)}}, ConnectionError, ["numel of group 0 is 0", "at least 1"]),
    "a long name": ({"of": {"w" * 256: np.zeros(3)}}, ValueError, ["name", "255"]),
    "a start of another size": (
        {"start_second_moment": {"out": np.zeros(8)}},
        ValueError,
        ["start_second_moment['out'] has 8 elements", "7"],
    ),
    "a start of no tensor": (
        {"start_second_moment": {"in": np.zeros(8)}},
        ValueError,
        ["start_second_moment has 'in'", "no group"],
    ),
    "max_stall": ({"max_stall": float("nan")}, ValueError, ["max_stall", "nan"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_option_is_named(case, tmp_path):
    options, kind, words = WRONG[case]
    with pytest.raises(kind) as raised:
        open_run(tmp_path, options.pop("rule", "adam"), **options)
    missing = [word for word in words if word not in str(raised.value)]
    assert not missing, str(raised.value)
    assert not any(tmp_path.iterdir()), "a file is left"


@pytest.mark.parametrize("url", ["gs://bucket/runs", "s3://bucket/runs", "hdfs://host/runs"])
def test_an_object_store_is_refused_with_a_hint(url):
    with pytest.raises(ValueError, match=f"logdir is {url}.*local directory.*(sync|mount)"):
        open_run(url)


def test_a_home_directory_is_meant(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with open_run("~/runs") as own:
        assert own.event_path.startswith(str(tmp_path / "runs"))


def test_no_daemon_is_a_connection_error(tmp_path):
    with pytest.raises(ConnectionError, match="/nowhere/other"):
        open_run(tmp_path, socket="/nowhere/other", private_daemon=False)


@pytest.fixture
def errors(caplog):
    """What the logger "gradientd" says at level ERROR."""
    caplog.set_level(logging.ERROR, logger="gradientd")
    return lambda: [record.getMessage() for record in caplog.records]


def spoiled(record, **fields):
    return lambda run: submit(run, replace(record, **fields))


def with_gradients(record, change):
    def hand_over(run):
        gradients = tree(record.gradients)
        change(gradients)
        return run.submit(record.step, gradients, 1e-3)

    return hand_over


STEP = records_of(described(), 3)[2]
OFFENCES = {
    "a size": (with_gradients(STEP, lambda g: g.update(out=np.zeros(8))), ["gradients['out'] has 8 elements", "7"]),
    "a tensor": (with_gradients(STEP, lambda g: g.update(more=np.zeros(8))), ["gradients has 'more'", "no group"]),
    "text": (with_gradients(STEP, lambda g: g.update(out=np.array(["a"] * 7))), ["convert"]),
    "rates": (spoiled(STEP, learning_rates=[1e-3, 1e-3]), ["learning_rate has 2 values", "1 parameter group"]),
    "a rate": (spoiled(STEP, learning_rates=[float("nan")]), ["learning_rate", "nan"]),
    "no rate": (spoiled(STEP, learning_rates="fast"), ["fast"]),
    "beta2": (spoiled(STEP, beta2=[2.0], eps=[1e-8]), ["beta2", "2"]),
    "a past step": (spoiled(STEP, step=2), ["step", "2"]),
    "a half step": (spoiled(STEP, step=2.5), ["step", "2.5"]),
    "no step": (spoiled(STEP, step="two"), ["step is 'two'", "integer"]),
    "no optimizer step": (spoiled(STEP, optimizer_step="two"), ["optimizer_step is 'two'", "integer"]),
    "an optimizer step": (spoiled(STEP, optimizer_step=2), ["optimizer_step", "2"]),
    "a future model": (spoiled(STEP, model_version=4), ["model_version", "4"]),
    "an undeclared stream": (spoiled(STEP, parameters=STEP.gradients), ["parameters"]),
    "a tag": (spoiled(STEP, scalars=(("", 1.0),)), ["tag"]),
    "a value": (spoiled(STEP, scalars=(("loss", "low"),)), ["low"]),
    "a batch": (spoiled(STEP, batch_size=-1.0), ["batch_size", "-1"]),
    "a clip factor": (spoiled(STEP, batch_size=8.0, clip_factor=-1.0), ["clip_factor", "-1"]),
    "norms": (
        lambda run: run.submit(3, tree(STEP.gradients), 1e-3, squared_norms=[gradientd.SquaredNorm(1, 1.0, [1.0] * 4)]),
        ["per_group", "4", "3"],
    ),
    "log: a tag": (lambda run: run.log({"": 1.0}), ["tag"]),
    "log: a value": (lambda run: run.log(loss="low"), ["low"]),
    "log: a name": (lambda run: run.log({1: 1.0}), ["tag", "1"]),
}


@pytest.mark.parametrize("case", OFFENCES)
def test_an_offence_costs_its_step_alone(case, errors, tmp_path):
    run, (hand_over, words) = described(), OFFENCES[case]
    first, second, _, fourth = records_of(run, 4)
    with open_run(tmp_path) as own:
        assert submit(own, first) and submit(own, second)
        for _ in range(2):
            assert not hand_over(own)
        assert submit(own, replace(STEP, optimizer_step=3)) and submit(own, fourth)
    (text,) = errors()  # once, not each time
    missing = [word for word in words if word not in text]
    assert not missing, text
    compare(run, [first, second, STEP, fourth], own.event_path)


def test_numbers_of_numpy_are_numbers(tmp_path):
    run = described()
    with open_run(tmp_path, first_step=np.int64(1), beta2=np.float32(0.5), max_lag=np.int32(5)) as own:
        for record in records_of(run, 3):
            assert own.submit(
                np.int64(record.step),
                tree(record.gradients),
                np.float64(1e-3),
                optimizer_step=np.int32(record.step),
                model_version=np.int64(record.step),
                batch_size=np.int64(8),
                scalars={"loss": np.float32(0.5)},
            )
            assert own.log(accuracy=np.array(0.25), step=np.int64(record.step))


def test_what_is_closed_takes_nothing(errors, tmp_path):
    own = open_run(tmp_path)
    first, second = records_of(described(), 2)
    submit(own, first)
    assert own.close()
    path = own.event_path
    assert not submit(own, second) and not own.log(loss=1.0)
    assert list(own.alerts()) == [] and not own.close() and own.event_path == path
    compare(described(), [first], path)
    assert errors() == []


def test_a_tree_of_another_type_is_read(tmp_path):
    """Doubles for a run of floats are rounded."""
    run = described()
    records = records_of(run, 3)
    with open_run(tmp_path, of=parameters(np.float32)) as own:
        for record in records:
            assert own.submit(record.step, tree([gradient.astype(np.float64) for gradient in record.gradients]), 1e-3)
    compare(run, records, own.event_path)
