"""Waiting on conditions: what tests do instead of sleeping."""

import asyncio
import time
from collections.abc import Callable

# Long enough for the slowest shared machine; a condition that comes true is never waited out.
DEADLINE_S = 30.0


async def eventually(condition: Callable[[], bool], *, deadline_s: float = DEADLINE_S) -> None:
    """Return once the condition holds; fail if it does not in time."""
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, "the condition did not come true in time"
        await asyncio.sleep(0.005)
