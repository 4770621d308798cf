"""Whole transactions again, where nothing of them was committed: with pauses, and a limit."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

# The first pause lets whoever was in the way commit, which takes some milliseconds; the longest is
# short beside what a person waits for a request.
_PAUSE_BASE_S = 0.005
_PAUSE_MAX_S = 0.5


async def run_again(
    attempt: Callable[[], Awaitable[T]],
    *,
    tries_max: Mapping[type[Exception], int],
    draw_jitter: Callable[[], float],
) -> T:
    """Return what an attempt returns, making a new one after the errors that are named.

    Args:
        attempt: Is made at least once.
        tries_max: After so many attempts that failed with an error of this class it is raised.
        draw_jitter: Draws 0.0..1.0 for each pause.
    """
    failed_counts: Counter[type[Exception]] = Counter()
    while True:
        try:
            return await attempt()
        except tuple(tries_max) as error:
            failed_counts[type(error)] += 1
            if failed_counts[type(error)] >= tries_max[type(error)]:
                raise
        pause_s = min(_PAUSE_BASE_S * 2 ** failed_counts.total(), _PAUSE_MAX_S)
        await asyncio.sleep(pause_s * (0.5 + draw_jitter()))
