"""What every test may ask for: a fresh database with all tables, on each engine."""

import importlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.schema import METADATA
from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import Database
from tests.cleaned_databases import CleanedDatabases
from tests.integration.messaging.shop_kernel import tables_sql
from tests.plain_sql import run_and_leave
from tests.servers.availability import missing_servers

TABLE_MODULES = (
    "orderkeep.orders.tables",
    "orderkeep.carts.tables",
    "orderkeep.payments.tables",
    "orderkeep.messaging.database_queue",
    "orderkeep.database.audit",
)

# Their names are in the names of tests: `-k "not postgresql"` leaves one out.
ENGINES = ("sqlite", "postgresql")


def every_table() -> list[Table]:
    """Return all tables in code."""
    for name in TABLE_MODULES:
        importlib.import_module(name)
    return METADATA.sorted_tables


def creation_sql(tables: Iterable[Table], *, dialect: Dialect) -> list[str]:
    """Return the statements that make the tables and their indexes."""
    statements: list[str] = []
    for table in tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        statements.extend(
            str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes
        )
    return statements


def create_tables_sql() -> list[str]:
    """Return the statements that make every table in code on SQLite."""
    return creation_sql(every_table(), dialect=sqlite.dialect())


def create_every_table(url: str) -> None:
    """Make every table in code in a PostgreSQL database, and leave no connection open."""
    run_and_leave(url, creation_sql(every_table(), dialect=postgresql.dialect()))


def create_shop_tables(url: str) -> None:
    """Make the tables of the kernel's small shop in a PostgreSQL database."""
    run_and_leave(url, tables_sql(postgresql.dialect()))


@asynccontextmanager
async def opened_postgresql(url: str) -> AsyncIterator[PostgresDatabase]:
    """Open the engine on a database, and close it afterwards."""
    # Tests that crowd it want answers, not refusals; these have tests of their own.
    database = PostgresDatabase(url, draw_jitter=lambda: 0.5, pool_wait_s=10.0)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def opened_sqlite(path: Path, tables: Iterable[Table]) -> AsyncIterator[SqliteDatabase]:
    """Make a file with the tables, open the engine on it, and close it afterwards."""
    database = SqliteDatabase(path)

    async def create(transaction):
        for sql in creation_sql(tables, dialect=sqlite.dialect()):
            await transaction.execute(Statement(text(sql)))

    await database.transact(create)
    yield database
    await database.close()


@pytest.fixture
async def sqlite_database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    """A SQLite database in a file of its own, with every table and no row."""
    async with opened_sqlite(tmp_path / "orderkeep.db", every_table()) as database:
        yield database


@pytest.fixture(scope="session")
def postgresql_databases() -> Iterator[CleanedDatabases]:
    """PostgreSQL databases with every table."""
    databases = CleanedDatabases(create_every_table)
    yield databases
    databases.drop()


@pytest.fixture(scope="session")
def shop_databases() -> Iterator[CleanedDatabases]:
    """PostgreSQL databases with the tables of the small shop on which the kernel is tested."""
    databases = CleanedDatabases(create_shop_tables)
    yield databases
    databases.drop()


@pytest.fixture
def postgresql_url(postgresql_databases: CleanedDatabases) -> Iterator[str]:
    """Where a PostgreSQL database of the test's own is, with every table and no row."""
    with postgresql_databases.given() as url:
        yield url


@pytest.fixture
async def postgresql_database(postgresql_url: str) -> AsyncIterator[PostgresDatabase]:
    """A PostgreSQL database of its own, with every table and no row."""
    async with opened_postgresql(postgresql_url) as database:
        yield database


@pytest.fixture(params=ENGINES)
def database(request: pytest.FixtureRequest) -> Database:
    """A database of its own on each engine in turn, with every table and no row."""
    opened: Database = request.getfixturevalue(f"{request.param}_database")
    return opened


# What the processes that ran the tests have found missing, where there are several.
_MISSING_KEY = "missing_servers"
_missing_elsewhere: set[str] = set()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that started this one what was missing here."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_MISSING_KEY] = missing_servers()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear what was missing in a process that has ended."""
    _missing_elsewhere.update(getattr(node, "workeroutput", {}).get(_MISSING_KEY, ()))


@pytest.fixture
def stands_beside_the_verdict(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Show a table at the end of the run, also where the test passes in another process."""
    return lambda table: request.node.user_properties.append((_TABLE_KEY, table))


_TABLE_KEY = "stands beside the verdict"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show tables, and say loudly which suites were left out for want of a server."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for key, table in getattr(report, "user_properties", ()):
            if key == _TABLE_KEY and report.when == "call":
                terminalreporter.section(report.nodeid)
                terminalreporter.line(table)
    for sentence in sorted({*missing_servers(), *_missing_elsewhere}):
        terminalreporter.section("a server is missing", sep="!", red=True)
        terminalreporter.line(sentence)
