"""What a person sees in TensorBoard's tabs of runs that the example `digits` wrote: all of it, and no fault."""

import re
import subprocess
from collections import defaultdict

import pytest
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from board import START_SECONDS, TensorBoard
from browser import Browser, colored_pixels
from readers import read_events
from trainer import build_path
from waiting import wait_until

STEPS = 300
RUNS = {"adam": ("--optimizer", "adam"), "sgd": ("--optimizer", "sgd")}
DRAWN_SECONDS = 30
CHART_PIXELS_MIN = 100  # coloured ones, of a chart that shows a curve


class Written:
    """What one run's event file holds, per plugin."""

    def __init__(self, path):
        self.by_plugin = defaultdict(lambda: defaultdict(list))  # plugin -> tag -> [(step, value)]
        self.contents = {}
        plugins = {}
        for event in read_events(path):
            for value in event.summary.value:
                data = value.metadata.plugin_data
                plugin = plugins.setdefault(value.tag, data.plugin_name)
                self.contents.setdefault(value.tag, data.content)
                self.by_plugin[plugin][value.tag].append((event.step, value))

    def tags(self, plugin):
        """tag -> [(step, value)], of which a tab must have some to show."""
        assert self.by_plugin[plugin], f"the run wrote nothing for {plugin}"
        return self.by_plugin[plugin]

    def strings(self, plugin):
        return {tag: points[-1][1].tensor.string_val for tag, points in self.tags(plugin).items()}


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("browser") / "logs"
    for name, arguments in RUNS.items():
        command = [build_path("examples/digits"), "--logdir", str(logdir), "--run", name, "--max-stall", "60"]
        subprocess.run([*command, "--steps", str(STEPS), *arguments], check=True, timeout=60, capture_output=True)
    return logdir


@pytest.fixture(scope="module")
def written(logdir):
    """run -> Written"""
    return {run: Written(next((logdir / run).glob("events.out.tfevents.*"))) for run in RUNS}


@pytest.fixture(scope="module")
def address(logdir):
    board = TensorBoard(logdir, "true")

    def loaded():
        shown = board.get("/data/plugin/timeseries/tags")
        if not shown or any("train/loss" not in shown["scalars"]["runTagInfo"].get(run, ()) for run in RUNS):
            return False
        return all(board.series("train/loss")[run][-1][0] == STEPS for run in RUNS)

    wait_until(loaded, START_SECONDS, "the runs are loaded")
    yield board.address
    board.stop()


@pytest.fixture(scope="module")
def browser(address):
    browser = Browser(address)
    yield browser
    browser.close()


@pytest.fixture
def open_tab(browser):
    """open_tab(name, **arguments) -> Playwright's page. Whatever went wrong in it fails the test."""
    tabs = []

    def start(name, **arguments):
        tabs.append(browser.open(name, **arguments))
        return tabs[-1].page

    yield start
    for tab in tabs:
        faults = tab.all_faults()
        tab.close()
        assert not faults, "\n".join(faults)


def wait_drawn(locator, pixels=CHART_PIXELS_MIN):
    """Waits until a picture of the element has that many coloured pixels."""
    locator.scroll_into_view_if_needed()
    wait_until(lambda: colored_pixels(locator.screenshot()) >= pixels, DRAWN_SECONDS, "something is drawn")


def filter_tags(page, tag):
    page.locator("tf-tag-filterer input").fill(f"^{re.escape(tag)}$")


def card_of(page, loader, tag, run):
    """A run's card of a tag, among those found by a filter; the tag's group shows it once more."""
    run_name = page.locator(".run", has_text=re.compile(f"^{run}$"))
    return page.locator(loader).filter(has_text=tag).filter(has=run_name).first


def count_of(bar):
    """The number in a group's bar, such as '13 cards', which the bar of a single one does without."""
    counts = bar.locator(".group-card-count").all_inner_texts()
    return int(counts[0].split()[0]) if counts else 1


def test_time_series(open_tab, written):
    scalars = {run: one.tags("scalars") for run, one in written.items()}
    expected = defaultdict(int)
    for tag in set().union(*scalars.values()):
        expected[tag.split("/")[0]] += 1
    others = ("histograms", "images")  # a card for each run
    for tag in [tag for one in written.values() for plugin in others for tag in one.by_plugin[plugin]]:
        expected[tag.split("/")[0]] += 1

    pinned = ["coherence/cosine_lag1", "adam/B_over_A", "gradient/norm"]
    page = open_tab("timeseries", pinned=pinned)
    page.wait_for_selector("metrics-card-groups .group-title")

    def groups():
        bars = page.locator("metrics-card-groups .group-toolbar").all()
        return {bar.locator(".group-title").inner_text(): count_of(bar) for bar in bars}

    wait_until(lambda: groups() == expected, DRAWN_SECONDS, f"the groups {dict(expected)}")

    for tag in pinned:
        card = page.locator("metrics-pinned-view scalar-card").filter(has=page.locator(f'[title="{tag}"]'))
        wait_drawn(card.locator("line-chart .series-view"))
        for run in RUNS:
            row = card.locator("tb-data-table-content-row").filter(has_text=run)
            assert row.count() == 1, f"{tag} {run}"
            assert str(STEPS) in row.inner_text()


