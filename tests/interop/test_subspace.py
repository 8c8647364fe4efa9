"""Effective rank, top share, the eigenvalue histogram and the cosine matrix against numpy, over streams of every kind."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from compare import compare_file, compare_values
from readers import read_scalars, read_steps, read_tensors
from reference import Reference
from streams import Stream
from trainer import Group, Run, Step, train

EIGENVALUES, COSINES = "subspace/eigenvalues", "coherence/cosine_matrix"


def run_of(numel, max_lag=5, **changes):
    return Run([Group("w", numel)], max_lag=max_lag, **changes)


def steps_of(gradients):
    return [Step(t, [np.asarray(g, np.float32)], [0.1]) for t, g in enumerate(gradients, 1)]


def windows(run, records):
    """step -> the window's matrix of gradients, where it is whole."""
    reference = Reference(run)
    found = {}
    for record in records:
        gradients, _ = reference._finite(record.gradients)
        found[record.step] = reference.window(record.step, gradients)
        reference.step(record)
    return {step: window for step, window in found.items() if window is not None}


def shares(window):
    scaled = window / np.max(np.abs(window))
    values = np.linalg.eigvalsh(scaled @ scaled.T)
    return values / np.sum(values)


def scheduled(count):
    """1-based numbers of snapshots with a histogram: to 6 all, then 4, 5 and 6 quarters of a power of two."""
    return [n for n in range(1, count + 1) if n < 4 or n * 4 / 2 ** int(np.log2(n)) in (4, 5, 6)]


def check_histograms(run, records, path):
    expected = windows(run, records)
    found = dict(read_tensors(path).get(EIGENVALUES, ()))
    steps = [record.step for record in records]
    shown = [steps[n - 1] for n in scheduled(len(steps)) if np.any(expected.get(steps[n - 1], 0))]
    assert list(found) == shown
    for step, value in found.items():
        assert value.metadata.plugin_data.plugin_name == "histograms" and value.metadata.summary_description
        bins = np.array(value.tensor.double_val).reshape(30, 3)
        assert bins[:, 0] == pytest.approx(np.arange(30) / 30) and bins[:, 1] == pytest.approx(np.arange(1, 31) / 30)
        assert np.sum(bins[:, 2]) == run.max_lag + 1
        numbers = shares(expected[step])
        for edge in range(1, 30):  # what lies on an edge may count on either side
            below = np.sum(bins[:edge, 2])
            assert np.sum(numbers < edge / 30 - 1e-5) <= below <= np.sum(numbers < edge / 30 + 1e-5), (step, edge)
    return found


def compare_subspace(run, records, path):
    """The family's own values: where gradients are orthogonal, rounding decides the signs that others go by."""
    reference = Reference(run)
    found = read_steps(path)
    expected = {record.step: own_values(reference.step(record)) for record in records}
    for step, values in expected.items():
        compare_values(step, own_values(found[step]), values)
    return expected


def own_values(values):
    return {tag: value for tag, value in values.items() if tag.startswith("subspace/")}


def check(run, records, daemon, logdir, compare=compare_file):
    path = train(run, records, daemon.socket, logdir)
    expected = compare(run, records, path)
    check_histograms(run, records, path)
    return expected


RANDOM = np.random.default_rng(8)
ORTHOGONAL = np.linalg.qr(RANDOM.normal(size=(12, 12)))[0]

