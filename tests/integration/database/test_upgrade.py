"""A database full of orders is brought to the current schema, and every guarantee still holds."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from sqlalchemy import create_engine, text

from orderkeep.database.migration_scripts import alembic_config, following_version, upgrade_sql
from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.schema_version import (
    SchemaState,
    find_schema_state,
    postgresql_url,
    sqlite_url,
    upgrade_schema,
)
from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import Database
from orderkeep.orders.verify import find_breaches
from tests.servers.availability import new_database, postgresql_server

pytestmark = pytest.mark.slow

# The version that has the tables of orders and not yet all of the others.
VERSION_BEFORE = "0002"

ORDER_COUNT = 100_000

FILLING = (Path(__file__).parent / "many_orders.sql").read_text()

_COUNT = Statement(text("SELECT count(*) AS n FROM orders"))


async def breaches_and_count(database: Database) -> tuple[Sequence[str], int]:
    """Return what is broken, and how many orders there are."""
    try:
        found = await database.read(find_breaches)
        row = await database.read(lambda transaction: transaction.fetch_one(_COUNT))
        assert row is not None
        return [finding.invariant for finding in found], row["n"]
    finally:
        await database.close()


def test_an_upgrade_with_many_orders_keeps_every_guarantee_on_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "orderkeep.db"
    engine = create_engine(sqlite_url(path))
    with engine.connect() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, VERSION_BEFORE)
        connection.commit()
    engine.dispose()
    with closing(sqlite3.connect(path)) as filled:
        filled.executescript(f"BEGIN; {FILLING} COMMIT;")

    assert find_schema_state(sqlite_url(path)) is SchemaState.BEHIND
    assert upgrade_schema(sqlite_url(path))

    assert find_schema_state(sqlite_url(path)) is SchemaState.CURRENT
    assert asyncio.run(breaches_and_count(SqliteDatabase(path))) == ([], ORDER_COUNT)


def test_an_upgrade_with_many_orders_keeps_every_guarantee_on_postgresql() -> None:
    with new_database(postgresql_server()) as url:
        asyncio.run(_fill_postgresql(url))

        assert find_schema_state(postgresql_url(url)) is SchemaState.BEHIND
        assert upgrade_schema(postgresql_url(url))

        assert find_schema_state(postgresql_url(url)) is SchemaState.CURRENT
        assert asyncio.run(_checked_postgresql(url)) == ([], ORDER_COUNT)


async def _fill_postgresql(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        version: str | None = None
        while version != VERSION_BEFORE:
            following = following_version(version)
            assert following is not None
            await connection.execute(upgrade_sql(version, following))
            version = following
        await connection.execute(FILLING)
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


async def _checked_postgresql(url: str) -> tuple[Sequence[str], int]:
    return await breaches_and_count(PostgresDatabase(url, draw_jitter=lambda: 0.5))
