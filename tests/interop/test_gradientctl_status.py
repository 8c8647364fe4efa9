"""gradientctl status against what trainers did, as several users, at a terminal and piped, and beside daemons that do
not answer, refuse, or say what they must not."""

import json
import os
import pwd
import re
import signal
import socket
import time
from random import Random

import pytest

from impostor import STATUS_REQUEST, error, frame, run, status, welcome
from live import (ADMINS, ALICE, BOB, CAROL, Steps, Terminal, as_user, call, command, environment, needs_no_service,
                  needs_users, open_daemon, printed, run_of, status_of, table_of)  # fmt: skip
from plain_client import Run as PlainRun
from plain_client import WELCOME, field
from trainer import Group, ParameterGroup, Run, Step, Trainer
from waiting import wait_until

SECONDS = 10
HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\n\x9b31m\u202eevil\\x"


@pytest.fixture
def daemon(start_daemon, tmp_path):
    return open_daemon(start_daemon, tmp_path)


def answers(*statuses):
    """What an impostor says: Welcome to Hello, then these, the last one again and again."""
    left = list(statuses)
    return lambda kind, _: welcome() if kind == 1 else left.pop(0) if len(left) > 1 else left[0]


def committed(daemon, name, step):
    def found():
        shown = run_of(daemon, name)
        return shown["step"] == step and shown["event_bytes_waiting"] == 0 and shown

    return wait_until(found, SECONDS, f"{name} is committed up to step {step}")


def test_tells_what_the_trainers_did(daemon, tmp_path):
    trainers = {name: Steps(daemon, name, tmp_path) for name in ("digits/adam", "b", "c")}
    for i, trainer in enumerate(trainers.values()):
        trainer.go_to(100 * (i + 1))
    for i, (name, trainer) in enumerate(trainers.items()):
        shown = committed(daemon, name, 100 * (i + 1))
        assert shown["pid"] == trainer.pid and shown["uid"] == os.geteuid()
        assert shown["snapshots"] == shown["committed_sequence"] == shown["received_sequence"] == 100 * (i + 1)
        assert shown["skipped"] == 0 and shown["groups"] == 1 and shown["elements"] == 100
        assert shown["event_path"] == os.path.realpath(trainer.event_path)
        assert shown["event_bytes"] == trainer.event_path.stat().st_size
        assert shown["number"] == i + 1 and not shown["finishing"]

    whole = status_of(daemon)
    assert [shown["run"] for shown in whole["runs"]] == list(trainers)
    assert whole["daemon"]["pid"] == daemon.process.pid and whole["daemon"]["snapshots"] == 600
    assert whole["daemon"]["runs"] == 3 and whole["daemon"]["element_bytes"] == 600 * 400
    assert abs(whole["time"] - time.time()) < 60 and 0 < whole["time"] - whole["daemon"]["started"] < 60
    assert whole["socket"] == str(daemon.socket) and whole["sees_all"]

    rows = table_of(printed(daemon, "status"))
    assert [row["RUN"] for row in rows] == list(trainers)
    for i, (row, trainer) in enumerate(zip(rows, trainers.values())):
        assert row["STEP"] == str(100 * (i + 1)) and row["PID"] == str(trainer.pid) and row["LAG"] == "0"
        assert row["USER"] == pwd.getpwuid(os.geteuid()).pw_name and row["SKIPPED"] == "0"
    for trainer in trainers.values():
        trainer.finish()
    wait_until(lambda: not status_of(daemon)["runs"], SECONDS, "the runs have ended")
    assert table_of(printed(daemon, "status")) == []


def test_one_run_at_length(daemon, tmp_path):
    trainer, other = Steps(daemon, "digits/adam", tmp_path), Steps(daemon, "other", tmp_path)
    trainer.go_to(30)
    committed(daemon, "digits/adam", 30)
    text = printed(daemon, "status", "digits/adam")
    for part in (str(trainer.event_path), f"pid {trainer.pid}", "30, 30 snapshots, 0 skipped", "100 in 1 group"):
        assert part in text
    assert "other" not in text
    found = status_of(daemon, "digits/adam")
    assert [shown["run"] for shown in found["runs"]] == ["digits/adam"]

    result = call(daemon, "status", "digits")
    assert result.returncode == 1 and "no run is named digits, of 2" in result.stderr and not result.stdout
    result = call(daemon, "status", "--json", "digits")
    assert result.returncode == 1 and json.loads(result.stdout)["runs"] == []
    trainer.finish()
    other.finish()


