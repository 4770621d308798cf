"""What every test may ask for: a fresh database with all tables."""

import importlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from orderkeep.database.schema import METADATA
from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.database.statement import Statement

TABLE_MODULES = (
    "orderkeep.orders.tables",
    "orderkeep.carts.tables",
    "orderkeep.payments.tables",
    "orderkeep.messaging.database_queue",
)


def create_tables_sql() -> list[str]:
    """Return the statements that make every table in code."""
    for name in TABLE_MODULES:
        importlib.import_module(name)
    dialect = sqlite.dialect()
    statements: list[str] = []
    for table in METADATA.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        statements.extend(
            str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes
        )
    return statements


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    """A SQLite database in a file of its own, with every table and no row."""
    database = SqliteDatabase(tmp_path / "orderkeep.db")

    async def create(transaction):
        for sql in create_tables_sql():
            await transaction.execute(Statement(text(sql)))

    await database.transact(create)
    yield database
    await database.close()
