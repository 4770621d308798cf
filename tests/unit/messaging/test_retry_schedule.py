"""Pauses grow, are spread, and never exceed their maximum."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderkeep.messaging.retry_schedule import pause_before_attempt


def test_the_mean_pause_doubles_up_to_the_maximum():
    pauses_s = [
        pause_before_attempt(attempt, jitter=0.5, base_s=1, max_s=300) for attempt in range(1, 12)
    ]

    assert pauses_s == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_sixteen_tries_take_about_forty_minutes():
    pauses_s = [
        pause_before_attempt(attempt, jitter=0.5, base_s=1, max_s=300) for attempt in range(1, 16)
    ]

    assert sum(pauses_s) == 2311


@pytest.mark.parametrize(("jitter", "pause_s"), [(0.0, 2), (0.25, 3), (1.0, 6)])
def test_jitter_moves_a_pause_between_half_and_one_and_a_half(jitter: float, pause_s: float):
    assert pause_before_attempt(3, jitter=jitter, base_s=1, max_s=300) == pause_s


@given(
    attempt=st.integers(1, 10**9),
    jitter=st.floats(0, 1),
    base_s=st.floats(0.001, 10),
    growth=st.floats(1, 1000),
)
def test_every_pause_is_positive_and_at_most_the_maximum(
    attempt: int, jitter: float, base_s: float, growth: float
):
    max_s = base_s * growth

    pause_s = pause_before_attempt(attempt, jitter=jitter, base_s=base_s, max_s=max_s)

    assert 0 < pause_s <= max_s


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempt": 0},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"base_s": 0},
        {"base_s": 2, "max_s": 1},
    ],
)
def test_what_makes_no_pause_is_refused(wrong: dict):
    arguments: dict[str, Any] = {"attempt": 1, "jitter": 0.5, "base_s": 1, "max_s": 300} | wrong

    with pytest.raises(ValueError, match=r"attempt|jitter|grow"):
        pause_before_attempt(arguments.pop("attempt"), **arguments)
