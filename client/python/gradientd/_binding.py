"""The C client's structs and functions, as <gradientd/client.h> declares them.

Nothing but declarations: one implementation of the protocol serves C and Python. tests/python/test_binding.py compares
every offset with what a C compiler says.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import sys
from ctypes import (
    POINTER,
    c_bool,
    c_char,
    c_char_p,
    c_double,
    c_float,
    c_int,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path

OK, SKIPPED, DETACHED = 0, 1, 2  # enum gradientd_result; a negative errno: the arguments are wrong
SUCCESS, FAILURE = 1, 2  # enum gradientd_outcome

RULES = {"sgd": 1, "adam": 2, "adamw": 3, "rmsprop": 4, "amsgrad": 5, "adagrad": 6, "adafom": 7, "other": 8}
MAXIMA = {None: 0, "raw_then_corrected": 1, "corrected": 2, "uncorrected": 3}
BIAS_CORRECTIONS = {None: 0, True: 1, False: 2}
ELEMENT_TYPES = {"f32": 0, "bf16": 1, "f16": 2, "f64": 3}
TRANSPORTS = {"memory": 0, "inline": 1, "inline_deflated": 2}
PER_GROUP = {None: 0, True: 1, False: 2}
HPARAM_NUMBER, HPARAM_TEXT, HPARAM_FLAG = 0, 1, 2


class OptimizerStruct(ctypes.Structure):
    _fields_ = [
        ("rule", c_int),
        ("bias_correction", c_int),
        ("maximum_of", c_int),
        ("eps_root", c_double),
        ("initial_accumulator", c_double),
        ("learning_rate_decay", c_double),
    ]


class HparamStruct(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("text", c_char_p),
        ("number", c_double),
        ("kind", c_int),
        ("flag", c_bool),
    ]


class GroupStruct(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("numel", c_uint64),
        ("parameter_group", c_uint32),
        ("step_lag", c_uint32),
    ]


class ParameterGroupStruct(ctypes.Structure):
    _fields_ = [
        ("beta2", c_double),
        ("eps", c_double),
        ("start_learning_rate", c_double),
    ]


class StreamOptionsStruct(ctypes.Structure):
    _fields_ = [
        ("stride", c_uint32),
        ("element_type", c_int),
    ]


class ThresholdsStruct(ctypes.Structure):
    _fields_ = [
        ("norm_spike_sd", c_double),
        ("rms", c_double),
        ("cosine_mean", c_double),
        ("oscillation", c_double),
        ("zero_group_steps", c_uint64),
        ("silence_intervals", c_double),
    ]


WARN = ctypes.CFUNCTYPE(None, c_void_p, c_char_p)


class OptionsStruct(ctypes.Structure):
    _fields_ = [
        ("options_bytes", c_size_t),
        ("logdir", c_char_p),
        ("run", c_char_p),
        ("groups", POINTER(GroupStruct)),
        ("n_groups", c_size_t),
        ("parameter_groups", POINTER(ParameterGroupStruct)),
        ("n_parameter_groups", c_size_t),
        ("element_type", c_int),
        ("transport", c_int),
        ("optimizer", OptimizerStruct),
        ("shadow_rules", POINTER(c_int)),
        ("n_shadow_rules", c_size_t),
        ("per_group", c_int),
        ("fold_depth", c_uint32),
        ("include", POINTER(c_char_p)),
        ("n_include", c_size_t),
        ("exclude", POINTER(c_char_p)),
        ("n_exclude", c_size_t),
        ("hparams", POINTER(HparamStruct)),
        ("n_hparams", c_size_t),
        ("hparams_group", c_char_p),
        ("start_second_moment", POINTER(c_void_p)),
        ("start_second_moment_max", POINTER(c_void_p)),
        ("start_optimizer_step", c_uint64),
        ("first_step", c_int64),
        ("stride", c_uint32),
        ("wall_time", c_double),
        ("probe_gradients", StreamOptionsStruct),
        ("parameters", StreamOptionsStruct),
        ("outputs", StreamOptionsStruct),
        ("output_examples", c_uint64),
        ("outputs_per_example", c_uint64),
        ("start_parameters", POINTER(c_void_p)),
        ("start_outputs", c_void_p),
        ("max_lag", c_uint32),
        ("inflight", c_uint32),
        ("no_thinning", c_bool),
        ("absent_counts", c_bool),
        ("labels_from_model", c_bool),
        ("thresholds", ThresholdsStruct),
        ("socket", c_char_p),
        ("private_daemon", c_bool),
        ("daemon_path", c_char_p),
        ("connect_timeout", c_double),
        ("max_stall", c_double),
        ("close_timeout", c_double),
        ("copy_threads", c_uint32),
        ("warn", WARN),
        ("warn_context", c_void_p),
    ]


class ErrorStruct(ctypes.Structure):
    _fields_ = [
        ("code", c_int),
        ("text", c_char * 512),
    ]


class ScalarStruct(ctypes.Structure):
    _fields_ = [
        ("tag", c_char_p),
        ("value", c_float),
    ]


class SquaredNormStruct(ctypes.Structure):
    _fields_ = [
        ("batch_size", c_double),
        ("value", c_double),
        ("per_group", POINTER(c_double)),
    ]


class StepStruct(ctypes.Structure):
    _fields_ = [
        ("step", c_int64),
        ("learning_rates", POINTER(c_double)),
        ("beta2", POINTER(c_double)),
        ("eps", POINTER(c_double)),
        ("optimizer_step", c_uint64),
        ("not_applied", c_bool),
        ("wall_time", c_double),
        ("scalars", POINTER(ScalarStruct)),
        ("n_scalars", c_size_t),
        ("has_model_version", c_bool),
        ("model_version", c_int64),
        ("probe_gradients", POINTER(c_void_p)),
        ("parameters", POINTER(c_void_p)),
        ("outputs", c_void_p),
        ("batch_size", c_double),
        ("clip_factor", c_double),
        ("squared_norms", POINTER(SquaredNormStruct)),
        ("n_squared_norms", c_size_t),
    ]


class AlertStruct(ctypes.Structure):
    _fields_ = [
        ("step", c_int64),
        ("rule", c_char * 31),
        ("onset", c_bool),
        ("text", c_char * 512),
        ("group", c_char * 256),
    ]


def _library_path() -> str:
    """$GRADIENTD_LIBRARY, else the package's own library, else the one that the system has."""
    own = Path(__file__).with_name("libgradientd-client.so")
    return os.environ.get("GRADIENTD_LIBRARY") or (str(own) if own.exists() else "libgradientd.so.0")


