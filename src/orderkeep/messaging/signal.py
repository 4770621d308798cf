"""A wake-up between a commit and whoever waits for what it wrote; the poll stays the truth."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Signal:
    """Wakes one waiting loop of this process; any number of calls make one wake-up."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._tell_others: Callable[[], None] | None = None

    def relay_to(self, tell_others: Callable[[], None]) -> None:
        """Let every `set` be told to other processes as well, whose loops may be the ones to wake.

        Args:
            tell_others: Returns at once; what it does, and whether it succeeds, is its own affair.
        """
        self._tell_others = tell_others

    def set(self) -> None:
        """Wake the waiter now, or at its next wait; and those in other processes."""
        self._event.set()
        if self._tell_others is not None:
            self._tell_others()

    def wake(self) -> None:
        """Wake the waiter of this process alone: another process has told."""
        self._event.set()

    def clear(self) -> None:
        """Forget earlier calls. Done *before* reading what they announced, so none is missed."""
        self._event.clear()

    async def wait(self, *, timeout_s: float | None) -> bool:
        """Wait for a call; return whether there was one before the time ran out."""
        if timeout_s is not None and timeout_s <= 0:
            return self._event.is_set()
        return await is_set_within(self._event, timeout_s=timeout_s)

    @asynccontextmanager
    async def also_set_by(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """Let the stop event wake the waiter as well, as long as the context lasts."""

        async def wake_on_stop() -> None:
            await stop.wait()
            self.wake()

        task = asyncio.create_task(wake_on_stop())
        try:
            yield
        finally:
            task.cancel()


async def is_set_within(event: asyncio.Event, *, timeout_s: float | None) -> bool:
    """Wait for the event; return whether it was set before the time ran out.

    Every pause of a loop waits for its stop event this way, so that shutdown is prompt.
    """
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return False
    return True
