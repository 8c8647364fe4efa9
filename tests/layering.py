#!/usr/bin/env python3
"""Checks the design's direction: a file includes only headers of its own layer and of the layers below it.

Usage: tests/layering.py [SOURCE_DIR]

Compares the #include lines of the sources with the tables below: every file must be in a layer, and every module named
here must exist. Then breaks each rule once, in memory, and fails where that is not found.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

FOLDERS = ("include", "daemon", "client", "ctl", "examples")
INCLUDE_PATHS = ("include", "daemon")  # beside the including file's own folder

# Without I/O, clock or threads: all that a pure layer may include of the system.
PURE_HEADERS = set("assert.h errno.h float.h limits.h math.h stdbool.h stddef.h stdint.h stdlib.h string.h".split())
PURE_HEADERS |= {"cpuid.h", "immintrin.h", "nmmintrin.h", "arm_neon.h", "arm_acle.h"}

# These belong to the layers that name them.
LIBRARIES = {
    "uv.h": "uv",
    "zlib.h": "zlib",
    "png.h": "png",
    "ini.h": "inih",
    "systemd/sd-daemon.h": "systemd",
    "acl/libacl.h": "acl",
    "sys/acl.h": "acl",
    "example.pb-c.h": "protobuf",
    "gradientd.pb-c.h": "protobuf",
    "tensorboard.pb-c.h": "protobuf",
    "protobuf-c/protobuf-c.h": "protobuf",
}


@dataclass
class Layer:
    folder: str
    modules: tuple  # files of the folder, without .c and .h
    below: tuple = ()  # layers it may include
    libraries: tuple = ()
    pure: bool = False


def layer(folder, modules, below="", libraries="", pure=False):
    return Layer(folder, tuple(modules.split()), tuple(below.split()), tuple(libraries.split()), pure)


# From the bottom up: a layer may name only those above it on this page.
LAYERS = {
    "client_api": layer("include/gradientd", "client", pure=True),
    "protocol": layer("include/gradientd", "protocol", pure=True),
    # what every layer may stand on
    "numbers": layer("daemon", "arithmetic element_type pace step_sums watchdog", pure=True),
    "base": layer(
        "daemon",
        "admission bytes counters crc32c environment error event_path fault foreign_fd log metrics_file metrics_text "
        "quota resident service_text text writer_thread",
        "protocol",
    ),
    "arena": layer("daemon", "arena", libraries="protobuf"),
    "names": layer("daemon", "group_tags side_tags tags", "numbers"),
    # computing: step sums, and what follows from them
    "kernels": layer(
        "daemon/kernels",
        "avx2 avx512 chunk_sums differences dispatch exponents fused fused_blocks kernels neon scalar sse4 step_sizes",
        "numbers",
        pure=True,
    ),
    "diagnostics": layer(
        "daemon/diagnostics",
        "adam alerts coherence curvature function_space groups health noise schedule silence subspace thinning",
        "numbers names kernels",
        pure=True,
    ),
    # writing
    "event": layer("daemon", "event event_record event_tensor", "base names", "protobuf"),
    "files": layer("daemon", "event_file event_output event_repair folder_acl folder_acl_none state_directory", "base", "acl"),
    # images: numbers in, the bytes of a PNG file out
    "images": layer("daemon", "heatmap png_image", libraries="png zlib"),
    # listening: bytes and descriptors, and the plain structs they become
    "group_names": layer("daemon", "group_names", "protocol base"),
    "messages": layer("daemon", "message", "protocol numbers base names diagnostics group_names"),
    "alert_texts": layer("daemon", "alert_ring alert_text", "protocol base names diagnostics event messages"),
    "frames": layer("daemon", "frame payload", "protocol base", "zlib"),
    "inflater": layer("daemon", "inflater", "base frames", "uv"),
    "connection": layer("daemon", "connection fd_queue", "protocol base frames", "uv protobuf"),
    "decode": layer(
        "daemon",
        "decode decode_hparams decode_noise decode_open_run decode_optimizer decode_selection decode_streams decode_thresholds",
        "protocol base arena frames group_names messages",
        "protobuf",
    ),
    # what TensorBoard is told of a run beside its scalars
    "dashboard": layer(
        "daemon",
        "charts dashboard hparams log2_histogram page shown",
        "protocol names kernels diagnostics event messages",
        "protobuf",
    ),
    # a run: state, computation, records; it knows neither a connection nor the wire
    "user_tags": layer("daemon", "user_tags", "protocol base names"),
    "tensors": layer("daemon", "noise_records subspace_records", "names diagnostics event images messages"),
    "memory": layer(
        "daemon", "history layout memory run_state", "protocol base names diagnostics event messages alert_texts tensors dashboard"
    ),
    "analysis": layer(
        "daemon",
        "adam_track analysis chunk_record log2_counts side_analysis start_vector",
        "numbers base kernels diagnostics messages memory"
    ),
    "run": layer(
        "daemon",
        "run run_accept run_alerts run_noise run_records run_resume run_sides run_subspace scalar_list",
        "protocol base numbers names diagnostics event images files messages alert_texts tensors dashboard user_tags memory analysis",
    ),
    # the only place where connection, decode and run meet: server.c for all clients, session.c for one of them
    "replies": layer(
        "daemon",
        "reply status_reply",
        "protocol base diagnostics frames alert_texts memory connection",
        "protobuf",
    ),
    "systemd": layer("daemon", "systemd systemd_none", "base", "systemd"),
    "wiring": layer(
        "daemon",
        "acceptor config config_file holdings listener loop main metrics options reload reloader server session session_alerts "
        "session_attach session_messages session_state session_status settings status supervision",
        "protocol base numbers arena kernels diagnostics frames inflater connection decode messages alert_texts memory files run replies systemd",
        "inih uv",
    ),
    # beside the daemon
    "client": layer(
        "client",
        "alerts attach check connect copy describe descriptor elements event_path gather hparams inline internal link memory open "
        "options output private_daemon reconnect renew room sides signals start submit warning wire",
        "client_api protocol base frames user_tags",
        "protobuf zlib",
    ),
    "tfrecords": layer("ctl", "record", "base"),
    # a recording, and the run that is computed from it again
    "recordings": layer(
        "ctl",
        "element_places recorded recording_reader recording_writer replay_run",
        "protocol base arena numbers kernels frames messages decode memory files run tfrecords",
        "protobuf uv zlib",
    ),
    "ctl": layer(
        "ctl",
        "alerts check checkup command daemon_link daemon_options daemon_report daemon_socket doctor doctor_daemon "
        "doctor_machine doctor_service doctor_socket doctor_state doctor_versions dump event_check faults flow gate "
        "gradientctl json json_message printable record_run recorder relay relay_messages replay report_json "
        "run_recording run_table screen status table tag_bytes tag_table terminal top units waiting",
        "protocol base arena numbers names kernels frames messages decode memory run tfrecords recordings",
        "protobuf uv",
    ),
    "examples": layer(
        "examples",
        "adam_ratios arguments attachment critical_period digits digits_blur digits_data digits_microbatches "
        "digits_training function_space mlp optimizer progress quadratic random staleness weights",
        "client_api",
        "zlib",
    ),
}

# Each is one line too many, which must be found.
BROKEN_RULES = [
    ("daemon/kernels/scalar.c", '#include "analysis.h"', "an upward include"),
    ("daemon/kernels/kernels.h", '#include "../tags.h"', "kernels know only numbers"),
    ("daemon/connection.c", '#include "decode.h"', "a connection knows no messages"),
    ("daemon/decode.c", '#include "run.h"', "decode knows no run"),
    ("daemon/run.c", '#include "connection.h"', "a run knows no connection"),
    ("daemon/analysis.c", '#include "diagnostics/../event.h"', "a path that hides the layer"),
    ("daemon/event_file.c", '#include "server.h"', "nothing knows the wiring"),
    ("daemon/run.c", "#include <uv.h>", "a library of another layer"),
    ("daemon/diagnostics/adam.c", "#  include <stdio.h>", "I/O in a pure layer"),
    ("daemon/diagnostics/adam.c", "#include <time.h>", "a clock in a pure layer"),
    ("daemon/tags.h", "#include <unistd.h>", "I/O in a header that a pure layer includes"),
    ("include/gradientd/client.h", '#include "../../daemon/error.h"', "a public header includes a private one"),
    ("include/gradientd/client.h", '#include "gradientd/protocol.h"', "client.h stands alone"),
    ("client/open.c", '#include "payload.h"', "a file that the client does not list"),
    ("client/open.c", '#include "memory.h"', "the client knows no run"),
    ("examples/mlp.c", '#include "../client/internal.h"', "an example knows the installed header alone"),
    ("ctl/replay_run.c", '#include "session.h"', "a replay knows no connection"),
    ("daemon/run.c", '#include "../ctl/recorded.h"', "the daemon knows no recording"),
    ("daemon/new.c", '#include "error.h"', "a file in no layer"),
]


def read_sources(root):
    """path -> text, of all C files."""
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in (".c", ".h")
    }


def includes_of(text):
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', text, re.MULTILINE)


def layer_names():
    """module -> name of its layer"""
    return {f"{layer.folder}/{module}": name for name, layer in LAYERS.items() for module in layer.modules}


def module_of(path):
    return path.rpartition(".")[0]


def resolve(sources, path, header):
    """The source that `header` means in `path`; None for one of the system's or a library's."""
    for folder in (PurePosixPath(path).parent, *INCLUDE_PATHS):
        parts = []
        for part in (PurePosixPath(folder) / header).parts:
            parts = parts[:-1] if part == ".." else [*parts, part]
        if "/".join(parts) in sources:
            return "/".join(parts)
    return None


def all_headers(sources, path, seen):
    """The system's headers that `path` includes, by way of others too."""
    found = set()
    for header in includes_of(sources[path]):
        target = resolve(sources, path, header)
        if target is None:
            found.add(header)
        elif target not in seen:
            seen.add(target)
            found |= all_headers(sources, target, seen)
    return found


