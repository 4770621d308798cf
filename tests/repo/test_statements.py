"""Every statement of the stores can be said to every engine."""

import importlib
import pkgutil
from collections.abc import Iterable, Iterator

import pytest
from sqlalchemy import cast, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import CompileError, UnsupportedCompilationError
from sqlalchemy.types import TypeEngine

import orderkeep
from orderkeep.database.statement import Statement

DIALECTS = [sqlite.dialect(paramstyle="named"), postgresql.dialect()]

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


def test_the_statements_are_found() -> None:
    assert sum(1 for _ in statements()) > 30
