"""Runs as tests describe them, and the process that submits them through the C client (tests/tools/feed.c)."""

import os
import struct
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

FIRST_WALL_TIME = 1.7e9  # all records carry a fixed clock, so that the same stream is the same bytes


@dataclass
class Group:
    name: str
    numel: int
    parameter_group: int = 0
    step_lag: int = 0


@dataclass
class ParameterGroup:
    beta2: float = 0.0
    eps: float = 0.0
    start_learning_rate: float | None = None


@dataclass
class Optimizer:
    rule: str = "sgd"
    bias_correction: str = "default"  # default, corrected, none
    maximum_of: str = "default"  # default, raw_then_corrected, corrected, uncorrected
    eps_root: float = 0.0
    initial_accumulator: float = 0.0
    learning_rate_decay: float = 0.0


SIDES = ("probe_gradients", "parameters", "outputs")


@dataclass
class SideStream:
    """A stream beside the gradient."""

    stride: int = 1
    element_type: str = "f32"


@dataclass
class Run:
    groups: list
    optimizer: Optimizer = field(default_factory=Optimizer)
    parameter_groups: list = field(default_factory=lambda: [ParameterGroup()])
    name: str = "run"
    max_lag: int = 5
    inflight: int = 2
    first_step: int = 1
    labels_from_model: bool = False
    absent_counts: bool = False
    no_thinning: bool = True
    element_type: str = "f32"  # f32, bf16, f16, f64
    transport: str = "memory"  # memory, raw, deflated
    stride: int = 1
    shadow_rules: tuple = ()
    per_group: bool | None = None
    include: tuple = ()
    exclude: tuple = ()
    fold_depth: int = 0
    start_second_moment: list | None = None  # f32 arrays, one per group
    start_second_moment_max: list | None = None  # with amsgrad
    start_optimizer_step: int = 0
    hparams: dict = field(default_factory=dict)  # name -> number, text or flag
    hparams_group: str | None = None
    probe_gradients: SideStream | None = None
    parameters: SideStream | None = None
    outputs: SideStream | None = None
    output_examples: int = 0
    outputs_per_example: int = 0
    start_parameters: list | None = None  # as a step's, handed over before the first one
    start_outputs: np.ndarray | None = None

    def sides(self):
        """What there is of the streams beside the gradient, by name."""
        return {name: getattr(self, name) for name in SIDES if getattr(self, name)}


@dataclass
class SquaredNorm:
    batch_size: float
    value: float
    per_group: list | None = None


@dataclass
class Step:
    step: int
    gradients: list  # one array per group; None: the group is absent
    learning_rates: list  # one per parameter group
    optimizer_step: int = 0  # 0: one after the last applied one
    applied: bool = True
    beta2: list | None = None  # one per parameter group, where they change
    eps: list | None = None
    scalars: tuple = ()  # (tag, value) pairs
    wall_time: float | None = None
    model_version: int | None = None
    probe_gradients: list | None = None  # one array per group, of the stream's type
    parameters: list | None = None
    outputs: np.ndarray | None = None
    batch_size: float = 0.0  # 0: unknown
    clip_factor: float = 0.0  # 0: not clipped
    squared_norms: tuple = ()


@dataclass
class Values:
    """The trainer's own values between steps."""

    step: int
    scalars: tuple
    wall_time: float | None = None


def _encode_scalars(scalars):
    encoded = []
    for tag, value in scalars:
        name = tag.encode()
        encoded.append(struct.pack("<H", len(name)) + name + struct.pack("<f", value))
    return b"".join(encoded)


def bf16(array):
    """The bits of f32 values rounded to bf16, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(bits & 0x7FFFFFFF > 0x7F800000, bits >> 16 | 0x40, rounded).astype(np.uint16)


def elements(array, element_type):
    """What is sent of an array: the bytes' own type, and bits as they are for uint16 (bf16, f16)."""
    if element_type == "bf16":
        return array if array.dtype == np.uint16 else bf16(array)
    if element_type == "f16":
        return array.view("<f2") if array.dtype == np.uint16 else np.asarray(array, "<f2")
    return np.asarray(array, {"f32": "<f4", "f64": "<f8"}[element_type])


