"""Takes the gallery's pictures: pictures.py LOGDIR SECTION..., where LOGDIR/SECTION holds a section's runs."""

import io
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests" / "interop"))

from board import TensorBoard  # noqa: E402
from browser import Browser  # noqa: E402
from waiting import wait_until  # noqa: E402

HEADER_PIXELS = 64  # of TensorBoard's bar at the top
MARGIN_PIXELS = 8
COLORS = 128
BYTES_MAX = 80_000
SETTLED_SECONDS = 2  # without a change, of what is drawn
LOADED_SECONDS = 120


@dataclass
class Picture:
    name: str
    tab: str = "timeseries"
    pinned: tuple = ()
    runs: str = ""  # regular expression; Time Series alone
    smoothing: float = 0.0
    with_header: bool = False
    height: int = 560
    open_category: str = ""  # of Custom Scalars, where it is closed


SECTIONS = {
    "digits": [
        Picture(
            "dashboard",
            pinned=("coherence/cosine_lag1", "adam/oscillation", "adam/B_over_A"),
            smoothing=0.9,
            with_header=True,
        ),
        Picture("images", tab="images", height=640),
        Picture("custom_scalars", tab="custom_scalars", height=640),
        Picture("histograms", tab="histograms", height=640),
        Picture("hparams", tab="hparams", height=400),
        Picture("text", tab="text", height=640),
    ],
    "quadratic": [
        Picture("quadratic", pinned=("coherence/cosine_lag1", "coherence/cosine_lag5", "loss"), smoothing=0.9),
    ],
    "adam_ratios": [
        Picture(
            "adam_ratios_rotating",
            pinned=("adam/oscillation", "adam/C_over_A", "train/loss"),
            runs="^rotating.*constant",
            height=600,
        ),
        Picture(
            "adam_ratios_steep",
            pinned=("coherence/cosine_lag1", "adam/B_over_A", "train/loss"),
            runs="^steep.*constant",
            height=600,
        ),
    ],
    "staleness": [
        Picture(
            "staleness_coherence",
            pinned=("coherence_probe/cosine_lag1", "coherence_probe/cosine_lag2", "train/accuracy"),
            runs="stale0$",
            smoothing=0.9,
            height=640,
        ),
        Picture(
            "staleness",
            pinned=("train/accuracy", "staleness/observed", "train/loss"),
            runs="(sgd-0.2|adam-0.0005)",
            height=640,
        ),
    ],
    "critical_period": [
        Picture(
            "critical_period",
            pinned=("fisher/trace", "fisher/trace_empirical", "train/loss"),
            smoothing=0.95,
            height=520,
        ),
        Picture(
            "critical_period_harm",
            pinned=("window/harm", "window/test_accuracy", "window/test_accuracy_without"),
            height=520,
        ),
    ],
    "function_space": [
        Picture(
            "function_space",
            pinned=(
                "function/l2_from_start",
                "parameters/l2_from_start",
                "function/per_parameter_from_start",
                "function/l2_step",
                "parameters/l2_step",
                "function/per_parameter_step",
            ),
            height=960,
        ),
    ],
}


def settled(page):
    """The page's picture, once it stays the same for a while."""
    last, since = None, time.monotonic()
    deadline = since + 30
    while time.monotonic() < min(since + SETTLED_SECONDS, deadline):
        now = page.screenshot()
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.3)
    return Image.open(io.BytesIO(last)).convert("RGB")


def close_settings(page):
    close = page.locator("metrics-dashboard-right-pane .close-button, .sidebar button[aria-label='Close side pane']")
    if close.count():
        close.first.click()


def hide_logdir(page):
    """Where the runs lie is the machine's business."""
    page.locator("#data-location").evaluate_all("found => found.forEach(e => e.style.visibility = 'hidden')")


def save(image, name):
    path = HERE / f"{name}.png"
    colors = COLORS
    while True:
        image.quantize(colors, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= BYTES_MAX or colors == 8:
            break
        colors //= 2
    print(f"{path.relative_to(HERE.parent)}: {path.stat().st_size} bytes")


def take(browser, picture):
    query = {"smoothing": picture.smoothing} if picture.tab == "timeseries" else {}
    if picture.runs:
        query["runFilter"] = picture.runs
    tab = browser.open(picture.tab, pinned=picture.pinned, query=query)
    page = tab.page
    page.set_viewport_size({"width": 1360, "height": picture.height})
    if picture.tab == "timeseries":
        page.wait_for_selector("metrics-pinned-view scalar-card line-chart")
        close_settings(page)
    if picture.open_category:
        page.locator("tf-category-paginated-view").filter(has_text=picture.open_category).locator("button.heading").click()
    settled(page)
    hide_logdir(page)
    image = settled(page)
    if not picture.with_header:
        image = image.crop((0, HEADER_PIXELS, image.width, image.height))
    save(image, picture.name)
    faults = tab.all_faults()
    tab.close()
    assert not faults, faults


def main():
    logdir = Path(sys.argv[1])
    for section in sys.argv[2:]:
        runs = {path.parent.relative_to(logdir / section).as_posix() for path in (logdir / section).rglob("*tfevents*")}
        board = TensorBoard(logdir / section, "true")
        try:
            wait_until(lambda: set(board.get("/data/runs") or ()) == runs, LOADED_SECONDS, f"all runs of {section}")
            browser = Browser(board.address)
            try:
                for picture in SECTIONS[section]:
                    take(browser, picture)
            finally:
                browser.close()
        finally:
            board.stop()


if __name__ == "__main__":
    main()
