"""Times as other programs write them: RFC 3339 with any offset."""

import re
from datetime import UTC, datetime

from orderkeep.instant import Instant, after, instant_of

# RFC 3339, section 5.6. Python's own reader takes much more (week dates, missing offsets), so the
# form is checked first. A space for the T is what the RFC's own note permits.
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ](?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)"
    r"(?:\.\d{1,32})?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)

# What a datetime holds in UTC. An offset can push a readable time out of it.
_EARLIEST = instant_of(datetime.min.replace(tzinfo=UTC))
_LATEST = instant_of(datetime.max.replace(tzinfo=UTC))

# Where the seconds stand: "2024-01-01T10:05:" comes before them.
_SECOND = slice(17, 19)


def read_instant(value: object) -> Instant:
    """Return the instant of an RFC 3339 text, cut to microseconds.

    A leap second (`:60`) is the first second of the next minute, as POSIX clocks have it.

    Raises:
        ValueError: it is no such text, no day of the calendar, or not in the years 1 to 9999 UTC.
    """
    if not isinstance(value, str) or _RFC3339.fullmatch(value) is None:
        message = "expected a time as in RFC 3339, such as 2024-01-01T10:05:00Z"
        raise ValueError(message)
    text = value.upper()
    instant = instant_of(datetime.fromisoformat(text.replace(":60", ":59", 1)))
    if text[_SECOND] == "60":
        instant = after(instant, seconds=1)
    if not _EARLIEST <= instant <= _LATEST:
        message = "expected a time in the years 1 to 9999 UTC"
        raise ValueError(message)
    return instant
