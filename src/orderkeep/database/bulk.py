"""One statement for all rows, made of a statement for one: what a network saves round trips with.

A `RowStatement` is written for one row, with `row_value` for what differs from row to row. Here
each of these becomes a column of `unnest(...)`, which reads the values of all rows from arrays:

    INSERT INTO t (…) SELECT given.a, … FROM unnest($1::TEXT[], …) AS given(…) ORDER BY ordinal
    UPDATE t SET … FROM unnest(…) AS given(…) WHERE t.id = given.the_id
    DELETE FROM t USING unnest(…) AS given(…) WHERE t.id = given.the_id
    SELECT … FROM t, unnest(…) AS given(…) WHERE t.id = given.the_id

Invariant: the statement does what the one for a single row does for each row, in any order but for
inserts, which lock and number their rows in the order given. Two rows that name the same row of the
table are the caller's mistake: in one statement an update writes a row once.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Insert,
    TableValuedAlias,
    bindparam,
    column,
    func,
    select,
    type_coerce,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.expression import ClauseElement
from sqlalchemy.sql.visitors import ExternallyTraversible, iterate, replacement_traverse
from sqlalchemy.types import TypeEngine

from orderkeep.database.statement import ListParameter

_DIALECT: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # theirs

# Names the arrays as a table, and the place of a row in them.
_GIVEN = "given"
_ORDINAL = "ordinal"


def for_all_rows(clause: ClauseElement) -> ClauseElement:
    """Return the statement that reads every row value from an array, a list of the same name."""
    types = {
        element.key: element.type
        for element in iterate(clause)
        if isinstance(element, BindParameter) and element.required
    }
    given = _given(types)
    if isinstance(clause, Insert):
        return _insert(clause, given=given)
    return _replaced(clause, given=given)


def _given(types: Mapping[str, TypeEngine[Any]]) -> TableValuedAlias:
    arrays = []
    for name, type_ in types.items():
        array = ListParameter(type_.compile(dialect=_DIALECT))
        arrays.append(sql_cast(bindparam(name, type_=array), array))
    columns = [column(name, type_) for name, type_ in types.items()]
    return (
        func.unnest(*arrays)
        .table_valued(*columns, with_ordinality=_ORDINAL)
        .render_derived(name=_GIVEN)
    )


def _insert(clause: Insert, *, given: TableValuedAlias) -> Insert:
    # A copy, with its conflict clause and what it returns, that takes its rows from elsewhere. Core
    # has no public way to see or to replace the values of a statement.
    copy = clause.execution_options()
    values = copy._values  # noqa: SLF001 (see above)
    assert values is not None, "a RowStatement inserts values"
    copy._values = None  # noqa: SLF001 (see above)
    columns = {
        clause.table.c[key if isinstance(key, str) else key.name]: value
        for key, value in values.items()
    }
    rows = (
        select(*(_selected(value, of=column_, given=given) for column_, value in columns.items()))
        .select_from(given)
        .order_by(given.c[_ORDINAL])
    )
    names = [column_.name for column_ in columns]
    return copy.from_select(names, rows, include_defaults=False)


def _selected(
    value: ColumnElement[Any], *, of: ColumnElement[Any], given: TableValuedAlias
) -> ColumnElement[Any]:
    if isinstance(value, BindParameter) and not value.required:
        # A constant: without its type PostgreSQL takes it for text in a list of what is selected.
        return type_coerce(value, of.type)
    replaced = _replaced(value, given=given)
    assert isinstance(replaced, ColumnElement)
    return replaced


def _replaced(clause: ClauseElement, *, given: TableValuedAlias) -> ClauseElement:
    def replace(element: ExternallyTraversible, **_options: object) -> ColumnElement[Any] | None:
        if isinstance(element, BindParameter) and element.required:
            return given.c[element.key]
        return None

    replaced = replacement_traverse(clause, {}, replace)
    assert isinstance(replaced, ClauseElement)
    return replaced
