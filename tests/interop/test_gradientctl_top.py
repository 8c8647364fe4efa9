"""gradientctl top under a pseudoterminal: what it shows and when, its keys, signals and ends; and piped."""

import json
import os
import signal
import subprocess
import time

import pytest

from live import (Steps, Terminal, call, command, ends_when_not_read, environment, frames, open_daemon, printed,
                  table_of)  # fmt: skip

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
SECONDS = 10


@pytest.fixture
def daemon(start_daemon, tmp_path):
    return open_daemon(start_daemon, tmp_path)


@pytest.fixture
def top():
    started = []

    def start(daemon, *arguments, columns=100, rows=24, **more):
        words = command("top", "--interval", "0.05", *arguments)
        started.append(Terminal(words, environment(daemon, **{"TERM": "xterm", **more}), columns, rows))
        return started[-1]

    yield start
    for terminal in started:
        terminal.close()


def last_frame(text):
    return frames(text)[-2] if len(frames(text)) > 1 else ""  # the one before the last is whole


def column(frame, title):
    return [row[title] for row in table_of(frame)] if "\nRUN " in frame else []


def names(frame):
    return column(frame, "RUN")


def quiet(terminal):
    """Until nothing is shown any more, for ten intervals."""
    shown = None
    while shown != terminal.read(0.5):
        shown = terminal.read()


def shows(expected):
    return lambda text: names(last_frame(text)) == expected


def train(daemon, tmp_path, **steps):
    trainers = [Steps(daemon, name, tmp_path) for name in steps]
    for trainer, step in zip(trainers, steps.values()):
        trainer.go_to(step)
    return trainers


def finish(trainers):
    for trainer in trainers:
        trainer.finish()


def test_shows_steps_as_they_come_and_ends_with_q(daemon, top, tmp_path):
    trainers = train(daemon, tmp_path, a=10)
    terminal = top(daemon)
    text = terminal.wait_for(lambda t: column(last_frame(t), "STEP") == ["10"], "step 10")
    assert text.startswith(ENTER)
    trainers[0].go_to(25)
    text = terminal.wait_for(lambda t: column(last_frame(t), "STEP") == ["25"], "step 25")
    assert "\n" not in last_frame(text)[-1:] and "q ends" in last_frame(text)
    terminal.press("q")
    assert terminal.end() == (0, True)
    assert terminal.text.endswith(LEAVE)
    finish(trainers)


def test_keys_sort_the_runs(daemon, top, tmp_path):
    trainers = train(daemon, tmp_path, b=300, c=20, a=100)
    terminal = top(daemon)
    for key, order in (("b", ["b", "a", "c"]), ("n", ["a", "b", "c"]), ("a", ["b", "c", "a"]), ("x", ["b", "c", "a"]),
                       ("r", ["b", "a", "c"])):  # fmt: skip
        terminal.press(key)
        terminal.wait_for(shows(order), f"{order} after {key}")
    terminal.press("q")
    assert terminal.end() == (0, True)
    finish(trainers)


