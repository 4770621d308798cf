"""A table of jars for the tests of the engine on PostgreSQL, and who keeps them busy."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, Text, column, table, text
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.statement import RowStatement, Statement, row_value
from orderkeep.database.transaction import ReadTransaction, Transaction
from tests.plain_sql import PostgresPlainSql

CREATE = """
CREATE TABLE jars (
  id bigserial PRIMARY KEY, name text UNIQUE NOT NULL, weight bigint CHECK (weight > 0),
  size integer, label bytea, is_open boolean
)
"""

JARS = table(
    "jars",
    column("id", BigInteger()),
    column("name", Text()),
    column("weight", BigInteger()),
    column("size", Integer()),
    column("label", LargeBinary()),
    column("is_open", Boolean()),
)

PUT = Statement(text("INSERT INTO jars (name, weight) VALUES (:name, 1)"))
COUNT = Statement(text("SELECT count(*) AS n FROM jars WHERE name = :name"))
PID = Statement(text("SELECT pg_backend_pid() AS pid"))
ADD = RowStatement(
    insert(JARS).values(name=row_value("name", Text()), weight=row_value("weight", BigInteger()))
)

# Nothing here takes long, unless it hangs.
PATIENCE_S = 20.0


def engine(url: str, **options: Any) -> PostgresDatabase:
    return PostgresDatabase(url, draw_jitter=lambda: 0.0, **options)


def putting(name: str) -> Callable[[Transaction], Awaitable[int]]:
    async def work(transaction: Transaction) -> int:
        return await transaction.execute(PUT, name=name)

    return work


def names(sql: PostgresPlainSql) -> list[str]:
    return [row["name"] for row in sql.rows("SELECT name FROM jars ORDER BY id")]


async def count_of(transaction, name: str) -> int:
    row = await transaction.fetch_one(COUNT, name=name)
    assert row is not None
    return row["n"]


async def pid_of(transaction: ReadTransaction) -> int:
    row = await transaction.fetch_one(PID)
    assert row is not None
    return row["pid"]


@asynccontextmanager
async def engine_in_transaction(
    url: str, work: Callable[[Transaction], Awaitable[object]], *, is_undone: bool = False
) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Have the work done by another engine, and committed or undone when the function is called."""

    async def hold(transaction: Transaction) -> None:
        await work(transaction)
        held.set()
        await may_end.wait()
        if is_undone:
            raise LookupError

    async def end() -> None:
        may_end.set()
        with suppress(LookupError):
            await holding

    held, may_end = asyncio.Event(), asyncio.Event()
    database = engine(url)
    holding = asyncio.create_task(database.transact(hold))
    try:
        await held.wait()
        yield end
    finally:
        await end()
        await database.close()


def waiting_for_a_lock(sql: PostgresPlainSql) -> int:
    (row,) = sql.rows(
        "SELECT count(*) AS n FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return row["n"]
