"""Inserts of several tables as one statement, which saves their round trips.

    WITH insert_3 AS (INSERT INTO c …), insert_2 AS (INSERT INTO b …) INSERT INTO a …

Invariant: the statement does what the inserts do one after the other. That holds for plain inserts,
also with ON CONFLICT DO NOTHING: they read nothing of what they go together with, and what their
rows refer to is looked for when the whole statement has been carried out. It does not hold for
DO UPDATE, for one statement may not write a row twice; nor for what reads a table, which would not
see what was committed while an insert before it waited for somebody's lock.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

_PLACEHOLDER = re.compile(r"\$([0-9]+)")

# The service has some 50 statements that write rows, and a few dozen sequences of them.
_REMEMBERED_COUNT = 512


@lru_cache(maxsize=_REMEMBERED_COUNT)
def is_plain_insert(sql: str) -> bool:
    """Return whether the text, written for one row, is of an insert that may go with others."""
    return sql.startswith("INSERT ") and "DO UPDATE" not in sql and "SELECT" not in sql


@lru_cache(maxsize=_REMEMBERED_COUNT)
def joined(inserts: tuple[str, ...]) -> str:
    """Return one statement that does what the inserts do, with the parameters of all, in order."""
    first, *others = _numbered_on(inserts)
    if not others:
        return first
    # PostgreSQL carries out the main statement, then those beside it, the last of them first. It
    # promises no order; but which rows are locked first, and have the lower numbers, stays as it
    # would be one by one.
    beside = ", ".join(
        f"insert_{number} AS ({sql})" for number, sql in reversed(list(enumerate(others, start=2)))
    )
    return f"WITH {beside} {first}"


def _numbered_on(statements: Iterable[str]) -> list[str]:
    """Return the statements with placeholders whose numbers go on from one to the next."""
    numbered = []
    used_count = 0
    for sql in statements:
        pieces = _PLACEHOLDER.split(sql)
        # Every other piece is a number.
        numbers = [int(number) for number in pieces[1::2]]
        pieces[1::2] = [f"${number + used_count}" for number in numbers]
        numbered.append("".join(pieces))
        used_count += max(numbers, default=0)
    return numbered
