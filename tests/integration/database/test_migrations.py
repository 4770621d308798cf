"""The migrations make exactly the tables that the code expects."""

import asyncio
import importlib
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from orderkeep.database import postgresql_schema
from orderkeep.database.migration_scripts import alembic_config, versions
from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.postgresql_connection import PostgresLimits
from orderkeep.database.schema import METADATA
from orderkeep.database.schema_version import (
    URL,
    SchemaState,
    SchemaTooNewError,
    find_schema_state,
    find_schema_version,
    newest_schema_version,
    postgresql_url,
    sqlite_url,
    upgrade_schema,
)
from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.database.transaction import Database, StoreUnavailableError
from tests.condition import DEADLINE_S
from tests.conftest import TABLE_MODULES, create_every_table, create_tables_sql
from tests.plain_sql import PostgresPlainSql, SqlitePlainSql
from tests.servers.availability import new_database, postgresql_server


@dataclass(frozen=True, slots=True)
class Empty:
    """A database without a table."""

    url: URL
    sql: SqlitePlainSql | PostgresPlainSql


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


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Empty]:
    """A database without a table, on each engine in turn."""
    if request.param == "sqlite":
        yield Empty(sqlite_url(tmp_path / "shop.db"), SqlitePlainSql(tmp_path / "shop.db"))
    else:
        with new_database(postgresql_server()) as url:
            yield Empty(postgresql_url(url), PostgresPlainSql(url))


def test_the_versions_are_those_that_the_scripts_say_in_their_order():
    scripts = ScriptDirectory.from_config(alembic_config())

    told = [script.revision for script in scripts.walk_revisions()]

    assert versions() == tuple(reversed(told))


def test_a_second_upgrade_has_nothing_to_do(empty: Empty):
    assert find_schema_state(empty.url) is SchemaState.BEHIND
    assert upgrade_schema(empty.url)
    assert find_schema_state(empty.url) is SchemaState.CURRENT
    assert not upgrade_schema(empty.url)
    assert find_schema_state(empty.url) is SchemaState.CURRENT


def test_a_database_from_a_newer_release_is_refused_and_left_alone(empty: Empty):
    upgrade_schema(empty.url)
    empty.sql.write("UPDATE alembic_version SET version_num = '9999'")

    assert find_schema_state(empty.url) is SchemaState.AHEAD
    with pytest.raises(SchemaTooNewError, match="9999"):
        upgrade_schema(empty.url)

    assert empty.sql.rows("SELECT version_num FROM alembic_version") == [{"version_num": "9999"}]


def test_two_upgrades_at_once_do_not_collide():
    """On SQLite there is nobody else: one `run` holds the directory."""
    with new_database(postgresql_server()) as url, ThreadPoolExecutor(2) as pool:
        upgrades = [pool.submit(upgrade_schema, postgresql_url(url)) for _ in range(2)]
        answers = [upgrade.result() for upgrade in upgrades]

        assert any(answers)
        assert find_schema_state(postgresql_url(url)) is SchemaState.CURRENT


def test_migrations_on_postgresql_make_exactly_what_the_code_says():
    server = postgresql_server()
    with new_database(server) as migrated_url, new_database(server) as in_code_url:
        upgrade_schema(postgresql_url(migrated_url))
        create_every_table(in_code_url)
        migrated, in_code = PostgresPlainSql(migrated_url), PostgresPlainSql(in_code_url)

        for what in (_COLUMNS_SQL, _CONSTRAINTS_SQL, _INDEXES_SQL, _SEQUENCES_SQL):
            expected = in_code.rows(what)
            assert expected
            assert migrated.rows(what) == expected


