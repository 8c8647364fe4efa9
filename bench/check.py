#!/usr/bin/env python3
"""Checks that a benchmark's JSON is what its readers expect, and prints it as a table.

Usage: bench/check.py FILE
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


def check(row):
    for field, kind in FIELDS.items():
        value = float(row[field]) if isinstance(row[field], int) and kind is not int else row[field]
        assert isinstance(value, kind), f"{row.get('name')}: {field} is {value!r}"
    assert row.keys() == FIELDS.keys(), f"{row['name']}: fields {sorted(row)}"
    assert row["better"] in ("lower", "higher"), row
    assert row["repetitions"] >= 1 and row["low"] <= row["value"] <= row["high"], row
    assert math.isfinite(row["value"]), row


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = json.load(file)
    for row in rows:
        check(row)
        goal = "" if row["goal"] is None else f"{'>=' if row['better'] == 'higher' else '<='} {row['goal']:g}"
        print(f"{row['name']:64} {row['value']:10.4g} {goal:>10}  {row['unit']}")
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names), "two rows have one name"
    assert rows, "no rows"
    print(f"{len(rows)} rows")


if __name__ == "__main__":
    main()
