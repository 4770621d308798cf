"""Moments that a person gives as options."""

import re
from typing import TYPE_CHECKING

from orderkeep.cli.exits import WrongUsageError

if TYPE_CHECKING:
    from orderkeep.instant import Instant


# How help texts say what may be given.
MOMENT = "in RFC 3339, UTC where no zone is given; a date alone is its beginning"

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_WITHOUT_ZONE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?", re.ASCII)


def read_moment(option: str, text: str | None) -> "Instant | None":
    """Return the moment that an option gives, or None where it is not given.

    A date is its beginning, and what has no zone is UTC, as every time that commands print.

    Raises:
        WrongUsageError: it is no moment in RFC 3339.
    """
    from orderkeep.contracts.time_text import read_instant

    if text is None:
        return None
    try:
        return read_instant(_whole(text))
    except ValueError as error:
        message = f"{option} {text!r}: {error}"
        raise WrongUsageError(message) from None


def _whole(text: str) -> str:
    if _DATE.fullmatch(text):
        return f"{text}T00:00:00Z"
    return f"{text}Z" if _WITHOUT_ZONE.fullmatch(text) else text
