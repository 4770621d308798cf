"""Runs many seeds, adds up what they say, and prints it."""

import gc
import json
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.simulation.run import Outcome, run_seed

# A broken build breaks nearly every world: a few tell enough.
_BROKEN_SEEDS_MAX = 5


@dataclass(slots=True)
class Totals:
    """What many worlds add up to."""

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

    def add(self, outcome: Outcome) -> None:
        """Add one world."""
        self.first_seed = self.first_seed or outcome.seed
        self.last_seed = outcome.seed
        self.seeds_count += 1
        self.orders_count += outcome.orders_count
        self.stored_count += outcome.stored_count
        self.commits_count += outcome.commits_count
        self.virtual_s += outcome.virtual_s
        self.digests.append(outcome.digest)
        self.breaches += [(outcome.seed, str(breach)) for breach in outcome.breaches]
        for name in ("faults", "points", "races", "ends", "asked"):
            self.counts.setdefault(name, Counter()).update(getattr(outcome, name))

    @property
    def broken_seeds_count(self) -> int:
        return len({seed for seed, _ in self.breaches})

    def as_json(self) -> str:
        """Return everything, for programs."""
        return json.dumps(
            {
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


def run_range(
    first: int,
    last: int,
    *,
    totals: Totals,
    orders_count: int,
    orders_max: int | None = None,
    is_traced: bool = False,
    for_s_max: float = 600.0,
) -> None:
    """Run the seeds one after the other, within the limits, and add them up."""
    began_s = time.monotonic()
    began_processor_s = time.process_time()
    for seed in range(first, last + 1):
        totals.add(run_seed(seed, orders_count=orders_count, is_traced=is_traced))
        # What a world leaves behind is one big cycle. What the first one leaves is the product's
        # code and its statements: those need not be looked at again.
        gc.collect()
        if totals.seeds_count == 1:
            gc.freeze()
        totals.real_s = time.monotonic() - began_s
        totals.processor_s = time.process_time() - began_processor_s
        is_enough = orders_max is not None and totals.orders_count >= orders_max
        is_broken = totals.broken_seeds_count >= _BROKEN_SEEDS_MAX
        if is_enough or is_broken or totals.real_s >= for_s_max:
            break
