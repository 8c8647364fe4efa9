"""gradientctl alerts: what the rules said of runs that come, go and outlive a daemon, as several users."""

import json
import re
import signal
import subprocess
import threading
import time

import pytest

from impostor import field, status, welcome
from live import (ALICE, BOB, Steps, Terminal, as_user, call, command, ends_when_not_read, environment, needs_users,
                  open_daemon, printed)  # fmt: skip
from trainer import Group, ParameterGroup, Run, Step, Trainer
from waiting import wait_until

SECONDS = 20
HOSTILE = "\x1b[2J\x07\u202eevil"


@pytest.fixture
def daemon(start_daemon, tmp_path):
    return open_daemon(start_daemon, tmp_path)


def begin(daemon, tmp_path, name="nan"):
    described = Run([Group("weights", 4)], parameter_groups=[ParameterGroup()], name=name)
    return Trainer(described, daemon.socket, tmp_path, echo=True)


def send(trainer, first, last, bad=()):
    trainer.send([Step(s, [[float("nan") if s in bad else 1.0] * 4], [0.1]) for s in range(first, last + 1)])


class Follower:
    """alerts --follow: its lines, as they come."""

    def __init__(self, daemon, *arguments, user=()):
        self.process = subprocess.Popen(
            [*user, *command("alerts", "--follow", *arguments)],
            env=environment(daemon), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lines, self.taken, self.came = [], 0, threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            with self.came:
                self.lines.append(line.rstrip("\n"))
                self.came.notify_all()

    def next(self):
        with self.came:
            assert self.came.wait_for(lambda: len(self.lines) > self.taken, SECONDS), "no line comes"
            self.taken += 1
            return self.lines[self.taken - 1]

    def next_of(self, event):
        """The next line with that event; no alert is passed over."""
        while (found := json.loads(self.next()))["event"] != event:
            assert found["event"] != "alert", found
        return found

    def stop(self):
        self.process.terminate()
        self.process.wait(SECONDS)
        self.reader.join(SECONDS)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def follow():
    started = []

    def start(*arguments, **options):
        started.append(Follower(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_onset_and_clearing_of_a_run_that_has_ended(daemon, tmp_path):
    trainer = begin(daemon, tmp_path)
    send(trainer, 1, 30, bad=[3])
    trainer.finish()
    begun = time.time()
    lines = printed(daemon, "alerts").splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  nan \(\w+\)  step 3  non_finite on  .*", lines[0]), lines
    assert re.fullmatch(r".*  nan \(\w+\)  step 19  non_finite off  .*", lines[1]), lines
    found = [json.loads(line) for line in printed(daemon, "alerts", "--json").splitlines()]
    assert [(one["event"], one["number"], one["run"], one["run_number"]) for one in found] == [
        ("alert", 1, "nan", 1), ("alert", 2, "nan", 1)]  # fmt: skip
    alerts = [one["alert"] for one in found]
    assert [(one["rule"], one["step"], one["onset"]) for one in alerts] == [
        ("non_finite", 3, True), ("non_finite", 19, False)]  # fmt: skip
    assert all(abs(one["time"] - begun) < 60 for one in found)


def test_none_is_nothing(daemon):
    assert printed(daemon, "alerts") == ""


def test_follows_over_onset_clearing_and_another_daemon(start_daemon, follow, tmp_path):
    daemon = open_daemon(start_daemon, tmp_path, ready=False)  # it does not end well
    trainer = begin(daemon, tmp_path)
    follower = follow(daemon, "--json")
    send(trainer, 1, 3, bad=[3])
    first = follower.next_of("alert")
    assert (first["alert"]["rule"], first["alert"]["step"], first["alert"]["onset"]) == ("non_finite", 3, True)
    send(trainer, 4, 19)
    cleared = follower.next_of("alert")
    assert (cleared["alert"]["step"], cleared["alert"]["onset"], cleared["number"]) == (19, False, 2)

    daemon.stop(signal.SIGKILL)
    assert "no daemon answers" in follower.next_of("daemon_lost")["text"]
    again = open_daemon(start_daemon, tmp_path, at=daemon)
    assert str(again.process.pid) in follower.next_of("daemon_started")["text"]
    send(trainer, 20, 40, bad=[20])
    after = follower.next_of("alert")
    assert (after["alert"]["step"], after["number"]) == (20, 1)
    assert follower.next_of("alert")["alert"]["onset"] is False
    trainer.finish()
    assert follower.process.poll() is None


def test_follows_a_daemon_that_was_replaced_between_two_questions(daemon, start_daemon, follow, tmp_path):
    trainer = begin(daemon, tmp_path, "before")
    follower = follow(daemon, "--json")
    send(trainer, 1, 30, bad=[3])
    trainer.finish()
    assert [follower.next_of("alert")["number"] for _ in range(2)] == [1, 2]
    follower.process.send_signal(signal.SIGSTOP)
    daemon.stop()
    again = open_daemon(start_daemon, tmp_path, at=daemon)
    trainer = begin(again, tmp_path, "after")
    send(trainer, 1, 30, bad=[5])
    trainer.finish()
    follower.process.send_signal(signal.SIGCONT)
    assert str(again.process.pid) in follower.next_of("daemon_started")["text"]
    found = follower.next_of("alert")
    assert (found["run"], found["number"], found["alert"]["step"]) == ("after", 1, 5)


def test_a_daemon_that_is_stopped_and_goes_on(daemon, follow, tmp_path):
    trainer = begin(daemon, tmp_path)
    follower = follow(daemon, "--timeout", "0.2")
    send(trainer, 1, 3, bad=[3])
    assert "non_finite on" in follower.next()
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        assert "does not answer in time" in follower.next()
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert follower.next() == f"-- the daemon answers again, pid {daemon.process.pid}"
    send(trainer, 4, 19)
    assert "non_finite off" in follower.next()
    trainer.finish()


@needs_users()
def test_users_are_told_of_their_own(start_daemon, follow, tmp_path):
    daemon = open_daemon(start_daemon, tmp_path)
    trainers = {user: Steps(daemon, f"of-{user}", user=as_user(user)) for user in (ALICE, BOB)}
    followers = {user: follow(daemon, "--json", user=as_user(user)) for user in trainers}
    everyone = follow(daemon, "--json")
    for user, trainer in trainers.items():
        trainer.go_to(200)  # the same gradients again and again in turn, which the rule on the cosine sees
        assert followers[user].next_of("alert")["run"] == f"of-{user}"
    assert {everyone.next_of("alert")["run"] for _ in trainers} == {f"of-{user}" for user in trainers}
    for trainer in trainers.values():
        trainer.finish()
    for user in trainers:
        found = [json.loads(line) for line in printed(daemon, "alerts", "--json", user=as_user(user)).splitlines()]
        assert {one["uid"] for one in found} == {user} and {one["event"] for one in found} == {"alert"}


def test_says_how_many_are_not_kept_any_more(daemon, tmp_path):
    per_run = 32  # onsets and clearings of it, 64 of one rule are told of
    for i in range(5):
        trainer = begin(daemon, tmp_path, f"run{i}")
        send(trainer, 1, 17 * per_run + 17, bad=[1 + 17 * k for k in range(per_run)])
        trainer.finish()
    found = [json.loads(line) for line in printed(daemon, "alerts", "--json").splitlines()]
    assert found[0] == {"event": "missed", "text": f"alerts that are not kept any more: {found[1]['number'] - 1}"}
    assert [one["number"] for one in found[1:]] == list(range(found[1]["number"], found[-1]["number"] + 1))
    assert len(found) == 257 and found[-1]["number"] == 5 * 2 * per_run


def recent(number, text):
    alert = field(1, text) + field(2, 3) + field(3, 1) + field(4, text)
    return field(1, number) + field(2, alert) + field(3, text) + field(4, 1) + field(5, 1.7e9) + field(6, 0)


def test_text_with_escape_sequences_is_harmless(impostor):
    said = status(alerts=[recent(1, HOSTILE)], last_alert=1)
    fake = impostor(lambda kind, _: welcome() if kind == 1 else said)
    text = printed(fake, "alerts")
    assert r"\x1b[2J\x07\u202eevil" in text and not re.search("[\x00-\x09\x0b-\x1f\u202e]", text), repr(text)
    line = printed(fake, "alerts", "--json")
    assert "\x1b" not in line and json.loads(line)["alert"]["text"] == HOSTILE


@pytest.mark.parametrize("last, sees_all, text", [
    (258, True, "alerts that are not kept any more: 1"),
    (300, True, "alerts that are not kept any more: 43"),
    (257, False, None),
    (300, False, "alerts of all users that are not kept any more: up to 43"),
])  # fmt: skip
def test_says_how_many_came_between_two_questions(impostor, last, sees_all, text):
    """Of those who do not see all, one is theirs at first and none later: they ask on after all of them."""
    asked = []

    def answer(kind, fields):
        if kind == 1:
            return welcome()
        asked.append(fields[2][0])
        now = 1 if len(asked) == 1 else last
        numbers = [n for n in range(max(1, now - 255), now + 1) if n > asked[-1] and (sees_all or n == 1)]
        return status(alerts=[recent(n, "x") for n in numbers], last_alert=now, sees_all=sees_all)

    fake = impostor(answer)
    follower = Follower(fake, "--json")
    assert json.loads(follower.next())["number"] == 1
    if text:
        assert json.loads(follower.next()) == {"event": "missed", "text": text}
    if sees_all:
        assert [json.loads(follower.next())["number"] for _ in range(256)] == list(range(last - 255, last + 1))
    wait_until(lambda: len(asked) > 3, SECONDS, "it asks again")
    assert asked[:4] == [0, 1, last, last]
    follower.stop()
    assert len(follower.lines) == follower.taken


def test_colours_at_a_terminal(daemon, tmp_path):
    trainer = begin(daemon, tmp_path)
    send(trainer, 1, 30, bad=[3])
    trainer.finish()
    terminal = Terminal(command("alerts"), environment(daemon, TERM="xterm"))
    assert terminal.end() == (0, True)
    terminal.close()
    assert "\x1b[31mnon_finite on\x1b[m" in terminal.text and "\x1b[32mnon_finite off\x1b[m" in terminal.text
    assert "\x1b" not in printed(daemon, "alerts", TERM="xterm")


def test_ends_when_nobody_reads_any_more(daemon):
    assert ends_when_not_read(daemon, "alerts", "--follow") == 0


def test_no_daemon_and_wrong_usage(tmp_path):
    result = call(None, "alerts", "--follow", "--socket", tmp_path / "none")
    assert result.returncode == 1 and "no daemon answers" in result.stderr
    for arguments in (("--count", "1"), ("run",), ("--none",)):
        result = call(None, "alerts", *arguments)
        assert result.returncode == 2 and "usage: gradientctl alerts" in result.stderr
