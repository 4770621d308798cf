"""What the shoppers saw, counted."""

import pytest

from orderkeep.demo.tally import Latency, Tally, percentile


def test_answers_are_counted_by_step_and_code() -> None:
    tally = Tally()

    tally.answer("order", code="201", elapsed_s=0.010)
    tally.answer("order", code="out_of_stock", elapsed_s=0.030)
    tally.answer("order", code="201", elapsed_s=0.020)

    assert tally.answers == {"order": {"201": 2, "out_of_stock": 1}}
    assert tally.latencies() == {
        "order": Latency(count=3, p50_ms=20.0, p95_ms=30.0, p99_ms=30.0, max_ms=30.0)
    }


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([1.0, 2.0], 50, 1.0),
        ([1.0, 2.0, 3.0, 4.0], 95, 4.0),
        ([float(number) for number in range(1, 101)], 99, 99.0),
        ([float(number) for number in range(1, 1001)], 95, 950.0),
    ],
)
def test_a_percentile_is_one_of_the_values(
    values: list[float], percent: int, expected: float
) -> None:
    assert percentile(values, percent=percent) == expected


def test_surprises_are_counted_beyond_those_that_are_kept() -> None:
    tally = Tally()

    for number in range(30):
        tally.surprise(f"surprise {number}")

    assert tally.surprise_count == 30
    assert tally.surprises == [f"surprise {number}" for number in range(20)]