# What may go wrong, each 30 gradients.
STREAMS = {
    "one element": [[x] for x in RANDOM.normal(size=30)],
    "two elements": RANDOM.normal(size=(30, 2)),
    "random": RANDOM.normal(size=(30, 500)),
    "a common direction": 2.0 + RANDOM.normal(size=(30, 500)),
    "identical": [np.arange(1, 8)] * 30,
    "opposite": [np.arange(1, 8) * (-1) ** t for t in range(30)],
    "orthogonal": [ORTHOGONAL[t % 12] for t in range(30)],
    "two directions in turn": [ORTHOGONAL[t % 2] for t in range(30)],
    "zeros": [np.zeros(5)] * 30,
    "zeros now and then": [np.arange(5) if t % 4 else np.zeros(5) for t in range(30)],
    "zeros but for one": [np.ones(5) if t == 10 else np.zeros(5) for t in range(30)],
    "sizes far apart": [10.0 ** (15 * np.sin(t)) * RANDOM.normal(size=50) for t in range(30)],
    "growing": [10.0 ** (t - 15) * RANDOM.normal(size=50) for t in range(30)],
    "tiny": [1e-18 * RANDOM.normal(size=50) for t in range(30)],
    "one coordinate at a time": [np.eye(4)[t % 4] * (t + 1) for t in range(30)],
    "one element, huge range": [[10.0 ** (t % 31 - 15)] for t in range(30)],
}


@pytest.mark.parametrize("max_lag", [1, 2, 5, 11])
@pytest.mark.parametrize("name", STREAMS)
def test_streams(name, max_lag, daemon, tmp_path):
    records = steps_of(STREAMS[name])
    run = run_of(records[0].gradients[0].size, max_lag)
    expected = check(run, records, daemon, tmp_path, compare_subspace)
    for values in expected.values():
        if "subspace/top_share" in values:
            assert 1 - 1e-9 <= values["subspace/effective_rank"] <= max_lag + 1 + 1e-9
            assert 1 / (max_lag + 1) - 1e-9 <= values["subspace/top_share"] <= 1 + 1e-9
    last = expected[30]
    if name in ("identical", "opposite", "one element"):
        assert last["subspace/effective_rank"] == pytest.approx(1) and last["subspace/top_share"] == pytest.approx(1)
    if name == "orthogonal":
        assert last["subspace/effective_rank"] == pytest.approx(max_lag + 1)
    if name == "zeros":
        assert "subspace/top_share" not in last


def test_the_longest_window(daemon, tmp_path):
    run = run_of(300, 32)
    records = steps_of(0.2 + np.random.default_rng(1).normal(size=(70, 300)))
    expected = check(run, records, daemon, tmp_path)
    assert "subspace/top_share" not in expected[32] and "subspace/top_share" in expected[33]


@pytest.mark.parametrize("stride", [1, 3])
def test_gaps_and_absent_groups(stride, daemon, tmp_path):
    run = Run([Group("a", 9), Group("b", 70)], max_lag=3, stride=stride, inflight=6)
    records = []
    for record in Stream(run, seed=2).steps(80):
        record.optimizer_step = record.step
        if record.step in (20, 21, 44, 45, 46, 47):
            continue
        if record.step % 7 == 3:
            record.gradients[record.step % 2] = None
        if record.step % 11 == 5:
            record.gradients = [None, None]
        if record.step % 13 == 2:
            record.gradients[1][4] = np.nan
        record.applied = record.step % 5 != 1
        records.append(record)
    expected = check(run, records, daemon, tmp_path)
    assert "subspace/top_share" in expected[19] and "subspace/top_share" not in expected[22 if stride == 1 else 23]


def test_a_square_beyond_float(daemon, tmp_path):
    run = run_of(3, 2)
    records = steps_of([[1, 2, 3], [3, 2, 1], [1, 0, 0], [1e30, 1, 1], [1, 2, 3], [1, 0, 1], [0, 1, 0]])
    found = read_scalars(train(run, records, daemon.socket, tmp_path))
    assert found["subspace/top_share"].steps == found["subspace/effective_rank"].steps == [3, 7]


# --- the image


