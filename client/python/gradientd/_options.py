"""What describes a run, and its translation for the C client."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from . import _binding as binding


@dataclass(frozen=True)
class Group:
    """One named slice of the parameter vector: a tensor.

    name: 1 to 255 bytes of UTF-8. numel: elements, at least 1. parameter_group: index of the optimizer's parameter
    group it belongs to. step_lag: how many optimizer steps it is behind the others (it was added later).
    """

    name: str
    numel: int
    parameter_group: int = 0
    step_lag: int = 0


@dataclass(frozen=True)
class ParameterGroup:
    """What the tensors of one of the optimizer's parameter groups share.

    beta2: decay of the second moment in [0, 1) (adam, adamw, amsgrad, rmsprop's alpha). eps: added to the root.
    start_learning_rate: with a start, that of the step before the first one; 0: the first one's.
    """

    beta2: float = 0.0
    eps: float = 0.0
    start_learning_rate: float = 0.0


@dataclass(frozen=True)
class Optimizer:
    """The update rule, which decides what the effective step a / (sqrt(vhat) + eps) is (arXiv 1808.02941).

    rule: sgd, adam, adamw, rmsprop, amsgrad, adagrad, adafom, or other (an optimizer with another effective step: there
    are no adam/ charts then). bias_correction: of adam, adamw, rmsprop; None: as the rule has it. maximum_of: of
    amsgrad, raw_then_corrected (None, PyTorch), corrected (optax) or uncorrected (the paper). eps_root: added under the
    root. initial_accumulator, learning_rate_decay: adagrad's.
    """

    rule: str = "sgd"
    bias_correction: bool | None = None
    maximum_of: str | None = None
    eps_root: float = 0.0
    initial_accumulator: float = 0.0
    learning_rate_decay: float = 0.0


@dataclass(frozen=True)
class Stream:
    """A stream beside the gradient: a snapshot every `stride` steps, of elements f32, bf16, f16 or f64."""

    stride: int = 1
    element_type: str = "f32"


@dataclass(frozen=True)
class Start:
    """What the optimizer's state and the streams held before the first step, for a start in mid-training.

    optimizer_step: steps that the optimizer has taken. second_moment, second_moment_max: an address of numel floats a
    group, None where all are zero. parameters: an address a group, of the type of the parameters' stream. outputs: an
    address. What lies there is read before the call returns.
    """

    optimizer_step: int = 0
    second_moment: Sequence[int | None] | None = None
    second_moment_max: Sequence[int | None] | None = None
    parameters: Sequence[int | None] | None = None
    outputs: int | None = None


class Thresholds(TypedDict, total=False):
    """When the rules that watch a run raise an alert. An infinite value (of cosine_mean a negative one) switches a rule
    off."""

    norm_spike_sd: float  # |g_t| above the mean of the 128 steps before and so many standard deviations; 6
    rms: float  # adam/rms above; 2.3
    cosine_mean: float  # the mean of coherence/cosine_lag1 over 100 steps below; -0.3
    oscillation: float  # adam/oscillation above, after 1,000 applied steps; 0.1
    zero_group_steps: int  # a tensor without any gradient but 0 for so many steps; 100
    silence_intervals: float  # no step for so many median intervals; 10


class RunOptions(TypedDict, total=False):
    """What may be said of any run, by keyword; what is left out takes the default named here."""

    run: str  # relative path below logdir, components of [A-Za-z0-9._=,+-]; "": logdir itself
    shadow_rules: Sequence[str]  # what these rules would do with the same gradients: shadow_<rule>/; none
    per_group: bool | None  # tags per tensor; None: where at most 8 names are left of the next three
    fold_depth: int  # names that agree in so many components (ending at "." or "/") share their tags; 0: none do
    include: Sequence[str]  # patterns (* and ?) of the tensors that have tags of their own; all
    exclude: Sequence[str]  # without these; none
    hparams: Mapping[str, float | str | bool]  # for the HParams tab, beside the optimizer's own
    hparams_group: str | None  # runs that are shown as one there, averaged; None
    max_lag: int  # coherence is computed for lags 1..max_lag, 1 to 32; 5
    inflight: int  # steps the trainer may be ahead of the daemon, 1 to 64; 2
    thinning: bool  # steps past 10,000 are thinned to 4 significant digits; True
    labels_from_model: bool  # squared norms are at labels drawn from the model: fisher/trace; False
    thresholds: Thresholds
    transport: str  # memory, or inline, inline_deflated where memory cannot be shared; memory
    socket: str | None  # where the daemon listens; None: $GRADIENTD_SOCKET, $XDG_RUNTIME_DIR/gradientd/socket, /run/...
    private_daemon: bool  # where none answers, one is started for this run alone; True
    daemon_path: str | None  # that one; None: $GRADIENTD_DAEMON, else the one that came with this package
    connect_timeout: float  # seconds that opening may wait for the daemon's answers; 5
    max_stall: float  # seconds that a step may wait for a free slot; 0: it is skipped, and counted
    close_timeout: float  # seconds that close() may wait until the event file is complete; 10
    copy_threads: int  # that copy a step at once, 1 to 16; 1: the calling thread alone


_DEFAULTS = {
    "max_lag": 5,
    "inflight": 2,
    "connect_timeout": 5.0,
    "max_stall": 0.0,
    "close_timeout": 10.0,
    "copy_threads": 1,
}


def local_logdir(logdir: str | os.PathLike[str] | None) -> bytes | None:
    """The directory as the C client takes it; an object store is refused."""
    if logdir is None:
        return None
    path = os.fspath(logdir)
    if "://" in path:
        raise ValueError(
            f"logdir is {path}: event files are written to a local directory; write to one and copy it from time to "
            f"time, for instance with `gsutil rsync` or `aws s3 sync`, or mount the store (gcsfuse, s3fs)"
        )
    return os.fsencode(os.path.expanduser(path))


def _text(value: str | os.PathLike[str] | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def choose(field: str, value: Any, choices: Mapping[Any, int]) -> int:
    """The C client's number of a choice."""
    if value not in choices:
        raise ValueError(f"{field} is {value!r}; it must be one of {', '.join(map(repr, choices))}")
    return choices[value]


def _texts(values: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    if isinstance(values, str):
        values = [values]
    return (ctypes.c_char_p * len(values))(*(value.encode() for value in values))


def _hparams(values: Mapping[str, float | str | bool]) -> ctypes.Array[binding.HparamStruct]:
    structs = (binding.HparamStruct * len(values))()
    for struct, (name, value) in zip(structs, values.items(), strict=True):
        struct.name = name.encode()
        if isinstance(value, bool):
            struct.kind, struct.flag = binding.HPARAM_FLAG, value
        elif isinstance(value, str):
            struct.kind, struct.text = binding.HPARAM_TEXT, value.encode()
        else:
            struct.kind, struct.number = binding.HPARAM_NUMBER, float(value)
    return structs


def addresses(values: Sequence[int | None]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(values))(*values)


def _set_list(struct: binding.OptionsStruct, name: str, array: Any) -> None:
    """The pointer keeps the array alive."""
    setattr(struct, name, ctypes.cast(array, type(getattr(struct, name))))
    setattr(struct, "n_" + name, len(array))


def _set_optimizer(struct: binding.OptionsStruct, optimizer: Optimizer) -> None:
    own = struct.optimizer
    own.rule = choose("optimizer.rule", optimizer.rule, binding.RULES)
    own.bias_correction = choose("optimizer.bias_correction", optimizer.bias_correction, binding.BIAS_CORRECTIONS)
    own.maximum_of = choose("optimizer.maximum_of", optimizer.maximum_of, binding.MAXIMA)
    own.eps_root = optimizer.eps_root
    own.initial_accumulator = optimizer.initial_accumulator
    own.learning_rate_decay = optimizer.learning_rate_decay


def _set_choices(struct: binding.OptionsStruct, options: RunOptions) -> None:
    unknown = options.keys() - RunOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown option {min(unknown)!r}; there are {', '.join(RunOptions.__annotations__)}")
    for name, default in _DEFAULTS.items():
        setattr(struct, name, options.get(name, default))
    struct.no_thinning = not options.get("thinning", True)
    struct.labels_from_model = options.get("labels_from_model", False)
    struct.transport = choose("transport", options.get("transport", "memory"), binding.TRANSPORTS)
    struct.per_group = choose("per_group", options.get("per_group"), binding.PER_GROUP)
    struct.fold_depth = options.get("fold_depth", 0)
    thresholds = options.get("thresholds", {})
    unknown = thresholds.keys() - Thresholds.__annotations__.keys()
    if unknown:
        raise ValueError(f"thresholds has {min(unknown)!r}; there are {', '.join(Thresholds.__annotations__)}")
    for name, value in thresholds.items():
        setattr(struct.thresholds, name, value)


def _set_texts(struct: binding.OptionsStruct, options: RunOptions) -> None:
    rules = [choose("shadow_rules", rule, binding.RULES) for rule in options.get("shadow_rules", ())]
    _set_list(struct, "shadow_rules", (ctypes.c_int * len(rules))(*rules))
    _set_list(struct, "include", _texts(options.get("include", ())))
    _set_list(struct, "exclude", _texts(options.get("exclude", ())))
    _set_list(struct, "hparams", _hparams(options.get("hparams", {})))
    struct.hparams_group = _text(options.get("hparams_group"))
    struct.run = _text(options.get("run", ""))
    struct.socket = _text(options.get("socket"))
    struct.private_daemon = options.get("private_daemon", True)
    struct.daemon_path = _text(options.get("daemon_path") or binding.daemon_path())


def _set_groups(
    struct: binding.OptionsStruct, groups: Sequence[Group], parameter_groups: Sequence[ParameterGroup]
) -> None:
    entries = (binding.GroupStruct * len(groups))()
    for entry, group in zip(entries, groups, strict=True):
        entry.name = group.name.encode()
        entry.numel, entry.parameter_group, entry.step_lag = group.numel, group.parameter_group, group.step_lag
    rates = (binding.ParameterGroupStruct * len(parameter_groups))()
    for rate, shared in zip(rates, parameter_groups, strict=True):
        rate.beta2, rate.eps, rate.start_learning_rate = shared.beta2, shared.eps, shared.start_learning_rate
    _set_list(struct, "groups", entries)
    _set_list(struct, "parameter_groups", rates)


def _set_start(struct: binding.OptionsStruct, start: Start) -> None:
    struct.start_optimizer_step = start.optimizer_step
    for name in ("second_moment", "second_moment_max", "parameters"):
        vectors = getattr(start, name)
        if vectors is not None:
            pointers = ctypes.cast(addresses(vectors), ctypes.POINTER(ctypes.c_void_p))
            setattr(struct, "start_" + name, pointers)
    struct.start_outputs = start.outputs


@dataclass(frozen=True)
class Description:
    """All that shapes a run, but what RunOptions names."""

    groups: Sequence[Group]
    optimizer: Optimizer
    parameter_groups: Sequence[ParameterGroup]
    element_type: str = "f32"
    absent_counts: bool = False  # a group's own step count runs on while it has no gradient (optax)
    stride: int = 1
    probe_gradients: Stream | None = None
    parameters: Stream | None = None
    outputs: Stream | None = None
    outputs_shape: tuple[int, int] = (0, 0)  # examples, outputs per example


def options_struct(
    description: Description,
    options: RunOptions,
    logdir: str | os.PathLike[str] | None,
    first_step: int = 1,
    start: Start | None = None,
) -> binding.OptionsStruct:
    """What gradientd_open() takes; the struct keeps alive what it points to. Raises ValueError or TypeError for what
    the C client would not understand."""
    struct = binding.OptionsStruct()
    struct.options_bytes = ctypes.sizeof(struct)
    struct.logdir = local_logdir(logdir)
    struct.first_step = first_step
    struct.stride = description.stride
    struct.element_type = choose("element_type", description.element_type, binding.ELEMENT_TYPES)
    struct.absent_counts = description.absent_counts
    _set_optimizer(struct, description.optimizer)
    _set_groups(struct, description.groups, description.parameter_groups)
    for name in ("probe_gradients", "parameters", "outputs"):
        stream = getattr(description, name)
        if stream is not None:
            element_type = choose(name + ".element_type", stream.element_type, binding.ELEMENT_TYPES)
            setattr(struct, name, binding.StreamOptionsStruct(stream.stride, element_type))
    struct.output_examples, struct.outputs_per_example = description.outputs_shape
    _set_choices(struct, options)
    _set_texts(struct, options)
    if start is not None:
        _set_start(struct, start)
    return struct
