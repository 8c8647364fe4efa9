"""How a watch begins and ends: collected, at exit, in forked children, with a killed daemon; alerts; compiled."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from readers import SESSION_END, session_infos
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset
from training import NO_SKIPS, Recording, backward, digits, made, train, values_of, wait_for_step, weights

import gradientd


def watched(tmp_path, net=None, **options):
    net = net or made()
    optimizer = optim.Adam(net.parameters())
    return net, optimizer, gradientd.attach(optimizer, net, logdir=tmp_path, **{**NO_SKIPS, **options})


def outcome_of(path):
    (data,) = session_infos(Path(path), SESSION_END)
    return {1: "success", 2: "failure"}[data.session_end_info.status]


def files(tmp_path):
    return sorted(tmp_path.glob("events.out.tfevents.*"))


def test_context_manager_tells_success_from_failure(tmp_path):
    for outcome in ("success", "failure"):
        net, optimizer, watch = watched(tmp_path / outcome)
        try:
            with watch:
                train(net, optimizer, 3)
                if outcome == "failure":
                    raise KeyError("the trainer's own")
        except KeyError:
            pass
        assert outcome_of(watch.event_path) == outcome


@pytest.mark.parametrize(("ending", "outcome"), [("", "success"), ("raise SystemError('own')", "failure")])
def test_process_exit_ends_the_run(ending, outcome, tmp_path):
    """Without close(): the end of the process is the end of the run, as failed where nobody caught an exception."""
    script = f"""
import gradientd, torch
from training import *
net = made()
optimizer = torch.optim.Adam(net.parameters())
gradientd.attach(optimizer, net, logdir={str(tmp_path)!r}, **NO_SKIPS)
train(net, optimizer, 5)
{ending}
"""
    paths = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == (1 if ending else 0), done.stderr
    assert done.stderr.count("Traceback") == (1 if ending else 0)
    assert outcome_of(files(tmp_path)[0]) == outcome


def test_cell_that_is_run_again_ends_the_run_before(tmp_path):
    for _ in range(2):
        net, optimizer, watch = watched(tmp_path)
        train(net, optimizer, 4)
    del watch, optimizer
    gc.collect()
    assert [outcome_of(path) for path in files(tmp_path)] == ["success"] * 2


def test_optimizer_attached_again_is_seen_once_and_counted_on(tmp_path):
    net = made()
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    first = gradientd.attach(optimizer, net, logdir=tmp_path, **NO_SKIPS)
    train(net, optimizer, 4)
    second = gradientd.attach(optimizer, net, logdir=tmp_path, **NO_SKIPS)
    train(net, optimizer, 3)
    assert second.close() and not first.close()
    assert list(values_of(first)) == [1, 2, 3, 4]
    assert list(values_of(second)) == [5, 6, 7]
    assert len(optimizer._optimizer_step_pre_hooks) == 1


def test_closed_watch_leaves_the_training_alone(tmp_path):
    net, optimizer, watch = watched(tmp_path)
    train(net, optimizer, 3)
    assert watch.close() and not watch.close()
    assert not watch.log(loss=1.0)
    train(net, optimizer, 3)
    assert list(values_of(watch)) == [1, 2, 3]


def test_values_logged_before_the_first_step_and_after(tmp_path):
    net, optimizer, watch = watched(tmp_path, first_step=101)
    watch.log(early=1.0)
    train(net, optimizer, 2)
    watch.log({"train/loss": 0.25})
    assert watch.close()
    values = values_of(watch)
    assert values[100] == {"early": 1.0}
    assert list(values) == [100, 101, 102] and values[102]["train/loss"] == 0.25


def step_in_child(net, optimizer):
    """With gradients that are there already: torch's own threads do not survive a fork."""
    for _ in range(5):
        optimizer.step()
    assert torch.isfinite(weights(net)).all()


def test_forked_child_is_not_seen(tmp_path):
    net, optimizer, watch = watched(tmp_path)
    train(net, optimizer, 3)
    child = multiprocessing.get_context("fork").Process(target=step_in_child, args=(net, optimizer))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    train(net, optimizer, 3)
    assert watch.close()
    assert list(values_of(watch)) == [1, 2, 3, 4, 5, 6]
    assert len(files(tmp_path)) == 1


