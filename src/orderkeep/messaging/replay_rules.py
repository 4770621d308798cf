"""How a replay goes about it: how fast, and how far back once can still be proved. PURE."""

from dataclasses import dataclass

from orderkeep.instant import Instant, after
from orderkeep.messaging.retention import RetentionPolicy

# What is replayed takes its time until it takes effect: sixteen tries last forty minutes.
_ON_ITS_WAY_S = 3_600.0

# How long a consumer surely knows what has taken effect.
MEMORY_S = RetentionPolicy().inbox_s - _ON_ITS_WAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRules:
    """How a replay goes about it.

    Attributes:
        per_s: Messages that leave in a second; None lets all of them leave at once.
        preceding_count: How many of the same replay were just let go elsewhere, and leave first.
        memory_s: Older messages are refused: their consumers may have forgotten that they took
            effect. None replays them all the same.
    """

    per_s: float | None = None
    preceding_count: int = 0
    memory_s: float | None = MEMORY_S

    def not_before(self, index: int, *, now: Instant) -> Instant | None:
        """Return when the message with this index, from 0, may leave; None is at once."""
        if self.per_s is None:
            return None
        return after(now, seconds=(self.preceding_count + index) / self.per_s)

    def is_remembered(self, *, since: Instant, now: Instant) -> bool:
        """Return whether a consumer that took effect then, or later, surely still knows."""
        return self.memory_s is None or since > after(now, seconds=-self.memory_s)
