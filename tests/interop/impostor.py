"""Something that listens at a socket as gradientd does and says what a test has it say."""

import socket
import struct
import threading

import pytest

from plain_client import ERROR, WELCOME, field, read_fields

STATUS_REQUEST, STATUS = 7, 7


def frame(kind, message, payload_bytes=0):
    wrapped = field(kind, message)
    return struct.pack("<II", len(wrapped), payload_bytes) + wrapped


def welcome(version=1):
    return frame(WELCOME, field(1, version) + field(2, 3) + field(3, "gradientd 0"))


def error(code, text):
    return frame(ERROR, field(1, code) + field(2, "message") + field(3, text))


def status(*runs, version="0.1.0", alerts=(), more=b"", last_alert=0, sees_all=True):
    message = b"".join(field(1, run) for run in runs)
    message += field(2, field(1, version) + field(2, 4242) + field(3, 0) + field(4, 1.7e9) + more)
    message += b"".join(field(4, alert) for alert in alerts)
    return frame(STATUS, message + field(5, last_alert) + field(7, int(sees_all)))


def run(name, number=1, alert=None, path=None, rules=()):
    message = field(1, name) + field(2, 0) + field(3, 1) + field(4, 5) + field(10, number)
    if alert is not None:
        message += field(20, field(1, alert) + field(2, 3) + field(3, 1) + field(4, alert) + field(5, alert))
    message += b"".join(field(21, rule) for rule in rules)
    return message + (field(15, path) if path is not None else b"")


class Impostor:
    """Answers each message of each connection with answer(kind, fields), bytes; None: it closes the connection."""

    def __init__(self, path, answer):
        self.socket = path
        self.answer = answer
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self.serve_one(connection)

    def serve_one(self, connection):
        try:
            while header := connection.recv(8, socket.MSG_WAITALL):
                message_bytes, payload_bytes = struct.unpack("<II", header)
                data = connection.recv(message_bytes, socket.MSG_WAITALL)
                if payload_bytes:
                    connection.recv(payload_bytes, socket.MSG_WAITALL)
                [(kind, (message,))] = read_fields(data).items()
                answer = self.answer(kind, read_fields(message))
                if answer is None:
                    return
                connection.sendall(answer)
        except OSError:
            return  # it left with something unread

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)


@pytest.fixture
def impostor(tmp_path):
    """Starts them, each from its answer()."""
    started = []

    def start(answer):
        started.append(Impostor(tmp_path / f"socket{len(started)}", answer))
        return started[-1]

    yield start
    for one in started:
        one.stop()
