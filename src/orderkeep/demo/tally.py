"""What the shoppers saw, counted: answers by code, latencies, orders, and surprises."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

# Samples kept of one step, eight bytes each; later ones are counted, not measured.
SAMPLE_COUNT_MAX = 1_000_000

# Enough to see what is wrong; a broken service would fill pages.
SURPRISE_COUNT_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long one step took, over all shoppers."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


# Quoted: `array` takes no brackets at run time before Python 3.12.
Samples: TypeAlias = "array[float]"


def _new_samples() -> Samples:
    return array("d")


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts everything; one event loop writes to it, so it needs no lock."""

    visits: Counter[str] = field(default_factory=Counter)
    answers: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    order_count: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)
    surprise_count: int = 0
    _samples: defaultdict[str, Samples] = field(default_factory=lambda: defaultdict(_new_samples))

    def answer(self, step: str, *, code: str, elapsed_s: float) -> None:
        """Count one answer to a step, or what came instead of one."""
        self.answers[step][code] += 1
        self.duration(step, elapsed_s=elapsed_s)

    def duration(self, step: str, *, elapsed_s: float) -> None:
        """Count how long a step took that is more than one request."""
        samples = self._samples[step]
        if len(samples) < SAMPLE_COUNT_MAX:
            samples.append(elapsed_s * 1000)

    def surprise(self, text: str) -> None:
        """Note something that no client should ever see."""
        self.surprise_count += 1
        if len(self.surprises) < SURPRISE_COUNT_MAX:
            self.surprises.append(text)

    def latencies(self) -> Mapping[str, Latency]:
        """Return the latency of each step, by its name."""
        return {step: _latency(sorted(samples)) for step, samples in sorted(self._samples.items())}


def _latency(sorted_ms: Sequence[float]) -> Latency:
    return Latency(
        count=len(sorted_ms),
        p50_ms=percentile(sorted_ms, percent=50),
        p95_ms=percentile(sorted_ms, percent=95),
        p99_ms=percentile(sorted_ms, percent=99),
        max_ms=round(sorted_ms[-1], 2),
    )


def percentile(sorted_values: Sequence[float], *, percent: int) -> float:
    """Return the smallest value that at least so many percent of all values do not exceed.

    Args:
        sorted_values: In rising order; at least one.
        percent: 1 to 100.
    """
    rank = -(-len(sorted_values) * percent // 100)
    return round(sorted_values[rank - 1], 2)
