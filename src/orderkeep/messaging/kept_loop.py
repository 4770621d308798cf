"""Keeps a loop at work: what falls over is logged, and stands up again after a growing pause.

Invariant: a loop ends because it was told to stop, never because of an error. What it had in hand
when it fell is found again by its next start: every loop of the kernel reads its work from the
database or the broker.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from orderkeep.messaging.retry_schedule import pause_before_attempt
from orderkeep.messaging.signal import is_set_within

log = structlog.get_logger()

PAUSE_BASE_S = 1.0
PAUSE_MAX_S = 30.0


async def keep_running(
    run: Callable[[asyncio.Event], Awaitable[None]],
    *,
    name: str,
    stop: asyncio.Event,
    draw_jitter: Callable[[], float],
    fatal: tuple[type[Exception], ...] = (),
) -> None:
    """Run the loop until the stop event is set, again and again if need be.

    Args:
        run: The loop; it returns soon after the event is set.
        name: What log lines call it.
        stop: Tells everyone to stop.
        draw_jitter: Draws 0.0..1.0 for each pause.
        fatal: Errors that no pause mends: they end the loop, and are raised.
    """
    failures_count = 0
    clock = asyncio.get_running_loop().time
    while not stop.is_set():
        started_s = clock()
        try:
            await run(stop)
        except fatal:
            raise
        except Exception:
            # A loop that did well for longer than the longest pause starts over with short ones.
            has_done_well = clock() - started_s > PAUSE_MAX_S
            failures_count = 1 if has_done_well else failures_count + 1
            pause_s = pause_before_attempt(
                failures_count, jitter=draw_jitter(), base_s=PAUSE_BASE_S, max_s=PAUSE_MAX_S
            )
            log.exception("loop_failed", loop=name, pause_s=round(pause_s, 1))
            await is_set_within(stop, timeout_s=pause_s)
        else:
            if not stop.is_set():
                # As wrong as an error: nobody told it to end.
                failures_count += 1
                log.error("loop_ended", loop=name)
                await is_set_within(stop, timeout_s=PAUSE_BASE_S)
