"""Which dead letters fit a filter, as conditions that one statement has for every filter."""

from typing import Any

from sqlalchemy import ColumnElement, Table, Text

from orderkeep.database.schema import INSTANT
from orderkeep.database.statement import is_none_or
from orderkeep.messaging.dead_letter import DeadLetterFilter


def fits(table: Table) -> list[ColumnElement[bool]]:
    """Return the conditions, whose parameters `filter_parameters` gives."""
    set_aside_at = table.c.set_aside_at
    return [
        is_none_or("queue", Text(), lambda queue: table.c.queue == queue),
        is_none_or("reason", Text(), lambda reason: table.c.reason == reason),
        is_none_or("aggregate_id", Text(), lambda id_: table.c.aggregate_id == id_),
        is_none_or("set_aside_from", INSTANT, lambda moment: set_aside_at >= moment),
        is_none_or("set_aside_to", INSTANT, lambda moment: set_aside_at < moment),
    ]


def filter_parameters(which: DeadLetterFilter) -> dict[str, Any]:
    """Return the values for the conditions: texts, instants, or None."""
    return {
        "queue": which.queue,
        "reason": which.reason,
        "aggregate_id": which.aggregate_id,
        "set_aside_from": which.set_aside_from,
        "set_aside_to": which.set_aside_to,
    }
