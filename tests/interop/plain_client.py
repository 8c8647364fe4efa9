"""A client of gradientd in plain Python, written from docs/protocol.md alone: it needs nothing but the standard
library, and protobuf is a few lines here. Elements go through shared memory, or inline, raw or deflated."""

import fcntl
import mmap
import os
import select
import socket
import struct
import zlib

HELLO, OPEN_RUN, ATTACH, SNAPSHOT, SCALARS, CLOSE_RUN = 1, 2, 3, 4, 5, 6  # ClientMessage
WELCOME, LAYOUT, ATTACHED, RELEASED, ERROR = 1, 2, 3, 4, 6  # DaemonMessage
GRADIENT, SUCCESS = 1, 1
F32, BF16, F16 = 1, 2, 3  # ElementType
LOOK_AGAIN_SECONDS = 0.01  # Python has no fence between the store to `waiting` and the look at the slots


class DaemonError(Exception):
    def __init__(self, code, field, text):
        super().__init__(f"{field}: {text}")
        self.code, self.field, self.text = code, field, text


def varint(number):
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + varint(number >> 7)


def field(number, value):
    """One field: an int (enums and bools are ints) or a float as a double, else bytes or text."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def read_fields(data):
    """number -> values, in their order: ints, or bytes for whatever else."""
    found, at = {}, 0
    while at < len(data):
        key, at = read_varint(data, at)
        if key & 7 == 0:
            value, at = read_varint(data, at)
        else:
            size, at = read_varint(data, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
            value, at = data[at : at + size], at + size
        found.setdefault(key >> 3, []).append(value)
    return found


def encode_scalars(number, scalars):
    values = [field(1, tag) + varint(2 << 3 | 5) + struct.pack("<f", value) for tag, value in scalars]
    return b"".join(field(number, value) for value in values)


def sealed_memory(size):
    fd = os.memfd_create("plain", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    os.posix_fallocate(fd, 0, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


class Run:
    """One run. `groups`: (name, numel) pairs; `transport`: memory, raw or deflated."""

    def __init__(self, path, event_path, groups, transport="memory", element_type=F32, rule=1, parameter_group=(0.0, 0.0),
                 max_lag=5, inflight=2, first_step=1, wall_time=0.0, thinning=True):  # fmt: skip
        self.transport, self.sequence, self.committed = transport, 0, 0
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(path))
        self.send(HELLO, field(1, 1) + field(2, "plain client"))
        self.expect(WELCOME)

        names = [name.encode() for name, _ in groups]
        numels = [numel for _, numel in groups]
        table = b"".join(struct.pack("<QIIB", n, 0, 0, len(name)) + name for name, n in zip(names, numels))
        message = field(1, "") + field(2, wall_time) + field(3, first_step) + field(4, len(groups))
        message += field(5, field(1, GRADIENT) + field(2, element_type)) + field(6, field(1, rule))
        message += field(7, field(1, parameter_group[0]) + field(2, parameter_group[1]))
        message += field(9, max_lag) + field(10, inflight) + field(13, int(thinning))
        self.send(OPEN_RUN, message, table)
        layout = self.expect(LAYOUT)

        fds = [os.open(event_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)]
        if transport == "memory":
            fds.insert(0, sealed_memory(layout[2][0]))
            self.map(fds[0], layout)
        self.send(ATTACH, field(1, int(transport == "memory")) + field(2, 1), fds=fds)
        self.expect(ATTACHED)
        for fd in fds:
            os.close(fd)

    def map(self, fd, layout):
        self.memory = mmap.mmap(fd, layout[2][0])
        self.words, self.halves = memoryview(self.memory).cast("Q"), memoryview(self.memory).cast("I")
        self.waiting = layout[3][0] // 4
        stream = next(stream for stream in map(read_fields, layout[6]) if stream[1][0] == GRADIENT)
        self.slots_offset, self.slot_stride, self.slot_words = stream[2][0], stream[3][0], stream[5][0] // 8
        self.used = [0] * stream[4][0]  # by slot: the sequence of the Snapshot that used it last

    def send(self, kind, message, payload=b"", fds=()):
        """Sends a frame. What the daemon has said instead of reading it is raised."""
        wrapped = field(kind, message)
        frame = struct.pack("<II", len(wrapped), len(payload)) + wrapped + payload
        try:
            sent = socket.send_fds(self.socket, [frame], fds) if fds else 0
            self.socket.sendall(memoryview(frame)[sent:])
        except (BrokenPipeError, ConnectionResetError):
            while self.receive():
                pass
            raise

    def receive(self):
        """The next message: its kind and its fields; None at the end of the connection. An Error is raised."""
        try:
            header = self.socket.recv(8, socket.MSG_WAITALL)
        except ConnectionResetError:  # it closed with bytes of ours unread
            header = b""
        if not header:
            return None
        data = self.socket.recv(struct.unpack("<II", header)[0], socket.MSG_WAITALL)
        [(kind, (message,))] = read_fields(data).items()
        fields = read_fields(message)
        if kind == ERROR:
            raise DaemonError(fields[1][0], fields[2][0].decode(), fields[3][0].decode())
        if kind == RELEASED:
            self.committed = fields[1][0]
        return kind, fields

    def expect(self, kind):
        received = self.receive()
        assert received and received[0] == kind, received
        return received[1]

    def read_what_has_come(self, seconds=0.0):
        while select.select([self.socket], [], [], seconds)[0]:
            if self.receive() is None:
                raise ConnectionError("the daemon is gone")
            seconds = 0.0

    def free_slot(self):
        while True:
            for slot, used in enumerate(self.used):
                if self.words[self.slot_words + slot] >= used:
                    return slot
            if self.halves[self.waiting] == 0:
                self.halves[self.waiting] = 1
            else:
                self.read_what_has_come(LOOK_AGAIN_SECONDS)

    def place(self, elements):
        """Hands the elements over. Returns StreamElements without its kind, and the frame's payload."""
        if self.transport == "memory":
            slot = self.free_slot()
            at = self.slots_offset + slot * self.slot_stride
            self.memory[at : at + len(elements)] = elements
            self.used[slot] = self.sequence + 1
            return field(2, slot), b""
        deflated = self.transport == "deflated"
        payload = zlib.compress(elements, 1) if deflated else elements
        return field(3, len(payload)) + field(4, int(deflated)), payload

    def snapshot(self, step, elements, learning_rate, wall_time, scalars=(), groups_present=None):
        """One step: the groups' elements one after the other, as the bytes that a slot holds."""
        self.read_what_has_come()
        place, payload = self.place(elements)
        self.sequence += 1
        message = field(1, self.sequence) + field(2, step) + field(5, wall_time) + field(6, field(1, GRADIENT) + place)
        if groups_present is not None:
            bits = sum(1 << group for group, present in enumerate(groups_present) if present)
            message += field(7, bits.to_bytes((len(groups_present) + 7) // 8, "little"))
        self.send(SNAPSHOT, message + field(8, field(1, learning_rate)) + encode_scalars(13, scalars), payload)

    def scalars(self, step, wall_time, scalars):
        self.sequence += 1
        self.send(SCALARS, field(1, self.sequence) + field(2, step) + field(3, wall_time) + encode_scalars(4, scalars))

    def close(self):
        """Ends the run. Returns whether the daemon said that its file is whole."""
        self.sequence += 1
        self.send(CLOSE_RUN, field(1, self.sequence) + field(2, SUCCESS))
        while self.receive():
            pass
        self.socket.close()
        return self.committed == self.sequence
