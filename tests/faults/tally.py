"""What a part of the programme came to, and several parts together: as a table, and as JSON.

The shape is the one in which RabbitMQ reports its own such tests: attempted, acknowledged, found,
lost, doubled, recovered, unexpected.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

# What is asked for.
BOUNDS_S: Mapping[str, float] = {
    "PostgreSQL back until writes are accepted": 5.0,
    "everything drained after the last fault": 60.0,
    "closings late after the last fault": 60.0,
}

# While faults are made, somebody looks at the stock so often at least, on a machine that is busy.
_LOOKS_PER_S_MIN = 2.0

# What others than those who order are told of.
PAYMENTS = "payments"
CANCELS = "cancels"
REFUNDS = "refunds given back"
CASES = "cases resolved"
RESTOCKS = "stock put there"
TOLD = (PAYMENTS, CANCELS, REFUNDS, CASES, RESTOCKS)

# What may not be, ever.
_ZERO = ("lost", "doubled", "oversold", "stuck", "unexpected")


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts; times are in seconds.

    Attributes:
        attempted: Orders that were asked for, by key.
        acknowledged: Of these, how many a client was told of, at first or when it asked again.
        found: Of these, how many are there.
        recovered: Orders of which nobody was told at first, and that had been made.
        refused: Orders that somebody who was there said no to, for want of stock.
        unreached: Orders that reached nobody.
        told: What besides was acknowledged and must be true in the end, by what it is.
        oversold: What the watcher of the stock found not to add up.
        stuck: What had not come to rest in time.
        kills: Processes that were killed, by kind.
        faults: Faults made, by kind.
        points: How often a process died at each failure point.
        races: Who won, and how often.
        snapshots: How often the stock was looked at.
        looks_during_faults: How often it was while faults were made, or the database was away.
        faults_s: How long faults were made.
        errors: What was logged as an error, by event.
        recoveries_s: What was measured, by what it is.
        findings: What is wrong, for a person.
    """

    name: str
    seed: int | None = None
    commit: str = ""
    attempted: int = 0
    acknowledged: int = 0
    found: int = 0
    lost: int = 0
    doubled: int = 0
    recovered: int = 0
    unexpected: int = 0
    oversold: int = 0
    stuck: int = 0
    refused: int = 0
    unreached: int = 0
    told: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    not_now: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    cuts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    races: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    snapshots: int = 0
    snapshots_with_orders: int = 0
    looks_during_faults: int = 0
    faults_s: float = 0.0
    recoveries_s: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    verify_exit_codes: list[int] = field(default_factory=list)
    elapsed_s: float = 0.0
    findings: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return (
            not any(getattr(self, name) for name in _ZERO)
            and not self.findings
            and self.found == self.acknowledged > 0
            and bool(self.verify_exit_codes)
            and not any(self.verify_exit_codes)
        )

    def hold_to_bounds(self) -> None:
        """Note what took longer than it may, what was never tried, and a watcher that slept."""
        untried = [name for name in TOLD if not self.told[name]]
        if untried:
            self.unexpected += 1
            self.findings.append(f"UNEXPECTED: nobody was told of {', '.join(untried)}")
        if self.looks_during_faults < _LOOKS_PER_S_MIN * self.faults_s:
            self.unexpected += 1
            looks = f"{self.looks_during_faults} looks at the stock in {self.faults_s:.0f} s"
            self.findings.append(f"UNEXPECTED: {looks}")
        for what, bound_s in BOUNDS_S.items():
            late = [each for each in self.recoveries_s.get(what, []) if each > bound_s]
            if late:
                self.unexpected += len(late)
                self.findings.append(f"UNEXPECTED: {what}: {max(late):.2f} s, over {bound_s:g} s")

    def table(self) -> str:
        """Return it for a person."""
        rows: list[tuple[str, object]] = [
            ("attempted, acknowledged, found", self._numbers("attempted", "acknowledged", "found")),
            ("lost, doubled, oversold, stuck", self._numbers(*_ZERO[:-1])),
            ("recovered (made, and nobody was told at first)", self.recovered),
            ("unexpected", self.unexpected),
            ("refused, unreached", self._numbers("refused", "unreached")),
            ("acknowledged besides, and found", _told(self.told)),
            ("kills by kind", _told(self.kills)),
            ("connections cut", _told(self.cuts)),
            ("other faults", _told(self.faults)),
            ("failure points that fired", _told(self.points)),
            ("races by winner", _told(self.races)),
            (
                "snapshots of the stock, of these with the orders",
                self._numbers("snapshots", "snapshots_with_orders"),
            ),
            ("orders by status", _told(self.statuses)),
            ("logged as errors", _told(self.errors)),
            ("requests, of these answered 'not now'", self._numbers("requests", "not_now")),
            *(
                (what, f"{_median(times):.2f} s in the middle, {max(times):.2f} s at most")
                for what, times in self.recoveries_s.items()
                if times
            ),
            ("verify --quiesced", ", ".join(f"exit {code}" for code in self.verify_exit_codes)),
            ("seed, commit", f"{self.seed}, {self.commit}"),
            ("elapsed", f"{self.elapsed_s:.0f} s"),
            ("verdict", "clean" if self.is_clean else "WRONG"),
        ]
        lines = [f"== {self.name}", *(f"{name:<65} {value}" for name, value in rows)]
        return "\n".join([*lines, *self.findings])

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**told, "is_clean": self.is_clean}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Return what a document tells.

        Raises:
            TypeError: it is no document of a tally.
        """
        given = {name: value for name, value in document.items() if name != "is_clean"}
        counters = ("told", "kills", "cuts", "faults", "points", "races", "statuses", "errors")
        return cls(**{**given, **{name: Counter(given.get(name, ())) for name in counters}})

    def _numbers(self, *names: str) -> str:
        return ", ".join(f"{getattr(self, name):,}" for name in names)


def total_of(tallies: Sequence[Tally], *, name: str = "total") -> Tally:
    """Return the sum of several."""
    total = Tally(name=name)
    for each in fields(Tally):
        values = [getattr(tally, each.name) for tally in tallies]
        if each.name in {"name", "seed", "commit", "recoveries_s"}:
            continue
        total_value: Any = getattr(total, each.name)
        for value in values:
            total_value = total_value + value
        setattr(total, each.name, total_value)
    times: defaultdict[str, list[float]] = defaultdict(list)
    for tally in tallies:
        for what, seconds in tally.recoveries_s.items():
            times[what] += seconds
    total.recoveries_s = dict(times)
    seeds = {tally.seed for tally in tallies}
    total.seed = seeds.pop() if len(seeds) == 1 else None
    total.commit = ", ".join(sorted({tally.commit for tally in tallies}))
    return total


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items())) or "none"


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