def test_a_run_in_the_log_directory_itself_is_a_dot(daemon, tmp_path):
    trainer = Steps(daemon, "", tmp_path)
    assert printed(daemon, "status", ".").startswith(".\n")
    assert table_of(printed(daemon, "status"))[0]["RUN"] == "."
    trainer.finish()


def test_shows_the_alert_that_is_on_and_the_one_that_is_over(daemon, tmp_path):
    described = Run([Group("weights", 4)], parameter_groups=[ParameterGroup()], name="nan")
    trainer = Trainer(described, daemon.socket, tmp_path, echo=True)
    trainer.send([Step(step, [[float("nan") if step == 3 else 1.0] * 4], [0.1]) for step in range(1, 6)])
    shown = committed(daemon, "nan", 5)
    assert shown["alerts_on"] == ["non_finite"] and shown["last_alert"]["step"] == 3
    assert table_of(printed(daemon, "status"))[0]["ALERT"] == "non_finite at 3"
    assert "non_finite on at step 3" in printed(daemon, "status", "nan")
    trainer.send([Step(step, [[1.0] * 4], [0.1]) for step in range(6, 20)])
    shown = committed(daemon, "nan", 19)
    assert shown["last_alert"]["onset"] is False and shown["alerts_on"] == []
    assert table_of(printed(daemon, "status"))[0]["ALERT"] == "non_finite over at 19"
    trainer.finish()


@needs_users()
def test_users_see_their_own_runs_and_admins_all(start_daemon, tmp_path):
    daemon = open_daemon(start_daemon, tmp_path, f"--admin-group={ADMINS}")
    trainers = [Steps(daemon, "hers", user=as_user(ALICE)), Steps(daemon, "his", user=as_user(BOB))]
    seen = {
        "alice": (as_user(ALICE), ["hers"], False),
        "bob": (as_user(BOB), ["his"], False),
        "carol": (as_user(CAROL), [], False),
        "admin": (as_user(CAROL, groups=[ADMINS]), ["hers", "his"], True),
        "admin by its first group": (as_user(CAROL, gid=ADMINS), ["hers", "his"], True),
        "root": ((), ["hers", "his"], True),
    }
    for who, (user, names, all_seen) in seen.items():
        found = status_of(daemon, user=user)
        assert [shown["run"] for shown in found["runs"]] == names, who
        assert found["sees_all"] == all_seen and found["daemon"]["runs"] == 2, who
        text = printed(daemon, "status", user=user)
        assert [row["RUN"] for row in table_of(text)] == names, who
        assert ("your own shown" in text) == (not all_seen), who
    assert [row["USER"] for row in table_of(printed(daemon, "status"))] == [str(ALICE), str(BOB)]
    assert call(daemon, "status", "his", user=as_user(ALICE)).returncode == 1
    for trainer in trainers:
        trainer.finish()


@needs_users()
def test_a_user_whom_the_daemon_does_not_serve(start_daemon, tmp_path):
    daemon = open_daemon(start_daemon, tmp_path, f"--allow-users={ALICE}")
    assert printed(daemon, "status", user=as_user(ALICE))
    result = call(daemon, "status", user=as_user(BOB))
    assert result.returncode == 1 and "refuses: user is 1501" in result.stderr


def test_more_runs_than_one_answer_holds(start_daemon, tmp_path):
    daemon = open_daemon(start_daemon, tmp_path, "--connections-per-user=400", "--runs-per-user=400",
                         "--fds-per-user=2000", "--memory-per-user=100%")  # fmt: skip
    runs = [PlainRun(daemon.socket, tmp_path / f"event{i}", [("w", 4)], transport="raw") for i in range(260)]
    assert [shown["number"] for shown in status_of(daemon)["runs"]] == list(range(1, 261))
    assert len(table_of(printed(daemon, "status"))) == 260
    for one in runs:
        one.socket.close()


def test_piped_output_is_never_cut_and_has_no_escapes(daemon, tmp_path):
    name = "a/" * 60 + "long-name-of-a-run"
    trainer = Steps(daemon, name, tmp_path)
    text = printed(daemon, "status", TERM="xterm", COLUMNS="40")
    assert "\x1b" not in text and table_of(text)[0]["RUN"] == name
    assert "\x1b" not in printed(daemon, "status", name) + printed(daemon, "status", "--json", name)
    trainer.finish()