def test_data_loader_workers_leave_the_run_alone(tmp_path):
    net, optimizer, watch = watched(tmp_path)
    loader = DataLoader(TensorDataset(*(part[:64] for part in digits())), batch_size=16, num_workers=2)
    for _ in range(2):
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
    assert watch.close()
    assert list(values_of(watch)) == list(range(1, 9))


def test_killed_daemon_costs_nothing(start_daemon, tmp_path, caplog):
    """Training goes on while no daemon is there; one that comes back finishes the file as if nothing had been."""
    daemon = start_daemon(ready=False)  # which needs not end well
    daemon.wait_ready()
    net = made()
    optimizer = optim.Adam(net.parameters())
    recording = Recording(optimizer, net, "adam", inflight=64)
    options = {**NO_SKIPS, "max_stall": 0.0, "inflight": 64, "socket": str(daemon.socket), "private_daemon": False}
    watch = gradientd.attach(optimizer, net, logdir=tmp_path, **options)
    train(net, optimizer, 5)
    wait_for_step(watch.event_path, 5)
    daemon.process.send_signal(signal.SIGKILL)
    daemon.process.wait()
    train(net, optimizer, 5, first=5)
    start_daemon(at=daemon)
    train(net, optimizer, 5, first=10)
    assert watch.close()
    recording.compare(watch.event_path)
    assert len([r for r in caplog.records if r.name == "gradientd"]) <= 1


def test_private_daemon_that_dies_is_started_again(tmp_path):
    net, optimizer, watch = watched(tmp_path)
    recording = Recording(optimizer, net, "adam")
    train(net, optimizer, 5)
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    for pid in " ".join(path.read_text() for path in children).split():
        if Path(f"/proc/{pid}/comm").read_text().strip() == "gradientd":
            os.kill(int(pid), signal.SIGKILL)
    train(net, optimizer, 15, first=5)
    assert watch.close()
    recording.compare(watch.event_path)


def spoil(net, optimizer):
    train(net, optimizer, 3)
    backward(net, 3)
    net[0].weight.grad[0, 0] = float("nan")
    optimizer.step()


def test_alerts_are_polled(tmp_path):
    net, optimizer, watch = watched(tmp_path)
    spoil(net, optimizer)
    wait_for_step(watch.event_path, 4)
    alerts = list(watch.alerts())
    watch.close()
    assert [(a.rule, a.step, a.onset, a.group) for a in alerts] == [("non_finite", 4, True, "0.weight")]


def test_alerts_are_told_and_may_stop_the_training(tmp_path):
    heard = []

    def stop(alert):
        heard.append(alert.rule)
        watch.close(failed=True)
        raise StopIteration

    net, optimizer, watch = watched(tmp_path, on_alert=stop)
    spoil(net, optimizer)
    wait_for_step(watch.event_path, 4)
    with pytest.raises(StopIteration):
        train(net, optimizer, 1)
    train(net, optimizer, 1)
    assert heard == ["non_finite"]
    assert outcome_of(watch.event_path) == "failure"


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel], ids=["compile", "data-parallel"])
def test_wrapped_model_has_the_models_names(wrap, tmp_path):
    net = wrap(made(), backend="eager") if wrap is torch.compile else wrap(made())
    net, optimizer, watch = watched(tmp_path, net)
    train(net, optimizer, 3)
    assert watch.close()
    shown = {tag for tag in values_of(watch)[1] if tag.startswith("group_norm/")}
    assert shown == {f"group_norm/{layer}.{what}" for layer in (0, 2) for what in ("weight", "bias")}


def test_compiled_step_is_seen(tmp_path):
    net, optimizer, watch = watched(tmp_path)
    recording = Recording(optimizer, net, "adam")
    step = torch.compile(optimizer.step, backend="eager")
    for number in range(5):
        optimizer.zero_grad()
        backward(net, number)
        step()
    assert watch.close()
    recording.compare(watch.event_path)
