"""What is no scalar of the noise and subspace families: the same bytes whatever happens to the daemon, and shown by
both of TensorBoard's readers."""

import signal
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from board import START_SECONDS, TensorBoard
from daemons import Daemon
from readers import last_step, read_tensors
from trainer import Group, Optimizer, ParameterGroup, Run, SquaredNorm, Step, Trainer, train
from waiting import wait_until

STEPS = 140
TENSORS = {"coherence/cosine_matrix": 7, "subspace/eigenvalues": 14, "fisher/critical_period": 1}


def some_run(**changes):
    groups = [Group("a", 150_001), Group("b", 70)]
    return Run(groups, Optimizer("adam"), [ParameterGroup(0.999, 1e-8)], name="run", **changes)


def some_records():
    rng = np.random.default_rng(12)
    base = [rng.normal(size=150_001), rng.normal(size=70)]
    records = []
    for t in range(1, STEPS + 1):
        noise = 3.0 if t < 40 else 0.3
        parts = [(b + noise * rng.normal(size=b.size)).astype(np.float32) for b in base]
        per_group = [float(b @ b) + noise**2 * b.size * 8 for b in base]
        norm = SquaredNorm(8.0, sum(per_group), per_group)
        clip = 0.5 if t % 3 == 0 else 0.0
        gradients = [(p * np.float32(clip or 1.0)) for p in parts]
        step = Step(t, gradients, [1e-3], batch_size=64.0, clip_factor=clip, squared_norms=(norm,))
        records.append(step)
    return records


@pytest.fixture(scope="module")
def records():
    return some_records()


@pytest.fixture
def alone(records, daemon, tmp_path):
    path = train(some_run(), records, daemon.socket, tmp_path / "alone")
    assert {tag: len(found) for tag, found in read_tensors(path).items() if tag in TENSORS} == TENSORS
    return path.read_bytes()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_worker_threads(workers, records, alone, start_daemon, tmp_path):
    other = start_daemon("--workers", str(workers))
    assert train(some_run(), records, other.socket, tmp_path / "other").read_bytes() == alone


@pytest.mark.parametrize("kernels", ["scalar"])
def test_kernels(kernels, records, alone, start_daemon, tmp_path):
    other = start_daemon(GRADIENTD_KERNELS=kernels)
    assert train(some_run(), records, other.socket, tmp_path / "other").read_bytes() == alone


@pytest.mark.parametrize("transport", ["raw"])
def test_inline(transport, records, alone, daemon, tmp_path):
    path = train(some_run(transport=transport), records, daemon.socket, tmp_path / "other")
    assert path.read_bytes() == alone


def test_a_killed_daemon_is_followed_by_another(records, alone, tmp_path):
    """SIGKILL before, amid and after the images, with the window, the averages and the peak under way."""
    with tempfile.TemporaryDirectory(prefix="gd") as directory:
        daemon = Daemon(Path(directory), (), {})
        daemon.wait_ready()
        trainer = Trainer(some_run(), daemon.socket, tmp_path / "other", echo=True)
        sent = 0
        for at in (1, 3, 6, 7, 16, 31, 64, 77, 100):
            trainer.send(records[sent:at])
            sent = at
            daemon.stop(signal.SIGKILL)
            daemon = Daemon(Path(directory), (), {})
            daemon.wait_ready()
        trainer.send(records[sent:])
        path = trainer.finish()
        assert daemon.stop() == 0
    assert last_step(path) == STEPS
    assert path.read_bytes() == alone


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_tensorboard_shows_them(load_fast, records, daemon, tmp_path):
    logdir = tmp_path / "logs"
    path = train(some_run(), records, daemon.socket, logdir)
    written = read_tensors(path)
    board = TensorBoard(logdir, load_fast)

    def get(plugin, what, tag):
        query = urllib.parse.urlencode({"run": "run", "tag": tag, "sample": 0})
        return board.get(f"/data/plugin/{plugin}/{what}?{query}")

    def loaded():
        found = [board.get(f"/data/plugin/{plugin}/tags") or {} for plugin in ("images", "histograms", "text")]
        return all(tag in tags.get("run", ()) for tag, tags in zip(TENSORS, found)) and found

    try:
        wait_until(loaded, START_SECONDS, f"image, histogram and text: {board.messages()}")

        def images():
            shown = get("images", "images", "coherence/cosine_matrix")
            return shown and len(shown) == TENSORS["coherence/cosine_matrix"] and shown

        shown = wait_until(images, START_SECONDS, "all images")
        assert [image["step"] for image in shown] == [2, 4, 8, 16, 32, 64, 128]
        for image, (_, value) in zip(shown, written["coherence/cosine_matrix"]):
            address = f"{board.address}/data/plugin/images/individualImage?{image['query']}"
            with urllib.request.urlopen(address, timeout=10) as answer:
                assert answer.headers["Content-Type"] == "image/png"
                assert answer.read() == value.tensor.string_val[2]

        histograms = get("histograms", "histograms", "subspace/eigenvalues")
        assert [point[1] for point in histograms] == [step for step, _ in written["subspace/eigenvalues"]]
        for point, (_, value) in zip(histograms, written["subspace/eigenvalues"]):
            assert np.array(point[2]).ravel() == pytest.approx(np.array(value.tensor.double_val))

        (text,) = get("text", "text", "fisher/critical_period")
        assert text["step"] == written["fisher/critical_period"][0][0]
        assert "The critical period is over" in text["text"] and "<code>fisher/trace_empirical</code>" in text["text"]
    finally:
        board.stop()
