"""Problem P2's table through the whole path: client, daemon, event file, TensorBoard's own reader."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from problems import P2_GOLDEN, p2_run, p2_steps
from trainer import train


@pytest.mark.parametrize("case", P2_GOLDEN)
def test_final_sums(case, daemon, tmp_path):
    rule, rate_of, count, golden = P2_GOLDEN[case]
    # Thinned, so that the long runs show that the last step is written at the end though its window has begun
    run = p2_run(rule, no_thinning=False)
    path = train(run, p2_steps(rule, rate_of, count), daemon.socket, tmp_path)

    accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0})
    accumulator.Reload()
    last = {name: accumulator.Scalars(f"adam/{name}")[-1] for name in "ABCD"}
    assert {point.step for point in last.values()} == {count}
    assert [last[name].value for name in "ABCD"] == pytest.approx(golden, rel=1e-5)


def test_thinning_keeps_four_digits_of_the_step(daemon, tmp_path):
    count = 20_005
    rule, rate_of, _, _ = P2_GOLDEN["adam-11"]
    run = p2_run(rule, no_thinning=False)
    path = train(run, p2_steps(rule, rate_of, count), daemon.socket, tmp_path)

    accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0})
    accumulator.Reload()
    steps = [point.step for point in accumulator.Scalars("adam/A")]
    assert steps == [*range(1, 10_000), *range(10_000, 20_001, 10), count]