def test_keys_and_sizes_do_not_wait_for_the_next_table(daemon, top, tmp_path):
    trainers = train(daemon, tmp_path, b=300, a=100)
    terminal = top(daemon, "--interval", "3600")
    terminal.wait_for(lambda text: names(frames(text)[-1] if frames(text) else "") == ["b", "a"], "the first table")
    terminal.press("n")
    terminal.wait_for(lambda text: names(frames(text)[-1] if frames(text) else "") == ["a", "b"], "sorted by name")
    terminal.resize(100, 6)
    terminal.wait_for(lambda text: "and 2 more" in text, "fewer lines")
    terminal.press("q")
    assert terminal.end() == (0, True)
    finish(trainers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_end_it_with_the_terminal_as_it_was(daemon, top, number):
    terminal = top(daemon)
    terminal.wait_for(lambda text: "RUN" in last_frame(text), "a frame")
    terminal.process.send_signal(number)
    assert terminal.end() == (0, True)
    assert terminal.text.endswith(LEAVE)


def test_ctrl_c_ends_it(daemon, top):
    terminal = top(daemon)
    terminal.wait_for(lambda text: "RUN" in last_frame(text), "a frame")
    terminal.press("\x03")
    assert terminal.end() == (0, True)


def test_ctrl_z_gives_the_terminal_back_meanwhile(daemon, top):
    terminal = top(daemon)
    terminal.wait_for(lambda text: "RUN" in last_frame(text), "a frame")
    terminal.process.send_signal(signal.SIGTSTP)
    pid, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
    assert pid == terminal.process.pid and os.WIFSTOPPED(status)
    terminal.wait_for(lambda text: text.endswith(LEAVE), "the screen is left")
    terminal.process.send_signal(signal.SIGCONT)
    terminal.wait_for(lambda text: text.startswith(ENTER) and "RUN" in last_frame(text), "a frame again")
    terminal.press("q")
    assert terminal.end() == (0, True)


def test_follows_the_terminal_s_size(daemon, top, tmp_path):
    trainers = train(daemon, tmp_path, **{f"run-{i:02}-{'x' * 60}": 1 for i in range(12)})
    terminal = top(daemon, columns=120, rows=40)
    terminal.wait_for(lambda text: len(names(last_frame(text))) == 12, "12 runs")

    def fits(text, columns, rows):
        lines = last_frame(text).split("\n")
        return len(lines) == min(rows, 5 + len(trainers)) and 0 < max(map(len, lines)) <= columns

    for columns, rows in ((60, 12), (100, 10), (20, 4), (1, 1), (120, 40)):
        terminal.resize(columns, rows)
        text = terminal.wait_for(lambda text, c=columns, r=rows: fits(text, c, r), f"{columns} x {rows}")
        assert rows < 7 or rows > 17 or f"\nand {len(trainers) - rows + 6} more" in last_frame(text)
    terminal.press("q")
    assert terminal.end() == (0, True)
    finish(trainers)


def test_ends_after_count(daemon, top):
    terminal = top(daemon, "--count", "3")
    assert terminal.end() == (0, True)
    assert len(frames(terminal.text)) == 3


def test_a_daemon_that_goes_away_and_comes_back(start_daemon, top, tmp_path):
    daemon = open_daemon(start_daemon, tmp_path, ready=False)  # it does not end well
    trainers = train(daemon, tmp_path, a=10)
    terminal = top(daemon)
    terminal.wait_for(shows(["a"]), "the run")
    daemon.stop(signal.SIGKILL)
    text = terminal.wait_for(lambda t: "trying again" in last_frame(t), "that it is gone")
    assert "nobody listens there" in last_frame(text)
    open_daemon(start_daemon, tmp_path, at=daemon)
    trainers[0].go_to(20)
    terminal.wait_for(shows(["a"]), "the run again")
    terminal.press("q")
    assert terminal.end() == (0, True)
    finish(trainers)


def test_keys_and_signals_while_a_daemon_is_stopped(daemon, top):
    terminal = top(daemon, "--timeout", "60")
    terminal.wait_for(lambda text: "RUN" in last_frame(text), "a frame")
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        quiet(terminal)
        terminal.press("q")
        begun = time.monotonic()
        assert terminal.end() == (0, True)
        assert time.monotonic() - begun < 10
    finally:
        daemon.process.send_signal(signal.SIGCONT)


def test_a_stopped_daemon_is_told_of(daemon, top):
    terminal = top(daemon, "--timeout", "0.2")
    terminal.wait_for(lambda text: "RUN" in last_frame(text), "a frame")
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        terminal.wait_for(lambda text: "does not answer in time" in last_frame(text), "that it is silent")
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    terminal.wait_for(lambda text: "RUN" in last_frame(text), "a frame again")
    terminal.press("q")
    assert terminal.end() == (0, True)


def test_no_daemon_at_the_start(tmp_path, top):
    terminal = top(None, "--socket", tmp_path / "none")
    assert terminal.end() == (1, True)
    assert "\x1b" not in terminal.text and "no daemon answers" in terminal.text


def test_piped_it_prints_tables_without_escapes(daemon, tmp_path):
    trainers = train(daemon, tmp_path, a=10)
    text = printed(daemon, "top", "--interval", "0.01", "--count", "3", TERM="xterm")
    assert "\x1b" not in text and text.count("\nRUN ") == 3 and text.count("\na ") == 3
    lines = printed(daemon, "top", "--json", "--interval", "0.01", "--count", "3").splitlines()
    assert [json.loads(line)["runs"][0]["step"] for line in lines] == [10] * 3
    finish(trainers)


def test_a_dumb_terminal_gets_no_escapes(daemon, top):
    terminal = top(daemon, "--count", "2", TERM="dumb")
    assert terminal.end() == (0, True)
    assert "\x1b" not in terminal.text and terminal.text.count("RUN ") == 2


def test_ends_when_nobody_reads_any_more(daemon):
    assert ends_when_not_read(daemon, "top", "--interval", "3600", lines=1) == 0


def test_a_closed_output_cannot_be_written(daemon):
    """And its descriptor does not become that of the socket: the daemon is told no tables."""
    words = command("top", "--interval", "0.01", "--count", "3")
    closing = ["sh", "-c", 'exec >&-; exec "$@"', "sh", *words]
    result = subprocess.run(closing, env=environment(daemon), stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1 and "cannot write" in result.stderr
    daemon.stop()
    assert "refused" not in daemon.messages()


@pytest.mark.parametrize("arguments", [("--interval", "0"), ("--interval", "-1"), ("--interval",), ("--count", "0"),
                                       ("--count", "1.5"), ("run",), ("--follow",)])  # fmt: skip
def test_wrong_usage(arguments):
    result = call(None, "top", *arguments)
    assert result.returncode == 2 and "usage: gradientctl top" in result.stderr
