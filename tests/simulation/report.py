"""Adds up what many worlds say, in words and for programs."""

import json
from collections import Counter
from dataclasses import dataclass, field

from tests.repo.checkout import commit_of_checkout
from tests.simulation.run import Outcome


@dataclass(slots=True)
class Totals:
    """What many worlds add up to, in whatever order they are added.

    Attributes:
        processor_s: Of all processes that ran worlds.
    """

    seeds_count: int = 0
    first_seed: int = 0
    last_seed: int = 0
    orders_count: int = 0
    stored_count: int = 0
    commits_count: int = 0
    virtual_s: float = 0.0
    real_s: float = 0.0
    processor_s: float = 0.0
    breaches: list[tuple[int, str]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, outcome: Outcome, *, processor_s: float) -> None:
        """Add one world, which took so long."""
        self.first_seed = min(self.first_seed or outcome.seed, outcome.seed)
        self.last_seed = max(self.last_seed, outcome.seed)
        self.seeds_count += 1
        self.processor_s += processor_s
        self.orders_count += outcome.orders_count
        self.stored_count += outcome.stored_count
        self.commits_count += outcome.commits_count
        self.virtual_s += outcome.virtual_s
        self.digests.append(outcome.digest)
        self.breaches += [(outcome.seed, str(breach)) for breach in outcome.breaches]
        # Stable: those of one world stay in their order.
        self.breaches.sort(key=lambda breach: breach[0])
        for name in ("faults", "points", "races", "ends", "asked"):
            self.counts.setdefault(name, Counter()).update(getattr(outcome, name))

    @property
    def broken_seeds_count(self) -> int:
        return len({seed for seed, _ in self.breaches})

    def as_progress(self) -> str:
        """Return what one wants to know meanwhile."""
        per_s = self.orders_count / max(self.real_s, 0.001)
        return (
            f"{self.real_s:.0f} s: {self.seeds_count} worlds, {self.orders_count} orders,"
            f" {len(self.breaches)} breaches, {per_s:.0f} orders a second"
        )

    def as_json(self) -> str:
        """Return everything, for programs."""
        return json.dumps(
            {
                "commit": commit_of_checkout(),
                "seeds": [self.first_seed, self.last_seed],
                "seeds_count": self.seeds_count,
                "orders_count": self.orders_count,
                "stored_count": self.stored_count,
                "commits_count": self.commits_count,
                "virtual_s": round(self.virtual_s, 1),
                "real_s": round(self.real_s, 1),
                "processor_s": round(self.processor_s, 1),
                "breaches": self.breaches,
                "digest": self.digests[0] if len(self.digests) == 1 else None,
                **{name: dict(sorted(counts.items())) for name, counts in self.counts.items()},
            }
        )

    def as_text(self) -> str:
        """Return what a person wants to know."""
        per_s = self.orders_count / max(self.real_s, 0.001)
        per_processor_s = self.orders_count / max(self.processor_s, 0.001)
        lines = [
            f"seeds {self.first_seed}..{self.last_seed}: {self.seeds_count} worlds",
            (
                f"{self.orders_count} orders asked for, {self.stored_count} made,"
                f" {self.commits_count} commits"
            ),
            (
                f"{self.virtual_s:.0f} s simulated in {self.real_s:.1f} s:"
                f" {per_s:.0f} orders a second, {per_processor_s:.0f} a second of processor"
            ),
        ]
        for name, counts in self.counts.items():
            shown = ", ".join(f"{key} {count}" for key, count in sorted(counts.items()))
            lines.append(f"{name}: {shown or 'none'}")
        if self.seeds_count == 1:
            lines.append(f"trace {self.digests[0]}")
        lines += [f"BREACH seed {seed}: {words}" for seed, words in self.breaches]
        lines.append(f"{len(self.breaches)} breaches")
        return "\n".join(lines)
