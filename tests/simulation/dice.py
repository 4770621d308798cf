"""All that is left to chance in a simulated world, drawn from its seed.

Each thing that draws has a stream of its own, so that one more draw here changes none there.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from unittest.mock import patch

from orderkeep.instant import MICROSECONDS_PER_SECOND, Instant
from orderkeep.orders.order_number import DRAWN_LIMIT
from orderkeep.wiring import chance

Stream = random.Random

# The virtual second 0: 2026-01-01T00:00:00Z.
EPOCH = Instant(1_767_225_600_000_000)

_MICROSECONDS_PER_MILLISECOND = 1_000


def stream(seed: int, *names: object) -> Stream:
    """Return the stream of draws of that name."""
    text = "/".join(str(name) for name in (seed, *names))
    return random.Random(int.from_bytes(blake2b(text.encode(), digest_size=16).digest()))


def instant_at(now_s: float) -> Instant:
    """Return the moment that a virtual time stands for."""
    return Instant(EPOCH + round(now_s * MICROSECONDS_PER_SECOND))


def virtual_s(instant: Instant) -> float:
    """Return the virtual time of a moment."""
    return (instant - EPOCH) / MICROSECONDS_PER_SECOND


class ProcessChance:
    """What one run of a process draws, and its own clock, which may be wrong."""

    def __init__(self, draws: Stream, *, now_s: "Clock", clock_error_s: float) -> None:
        self._draws = draws
        self._now_s = now_s
        self.clock_error_s = clock_error_s

    def now(self) -> Instant:
        return instant_at(self._now_s() + self.clock_error_s)

    def new_uuid(self) -> str:
        milliseconds = self.now() // _MICROSECONDS_PER_MILLISECOND
        digits = f"{milliseconds:012x}{self._draws.getrandbits(80):020x}"
        return f"{digits[:8]}-{digits[8:12]}-7{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"

    def draw_jitter(self) -> float:
        return self._draws.random()

    def draw_order_number(self) -> int:
        return self._draws.randrange(DRAWN_LIMIT)

    def draw_nonce(self) -> str:
        return f"{self._draws.getrandbits(64):016x}"

    def draw_payment_no(self) -> str:
        return f"P{self._draws.getrandbits(80):020x}"

    def draw_refund_no(self) -> str:
        return f"R{self._draws.getrandbits(80):020x}"


class Clock:
    """A virtual clock, read by calling it."""

    def __init__(self, loop: "object") -> None:
        self._loop = loop

    def __call__(self) -> float:
        return self._loop.now_s  # type: ignore[attr-defined]  # a VirtualLoop


_DRAWS = (
    "now",
    "new_uuid",
    "draw_jitter",
    "draw_order_number",
    "draw_nonce",
    "draw_payment_no",
    "draw_refund_no",
)


@contextmanager
def drawn_by(process: ProcessChance) -> Iterator[None]:
    """Let what is built in this context draw from the process's stream."""
    with patch.multiple(chance, **{name: getattr(process, name) for name in _DRAWS}):
        yield
