"""How far back a reading of an outbox begins.

What was sent leaves dead entries in the index of what is pending until the server vacuums the
table, and of twenty million rows it lets four million die before it does. A reading that began with
the first of them would pass over all of them each time, which takes tens of milliseconds. So it
begins a little before the oldest row that the last one found; and at the very beginning now and
then, and whenever rows may have become its own that are older.

Invariant: a row that is due, and that nothing holds back, is found within `FULL_INTERVAL_S`,
however old it is. What was just appended is found at once.
"""

from collections.abc import Sequence

from orderkeep.instant import Instant, after
from orderkeep.messaging.outbox_reading import BEGINNING, Ready

# At most what an idle dispatcher waits before it looks again: `DispatchPolicy.poll_interval_s`.
FULL_INTERVAL_S = 5.0

# A row bears the time at which its transaction began, and is seen when that has ended: no
# transaction takes longer, for its statements are bounded.
SLACK_S = 10.0


class LookBack:
    """Tells one dispatcher where its next reading begins."""

    def __init__(self) -> None:
        """Begin at the beginning."""
        self._since = BEGINNING
        self._full_at_s = -FULL_INTERVAL_S
        self._partitions: frozenset[int] = frozenset()

    def since(
        self, *, at_s: float, partitions: frozenset[int], paused_routes: Sequence[str]
    ) -> Instant:
        """Return the earliest `not_before` that the reading need look at.

        Args:
            at_s: Now, by a clock that only rises.
            partitions: Whose rows are read: others may have old ones.
            paused_routes: Whose rows are not read: they grow old, and are due when that ends.
        """
        is_full_due = at_s - self._full_at_s >= FULL_INTERVAL_S
        if is_full_due or partitions != self._partitions or paused_routes:
            # With a route paused each is full, and so is the first one after.
            self._full_at_s = at_s - FULL_INTERVAL_S if paused_routes else at_s
            self._partitions = partitions
            return BEGINNING
        return self._since

    def note(self, ready: Ready) -> None:
        """Note what a reading found: nothing older was due but what is held back."""
        oldest_at = ready.rows[0].not_before if ready.rows else ready.now
        self._since = max(BEGINNING, after(oldest_at, seconds=-SLACK_S))
