"""What a run shows beside its scalars: charts of Custom Scalars, hyperparameters, the page that says how to read them."""

import re
from urllib.parse import quote

import pytest
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.custom_scalar import layout_pb2

from board import START_SECONDS, TensorBoard
from readers import SESSION_END, SESSION_START, read_scalars, read_tensor, session_infos, split_records
from streams import Stream
from trainer import FIRST_WALL_TIME, Group, Optimizer, ParameterGroup, Run, Values, train
from waiting import wait_until

STEPS = 40  # slopes begin at 16
LAYOUT, PAGE = "custom_scalars__config__", "gradientd/how_to_read"
STOP = event_pb2.SessionLog.STOP
STATUSES = [f"STATUS_{name}" for name in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]

# Categories whose tags come with what a trainer may state at any step, and did not.
STATED_LATER = {"Noise scale and Fisher information"}


def adam_run(**options):
    groups = [Group("a.weight", 300, 0), Group("a.bias", 7, 1)]
    rates = [ParameterGroup(0.9, 1e-8), ParameterGroup(0.8, 1e-6)]
    return Run(groups, Optimizer("adam"), rates, name="adam", shadow_rules=("amsgrad", "adafom"), **options)


def sgd_run(**options):
    return Run([Group("w", 20)], name="sgd", max_lag=2, per_group=False, **options)


def other_run(**options):
    return Run([Group("w", 20)], Optimizer("other"), [ParameterGroup(0.9, 1e-8)], name="other", **options)


def shadowed_other_run():
    return other_run(shadow_rules=("adam",))


def trained(run, daemon, logdir, rate=2**-7, **options):
    return train(run, Stream(run, seed=41).steps(STEPS, rate=rate), daemon.socket, logdir, **options)


def layout_of(path):
    ((step, wall_time, content),) = read_tensor(path, LAYOUT)
    assert (step, wall_time) == (0, FIRST_WALL_TIME)
    return layout_pb2.Layout.FromString(content.item())


def charts_of(layout):
    """(category, chart) -> regular expressions."""
    charts = [(category.title, chart) for category in layout.category for chart in category.chart]
    return {(title, chart.title): list(chart.multiline.tag) for title, chart in charts}


def ended(path):
    found, torn_bytes = split_records(path.read_bytes())
    return torn_bytes == 0 and found and event_pb2.Event.FromString(found[-1]).session_log.status == STOP


def plain(value):
    return getattr(value, value.WhichOneof("kind"))


def hparams_of(path):
    (data,) = session_infos(path, SESSION_START)
    return {name: plain(value) for name, value in data.session_start_info.hparams.items()}


# --- Custom Scalars


@pytest.mark.parametrize("make", [adam_run, sgd_run, other_run, shadowed_other_run])
def test_every_chart_has_values(make, daemon, tmp_path):
    path = trained(make(), daemon, tmp_path)
    tags = read_scalars(path).keys()
    layout = layout_of(path)
    for (category, chart), expressions in charts_of(layout).items():
        shown = [tag for tag in tags for expression in expressions if re.match(expression, tag)]
        assert bool(shown) != (category in STATED_LATER), f"{category}, {chart}"
    assert {category.title for category in layout.category if category.closed} >= STATED_LATER


@pytest.mark.parametrize("make", [adam_run, sgd_run, other_run, shadowed_other_run])
def test_no_chart_takes_the_beginning_of_a_tag_for_the_tag(make, daemon, tmp_path):
    path = trained(make(), daemon, tmp_path)
    tags = read_scalars(path).keys()
    for expressions in charts_of(layout_of(path)).values():
        for expression in expressions:
            shown = {tag for tag in tags if re.match(expression, tag)}
            assert shown == {tag for tag in tags if re.fullmatch(expression.removesuffix("$"), tag)}, expression


def test_a_chart_is_the_same_in_every_run_that_has_it(daemon, tmp_path):
    """Else TensorBoard shows it once for each."""
    adam = charts_of(layout_of(trained(adam_run(), daemon, tmp_path)))
    sgd = charts_of(layout_of(trained(sgd_run(), daemon, tmp_path)))
    assert sgd.items() < adam.items()
    more = {category for category, _ in adam.keys() - sgd.keys()}
    assert more == {"Adam convergence ratios", "What another rule would give", "Groups"}
    for make in (other_run, shadowed_other_run):
        other = charts_of(layout_of(trained(make(), daemon, tmp_path)))
        assert other.items() < adam.items()
        assert "Adam convergence ratios" not in {category for category, _ in other}