def widened(array, element_type):
    """What the daemon reads of it, as f32."""
    sent = elements(array, element_type)
    if element_type == "bf16":
        return (sent.astype(np.uint32) << 16).view(np.float32)
    return sent.astype(np.float32)


def _encode_sides(record, run):
    """What comes ahead of a step that has streams beside the gradient."""
    there = [name for name in SIDES if getattr(record, name) is not None]
    if not there and record.model_version is None:
        return b""
    bits = sum(1 << SIDES.index(name) for name in there)
    head = struct.pack("<BBq", bits, record.model_version is not None, record.model_version or 0)
    parts = []
    for name in there:
        arrays = getattr(record, name)
        arrays = [arrays] if name == "outputs" else arrays
        parts += [elements(array, getattr(run, name).element_type).tobytes() for array in arrays]
    return b"P" + head + b"".join(parts)


def _encode_batch(record):
    parts = [struct.pack("<ddB", record.batch_size, record.clip_factor, len(record.squared_norms))]
    for norm in record.squared_norms:
        per_group = norm.per_group or ()
        parts.append(struct.pack(f"<ddB{len(per_group)}d", norm.batch_size, norm.value, bool(per_group), *per_group))
    return b"N" + b"".join(parts)


def encode(record, run):
    wall_time = FIRST_WALL_TIME + record.step if record.wall_time is None else record.wall_time
    if isinstance(record, Values):
        return b"V" + struct.pack("<qdH", record.step, wall_time, len(record.scalars)) + _encode_scalars(record.scalars)

    assert (record.beta2 is None) == (record.eps is None)
    doubles = [*record.learning_rates, *(record.beta2 or ()), *(record.eps or ())]
    says_batch = record.batch_size or record.clip_factor or record.squared_norms
    parts = [
        _encode_sides(record, run),
        _encode_batch(record) if says_batch else b"",
        b"S",
        struct.pack(
            "<qQdBBH",
            record.step,
            record.optimizer_step,
            wall_time,
            not record.applied,
            record.beta2 is not None,
            len(record.scalars),
        ),
        bytes(g is not None for g in record.gradients),
        struct.pack(f"<{len(doubles)}d", *doubles),
        _encode_scalars(record.scalars),
    ]
    parts += [elements(g, run.element_type).tobytes() for g in record.gradients if g is not None]
    return b"".join(parts)


def _describe(run, socket, logdir, extra):
    optimizer = run.optimizer
    lines = [f"{key} {value}" for key, value in {"socket": socket, "logdir": logdir, "run": run.name}.items() if value]
    for key in ("rule", "bias_correction", "maximum_of"):
        lines.append(f"{key} {getattr(optimizer, key)}")
    for key in ("eps_root", "initial_accumulator", "learning_rate_decay"):
        lines.append(f"{key} {getattr(optimizer, key)!r}")
    for key in ("element_type", "transport"):
        lines.append(f"{key} {getattr(run, key)}")
    for key in ("max_lag", "inflight", "first_step", "absent_counts", "no_thinning", "stride", "fold_depth",
                "labels_from_model"):  # fmt: skip
        lines.append(f"{key} {int(getattr(run, key))}")
    lines.append(f"wall_time {FIRST_WALL_TIME!r}")
    lines += [f"{key} {value}" for key, value in extra.items()]
    lines.append(f"per_group {({None: 'default', True: 'on', False: 'off'})[run.per_group]}")
    lines += [f"shadow {rule}" for rule in run.shadow_rules]
    lines += [f"include {pattern}" for pattern in run.include]
    lines += [f"exclude {pattern}" for pattern in run.exclude]
    for name, side in run.sides().items():
        shape = f" {run.output_examples} {run.outputs_per_example}" if name == "outputs" else ""
        lines.append(f"{name} {side.stride} {side.element_type}{shape}")
    lines += [f"start_{name} 1" for name in ("parameters", "outputs") if getattr(run, f"start_{name}") is not None]
    for name, value in run.hparams.items():
        kind = "flag" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
        shown = value if kind == "text" else str(value).lower() if kind == "flag" else repr(value)
        lines.append(f"hparam {kind} {name} {shown}")
    if run.hparams_group is not None:
        lines.append(f"hparams_group {run.hparams_group}")
    if run.start_second_moment is not None:
        lines.append(f"start_optimizer_step {run.start_optimizer_step}")
    for p in run.parameter_groups:
        rate = "" if p.start_learning_rate is None else f" {p.start_learning_rate!r}"
        lines.append(f"parameter_group {p.beta2!r} {p.eps!r}{rate}")
    lines += [f"group {g.name} {g.numel} {g.parameter_group} {g.step_lag}" for g in run.groups]
    return ("\n".join(lines) + "\n\n").encode()


