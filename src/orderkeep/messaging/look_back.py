"""How far back a reading of an outbox begins.

What was sent leaves dead entries in the index of what is pending until the server vacuums the
table, and of twenty million rows it lets four million die before it does. A reading that began with
the first of them would pass over all of them each time, which takes tens of milliseconds. So it
begins a little before the oldest row that the last one found or that is on its way, for what comes
after that one may be as old; and at the very beginning now and then, and whenever rows may have
become its own, or due, that are older.

Invariant: a row that is due, and that nothing holds back, is found within `FULL_INTERVAL_S`,
however old it is. What was just appended is found at once. All of this is in memory: a process that
begins again begins at the beginning.
"""

from collections.abc import Sequence
from math import inf

from orderkeep.instant import Instant, after
from orderkeep.messaging.outbox_reading import BEGINNING, PendingRow, Ready

# A reading of everything takes tens of milliseconds at most, so this is less than a hundredth of
# the time; and nobody minds that an event which was held up for long is held up for so much longer.
FULL_INTERVAL_S = 5.0

# A row bears the time at which its transaction began, and is seen when that has ended. Few take
# longer; what comes later is found by the next reading of everything.
SLACK_S = 10.0


class LookBack:
    """Tells one dispatcher where its next reading begins."""

    def __init__(self) -> None:
        """Begin at the beginning."""
        self._since = BEGINNING
        # When everything was read last; None lets the next reading be of everything.
        self._full_at_s: float | None = None
        self._is_last_full = False
        self._partitions: frozenset[int] = frozenset()

    def begin_reading(
        self, *, at_s: float, partitions: frozenset[int], paused_routes: Sequence[str]
    ) -> Instant:
        """Return the earliest `not_before` that the reading need look at.

        Args:
            at_s: Now, by a clock that only rises.
            partitions: Whose rows are read: others may have old ones.
            paused_routes: Whose rows are not read: they grow old, and are due when that ends.
        """
        is_full_due = self._full_at_s is None or at_s - self._full_at_s >= FULL_INTERVAL_S
        self._is_last_full = bool(is_full_due or partitions != self._partitions or paused_routes)
        if not self._is_last_full:
            return self._since
        self._full_at_s = None if paused_routes else at_s
        self._partitions = partitions
        return BEGINNING

    def full_due_in_s(self, at_s: float) -> float:
        """Return in how many seconds at most whoever found nothing is to read everything."""
        if self._is_last_full or self._full_at_s is None:
            return inf
        return self._full_at_s + FULL_INTERVAL_S - at_s

    def note(self, ready: Ready, *, on_their_way: Sequence[PendingRow] = ()) -> None:
        """Note what a reading found: nothing older was due but what is held back.

        Args:
            on_their_way: What it left out, and with it what must come after.
        """
        oldest_at = min((row.not_before for row in (*on_their_way, *ready.rows)), default=ready.now)
        self._since = max(BEGINNING, after(oldest_at, seconds=-SLACK_S))

    def begin_again(self) -> None:
        """Let the next reading be of everything."""
        self._full_at_s = None
