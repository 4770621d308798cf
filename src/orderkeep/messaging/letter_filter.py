"""Which dead letters fit a filter, as conditions that one statement has for every filter."""

from typing import Any

from sqlalchemy import ColumnElement, Table, Text, bindparam, or_
from sqlalchemy import cast as sql_cast

from orderkeep.database.schema import INSTANT
from orderkeep.messaging.dead_letter import DeadLetterFilter


def fits(table: Table) -> list[ColumnElement[bool]]:
    """Return the conditions, whose parameters `filter_parameters` gives."""
    # The casts tell PostgreSQL the parameters' types where they are compared with nothing.
    conditions: list[ColumnElement[bool]] = []
    for name in ("queue", "reason", "aggregate_id"):
        text = sql_cast(bindparam(name, type_=Text()), Text())
        conditions.append(or_(text.is_(None), table.c[name] == text))
    set_aside_from = sql_cast(bindparam("set_aside_from", type_=INSTANT), INSTANT)
    conditions.append(or_(set_aside_from.is_(None), table.c.set_aside_at >= set_aside_from))
    set_aside_to = sql_cast(bindparam("set_aside_to", type_=INSTANT), INSTANT)
    conditions.append(or_(set_aside_to.is_(None), table.c.set_aside_at < set_aside_to))
    return conditions


def filter_parameters(which: DeadLetterFilter) -> dict[str, Any]:
    """Return the values for the conditions: texts, instants, or None."""
    return {
        "queue": which.queue,
        "reason": which.reason,
        "aggregate_id": which.aggregate_id,
        "set_aside_from": which.set_aside_from,
        "set_aside_to": which.set_aside_to,
    }