def _start_vectors(run):
    sides = []
    if run.start_parameters is not None:
        sides += [elements(array, run.parameters.element_type) for array in run.start_parameters]
    if run.start_outputs is not None:
        sides.append(elements(run.start_outputs, run.outputs.element_type))
    vectors = [*(run.start_second_moment or ()), *(run.start_second_moment_max or ())]
    return b"".join(array.tobytes() for array in sides) + b"".join(np.ascontiguousarray(vector, "<f4").tobytes() for vector in vectors)


def build_path(path):
    """Of something built, in the build directory that $GD_BUILD names."""
    return str(Path(os.environ["GD_BUILD"]) / path)


class Trainer:
    """A trainer process with an open run, below `logdir` or, where that is None, the daemon's state directory. Without a
    socket it finds the daemon where every client looks. `command` starts the program that is appended to it. `end`:
    close, failure (closes with that), exit (without closing) or kill (SIGKILL itself)."""

    def __init__(self, run, socket, logdir, end="close", echo=False, in_place=False, command=()):
        self.echo = echo
        self.run = run
        self.messages = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [*command, build_path("tests/feed")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.messages,
        )
        extra = {"end": end, "echo": int(echo), "in_place": int(in_place)}
        self.process.stdin.write(_describe(run, socket, logdir, extra) + _start_vectors(run))
        self.process.stdin.flush()
        line = self.process.stdout.readline().decode()
        assert line.startswith("event "), self.failure()
        self.event_path = Path(line.removeprefix("event ").rstrip("\n"))

    def failure(self):
        self.process.kill()
        status = self.process.wait()
        self.messages.seek(0)
        return f"the trainer ended with {status}: {self.messages.read().decode()}"

    def send(self, records):
        try:
            for record in records:
                self.process.stdin.write(encode(record, self.run))
                if self.echo:  # returns once the step is handed over
                    self.process.stdin.flush()
                    line = self.process.stdout.readline().decode()
                    assert line == f"step {record.step}\n", self.failure()
        except BrokenPipeError:
            raise AssertionError(self.failure()) from None

    def finish(self, status=0):
        """Ends the input, waits for the end and returns the event file's path."""
        try:
            output, _ = self.process.communicate(timeout=120)
        except BrokenPipeError:
            output = b""
        assert self.process.returncode == status, self.failure()
        assert output == b"skipped 0\n", output
        return self.event_path

    def kill(self):
        """SIGKILL, from outside and in mid-stream."""
        self.process.kill()
        self.process.wait()


def train(run, records, socket, logdir, **options):
    """One whole run; returns its event file."""
    trainer = Trainer(run, socket, logdir, **options)
    trainer.send(records)
    return trainer.finish()
