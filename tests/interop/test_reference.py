"""The reference itself meets the golden values, so that it can judge the daemon."""

import pytest

from problems import P2_GOLDEN, p2_run, p2_steps
from reference import Reference


@pytest.mark.parametrize("case", ["adam-11", "amsgrad-110000"])
def test_reference_meets_golden_values(case):
    rule, rate_of, count, golden = P2_GOLDEN[case]
    reference = Reference(p2_run(rule))
    for step in p2_steps(rule, rate_of, count):
        values = reference.adam(step)
    assert [values[f"adam/{name}"] for name in "ABCD"] == pytest.approx(golden, rel=2e-7)
