#!/usr/bin/env python3
"""Checks that a benchmark's JSON is what its readers expect, and prints it as a table.

Usage: bench/check.py [--markdown] FILE
"""

import json
import math
import sys

FIELDS = {
    "name": str,
    "value": float,
    "goal": (float, type(None)),
    "unit": str,
    "better": str,
    "low": float,
    "high": float,
    "repetitions": int,
}

# What the part "training" compares, each with its median and its 99th percentile.
TRAININGS = (
    "without gradientd",
    "without gradientd again",
    "daemon running",
    "daemon stopped",
    "daemon killed",
    "daemon restarted every second",
)


def check_trainings(rows):
    """All of them are there, or none where the part was left out."""
    found = {row["name"]: row for row in rows if row["name"].startswith("training, ")}
    wanted = {f"training, {quantile}, {of}" for quantile in ("median", "99th percentile") for of in TRAININGS}
    assert not found or found.keys() == wanted, f"trainings: {sorted(found.keys() ^ wanted)}"
    assert all(row["value"] > 0 for row in found.values()), found


def check(row):
    for field, kind in FIELDS.items():
        value = float(row[field]) if isinstance(row[field], int) and kind is not int else row[field]
        assert isinstance(value, kind), f"{row.get('name')}: {field} is {value!r}"
    assert row.keys() == FIELDS.keys(), f"{row['name']}: fields {sorted(row)}"
    assert row["better"] in ("lower", "higher"), row
    assert row["repetitions"] >= 1 and row["low"] <= row["value"] <= row["high"], row
    assert math.isfinite(row["value"]), row


def number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def cells(row):
    spread = f"{number(row['low'])} to {number(row['high'])}" if row["repetitions"] > 1 else ""
    goal = ""
    if row["goal"] is not None:
        missed = row["value"] < row["goal"] if row["better"] == "higher" else row["value"] > row["goal"]
        goal = ("at least " if row["better"] == "higher" else "at most ") + number(row["goal"]) + (" (missed)" * missed)
    return row["name"], number(row["value"]), spread, goal, row["unit"]


def print_table(rows, markdown):
    head = ("", "median", "quartiles", "goal", "unit")
    table = [head, *map(cells, rows)]
    if markdown:
        table.insert(1, ("---",) * len(head))
        for line in table:
            print("| " + " | ".join(line) + " |")
        return
    widths = [max(len(line[i]) for line in table) for i in range(len(head))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def main():
    *options, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        rows = json.load(file)
    assert rows, "no rows"
    for row in rows:
        check(row)
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names), "two rows have one name"
    check_trainings(rows)
    print_table(rows, "--markdown" in options)


if __name__ == "__main__":
    main()