def test_custom_scalars(open_tab, written):
    layouts = {run: one.strings("custom_scalars")["custom_scalars__config__"][0] for run, one in written.items()}
    page = open_tab("custom_scalars")
    page.wait_for_selector("tf-category-paginated-view")
    seen = 0
    for category in layout_pb2.Layout.FromString(layouts["adam"]).category:
        view = page.locator("tf-category-paginated-view").filter(has_text=category.title)
        if category.closed:
            view.locator("button.heading").click()
        for chart in category.chart:
            patterns = [re.compile(tag) for tag in chart.multiline.tag]
            lines = sum(any(p.match(tag) for p in patterns) for one in written.values() for tag in one.tags("scalars"))
            card = view.locator("tf-custom-scalar-multi-line-chart-card").filter(has_text=chart.title)
            assert card.count() == 1, chart.title
            curves = card.locator(".line-plot:not(.ghost) path.line")
            wait_until(lambda: curves.count() == lines, DRAWN_SECONDS, f"{lines} curves of {chart.title}")
            if lines:
                wait_drawn(card.locator("vz-line-chart2"))
                seen += 1
    assert seen >= 2


def test_histograms(open_tab, written):
    assert all(one.tags("histograms") for one in written.values())
    page = open_tab("histograms")
    page.wait_for_selector("tf-histogram-loader")
    for tag in written["adam"].tags("histograms"):
        filter_tags(page, tag)
        for run, one in written.items():
            points = one.tags("histograms").get(tag, [])
            card = card_of(page, "tf-histogram-loader", tag, run)
            if points:
                outlines = card.locator("g.histogram path.outline")
                wait_until(lambda: outlines.count() == len(points), DRAWN_SECONDS, f"all steps of {tag} in {run}")
                wait_drawn(card.locator("vz-histogram-timeseries svg"))


def test_images(open_tab, written):
    assert all(one.tags("images") for one in written.values())
    page = open_tab("images")
    page.wait_for_selector("tf-image-loader")
    for run, one in written.items():
        for tag, (width, height, _) in one.strings("images").items():
            filter_tags(page, tag)
            card = card_of(page, "tf-image-loader", tag, run)
            image = card.locator("img")
            size = "image => image.complete && [image.naturalWidth, image.naturalHeight]"
            wait_until(
                lambda: image.count() and image.evaluate(size) == [int(width), int(height)],
                DRAWN_SECONDS,
                f"{tag} of {run} in its size",
            )
            last = one.tags("images")[tag][-1][0]
            heading = " ".join(card.locator(".heading-row").all_inner_texts())
            assert re.search(rf"step\s+{last:,}\b", heading), heading


def test_hparams(open_tab, written):
    assert all(one.tags("hparams") for one in written.values())
    page = open_tab("hparams")
    page.wait_for_selector("vaadin-grid-cell-content")

    def cells():
        return {text.strip() for text in page.locator("vaadin-grid-cell-content").all_inner_texts()}

    for run, one in written.items():
        content = one.contents["_hparams_/session_start_info"] if one.tags("hparams") else b""
        start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
        assert start.hparams, f"{run} has no hyperparameters"
        assert start.hparams["optimizer"].string_value == run
        wait_until(lambda: {"optimizer", run} <= cells(), DRAWN_SECONDS, f"the row of {run}")
        pane = page.locator("tf-hparams-query-pane")  # the table has the first few of them
        listed = {name for name in start.hparams if pane.get_by_text(name, exact=True).count()}
        assert listed == set(start.hparams)


def words_of(markdown):
    """The words of a markdown text without what marks it up."""
    return set(re.findall(r"[A-Za-zÄÖÜäöü0-9_]{3,}", re.sub(r"\]\([^)]*\)|<[^>]*>", " ", markdown)))


def test_text(open_tab, written):
    assert all(one.tags("text") for one in written.values())
    page = open_tab("text")
    page.wait_for_selector("tf-text-loader")
    for run, one in written.items():
        for tag, points in one.tags("text").items():
            filter_tags(page, tag)
            card = card_of(page, "tf-text-loader", tag, run)

            def shown():
                return words_of("\n".join(card.locator("tf-markdown-view div").all_inner_texts()))

            for step, value in points:
                words = words_of(value.tensor.string_val[0].decode())
                assert words, f"{tag} of {run} at step {step} is empty"
                wait_until(lambda: words <= shown(), DRAWN_SECONDS, f"the text {tag} of {run}, step {step}")
