"""The migrations make exactly the tables that the code expects."""

import importlib
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from orderkeep.database.schema import METADATA
from orderkeep.database.schema_version import (
    SchemaState,
    SchemaTooNewError,
    find_schema_state,
    find_schema_version,
    newest_schema_version,
    sqlite_url,
    upgrade_schema,
)
from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.database.transaction import StoreUnavailableError
from tests.conftest import TABLE_MODULES, create_tables_sql


def test_migrations_from_empty_to_head_equal_the_tables_in_code(tmp_path: Path):
    for name in TABLE_MODULES:
        importlib.import_module(name)
    url = sqlite_url(tmp_path / "shop.db")

    upgrade_schema(url)

    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


def test_every_index_and_check_of_the_code_is_made_by_the_migrations(tmp_path: Path):
    """The comparison above does not look at CHECKs and partial indexes; SQLite's own text does."""
    upgrade_schema(sqlite_url(tmp_path / "migrated.db"))
    in_code = sqlite3.connect(tmp_path / "code.db")
    for sql in create_tables_sql():
        in_code.execute(sql)
    in_code.commit()
    migrated = sqlite3.connect(tmp_path / "migrated.db")

    for what in ("index", "table"):
        expected = _definitions(in_code, what)
        assert expected
        assert _definitions(migrated, what) == expected

    in_code.close()
    migrated.close()


def test_a_second_upgrade_has_nothing_to_do(tmp_path: Path):
    url = sqlite_url(tmp_path / "shop.db")

    assert upgrade_schema(url)
    assert not upgrade_schema(url)
    assert find_schema_state(url) is SchemaState.CURRENT


def test_an_empty_database_is_behind(tmp_path: Path):
    assert find_schema_state(sqlite_url(tmp_path / "shop.db")) is SchemaState.BEHIND


def test_a_database_from_a_newer_release_is_refused_and_left_alone(tmp_path: Path):
    path = tmp_path / "shop.db"
    upgrade_schema(sqlite_url(path))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()

    assert find_schema_state(sqlite_url(path)) is SchemaState.AHEAD
    with pytest.raises(SchemaTooNewError, match="9999"):
        upgrade_schema(sqlite_url(path))

    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    connection.close()


def test_a_file_that_is_no_database_is_said_so(tmp_path: Path):
    path = tmp_path / "shop.db"
    path.write_bytes(b"this is no database, it is a letter to nobody" * 100)

    with pytest.raises(StoreUnavailableError, match="not a database"):
        upgrade_schema(sqlite_url(path))


@pytest.mark.parametrize("name", ["we?rd", "100%", "%41", "a b#c", "ünï"])
def test_a_path_may_hold_anything(tmp_path: Path, name: str):
    folder = tmp_path / name
    folder.mkdir()

    upgrade_schema(sqlite_url(folder / "shop.db"))

    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (folder / "shop.db").exists()
    assert find_schema_state(sqlite_url(folder / "shop.db")) is SchemaState.CURRENT


def test_looking_at_the_schema_needs_no_turn_to_write(tmp_path: Path):
    url = sqlite_url(tmp_path / "shop.db")
    upgrade_schema(url)
    writer = sqlite3.connect(tmp_path / "shop.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")

    assert find_schema_state(url) is SchemaState.CURRENT

    writer.execute("ROLLBACK")
    writer.close()


async def test_the_schema_version_is_read_in_a_transaction(tmp_path: Path):
    upgrade_schema(sqlite_url(tmp_path / "shop.db"))
    database = SqliteDatabase(tmp_path / "shop.db")

    assert await database.read(find_schema_version) == newest_schema_version() == "0003"

    await database.close()


def _definitions(connection: sqlite3.Connection, what: str) -> dict[str, frozenset[str]]:
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = ? AND sql IS NOT NULL"
        " AND name NOT LIKE 'sqlite_%' AND name <> 'alembic_version'",
        (what,),
    ).fetchall()
    return {name: _clauses(sql) for name, sql in rows}


def _clauses(sql: str) -> frozenset[str]:
    # The order of constraints in a table and the white space carry no meaning.
    return frozenset(line.strip().rstrip(",") for line in sql.replace("\t", " ").splitlines())