def daemon_path() -> str | None:
    """The daemon that came with this package; None: there is none, or $GRADIENTD_DAEMON names another one."""
    if os.environ.get("GRADIENTD_DAEMON"):
        return None
    try:
        installed = importlib.metadata.files("gradientd") or []
    except importlib.metadata.PackageNotFoundError:
        installed = []
    programs = [file.locate() for file in installed if file.name == "gradientd" and file.parent.name == "bin"]
    programs.append(Path(sys.prefix) / "bin" / "gradientd")
    return next((str(program) for program in programs if os.access(str(program), os.X_OK)), None)


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(_library_path())
    run = c_void_p
    signatures = {
        "check": (c_int, [POINTER(OptionsStruct), POINTER(ErrorStruct)]),
        "open": (c_int, [POINTER(OptionsStruct), POINTER(run), POINTER(ErrorStruct)]),
        "submit": (c_int, [run, POINTER(StepStruct), POINTER(c_void_p)]),
        "acquire": (c_void_p, [run]),
        "commit": (c_int, [run, POINTER(StepStruct), POINTER(c_bool)]),
        "scalars": (c_int, [run, c_int64, c_double, POINTER(ScalarStruct), c_size_t]),
        "next_alert": (c_int, [run, POINTER(AlertStruct)]),
        "close": (c_int, [run, c_int]),
        "skipped": (c_uint64, [run]),
        "event_path": (c_char_p, [run]),
        "last_error": (c_char_p, [run]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, "gradientd_" + name)
        function.restype, function.argtypes = result, arguments
    return library


library = _load()
