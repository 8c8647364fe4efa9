"""Whoever connects and sends what is no protocol disturbs no run: a trainer's file is the one it writes alone."""

import os
import random
import socket
import tempfile

from streams import Stream
from trainer import Group, Optimizer, ParameterGroup, Run, Trainer, train
from waiting import wait_until

STEPS = 60
HELLO = bytes([4, 0, 0, 0, 0, 0, 0, 0, 0x0A, 2, 0x08, 1])  # a frame: Hello of version 1
ANSWER_SECONDS = 20


def mlp(name):
    """The tensors of torch.nn.Sequential(Linear(28, 64), ReLU(), Linear(64, 10)), followed as AMSGrad and, as a
    shadow, as Adam."""
    groups = [Group("0.weight", 28 * 64), Group("0.bias", 64), Group("2.weight", 640), Group("2.bias", 10)]
    optimizer = Optimizer("amsgrad", maximum_of="raw_then_corrected")
    return Run(groups, optimizer, [ParameterGroup(0.999, 1e-8)], name=name, shadow_rules=("adam",), per_group=True)


def noise(generator, most):
    return generator.randbytes(generator.randrange(1, most))


def flipped(generator):
    """Hello with one bit changed."""
    frame = bytearray(HELLO)
    frame[generator.randrange(len(frame))] ^= 1 << generator.randrange(8)
    return bytes(frame)


KINDS = [
    lambda generator: noise(generator, 64),
    lambda generator: noise(generator, 200_000),
    lambda generator: b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n",
    lambda generator: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise(generator, 500),  # TLS ClientHello
    lambda generator: HELLO[: generator.randrange(1, len(HELLO))],
    lambda generator: HELLO + noise(generator, 5000),
    lambda generator: HELLO + bytes(1 << 20),
    lambda generator: bytes(1 << 20),
    lambda generator: b"\xff" * (1 << 16),
    flipped,
]


class Stranger:
    """Connects and sends bytes as far as the daemon takes them, some with descriptors that nothing asks for."""

    def __init__(self, path, data, with_descriptors):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(ANSWER_SECONDS)
        self.socket.connect(str(path))
        try:
            if with_descriptors:
                with tempfile.TemporaryFile() as file:
                    socket.send_fds(self.socket, [data[:1]], [file.fileno()] * 2)
                data = data[1:]
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):  # it was refused already
            pass

    def listen(self):
        """Says that nothing more comes and waits for the daemon's end."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
            while self.socket.recv(1 << 16):
                pass
        except OSError as error:
            assert not isinstance(error, TimeoutError), "the daemon does not let a stranger go"

    def close(self):
        self.socket.close()


def test_strangers_disturb_no_run(daemon, tmp_path):
    """One after each step: some listen to the end, some go at once, some stay until the run is over."""
    generator = random.Random(7)
    run = mlp("run")
    records = Stream(run, seed=71).steps(STEPS)
    alone = train(run, records, daemon.socket, tmp_path / "alone").read_bytes()
    descriptors = f"/proc/{daemon.process.pid}/fd"
    before = len(os.listdir(descriptors))

    trainer = Trainer(run, daemon.socket, tmp_path, echo=True)
    staying = []
    for i, record in enumerate(records):
        trainer.send([record])
        stranger = Stranger(daemon.socket, KINDS[i % len(KINDS)](generator), with_descriptors=i % 3 == 1)
        if i // len(KINDS) % 3 == 0:
            stranger.listen()
        if i // len(KINDS) % 3 == 1:
            staying.append(stranger)
        else:
            stranger.close()
    assert trainer.finish().read_bytes() == alone

    for stranger in staying:
        stranger.close()
    # no more than before: the first run's may not all have been closed yet when they were counted
    wait_until(lambda: len(os.listdir(descriptors)) <= before, 30, f"{before} descriptors again")
    assert daemon.messages().count(" refused: ") > STEPS / 2  # the others left before they had said enough
