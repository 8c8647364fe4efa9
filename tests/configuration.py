#!/usr/bin/env python3
"""Checks that the installed configuration, its man page, --help and the daemon agree.

Usage: tests/configuration.py BUILD_DIR

The daemon's own list is what --check-config prints: every key with its section and default. conf/gradientd.conf must
have each of them commented out, in its section, with a default that the daemon takes for its own; gradientd.conf(5)
must describe each in its section, with that default; both must say whether a reload applies it; and each must be an
option.
Then leaves each of them out, and adds one, in memory, and fails where that is not found.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
CONF = "conf/gradientd.conf"
PAGE = "docs/man/gradientd.conf.5"

SECTION_LINE = re.compile(r"^\[([a-z]+)\]$", re.MULTILINE)
PRINTED = re.compile(r"^([a-z-]+) {2,}(.+?) {2,}(?:default|\S+:\d+)$", re.MULTILINE)
KEY = re.compile(r"^#([a-z-]+) =(?: (.+))?$", re.MULTILINE)
PAGE_SECTION = re.compile(r"^\.Ss \[([a-z]+)\]$", re.MULTILINE)
PAGE_KEY = re.compile(r"^\.It Cm ([a-z-]+) = Ar \w+$", re.MULTILINE)
TABLE_ENTRY = re.compile(r"\{\"([a-z]+)\", \"([a-z-]+)\",[^{}]*?(true|false)\}")
HELP_OPTION = re.compile(r"^  --([a-z-]+)", re.MULTILINE)


def blocks(text, heading):
    """name -> what follows its heading, up to the next one"""
    parts = heading.split(text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def keys_by_section(text, section_heading, key_heading):
    """(section, key) -> what follows the key, up to the next section"""
    return {
        (section, match[1]): body[match.end() :]
        for section, body in blocks(text, section_heading).items()
        for match in key_heading.finditer(body)
    }


def print_configuration(daemon, text):
    """(section, key) -> the value in force with a file of that text"""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "gradientd.conf"
        path.write_text(text)
        command = [daemon, "--check-config", "--config", path]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(done.stderr.strip().replace(f"gradientd: {path}", CONF))
    return {
        (section, key): value
        for section, body in blocks(done.stdout, SECTION_LINE).items()
        for key, value in PRINTED.findall(body)
    }


def live_keys(table):
    return {(section, key) for section, key, live in TABLE_ENTRY.findall(table) if live == "true"}


def check_conf(text, defaults, live, daemon):
    found = keys_by_section(text, SECTION_LINE, KEY)
    yield from (f"{CONF} does not have [{section}] {key}" for section, key in sorted(defaults.keys() - found.keys()))
    try:
        taken = print_configuration(daemon, KEY.sub(lambda match: match[0][1:], text))
    except ValueError as error:
        yield f"{CONF} without its comments is wrong: {error}"
        return
    for (section, key), value in defaults.items():
        if taken[section, key] != value:
            yield f"{CONF} says that the default of {key} is {taken[section, key]}, it is {value}"
    for paragraph in text.split("\n\n"):
        for key in (key for key in defaults if re.search(rf"^#{key[1]} =", paragraph, re.MULTILINE)):
            if ("Live." in paragraph) != (key in live):
                yield f"{CONF} is wrong on whether {key[1]} is live"


def check_page(text, conf, defaults, live):
    found = keys_by_section(text, PAGE_SECTION, PAGE_KEY)
    missing = sorted(defaults.keys() - found.keys())
    yield from (f"{PAGE} does not describe [{section}] {key}" for section, key in missing)
    unknown = sorted(found.keys() - defaults.keys())
    yield from (f"{PAGE} has [{section}] {key}, which the daemon does not know" for section, key in unknown)
    given = dict(KEY.findall(conf))
    for key in found.keys() & defaults.keys():
        description = re.split(r"^\.(?:It|El)", found[key], flags=re.MULTILINE)[0]
        words = description.replace("\n.Cm ", " ").replace(" .\n", ".\n")
        default = given.get(key[1])
        if "\nDefault:" not in words or (default and f"Default: {default}." not in words):
            yield f"{PAGE} does not say that the default of {key[1]} is {default}"
        if (".Em Live" in description) != (key in live):
            yield f"{PAGE} is wrong on whether {key[1]} is live"


class Checker:
    def __init__(self, build):
        self.daemon = build / "daemon/gradientd"
        self.defaults = print_configuration(self.daemon, "")
        self.table = (SOURCE / "daemon/settings.c").read_text()
        help_text = subprocess.run([self.daemon, "--help"], check=True, capture_output=True, text=True).stdout
        self.options = set(HELP_OPTION.findall(help_text))

    def check(self, conf, page):
        live = live_keys(self.table)
        if len(TABLE_ENTRY.findall(self.table)) != len(self.defaults) or not live:
            yield "the table in daemon/settings.c cannot be read"
        yield from (f"--{key} is no option" for _, key in self.defaults if key not in self.options)
        yield from check_conf(conf, self.defaults, live, self.daemon)
        yield from check_page(page, conf, self.defaults, live)

    def unnoticed(self, conf, page):
        for match in KEY.finditer(conf):
            broken = conf[: match.start()] + conf[match.end() + 1 :]
            if not list(self.check(broken, page)):
                yield f"{CONF} without {match[0]} was not found"
        for match in PAGE_KEY.finditer(page):
            if not list(self.check(conf, page[: match.start()] + page[match.end() + 1 :])):
                yield f"{PAGE} without {match[0]} was not found"
        new_key = ".It Cm none = Ar n\nDefault: 1.\n.El\n.Ss [socket]"
        additions = [
            (conf + "#none =\n", page, "one key too many in the file"),
            (conf.replace("256\n", "255\n"), page, "another default in the file"),
            (conf, page.replace("Default: 256.", "Default: 255."), "another default in the page"),
            (conf.replace(" Live.", "", 1), page, "what is live left out of the file"),
            (conf, page.replace(".Em Live .\n", "", 1), "what is live left out of the page"),
            (conf, page.replace(".El\n.Ss [socket]", new_key), "a new key in the page"),
        ]
        for broken, broken_page, what in additions:
            if (broken, broken_page) == (conf, page) or not list(self.check(broken, broken_page)):
                yield f"{what} was not found"


def main():
    checker = Checker(Path(sys.argv[1]))
    texts = (SOURCE / CONF).read_text(), (SOURCE / PAGE).read_text()
    faults = list(checker.check(*texts)) or list(checker.unnoticed(*texts))
    for fault in faults:
        print(f"configuration: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
