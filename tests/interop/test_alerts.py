"""What the rules say, as both of TensorBoard's readers show it: at the right step, and of any group's name."""

import html
import re

import numpy as np
import pytest

from board import START_SECONDS, TensorBoard
from readers import read_events, read_scalars
from trainer import Group, Optimizer, ParameterGroup, Run, Step, train
from waiting import wait_until

STEPS = 240
NAMES = ("plain/weight", "a*b*c_d_<script>alert(1)</script>", "``back`tick", "größe&amp;[x](y)")
ZERO = 1  # the group whose gradient is zero up to step 150
SPIKE = 170
NAN = {200: 0, 202: 3, 220: 2, 239: 3}  # step -> group


def noise(seed):
    return np.random.default_rng(seed)


def faulty(step, gradients):
    if step <= 150:
        gradients[ZERO][:] = 0
    if step == SPIKE:
        for gradient in gradients:
            gradient *= 20
    if step in NAN:
        gradients[NAN[step]][1] = np.nan
    return gradients


def described(name, spoil):
    run = Run([Group(n, 50) for n in NAMES], Optimizer("adam"), [ParameterGroup(0.999, 1e-8)], name=name)
    random = noise(5)
    records = []
    for step in range(1, STEPS + 1):
        gradients = [random.standard_normal(50).astype(np.float32) for _ in NAMES]
        records.append(Step(step, spoil(step, gradients), [1e-3]))
    return run, records


def texts_of(path):
    """(tag, step) -> text, of all texts in the file."""
    found = {}
    for event in read_events(path):
        for value in event.summary.value:
            if value.tag.startswith("alerts/"):
                assert (value.tag, event.step) not in found
                found[value.tag, event.step] = value.tensor.string_val[0].decode()
    return found


def turns(rule, judged):
    """What a rule says of (step, whether it is at fault) pairs: each onset, and each clearing after 16 quiet steps."""
    found, raised, quiet = set(), False, 0
    for step, fault in judged:
        quiet = 0 if fault else quiet + 1
        if fault != raised and (fault or quiet == 16):
            found.add((f"alerts/{rule}", step))
            raised = fault
    return found


def spikes(records):
    """(step, whether its norm is a spike), where that is judged."""
    window = []
    for record in records:
        if not all(np.isfinite(gradient).all() for gradient in record.gradients):
            continue
        norm = np.sqrt(sum((gradient.astype(float) ** 2).sum() for gradient in record.gradients))
        past = np.array(window[-128:])
        if len(past) >= 64:
            yield record.step, norm > past.mean() + 6 * past.std()
        window.append(norm)


def expected_turns(records, series):
    """Of numpy references on the stream, and of the ratios as they are in the file."""
    steps, rms = series["adam/rms"].arrays()
    not_finite = [(r.step, not all(np.isfinite(g).all() for g in r.gradients)) for r in records]
    zeros = np.cumsum([not r.gradients[ZERO].any() for r in records])
    rules = {
        "norm_spike": spikes(records),
        "non_finite": not_finite,
        "zero_group": [(r.step, r.step <= 150 and n >= 100) for r, n in zip(records, zeros)],
        "rms": zip(steps, rms > 2.3),
    }
    found = [turns(rule, judged) for rule, judged in rules.items()]
    assert all(found)  # the stream has something for each
    return set().union(*found)


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    return tmp_path_factory.mktemp("alerts") / "logs"


@pytest.fixture
def runs(daemon, logdir):
    """name -> event file"""
    found = {}
    for name, spoil in {"faulty": faulty, "healthy": lambda step, gradients: gradients}.items():
        if not (logdir / name).exists():
            run, records = described(name, spoil)
            train(run, records, daemon.socket, logdir)
        (found[name],) = (logdir / name).glob("events.out.tfevents.*")
    return found


def test_texts_are_at_the_steps_of_a_reference(runs):
    _, records = described("faulty", faulty)
    assert set(texts_of(runs["faulty"])) == expected_turns(records, read_scalars(runs["faulty"]))


def test_the_twin_without_faults_has_none(runs):
    assert texts_of(runs["healthy"]) == {}


def test_texts_name_step_value_threshold_and_group(runs):
    texts = texts_of(runs["faulty"])
    assert "Step 200: 1 element" in texts["alerts/non_finite", 200]
    assert f"`{NAMES[0]}`" in texts["alerts/non_finite", 200]
    assert f"began at step 200 with `{NAMES[0]}`" in texts["alerts/non_finite", 218]
    assert f"``` {NAMES[2]} ```" in texts["alerts/non_finite", 220]
    assert f"`{NAMES[3]}`" in texts["alerts/non_finite", 239]
    assert f"`{NAMES[ZERO]}` has been all zero for 100 steps, the threshold is 100" in texts["alerts/zero_group", 100]
    assert re.search(r"norm of the gradient is \d+\.\d+, above \d+\.\d+", texts["alerts/norm_spike", SPIKE])


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_both_loaders_show_them(load_fast, runs, logdir):
    board = TensorBoard(logdir, load_fast)
    try:
        expected = texts_of(runs["faulty"])
        tags = {tag for tag, _ in expected}

        def shown():
            answer = board.get("/data/plugin/text/tags")
            if not answer or not set(answer.get("faulty", ())) >= tags:
                return None
            assert not [tag for tag in answer.get("healthy", ()) if tag.startswith("alerts/")]
            points = {
                (tag, point["step"]): html.unescape(re.sub("<[^>]*>", "", point["text"])).strip()
                for tag in tags
                for point in board.get(f"/data/plugin/text/text?run=faulty&tag={tag}")
            }
            return set(points) == set(expected) and points

        texts = wait_until(shown, START_SECONDS, "the texts")
        for key, text in texts.items():
            for name in NAMES:
                if name in expected[key]:
                    assert name in text, (key, text)
            assert "`" not in text.replace(NAMES[2], ""), text  # all of the markup was understood
    finally:
        board.stop()
