"""An invariant as a query for what breaks it, and what is told of that."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, or_

from orderkeep.database.statement import Statement

# Enough to see what is wrong.
SHOWN_PER_INVARIANT_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An invariant that some rows break.

    Attributes:
        invariant: Its name, as the documentation has it.
        says: What should hold.
        subjects: The orders, SKUs or rows that break it, `SHOWN_PER_INVARIANT_MAX` at most.
        remedy: What to do about it.
    """

    invariant: str
    says: str
    subjects: tuple[str, ...]
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One invariant.

    Attributes:
        breaches: Yields what breaks it, as `subject`.
    """

    invariant: str
    says: str
    breaches: Statement
    remedy: str

    def finding(self, subjects: tuple[str, ...]) -> Finding:
        """Return what is told of the subjects that break it."""
        return Finding(
            invariant=self.invariant, says=self.says, subjects=subjects, remedy=self.remedy
        )


def breaches(subjects: Select[tuple[str]], *, wrong: Sequence[ColumnElement[bool]]) -> Statement:
    """Return the statement that yields the subjects for which anything is wrong.

    Args:
        subjects: Selects rows that name a `subject`.
        wrong: Conditions on such a row; each by itself is a breach.
    """
    return _shown(subjects.where(or_(*wrong)))


def group_breaches(
    subjects: Select[tuple[str]], *, wrong: Sequence[ColumnElement[bool]]
) -> Statement:
    """Return the statement that yields the groups for which anything is wrong.

    Arguments as `breaches`; the conditions are on groups of rows.
    """
    return _shown(subjects.having(or_(*wrong)))


def _shown(broken: Select[tuple[str]]) -> Statement:
    return Statement(broken.distinct().order_by("subject").limit(SHOWN_PER_INVARIANT_MAX))
