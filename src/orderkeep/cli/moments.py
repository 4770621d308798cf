"""Moments that a person gives as options."""

from typing import TYPE_CHECKING

from orderkeep.cli.exits import WrongUsageError

if TYPE_CHECKING:
    from orderkeep.instant import Instant


def read_moment(option: str, text: str | None) -> "Instant | None":
    """Return the moment that an option gives, or None where it is not given.

    Raises:
        WrongUsageError: it is no moment in RFC 3339.
    """
    from orderkeep.contracts.time_text import read_instant

    if text is None:
        return None
    try:
        return read_instant(text)
    except ValueError as error:
        message = f"{option} {text!r}: {error}"
        raise WrongUsageError(message) from None
