"""Statements written once in SQLAlchemy Core and compiled once for each engine.

Core builds and compiles a statement in a few hundred microseconds, more than the embedded engine
needs to run it; so a store keeps its statements as constants of this module's types, and an engine
compiles each of them the first time it meets it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, String, bindparam, literal_column, or_
from sqlalchemy import cast as sql_cast
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement
from sqlalchemy.types import BigInteger, Boolean, TypeEngine, UserDefinedType


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledStatement:
    """SQL text for one engine.

    Attributes:
        sql: The text with the engine's own placeholders.
        defaults: Values that the statement itself carries, by parameter name.
        lists: Names of the parameters that take a list.
        positional: Picks from values by name those of the placeholders, in their order; empty
            where the engine's placeholders are names.
    """

    sql: str
    defaults: Mapping[str, Any]  # what Core bound literally: str, int, bytes or None
    lists: frozenset[str]
    positional: Callable[[Mapping[str, Any]], Sequence[Any]]


class Statement:
    """A Core statement, compiled at most once for each dialect and its kind of placeholders."""

    __slots__ = ("_by_dialect", "clause")

    def __init__(self, clause: ClauseElement) -> None:
        self.clause = clause
        self._by_dialect: dict[tuple[str, str], CompiledStatement] = {}

    def compiled_for(self, dialect: Dialect) -> CompiledStatement:
        """Return the statement as SQL text of the dialect."""
        key = (dialect.name, dialect.paramstyle)
        compiled = self._by_dialect.get(key)
        if compiled is None:
            compiled = _compile(self.clause, dialect=dialect)
            self._by_dialect[key] = compiled
        return compiled


class RowStatement(Statement):
    """A statement for one row, written with `row_value` for what differs from row to row.

    The embedded engine runs it row by row; an engine across a network reads all rows from arrays
    at once.
    """

    __slots__ = ("_at_once",)

    def __init__(self, clause: ClauseElement) -> None:
        super().__init__(clause)
        self._at_once: Statement | None = None

    def at_once(self, rewrite: Callable[[ClauseElement], ClauseElement]) -> Statement:
        """Return the statement for all rows that `rewrite` makes of this one, made at most once."""
        if self._at_once is None:
            self._at_once = Statement(rewrite(self.clause))
        return self._at_once


class ListParameter(UserDefinedType[Any]):
    """The type of a parameter that takes a whole list; see `is_any_of`."""

    cache_ok = True

    def __init__(self, member_sql: str) -> None:
        self.member_sql = member_sql

    def get_col_spec(self, **_options: object) -> str:
        """Return the array type, as PostgreSQL writes it."""
        return f"{self.member_sql}[]"


class IsAnyOf(ColumnElement[bool]):
    """`column` equals any member of a list parameter; see `is_any_of`."""

    inherit_cache = False
    type = Boolean()

    def __init__(self, column: ColumnElement[Any], name: str) -> None:
        self.column = column
        member_sql = "text" if isinstance(column.type, String) else "bigint"
        self.parameter = bindparam(name, type_=ListParameter(member_sql))

    def self_group(self, against: object = None) -> "IsAnyOf":
        """Return the condition as it is: Core would append `= 1`, which no index can serve."""
        del against
        return self


def is_any_of(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Return the condition that a column of text or integers is in the list parameter `name`.

    One statement serves lists of every length: PostgreSQL takes an array, SQLite a JSON list.
    """
    return IsAnyOf(column, name)


def is_none_or(
    name: str,
    type_: TypeEngine[Any],
    compare: Callable[[ColumnElement[Any]], ColumnElement[bool]],
) -> ColumnElement[bool]:
    """Return the condition that a parameter is None, or compares as it should.

    Args:
        name: The parameter's.
        type_: The parameter's.
        compare: Returns the condition where there is a value.
    """
    # The cast tells PostgreSQL the type of what is compared with nothing.
    parameter = sql_cast(bindparam(name, type_=type_), type_)
    return or_(parameter.is_(None), compare(parameter))


def row_value(name: str, type_: TypeEngine[Any]) -> ColumnElement[Any]:
    """Return the placeholder for a value that each row of a `RowStatement` brings along."""
    return bindparam(name, type_=type_)


def written_out(value: str) -> ColumnElement[str]:
    """Return a constant that stands in the SQL text itself, not as a parameter.

    A partial index serves a query only where its own condition stands in the text: SQLite plans
    before it knows what a parameter will be.

    Raises:
        ValueError: value is not a plain name, so it must be a parameter.
    """
    if not value.isidentifier():
        message = f"{value!r} is not a plain name"
        raise ValueError(message)
    return literal_column(f"'{value}'", String())


def is_one_of(column: ColumnElement[str], *values: str) -> ColumnElement[bool]:
    """Return the condition that a column is one of some constants, in the SQL text itself.

    Core's own `in_` is expanded for each execution, which a statement compiled once cannot have.
    """
    return or_(*(column == written_out(value) for value in values))


class DatabaseNow(ColumnElement[int]):
    """The database's own clock in microseconds since 1970 UTC, inside a statement."""

    inherit_cache = True
    type = BigInteger()


# SQLite's clock counts milliseconds; the multiplication keeps one unit for every engine.
_SQLITE_NOW = "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"
_POSTGRESQL_NOW = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"


@compiles(DatabaseNow, "sqlite")
def _now_on_sqlite(_element: DatabaseNow, _compiler: SQLCompiler, **_options: object) -> str:
    return _SQLITE_NOW


@compiles(DatabaseNow, "postgresql")
def _now_on_postgresql(_element: DatabaseNow, _compiler: SQLCompiler, **_options: object) -> str:
    return _POSTGRESQL_NOW


@compiles(IsAnyOf, "sqlite")
def _is_any_of_on_sqlite(element: IsAnyOf, compiler: SQLCompiler, **options: object) -> str:
    column = compiler.process(element.column, **options)
    parameter = compiler.process(element.parameter, **options)
    return f"{column} IN (SELECT value FROM json_each({parameter}))"  # noqa: S608 (compiled parts)


@compiles(IsAnyOf, "postgresql")
def _is_any_of_on_postgresql(element: IsAnyOf, compiler: SQLCompiler, **options: object) -> str:
    column = compiler.process(element.column, **options)
    parameter = compiler.process(element.parameter, **options)
    return f"{column} = ANY({parameter}::{element.parameter.type})"


def _compile(clause: ClauseElement, *, dialect: Dialect) -> CompiledStatement:
    compiled = clause.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)
    assert "POSTCOMPILE" not in str(compiled), "use is_any_of or is_one_of instead of in_"
    return CompiledStatement(
        sql=str(compiled),
        defaults={
            name: parameter.effective_value
            for parameter, name in compiled.bind_names.items()
            if not parameter.required
        },
        lists=frozenset(
            name
            for parameter, name in compiled.bind_names.items()
            if isinstance(parameter.type, ListParameter)
        ),
        positional=_picker(compiled.positiontup or ()),
    )


def _picker(names: Sequence[str]) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
    if len(names) > 1:
        return itemgetter(*names)
    # For one name `itemgetter` would return the value itself, and for none it has no form.
    return lambda values: [values[name] for name in names]
