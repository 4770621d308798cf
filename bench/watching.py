"""Looks into the database of a running service, read only and from outside its process."""

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.figures import say

_LOOK_AGAIN_S = 0.05
_SHOW_AGAIN_S = 1.0

# SQLite's clock in microseconds, as the service's own statements have it.
_NOW = "SELECT CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER) * 1000"

_READY_EVENTS = (
    "SELECT count(*) FROM order_outbox WHERE state = 'pending' AND not_before <= ?",
    "SELECT count(*) FROM cart_outbox WHERE state = 'pending' AND not_before <= ?",
    "SELECT count(*) FROM payment_outbox WHERE state = 'pending' AND not_before <= ?",
)
_DUE_MESSAGES = "SELECT count(*) FROM queue_messages WHERE due_at <= ?"


class Watch:
    """A read-only connection beside the service's own."""

    def __init__(self, path: Path, *, check: Callable[[], None]) -> None:
        """Look into the file, which exists.

        Args:
            path: The service's database.
            check: Raises if the service no longer runs; called while something is waited for.
        """
        self._check = check
        self._connection = sqlite3.connect(
            f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=5.0
        )

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def count_orders(self) -> int:
        """Return how many orders there are."""
        return self._count("SELECT count(*) FROM orders")

    def count_closed(self) -> int:
        """Return how many orders are closed."""
        return self._count("SELECT count(*) FROM orders WHERE status = 'closed'")

    def count_swept(self) -> int:
        """Return how many orders the sweep closed, because no message had."""
        return self._count("SELECT count(*) FROM order_history WHERE actor = 'sweep'")

    def await_closings(self, count: int, *, limit_s: float) -> None:
        """Wait until so many orders are closed, or the time is up; show how it goes."""
        ends_at_s = time.monotonic() + limit_s
        while (closed_count := self.count_closed()) < count and time.monotonic() < ends_at_s:
            say(f"  {closed_count:,} of {count:,} closed")
            self._check()
            threading.Event().wait(_SHOW_AGAIN_S)

    def read_lateness_us(self) -> list[int]:
        """Return how long after its deadline each closed order was closed, in microseconds."""
        rows = self._connection.execute(
            "SELECT closed_at - expires_at FROM orders WHERE status = 'closed'"
        )
        return [row[0] for row in rows]

    def count_backlog(self) -> int:
        """Return how many events and messages could be worked on now and are not done."""
        now = self._count(_NOW)
        return sum(self._count(sql, now) for sql in (*_READY_EVENTS, _DUE_MESSAGES))

    def await_idle(self, *, limit_s: float) -> float:
        """Wait until nothing is left to do in the background; return how long that took.

        Raises:
            TimeoutError: there is still work after the limit.
        """
        started_at_s = time.monotonic()
        while backlog := self.count_backlog():
            if time.monotonic() - started_at_s > limit_s:
                message = f"{backlog} messages still wait after {limit_s:g} s"
                raise TimeoutError(message)
            self._check()
            threading.Event().wait(_LOOK_AGAIN_S)
        return time.monotonic() - started_at_s

    def _count(self, sql: str, *values: int) -> int:
        count: int = self._connection.execute(sql, values).fetchone()[0]
        return count
