"""What is done to a shop, and when: drawn from a seed alone, before anything happens.

Invariant: the same seed, part and lane yield the same faults with the same pauses, and the same
seed and process the same lives, whatever comes of them. Only how far a run gets into its schedule
depends on how quick the machine is.

A lane does one fault after the other; the lanes go on side by side. A process has one life after
the other: each may be armed with a failure point, and one that does not die there is killed when
its time is over.
"""

import random  # noqa: TID251 (drawn from a seed that is printed)
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

# For the how-manieth time a point is reached at most when a process dies there. Steps that are
# passed all the time, also at the start, are let through for a while.
_REACH_MAX = {
    "database.before_commit": 10,
    "database.after_commit": 10,
    "intake.before_batch": 3,
    "intake.after_batch": 3,
    "place_orders.after_claim": 3,
    "place_orders.after_orders": 3,
    "place_orders.after_stock": 3,
    "place_orders.after_outbox": 3,
    "write_changes.after_orders": 2,
    "write_changes.after_stock": 2,
    "resolve_cases.after_resolutions": 1,
    "record_payments.after_payments": 2,
    "record_payments.after_changes": 2,
    "sweep.after_batch": 1,
    "webhooks.after_send": 2,
    "dispatcher.after_read": 4,
    "dispatcher.after_publish": 3,
    "dispatcher.before_settle": 3,
    "dispatcher.after_settle": 3,
    "delivery.after_take": 3,
    "delivery.before_handle": 3,
    "delivery.after_handle": 3,
    "delivery.before_commit": 3,
    "delivery.after_commit": 3,
    "delivery.after_acknowledge": 3,
    "refund.claimed": 1,
    "refund.answered": 1,
}

_EVERYWHERE = (
    "database.before_commit",
    "database.after_commit",
    "write_changes.after_orders",
    "write_changes.after_stock",
)
_SERVE = (
    "intake.before_batch",
    "intake.after_batch",
    "place_orders.after_claim",
    "place_orders.after_orders",
    "place_orders.after_stock",
    "place_orders.after_outbox",
    "resolve_cases.after_resolutions",
)

# Steps that few lives come by: more of them are to die there, for as many to get to it.
DRAWN_COUNTS: Mapping[str, int] = {
    "resolve_cases.after_resolutions": 2,
}

# Which points a process of each kind comes by.
POINTS: Mapping[str, Sequence[str]] = {
    "serve": (*_EVERYWHERE, *_SERVE),
    "work": tuple(name for name in _REACH_MAX if name not in _SERVE),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What is done to a process until it ends.

    Attributes:
        point: Where it dies, if it gets there; None is nowhere.
        on_reach: For the how-manieth time there.
        seconds: After so many from its start it is killed, if it lives; if it is armed, from when
            it is ready.
    """

    point: str | None
    on_reach: int
    seconds: float

    @property
    def variables(self) -> dict[str, str]:
        """What its environment needs for that."""
        if self.point is None:
            return {}
        return {
            "ORDERKEEP_TEST_MODE": "1",
            "ORDERKEEP_FAILURE_POINT": f"{self.point}:{self.on_reach}",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeSpan:
    """How long processes live in a part.

    Attributes:
        is_armed: Whether each is to die at a failure point.
        at_least_s: From its start; if it is armed, from when it is ready.
        at_most_s: Likewise.
        without: Failure points at which none dies.
    """

    is_armed: bool
    at_least_s: float
    at_most_s: float
    without: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing done in a lane.

    Attributes:
        pause_s: How long the lane waits before it.
        kind: What is done.
        strength: From 0.0 to 1.0: how long, how much, or to whom; each kind makes its own of it.
    """

    pause_s: float
    kind: str
    strength: float


def draw_lives(seed: int, name: str, *, role: str, span: LifeSpan) -> Iterator[Life]:
    """Draw the lives of a process, without end.

    Args:
        seed: Of the run.
        name: Of the process, different from all others of the run.
        role: `serve` or `work`.
        span: How long they are.
    """
    draw = random.Random(f"{seed} {name}")  # noqa: S311 (a test draws for variety)
    deck: list[str] = []
    while True:
        point, on_reach = None, 1
        if span.is_armed:
            if not deck:
                # Each of them as often as it is to be before one of them more often.
                deck = [
                    name
                    for name in POINTS[role]
                    if name not in span.without
                    for _ in range(DRAWN_COUNTS.get(name, 1))
                ]
                draw.shuffle(deck)
            point = deck.pop()
            on_reach = draw.randint(1, _REACH_MAX[point])
        seconds = draw.uniform(span.at_least_s, span.at_most_s)
        yield Life(point=point, on_reach=on_reach, seconds=seconds)


def draw_faults(
    seed: int, lane: str, *, weights: Mapping[str, int], pause_s_max: float
) -> Iterator[Fault]:
    """Draw the faults of a lane, without end.

    Each kind comes as often as it weighs before any of them comes more often: a short run has all.

    Args:
        seed: Of the run.
        lane: Its name, different from all others of the run.
        weights: How often each kind comes, as whole numbers.
        pause_s_max: The longest pause before a fault; the mean is half of it.
    """
    draw = random.Random(f"{seed} {lane}")  # noqa: S311 (as above)
    deck: list[str] = []
    while True:
        if not deck:
            deck = [kind for kind, weight in weights.items() for _ in range(weight)]
            draw.shuffle(deck)
        yield Fault(pause_s=draw.uniform(0.0, pause_s_max), kind=deck.pop(), strength=draw.random())