def test_lags_and_shadows_share_their_charts(daemon, tmp_path):
    path = trained(adam_run(), daemon, tmp_path)
    charts = charts_of(layout_of(path))

    def shown(category, chart):
        tags = read_scalars(path)
        return sorted(tag for tag in tags for expression in charts[category, chart] if re.match(expression, tag))

    lags = shown("Gradient coherence, by lag", "Cosine with the gradient m steps ago")
    assert lags == [f"coherence/cosine_lag{m}" for m in range(1, 6)]
    rules = shown("What another rule would give", "Oscillation, own and others")
    assert rules == ["adam/oscillation", "shadow_adafom/oscillation", "shadow_amsgrad/oscillation"]


# --- hyperparameters


def test_what_the_daemon_knows(daemon, tmp_path):
    known = hparams_of(trained(adam_run(), daemon, tmp_path))
    assert known == {"optimizer": "adam", "learning_rate": 2**-7, "beta2": 0.9, "eps": 1e-8}
    for rule, make in (("sgd", sgd_run), ("other", other_run)):
        assert hparams_of(trained(make(), daemon, tmp_path)) == {"optimizer": rule, "learning_rate": 2**-7}


@pytest.mark.parametrize("rule", ["rmsprop", "adagrad", "adafom", "amsgrad"])
def test_rules_without_a_decay_have_none(rule, daemon, tmp_path):
    run = Run([Group("w", 20)], Optimizer(rule), [ParameterGroup(0.9 if rule in ("rmsprop", "amsgrad") else 0.0, 1e-8)])
    known = hparams_of(trained(run, daemon, tmp_path))
    assert known["optimizer"] == rule and known["eps"] == 1e-8
    assert known.get("beta2") == (0.9 if rule in ("rmsprop", "amsgrad") else None)


def test_the_first_steps_rates_are_told(daemon, tmp_path):
    run = adam_run()
    records = Stream(run, seed=42).steps(3)
    records[0].learning_rates, records[1].learning_rates = [0.5, 0.25], [0.125, 0.125]
    records[0].beta2, records[0].eps = [0.75, 0.5], [1e-3, 1e-2]
    records.insert(0, Values(0, (("validation/loss", 1.0),)))  # no snapshot
    known = hparams_of(train(run, records, daemon.socket, tmp_path))
    assert known == {"optimizer": "adam", "learning_rate": 0.5, "beta2": 0.75, "eps": 1e-3}


def test_trainers_own_come_with_them_and_take_their_place(daemon, tmp_path):
    own = {"seed": 7.0, "model": "64-32, größer", "augment": True, "amp": False, "learning_rate": "cosine from 0.1"}
    path = trained(adam_run(hparams=own, hparams_group="sweep/3"), daemon, tmp_path)
    assert hparams_of(path) == {"optimizer": "adam", "beta2": 0.9, "eps": 1e-8} | own
    (start,) = session_infos(path, SESSION_START)
    assert start.version == 0
    assert start.session_start_info.group_name == "sweep/3"
    assert start.session_start_info.start_time_secs == FIRST_WALL_TIME


@pytest.mark.parametrize("end, status", [("close", 1), ("failure", 2)])
def test_the_outcome_is_what_close_says(end, status, daemon, tmp_path):
    (data,) = session_infos(trained(sgd_run(), daemon, tmp_path, end=end), SESSION_END)
    assert data.session_end_info.status == status
    assert data.session_end_info.end_time_secs == FIRST_WALL_TIME + STEPS


def test_a_trainer_that_goes_without_a_word_has_no_outcome(daemon, tmp_path):
    path = trained(sgd_run(), daemon, tmp_path, end="exit")
    wait_until(lambda: ended(path), 30, "the file's end")
    assert session_infos(path, SESSION_START) and not session_infos(path, SESSION_END)


def test_a_run_without_a_step_has_neither(daemon, tmp_path):
    path = train(sgd_run(), [Values(1, (("loss", 1.0),))], daemon.socket, tmp_path)
    assert not session_infos(path, SESSION_START) and not session_infos(path, SESSION_END)


# --- the page