def palette_value(colour):
    """The value that a colour of the scale stands for, by where it lies between its five stops; None: no colour of it."""
    stops = np.array([(127, 59, 8), (230, 145, 56), (247, 247, 247), (103, 169, 207), (5, 48, 97)], float)
    for i, (start, end) in enumerate(zip(stops, stops[1:])):
        share = (colour - start) @ (end - start) / ((end - start) @ (end - start))
        if -0.01 <= share <= 1.01 and np.max(np.abs(start + share * (end - start) - colour)) <= 1:
            return -1 + (i + share) / 2
    return None


def image_of(value):
    assert value.metadata.plugin_data.plugin_name == "images" and value.metadata.summary_description
    width, height, png = value.tensor.string_val
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG" and image.size == (int(width), int(height))
    return np.asarray(image.convert("RGB"), float)


def cells(pixels, size):
    """The matrix in values, NaN for grey."""
    each = 24 if size <= 8 else 16 if size <= 16 else 8
    matrix = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            part = pixels[16 + i * each : 16 + (i + 1) * each, 22 + j * each : 22 + (j + 1) * each].reshape(-1, 3)
            assert np.all(part == part[0]), "a cell has one colour"
            matrix[i, j] = np.nan if np.all(part[0] == 150) else palette_value(part[0])
    return matrix


@pytest.mark.parametrize("max_lag", [1, 5, 12, 32])
def test_cosine_matrix(max_lag, daemon, tmp_path):
    """Every image holds the cosines of its window; before it is whole, and after a gap, what is missing is grey."""
    run = run_of(40, max_lag)
    rng = np.random.default_rng(9)
    records = [r for r in steps_of(0.5 + rng.normal(size=(70, 40))) if r.step != 63]
    records[7].gradients[0][:] = 0  # step 8, snapshot 8
    path = train(run, records, daemon.socket, tmp_path)
    found = read_tensors(path)[COSINES]
    assert [step for step, _ in found] == [2, 4, 8, 16, 32, 65]
    sent = {record.step: record.gradients[0].astype(float) for record in records}
    for step, value in found:
        matrix = cells(image_of(value), max_lag + 1)
        for i in range(max_lag + 1):
            for j in range(max_lag + 1):
                a, b = sent.get(step - i), sent.get(step - j)
                if a is None or b is None or not np.any(a) or not np.any(b):
                    assert np.isnan(matrix[i, j]), (step, i, j)
                else:
                    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                    assert matrix[i, j] == pytest.approx(cosine, abs=0.02), (step, i, j)


def lightness(pixels):
    """CIE L* of sRGB colours."""
    linear = np.where(pixels <= 0.04045 * 255, pixels / 255 / 12.92, ((pixels / 255 + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


def protanope(pixels):
    """As somebody without red cones sees it (Vienot, Brettel and Mollon 1999)."""
    linear = (pixels / 255) ** 2.2
    return 255 * (linear @ np.array([[0.11238, 0.11238, 0.00401], [0.88762, 0.88762, -0.00401], [0, 0, 1.0]])) ** (1 / 2.2)


def test_the_scale_can_be_read_by_all(daemon, tmp_path):
    """Both ends get darker step by step, and stay blue and yellowish apart without red cones."""
    run = run_of(10)
    path = train(run, steps_of(RANDOM.normal(size=(9, 10))), daemon.socket, tmp_path)
    pixels = image_of(read_tensors(path)[COSINES][-1][1])
    bar = pixels[16 : 16 + 144, 22 + 144 + 16 + 7]
    values = [palette_value(colour) for colour in bar]
    assert None not in values and values[0] == pytest.approx(1) and values[-1] == pytest.approx(-1)
    assert np.all(np.diff(values) <= 1e-9)
    light = lightness(bar)
    middle = np.argmax(light)
    assert abs(middle - 72) <= 2 and np.all(np.diff(light[:middle]) >= -0.5) and np.all(np.diff(light[middle:]) <= 0.5)
    seen = protanope(bar)
    blueness = seen[:, 2] - seen[:, 0]
    assert np.all(blueness[:40] > 20) and np.all(blueness[104:] < -20)  # beyond 0.45
