"""Every statement of the stores can be said to every engine."""

import importlib
import pkgutil
from collections.abc import Iterable, Iterator

import pytest
from sqlalchemy import Text, cast, column, insert, literal_column, select, table
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import CompileError, UnsupportedCompilationError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

import orderkeep
from orderkeep.database.bulk import for_all_rows
from orderkeep.database.statement import RowStatement, Statement, row_value

DIALECTS = [sqlite.dialect(paramstyle="named"), asyncpg.dialect()]

# Run by Alembic, in a process of its own.
NOT_IMPORTED = "orderkeep.database.migrations"


class TypeOfNoEngine(TypeEngine[int]):
    """Planted: no dialect knows how to write it."""

    __visit_name__ = "type_of_no_engine"


def statements() -> Iterator[tuple[str, Statement]]:
    """Yield every statement that a module keeps as a constant, by its full name."""
    for module in pkgutil.walk_packages(orderkeep.__path__, "orderkeep."):
        if module.name.startswith(NOT_IMPORTED):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Statement):
                yield f"{module.name}.{name}", value


def uncompilable(found: Iterable[tuple[str, Statement]], *, dialect: Dialect) -> list[str]:
    """Return the names of the statements that the dialect cannot write, with the reason."""
    sentences = []
    for name, statement in found:
        try:
            statement.clause.compile(dialect=dialect)
        except (CompileError, UnsupportedCompilationError) as error:
            sentences.append(f"{name}: {error}")
    return sentences


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_every_statement_compiles(dialect: Dialect) -> None:
    assert uncompilable(statements(), dialect=dialect) == []


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_statement_that_does_not_compile_is_found(dialect: Dialect) -> None:
    planted = Statement(select(cast(literal_column("1"), TypeOfNoEngine())))

    assert len(uncompilable([("planted", planted)], dialect=dialect)) == 1


def values_left_out(statement: RowStatement) -> set[str]:
    """Return the row values that the statement for all rows does not read from arrays."""
    dialect = asyncpg.dialect()
    of_one_row = statement.compiled_for(dialect)
    at_once = statement.at_once(for_all_rows).compiled_for(dialect)
    compiled = statement.clause.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)
    names = set(compiled.positiontup or ())
    return names - of_one_row.defaults.keys() - at_once.lists


def test_every_row_value_is_read_from_an_array() -> None:
    found = {
        name: values_left_out(statement)
        for name, statement in statements()
        if isinstance(statement, RowStatement)
    }

    assert len(found) > 20
    assert {name: left_out for name, left_out in found.items() if left_out} == {}


def test_a_row_value_that_is_not_read_from_an_array_is_found() -> None:
    jars = table("jars", column("name", Text()))
    planted = RowStatement(insert(jars).values(name=row_value("name", Text())))
    planted.at_once(lambda _clause: insert(jars).values(name="always the same"))

    assert values_left_out(planted) == {"name"}


def test_the_statements_are_found() -> None:
    assert sum(1 for _ in statements()) > 30
