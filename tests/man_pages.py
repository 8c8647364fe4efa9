#!/usr/bin/env python3
"""Checks that the man pages and the programs say the same.

Usage: tests/man_pages.py BUILD_DIR

Compares docs/man with what the programs of that build print for --help, and with the prototypes in client.h: every
option, command and function is in its page, and none that does not exist. Then leaves each of them out, and adds one of
each, in memory, and fails where that is not found.
"""

import re
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
PROGRAMS = {"gradientd.8": "daemon/gradientd", "gradientctl.1": "ctl/gradientctl"}
LIBRARY = "gradientd-client.3"

HELP_OPTION = re.compile(r"--[a-z][a-z-]*")
HELP_COMMAND = re.compile(r"^  ([a-z]+) ", re.MULTILINE)
DESCRIBED_OPTION = re.compile(r"^\.It Fl -([a-z-]+)", re.MULTILINE)
DESCRIBED_COMMAND = re.compile(r"^\.It Cm ([a-z]+)", re.MULTILINE)
SHOWN_COMMAND = re.compile(r"^\.Nm\n\.Cm ([a-z]+)$", re.MULTILINE)  # in the synopsis
NAMED_OPTION = re.compile(r"(?:\bFl |-)-([a-z][a-z-]*)")
OTHER_PROGRAM = re.compile(r"^.*\b(?:systemctl|pkg-config)\b.*$", re.MULTILINE)  # whose options are not ours

PROTOTYPE = re.compile(r"^(?:GRADIENTD_API|static inline) ([^(;]+?)(gradientd_\w+)\(([^)]*)\)", re.MULTILINE)
SYNOPSIS = re.compile(r"^\.Ft (.+)\n\.Fo (\w+)\n((?:\.Fa .+\n)+)\.Fc$", re.MULTILINE)
NAME = re.compile(r"^\.Nm (gradientd_\w+)", re.MULTILINE)

DESCRIPTION = re.compile(r"^\.(It Fl -|It Cm [a-z]|Fo ).*\n", re.MULTILINE)  # its first line
ADDITIONS = {
    **dict.fromkeys(PROGRAMS, (".It Fl -none\n", ".It Cm none\n", ".Dl gradientd --none\n")),
    LIBRARY: (".Nm gradientd_none\n", ".Ft int\n.Fo gradientd_none\n.Fa void\n.Fc\n"),
}


def read_help(build):
    """page -> what its program prints for --help"""
    return {
        page: subprocess.run([build / program, "--help"], check=True, capture_output=True, text=True).stdout
        for page, program in PROGRAMS.items()
    }


def check_program(page, text, help_text):
    options = set(HELP_OPTION.findall(help_text)) | {"--help"}
    described = {f"--{name}" for name in DESCRIBED_OPTION.findall(text)}
    named = {f"--{name}" for name in NAMED_OPTION.findall(OTHER_PROGRAM.sub("", text))}
    commands = set(HELP_COMMAND.findall(help_text))
    described_commands = set(DESCRIBED_COMMAND.findall(text))
    missing = (options - described) | (commands - described_commands)
    unknown = (named - options) | (described_commands - commands)
    yield from (f"{page} does not describe {name}" for name in sorted(missing))
    yield from (f"{page} has no synopsis of {name}" for name in sorted(commands - set(SHOWN_COMMAND.findall(text))))
    yield from (f"{page} has {name}, which --help does not" for name in sorted(unknown))


def prototypes_of_header(header):
    """function -> its prototype"""
    return {
        name: f"{returned.strip()} {name}({' '.join(arguments.split())})"
        for returned, name, arguments in PROTOTYPE.findall(header)
    }


def prototypes_of_page(text):
    """the same, of a synopsis"""
    prototypes = {}
    for returned, name, lines in SYNOPSIS.findall(text.replace('"', "")):
        arguments = ", ".join(line.removeprefix(".Fa ") for line in lines.splitlines())
        prototypes[name] = f"{returned} {name}({arguments})"
    return prototypes


def check_library(text, header):
    expected, found, names = prototypes_of_header(header), prototypes_of_page(text), set(NAME.findall(text))
    yield from (f"{LIBRARY} does not have {expected[name]}" for name in expected if expected[name] != found.get(name))
    yield from (f"{LIBRARY} does not have {name} in NAME" for name in expected if name not in names)
    yield from (f"{LIBRARY} has {name}, which client.h does not" for name in (names | set(found)) - set(expected))


def check(page, text, help_texts, header):
    return list(check_library(text, header) if page == LIBRARY else check_program(page, text, help_texts[page]))


def unnoticed(page, text, help_texts, header):
    for match in DESCRIPTION.finditer(text):
        if not check(page, text[: match.start()] + text[match.end() :], help_texts, header):
            yield f"{page} without {match[0].strip()} was not found"
    for addition in ADDITIONS[page]:
        if not check(page, text + addition, help_texts, header):
            yield f"{page} with {addition.strip()} was not found"


def main():
    help_texts = read_help(Path(sys.argv[1]))
    header = (SOURCE / "include/gradientd/client.h").read_text()
    faults = []
    for page in (*PROGRAMS, LIBRARY):
        text = (SOURCE / "docs/man" / page).read_text()
        faults += check(page, text, help_texts, header) or unnoticed(page, text, help_texts, header)
    for fault in faults:
        print(f"man_pages: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
