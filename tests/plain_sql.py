"""A test's own way to the database: plain SQL on a connection of its own, beside the engine.

    sql = plain_sql_of(database)
    sql.rows("SELECT * FROM orders WHERE order_no = :order_no", order_no="01")

It blocks, so that a look at the database stands in a test where it is meant, without an `await`.
"""

import asyncio
import contextlib
import re
import sqlite3
import threading
from collections.abc import Coroutine, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import asyncpg

from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.database.transaction import Database

T = TypeVar("T")

WAIT_S = 10.0

_PARAMETER = re.compile(r"(?<!:):(\w+)")

_DROP_RULES = """
DO $$ DECLARE rule record; BEGIN
  FOR rule IN
    SELECT conrelid::regclass AS table_name, conname FROM pg_constraint
    WHERE contype IN ('c', 'f') AND connamespace = 'public'::regnamespace
  LOOP
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', rule.table_name, rule.conname);
  END LOOP;
END $$
"""

_POISON = """
CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'poison' USING ERRCODE = 'check_violation'; END $$
"""


class PlainSql(Protocol):
    """Statements in words that every engine understands, with parameters as `:name`.

    Attributes:
        now: The database's clock in microseconds, as an expression.
    """

    now: str

    def rows(self, sql: str, **parameters: object) -> list[dict[str, Any]]:
        """Return what a query yields."""

    def write(self, sql: str, **parameters: object) -> None:
        """Change rows, past every CHECK and foreign key."""

    def poison(self, table: str, *, on: str, when: str) -> None:
        """Let a rule of the schema break for some rows of the table.

        Args:
            on: "INSERT" or "UPDATE".
            when: A condition on `NEW`.
        """

    def table_names(self) -> list[str]:
        """Return the names of all tables, sorted."""


class SqlitePlainSql:
    """Plain SQL on a file."""

    now = "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER) * 1000"

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self, sql: str, **parameters: object) -> list[dict[str, Any]]:
        with self._connected() as connection:
            return [dict(row) for row in connection.execute(sql, parameters)]

    def write(self, sql: str, **parameters: object) -> None:
        with self._connected() as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("PRAGMA ignore_check_constraints = ON")
            connection.execute(sql, parameters)

    def poison(self, table: str, *, on: str, when: str) -> None:
        self.write(
            f"CREATE TRIGGER poison BEFORE {on} ON {table} WHEN {when}"
            " BEGIN SELECT RAISE(ABORT, 'poison'); END"
        )

    def table_names(self) -> list[str]:
        rows = self.rows(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            " ORDER BY name"
        )
        return [row["name"] for row in rows]

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._path, timeout=WAIT_S)) as connection:
            connection.row_factory = sqlite3.Row
            with connection:
                yield connection


class PostgresPlainSql:
    """Plain SQL on a PostgreSQL database, over a connection that is kept for the next statement."""

    now = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"

    # The databases whose rules a test has dropped.
    changed_urls: ClassVar[set[str]] = set()

    def __init__(self, url: str) -> None:
        self._url = url

    def rows(self, sql: str, **parameters: object) -> list[dict[str, Any]]:
        return [dict(row) for row in _driver().fetch(self._url, *_positional(sql, parameters))]

    def write(self, sql: str, **parameters: object) -> None:
        try:
            _driver().fetch(self._url, *_positional(sql, parameters))
        except (asyncpg.CheckViolationError, asyncpg.ForeignKeyViolationError):
            # It is this test's own database.
            self.changed_urls.add(self._url)
            _driver().fetch(self._url, _DROP_RULES, ())
            _driver().fetch(self._url, *_positional(sql, parameters))

    def poison(self, table: str, *, on: str, when: str) -> None:
        self.changed_urls.add(self._url)
        self.write(_POISON)
        self.write(
            f"CREATE TRIGGER poison BEFORE {on} ON {table} FOR EACH ROW WHEN ({when})"
            " EXECUTE FUNCTION poison()"
        )

    def table_names(self) -> list[str]:
        rows = self.rows(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
        )
        return [row["tablename"] for row in rows]


def plain_sql_of(database: Database) -> PlainSql:
    """Return the way to the database behind an engine."""
    if isinstance(database, SqliteDatabase):
        return SqlitePlainSql(database._path)
    assert isinstance(database, PostgresDatabase)
    return PostgresPlainSql(database._direct_url)


def run_and_leave(url: str, statements: Iterable[str]) -> None:
    """Run statements in a PostgreSQL database, and leave no connection open."""
    _driver().execute(url, ";\n".join(statements))
    _driver().leave()


def run_alone(url: str, script: str) -> None:
    """Run statements without parameters in a PostgreSQL database, all or nothing."""
    _driver().execute(url, script)


def _positional(sql: str, parameters: dict[str, object]) -> tuple[str, tuple[object, ...]]:
    names = list(dict.fromkeys(_PARAMETER.findall(sql)))
    positional = _PARAMETER.sub(lambda match: f"${names.index(match.group(1)) + 1}", sql)
    return positional, tuple(parameters[name] for name in names)


class _Driver:
    """An event loop in a thread of its own, with a connection to the database asked for last."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._connection: asyncpg.Connection | None = None
        self._url = ""
        threading.Thread(target=self._loop.run_forever, daemon=True, name="plain-sql").start()

    def fetch(self, url: str, sql: str, values: tuple[object, ...]) -> list[asyncpg.Record]:
        return self._run(self._fetch(url, sql, values))

    def execute(self, url: str, script: str) -> None:
        self._run(self._execute(url, script))

    def leave(self) -> None:
        self._run(self._leave())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    async def _fetch(self, url: str, sql: str, values: tuple[object, ...]) -> list[asyncpg.Record]:
        return await (await self._connected(url)).fetch(sql, *values)

    async def _execute(self, url: str, script: str) -> None:
        await (await self._connected(url)).execute(script)

    async def _leave(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _connected(self, url: str) -> asyncpg.Connection:
        connection = self._connection
        if connection is None or connection.is_closed() or self._url != url:
            if connection is not None:
                connection.terminate()
            # Tests change the schema: no plan outlives its statement.
            connection = await asyncpg.connect(url, statement_cache_size=0)
            self._connection, self._url = connection, url
        return connection


@cache
def _driver() -> _Driver:
    return _Driver()