def at_terminal(daemon, *arguments, columns=80, **more):
    terminal = Terminal(command(*arguments), environment(daemon, **{"TERM": "xterm", **more}), columns=columns)
    assert terminal.end() == (0, True)
    terminal.close()
    return terminal.text.replace("\r\n", "\n")


def test_fits_the_terminal(daemon, tmp_path):
    name = "a/" * 60 + "long-name-of-a-run"
    trainer = Steps(daemon, name, tmp_path)
    for columns in (200, 100, 80, 40, 5, 1):
        text = at_terminal(daemon, "status", columns=columns, TERM="dumb")
        lines = text.partition("\n\n")[2].splitlines()
        assert len(lines) == 2 and max(map(len, lines)) <= columns, (columns, lines)
        if columns >= 80:
            assert re.match(r"(a/)+\S*\.\.\. +root", lines[1]), lines
    trainer.finish()


def test_colours_only_at_a_terminal_that_wants_them(daemon, tmp_path):
    trainer = Steps(daemon, "cosine", tmp_path)
    trainer.go_to(200)  # the same gradients again and again in turn, which the rule on the cosine sees
    committed(daemon, "cosine", 200)
    coloured = at_terminal(daemon, "status")
    assert "\x1b[1mRUN\x1b[m" in coloured and "\x1b[31m" in coloured
    assert table_of(re.sub(r"\x1b\[\d*m", "", coloured))[0]["RUN"] == "cosine"
    for more in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}):
        assert "\x1b" not in at_terminal(daemon, "status", **more), more
    assert "\x1b" in at_terminal(daemon, "status", NO_COLOR="")
    trainer.finish()


def test_a_stopped_daemon_is_not_waited_for(daemon):
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        for arguments in (("status",), ("status", "--json"), ("alerts",), ("top", "--count", "1")):
            begun = time.monotonic()
            result = call(daemon, *arguments, "--timeout", "0.3")
            assert 0.3 <= time.monotonic() - begun < 5 and result.returncode == 1, result
            assert f"(pid {daemon.process.pid}) does not answer in time" in result.stderr and not result.stdout
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert printed(daemon, "status")


def test_a_daemon_whose_queue_is_full_is_not_waited_for(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        result = call(None, "status", "--socket", path, "--timeout", "0.3")
    assert result.returncode == 1 and "its queue is full" in result.stderr


@needs_no_service()
def test_names_the_places_where_no_daemon_is(tmp_path):
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stale))
    for arguments, more, parts in (
        (("--socket", tmp_path / "none"), {"GRADIENTD_SOCKET": str(stale)}, [f"{tmp_path}/none (--socket): there "]),
        ((), {"GRADIENTD_SOCKET": str(stale)}, [f"{stale} ($GRADIENTD_SOCKET): nobody listens"]),
        (("--socket", "/" + "x" * 200), {}, ["a socket's path has at most 107 bytes"]),
        ((), {"XDG_RUNTIME_DIR": str(tmp_path)},
         [f"{tmp_path}/gradientd/socket ($XDG_RUNTIME_DIR): there is no", "/run/gradientd/socket (by default): "]),
    ):  # fmt: skip
        result = call(None, "status", *arguments, **more)
        assert result.returncode == 1 and not result.stdout, result
        assert all(part in result.stderr for part in parts), result.stderr


def test_finds_the_daemon_where_clients_do(daemon, tmp_path):
    (tmp_path / "gradientd").mkdir()
    (tmp_path / "gradientd/socket").symlink_to(daemon.socket)
    assert printed(None, "status", XDG_RUNTIME_DIR=str(tmp_path))
    assert printed(None, "status", XDG_RUNTIME_DIR=str(tmp_path), GRADIENTD_SOCKET="")
    assert call(None, "status", XDG_RUNTIME_DIR=str(tmp_path), GRADIENTD_SOCKET="/none").returncode == 1
    assert printed(None, "status", "--socket", daemon.socket, GRADIENTD_SOCKET="/none")


@pytest.mark.parametrize("arguments", [("--none",), ("--socket",), ("--timeout", "0"), ("--timeout", "x"),
                                       ("--timeout", "nan"), ("--follow",), ("a", "b")])  # fmt: skip