def test_the_page_tells_of_what_the_run_has(daemon, tmp_path):
    def page_of(path):
        ((step, wall_time, text),) = read_tensor(path, PAGE)
        assert (step, wall_time) == (1, FIRST_WALL_TIME)
        return text.item().decode()

    adam, sgd = (page_of(trained(make(), daemon, tmp_path)) for make in (adam_run, sgd_run))
    for heading in ("# How to read this run", "## coherence/", "## adam/", "## gradient/", "## Histograms"):
        assert heading in adam and heading in sgd, heading
    for heading in ("## shadow_", "## group_", "**`rms`**"):
        assert heading in adam and heading not in sgd, heading
    assert len(adam.encode()) < 8192
    other, shadowed = (page_of(trained(make(), daemon, tmp_path)) for make in (other_run, shadowed_other_run))
    assert "## coherence/" in other and "adam/" not in other + shadowed
    assert "## shadow_" in shadowed and "## shadow_" not in other


# --- TensorBoard


@pytest.fixture
def logdir(daemon, tmp_path):
    logdir = tmp_path / "logs"
    trained(adam_run(hparams={"seed": 7, "model": "64-32", "augment": True}), daemon, logdir)
    trained(sgd_run(), daemon, logdir, end="failure")
    return logdir


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_tensorboard_shows_it(load_fast, logdir):
    board = TensorBoard(logdir, load_fast)

    def loaded():
        runs = board.get("/data/runs")
        scalars = board.get("/data/plugin/scalars/tags")
        if not runs or not scalars or sorted(runs) != ["adam", "sgd"]:
            return False
        return all("gradient/norm" in scalars.get(run, ()) for run in runs)

    try:
        wait_until(loaded, START_SECONDS, f"both runs: {board.messages()}")
        check_layout(board)
        check_hparams(board)
        check_page(board)
        check_histograms(board)
    finally:
        board.stop()


def check_layout(board):
    shown = board.get("/data/plugin/custom_scalars/layout")
    titles = [category["title"] for category in shown["category"]]
    assert len(set(titles)) == len(titles)
    (coherence,) = [category for category in shown["category"] if category["title"].startswith("Gradient coherence")]
    charts = [chart["title"] for chart in coherence["chart"]]
    assert len(set(charts)) == len(charts), "one chart for both runs"
    (tag,) = coherence["chart"][0]["multiline"]["tag"]
    found = board.get(f"/data/plugin/custom_scalars/scalars?run=adam&tag={quote(tag)}")
    assert found["regex_valid"] and sorted(found["tag_to_events"]) == [f"coherence/cosine_lag{m}" for m in range(1, 6)]


def check_hparams(board):
    columns = [{"hparam": name} for name in ("optimizer", "seed", "model", "augment")]
    request = {"experimentName": "", "allowedStatuses": STATUSES, "colParams": columns, "startIndex": 0, "sliceSize": 9}
    groups = board.post_json("/data/plugin/hparams/session_groups", request)["sessionGroups"]
    sessions = {group["sessions"][0]["name"]: (group["hparams"], group["sessions"][0]) for group in groups}
    adam, session = sessions["adam"]
    assert adam["optimizer"] == "adam" and adam["learning_rate"] == 2**-7 and adam["seed"] == 7
    assert adam["model"] == "64-32" and adam["augment"] is True
    assert session["status"] == "STATUS_SUCCESS" and session["endTimeSecs"] == FIRST_WALL_TIME + STEPS
    sgd, session = sessions["sgd"]
    assert sgd["optimizer"] == "sgd" and session["status"] == "STATUS_FAILURE"


def check_page(board):
    assert board.get("/data/plugin/text/tags")["adam"] == [PAGE]
    (text,) = board.get(f"/data/plugin/text/text?run=adam&tag={PAGE}")
    assert "<h1>How to read this run</h1>" in text["text"] and "<strong>Healthy:</strong>" in text["text"]


def check_histograms(board):
    tags = ("gradient/log2_abs", "adam/log2_step_size")
    assert set(tags) <= board.get("/data/plugin/histograms/tags")["adam"].keys()
    for tag in tags:
        shown = board.get(f"/data/plugin/histograms/histograms?run=adam&tag={tag}")
        assert [step for _, step, _ in shown] == [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40]
        assert all(len(bins) == 30 for _, _, bins in shown)
