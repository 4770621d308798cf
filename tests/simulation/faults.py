"""What may go wrong at every step, and how often: drawn anew for each world.

Each world knows some of the faults only, some of them often: a world in which everything fails all
the time never gets far enough for what is rare.
"""

from collections import Counter
from dataclasses import dataclass, field

from tests.simulation.dice import Stream

DATABASE_FAULTS = (
    "database-away",
    "database-busy",
    "serialization-failure",
    "commit-unknown-and-done",
    "commit-unknown-and-undone",
    "session-lost",
    "database-slow",
)
BROKER_FAULTS = (
    "connection-cut-before-publish",
    "connection-cut-midway",
    "confirm-lost",
    "confirm-late",
    "nack",
    "not-held",
    "delayed-message-forgotten",
    "message-doubled",
    "acknowledgement-lost",
    "broker-slow",
)
NETWORK_FAULTS = ("answer-lost", "wake-up-lost", "channel-unavailable", "channel-answer-lost")

# Of each operation of the kind, when the world knows the fault: from rarely to every tenth.
_RATES = (0.002, 0.01, 0.03, 0.1)


@dataclass(slots=True)
class Faults:
    """The faults of one world."""

    draws: Stream
    rates: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def drawn(cls, draws: Stream) -> "Faults":
        """Draw which faults the world knows, and how often each happens."""
        faults = cls(draws)
        intensity = draws.random()
        for name in (*DATABASE_FAULTS, *BROKER_FAULTS, *NETWORK_FAULTS):
            if draws.random() < intensity:
                faults.rates[name] = draws.choice(_RATES)
        return faults

    def stop(self) -> None:
        """Let everything go well from now on."""
        self.rates = {}

    def one_of(self, *names: str) -> str | None:
        """Draw which of the faults happens now, if any does."""
        if not self.rates:
            return None
        drawn = self.draws.random()
        for name in names:
            rate = self.rates.get(name)
            if rate is not None:
                drawn -= rate
                if drawn < 0:
                    self.counts[name] += 1
                    return name
        return None

    def happens(self, name: str) -> bool:
        """Draw whether the fault happens now."""
        rate = self.rates.get(name)
        if rate is None or self.draws.random() >= rate:
            return False
        self.counts[name] += 1
        return True

    def note(self, name: str) -> None:
        """Count a fault that somebody else has drawn."""
        self.counts[name] += 1
