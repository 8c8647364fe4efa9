"""Compares an event file with what the reference says it must hold."""

import math

from readers import read_steps
from reference import Reference

# The file holds f32 (relative 6e-8); sums are f32 lanes of 64 addends each, then doubles; the optimiser's state is f32
# and moves by one rounding a step: all well inside 1e-5.
RELATIVE = 1e-5

# A dot product's error is relative to |g_t| |g_{t-m}|, not to itself: each of its lanes adds 64 products in f32, which
# is off by at most 64 x 6e-8 of the sum of their sizes, and typically by 1e-7.
ABSOLUTE = {"coherence/": 5e-7, "coherence_probe/": 5e-7, "group_cosine_": 5e-7}

# Slopes are differences of logarithms: a relative error d of each of four sums moves them by up to 4 d / ln 2.
SLOPE_ABSOLUTE = 4 * RELATIVE / math.log(2)


def tolerance(tag, expected):
    if "/slope_" in tag:
        return SLOPE_ABSOLUTE
    absolute = next((bound for prefix, bound in ABSOLUTE.items() if tag.startswith(prefix)), 0.0)
    return RELATIVE * abs(expected) + absolute


def compare_values(step, found, expected, relative=None, slack=None):
    """`relative`: tag -> tolerance, where it is not the common one; `slack`: tag -> what a difference may be off by, as
    its terms are rounded."""
    missing, unexpected = expected.keys() - found.keys(), found.keys() - expected.keys()
    assert not missing and not unexpected, f"step {step}: missing {sorted(missing)}, unexpected {sorted(unexpected)}"
    for tag, value in expected.items():
        bound = tolerance(tag, value)
        if relative and tag in relative:
            bound = relative[tag] * abs(value)
        if slack and tag in slack:
            bound += slack[tag]
        assert abs(found[tag] - value) <= bound, f"step {step}, {tag}: {found[tag]!r} is not {value!r} +- {bound:.1e}"


def compare_file(run, records, path, relative=None, without=()):
    """Every value of every step, and no other, none of the families `without`; returns the expected values per step."""
    reference = Reference(run)
    expected, slack = {}, {}
    for record in records:
        values = {**reference.step(record), **dict(record.scalars)}
        expected[record.step] = {tag: value for tag, value in values.items() if not tag.startswith(without)}
        slack[record.step] = dict(reference.slack)
    found = read_steps(path)
    assert found.keys() == expected.keys()
    for step, values in expected.items():
        compare_values(step, found[step], values, relative, slack[step])
    return expected
