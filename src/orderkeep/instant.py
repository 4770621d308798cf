"""Moments in time, as one integer that every engine stores, compares and indexes the same way.

An `Instant` is a count of microseconds since 1970-01-01T00:00:00 UTC. It fits 64 bits until the
year 294,000, has no time zone to lose, and crosses the database boundary without conversion.
Due times are compared with the database's clock only: `Transaction.now`.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NewType

Instant = NewType("Instant", int)

MICROSECONDS_PER_SECOND = 1_000_000

# One transaction has one `now`, which stands in all that it writes; deadlines lie close together.
_REMEMBERED_TEXTS_COUNT = 4096

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_MICROSECOND = timedelta(microseconds=1)


def instant_of(moment: datetime) -> Instant:
    """Return the instant of an aware datetime.

    Raises:
        ValueError: moment carries no time zone.
    """
    if moment.tzinfo is None:
        message = f"{moment!r} has no time zone"
        raise ValueError(message)
    return Instant((moment - _EPOCH) // _ONE_MICROSECOND)


def datetime_of(instant: Instant) -> datetime:
    """Return the instant as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=instant)


@lru_cache(_REMEMBERED_TEXTS_COUNT)
def rfc3339(instant: Instant) -> str:
    """Return the instant as RFC 3339 in UTC, with a fraction only where there is one."""
    text = datetime_of(instant).isoformat()
    return text.removesuffix("+00:00") + "Z"


def after(instant: Instant, *, seconds: float) -> Instant:
    """Return the instant that lies the given number of seconds later (or earlier, if negative)."""
    return Instant(instant + round(seconds * MICROSECONDS_PER_SECOND))