def check_table():
    names = list(LAYERS)
    for name, layer in LAYERS.items():
        for below in layer.below:
            if below not in names[: names.index(name)]:
                yield f"the layer {name} may include {below}, which is not above it on the page"


def check_file(sources, path, names, client_list):
    name = names.get(module_of(path))
    if name is None:
        yield f"{path} is in no layer: give it one in tests/layering.py"
        return
    layer = LAYERS[name]
    for header in includes_of(sources[path]):
        target = resolve(sources, path, header)
        if target is None:
            library = LIBRARIES.get(header)
            if library and library not in layer.libraries:
                yield f"{path} ({name}) includes {header}, which is not for its layer"
            continue
        below = names.get(module_of(target))
        if below is not None and below != name and below not in layer.below:
            yield f"{path} ({name}) includes {target} ({below}), which is not below it"
        if name == "client" and target.startswith("daemon/") and target not in client_list:
            yield f"{path} includes {target}, which client/meson.build does not list"
    if layer.pure:
        for header in sorted(all_headers(sources, path, {path}) - PURE_HEADERS):
            yield f"{path} ({name}) includes {header}: its layer has no I/O, clock or threads"


def check(sources, client_build):
    names = layer_names()
    # the daemon's files that the client is built from as well, and a header that has no other file
    client_list = {f"daemon/{module}.h" for module in re.findall(r"'\.\./daemon/(\w+)\.c'", client_build)}
    client_list |= {path for path in sources if path.endswith(".h") and path[:-1] + "c" not in sources}

    faults = list(check_table())
    modules = {module_of(path) for path in sources}
    faults += [f"{module} (layer {name}) does not exist" for module, name in names.items() if module not in modules]
    for path in sources:
        faults += check_file(sources, path, names, client_list)
    return faults


def unnoticed(sources, client_build):
    for path, line, rule in BROKEN_RULES:
        broken = {**sources, path: sources.get(path, "") + "\n" + line + "\n"}
        if not check(broken, client_build):
            yield f"{path} with {line} was not found: {rule}"


def main():
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    sources = read_sources(root)
    client_build = (root / "client" / "meson.build").read_text()
    faults = check(sources, client_build) or list(unnoticed(sources, client_build))
    for fault in faults:
        print(f"layering: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