def test_a_migration_waits_for_a_lock_only_so_long_and_tries_again(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(postgresql_schema, "_LIMITS", PostgresLimits(lock_s=0.05, statement_s=0))
    monkeypatch.setattr(postgresql_schema, "_PAUSE_S", 0.01)
    with new_database(postgresql_server()) as url, closing(asyncio.new_event_loop()) as loop:
        # Whoever makes the first table meets somebody who is making one of the same name.
        other = loop.run_until_complete(asyncpg.connect(url))
        loop.run_until_complete(other.execute("BEGIN; CREATE TABLE queue_messages (id bigint)"))
        with ThreadPoolExecutor(1) as pool:
            upgrade = pool.submit(upgrade_schema, postgresql_url(url))
            _wait_until_somebody_waits(PostgresPlainSql(url))
            loop.run_until_complete(other.close())
            assert upgrade.result()


def test_a_lock_that_is_never_free_ends_the_migration_unharmed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(postgresql_schema, "_LIMITS", PostgresLimits(lock_s=0.05, statement_s=0))
    monkeypatch.setattr(postgresql_schema, "_PAUSE_S", 0.01)
    monkeypatch.setattr(postgresql_schema, "_TRIES_MAX", 2)
    with new_database(postgresql_server()) as url, closing(asyncio.new_event_loop()) as loop:
        other = loop.run_until_complete(asyncpg.connect(url))
        loop.run_until_complete(other.execute("BEGIN; CREATE TABLE queue_messages (id bigint)"))

        with pytest.raises(StoreUnavailableError, match=r"changed nothing: .*lock timeout"):
            upgrade_schema(postgresql_url(url))

        loop.run_until_complete(other.close())
        assert find_schema_state(postgresql_url(url)) is SchemaState.BEHIND
        assert upgrade_schema(postgresql_url(url))


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


async def test_the_schema_version_is_read_in_a_transaction(empty: Empty):
    await asyncio.to_thread(upgrade_schema, empty.url)
    database: Database
    if isinstance(empty.sql, SqlitePlainSql):
        database = SqliteDatabase(empty.sql._path)
    else:
        database = PostgresDatabase(empty.sql._url, draw_jitter=lambda: 0.5)

    assert await database.read(find_schema_version) == newest_schema_version()

    await database.close()


_COLUMNS_SQL = """
SELECT table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns
WHERE table_schema = 'public' AND table_name <> 'alembic_version' ORDER BY 1, 2
"""
_CONSTRAINTS_SQL = """
SELECT conrelid::regclass::text AS table_name, conname, pg_get_constraintdef(oid) AS definition
FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
ORDER BY 1, 2
"""
_INDEXES_SQL = """
SELECT tablename, indexname, indexdef FROM pg_indexes
WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 1, 2
"""
_SEQUENCES_SQL = """
SELECT sequencename, data_type::text FROM pg_sequences WHERE schemaname = 'public' ORDER BY 1
"""


def _wait_until_somebody_waits(sql: PostgresPlainSql) -> None:
    """Wait until somebody waits for a lock."""
    end_s = time.monotonic() + DEADLINE_S
    while not sql.rows(
        "SELECT 1 FROM pg_locks WHERE NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " OR NOT granted AND locktype = 'transactionid'"
    ):
        assert time.monotonic() < end_s, "nobody waits"


def _definitions(connection: sqlite3.Connection, what: str) -> dict[str, frozenset[str]]:
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = ? AND sql IS NOT NULL"
        " AND name NOT LIKE 'sqlite_%' AND name <> 'alembic_version'",
        (what,),
    ).fetchall()
    return {name: _clauses(sql) for name, sql in rows}


def _clauses(sql: str) -> frozenset[str]:
    # The order of constraints in a table and the white space carry no meaning.
    lines = [line.strip().rstrip(",") for line in sql.replace("\t", " ").splitlines()]
    return frozenset(clause for line in lines for clause in _clauses_in_line(line))


def _clauses_in_line(line: str) -> list[str]:
    # SQLite writes a column that was added later into the line of the last one before it.
    is_columns = not line.startswith(("CONSTRAINT", "CREATE"))
    return line.split(", ") if is_columns else [line]
