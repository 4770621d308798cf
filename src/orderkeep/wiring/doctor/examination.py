"""What the doctor says of one thing: the verdict, what was found, and how to mend it. PURE."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

# How many names a sentence bears.
_NAMED_COUNT_MAX = 5


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    # It works, and somebody should know.
    WARNING = "warning"
    # It does not work, or it loses something some day.
    WRONG = "wrong"
    # It could not be looked at, because of something else that is wrong or away.
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """One thing that was looked at.

    Attributes:
        name: What kind of thing, such as `database.version`; never changes.
        subject: Which of several, such as a queue; None where there is one.
        found: In a sentence.
        remedy: What to do; None where there is nothing to do.
    """

    name: str
    subject: str | None = None
    verdict: Verdict
    found: str
    remedy: str | None = None


def fine(name: str, found: str, *, subject: str | None = None) -> Examination:
    """Return that all is well."""
    return Examination(name=name, subject=subject, verdict=Verdict.OK, found=found)


def warning(name: str, found: str, *, remedy: str, subject: str | None = None) -> Examination:
    """Return that somebody should know."""
    return Examination(
        name=name, subject=subject, verdict=Verdict.WARNING, found=found, remedy=remedy
    )


def wrong(name: str, found: str, *, remedy: str, subject: str | None = None) -> Examination:
    """Return that somebody has to do something."""
    return Examination(
        name=name, subject=subject, verdict=Verdict.WRONG, found=found, remedy=remedy
    )


def skipped(name: str, found: str, *, subject: str | None = None) -> Examination:
    """Return that it could not be looked at."""
    return Examination(name=name, subject=subject, verdict=Verdict.SKIPPED, found=found)


def counted(count: int, one: str, *, many: str | None = None) -> str:
    """Return the number with its noun, such as `1 row` or `2 rows`."""
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


def listed(parts: Sequence[str], *, separator: str = ", ") -> str:
    """Return the first few of the parts, and how many more there are."""
    shown = separator.join(parts[:_NAMED_COUNT_MAX])
    rest_count = len(parts) - _NAMED_COUNT_MAX
    return f"{shown}{separator}and {rest_count} more" if rest_count > 0 else shown