def test_wrong_usage(arguments):
    result = call(None, "status", *arguments)
    assert result.returncode == 2 and "usage: gradientctl status" in result.stderr and not result.stdout


def test_an_old_daemon_that_knows_no_status(impostor):
    result = call(impostor(answers(error(3, "StatusRequest is not supported"))), "status")
    assert result.returncode == 1
    assert "refuses: StatusRequest is not supported (one of another version" in result.stderr


SPOILT = {
    "a frame that is too large": b"\xff\xff\xff\xff\x00\x00\x00\x00",
    "no message": frame(STATUS_REQUEST, b"")[:8] + b"\xff" * (len(frame(STATUS_REQUEST, b"")) - 8),
    "another answer": frame(WELCOME, field(1, 1) + field(2, 3)),
    "a payload": status()[:4] + b"\x01\x00\x00\x00" + status()[8:],
    "no daemon": frame(7, field(7, 1)),
    "an end": None,
    "an end in mid-frame": status()[:20],
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_daemon_that_says_what_it_must_not(impostor, what):
    result = call(impostor(answers(SPOILT[what])), "status", "--timeout", "1")
    assert result.returncode == 1 and not result.stdout and result.stderr.startswith("gradientctl: "), result


def test_parts_that_do_not_move_on_come_to_an_end(impostor):
    again = frame(7, field(1, run("r")) + field(2, field(1, "0.1.0")) + field(6, 1))
    assert len(status_of(impostor(answers(again)))["runs"]) == 2


def test_parts_without_end_are_not_taken_without_end(impostor):
    last = 0

    def answer(kind, _):
        nonlocal last
        if kind == 1:
            return welcome()
        last += 50000
        return frame(7, field(1, run("r")) * 20000 + field(1, run("r", last)) + field(2, field(1, "0")) + field(6, 1))

    result = call(impostor(answer), "status", "--timeout", "20")
    assert result.returncode == 1 and "more than fits the memory" in result.stderr, result.stderr


def harmless(text, columns=None):
    """No control character but the ends of lines, and nothing that turns the direction."""
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", text), repr(text)
    return text


def test_text_with_escape_sequences_is_harmless(impostor):
    hostile = run(HOSTILE, alert=HOSTILE, path=HOSTILE + "/file", rules=[HOSTILE])
    said = status(hostile, version=HOSTILE, more=field(6, HOSTILE) + field(7, HOSTILE))
    fake = impostor(answers(said))
    shown = r"\x1b[2J\x1b]0;owned\x07\x0d\x0a\xc2\x9b31m\u202eevil\x"
    assert shown in harmless(printed(fake, "status"))
    assert shown + "/file" in harmless(printed(fake, "status", HOSTILE))
    assert shown in harmless(at_terminal(fake, "status", columns=300, TERM="dumb"))
    found = json.loads(harmless(printed(fake, "status", "--json")))
    assert found["runs"][0]["run"] == HOSTILE

    refusal = harmless(call(impostor(answers(error(2, HOSTILE))), "status").stderr)
    assert shown in refusal
    assert shown in harmless(call(fake, "status", HOSTILE + "none").stderr)


def test_spoilt_bytes_are_harmless(impostor):
    whole = status(run("digits/adam", alert="cosine", path="/a", rules=["cosine"]), run("b", number=2), last_alert=3)
    random = Random(8)
    said = [whole]
    fake = impostor(lambda kind, _: welcome() if kind == 1 else said[0])
    for _ in range(60):
        spoilt = bytearray(whole)
        for _ in range(random.randint(1, 4)):
            spoilt[random.randrange(8, len(spoilt))] = random.randrange(256)
        said[0] = bytes(spoilt)
        for arguments in (("status",), ("status", "--json"), ("status", "digits/adam")):
            result = call(fake, *arguments, "--timeout", "1")
            assert result.returncode in (0, 1), result
            harmless(result.stdout + result.stderr)


def test_bytes_that_are_no_text_are_harmless(impostor):
    fake = impostor(answers(status(run(b"a\x99\xff\xfe\xc3"), run(b"", number=2, path=b"\xf0\x9f\x98\x80"))))
    assert r"a\x99\xff\xfe\xc3" in harmless(printed(fake, "status"))
    assert status_of(fake)["runs"][0]["run"] == "a����"
    assert "😀" in printed(fake, "status", ".")
