"""An event loop without a clock, sockets or threads: time jumps to the next timer.

Everything that runs on it runs in one thread, in an order that depends on nothing but the code and
the delays it asks for; so the same draws give the same run.
"""

import asyncio
from asyncio.events import Handle, TimerHandle
from collections import deque
from contextvars import Context
from heapq import heappop, heappush
from typing import Any


class StuckError(Exception):
    """Nothing is ready and no timer is set: nothing would ever happen again."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop on virtual time, in seconds from 0.

    Timers that are due at the same moment run in the order in which they were set.
    """

    # Of the loop's parent, which declares neither.
    _ready: deque[Handle]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._timers: list[tuple[float, int, TimerHandle]] = []
        self._timers_count = 0

    def time(self) -> float:
        """Return the virtual time."""
        return self.now_s

    # The types of what is passed on are the parent's business: here they are any.
    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> Handle:
        """Run the callback after those that are ready."""
        handle = Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]  # see call_soon
        self,
        delay: float,
        callback: Any,
        *args: Any,
        context: Context | None = None,
    ) -> TimerHandle:
        """Run the callback so many seconds later."""
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]  # see call_soon
        self,
        when: float,
        callback: Any,
        *args: Any,
        context: Context | None = None,
    ) -> TimerHandle:
        """Run the callback at that time."""
        handle = TimerHandle(when, callback, args, self, context)
        self._timers_count += 1
        # Compared as numbers: timers themselves take several times as long to compare.
        heappush(self._timers, (when, self._timers_count, handle))
        return handle

    def _run_once(self) -> None:
        ready = self._ready
        if not ready and not self._stopping:
            self._jump()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _jump(self) -> None:
        """Move the clock to the next timer, and make ready what is due then."""
        timers, ready = self._timers, self._ready
        while timers and not ready:
            when, _, handle = heappop(timers)
            if handle._cancelled:
                continue
            self.now_s = max(self.now_s, when)
            ready.append(handle)
        if not ready:
            message = "every task waits for another one"
            raise StuckError(message)
        while timers and timers[0][0] <= self.now_s:
            ready.append(heappop(timers)[2])

    def _timer_handle_cancelled(self, handle: TimerHandle) -> None:
        """Leave it in its place: it is passed over when its time comes."""

    def _process_events(self, event_list: object) -> None:
        """Have no events: there are no sockets."""

    def _write_to_self(self) -> None:
        message = "another thread called: a simulation has none"
        raise AssertionError(message)
