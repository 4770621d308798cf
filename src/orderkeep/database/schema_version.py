"""Bring a database to the schema that this release expects, or say why not.

Each migration runs in a transaction of its own with its new version, so a crash leaves the database
at a version, never between two.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

import sqlalchemy
from sqlalchemy import (
    Connection,
    Engine,
    Select,
    Text,
    column,
    create_engine,
    event,
    inspect,
    select,
    table,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from orderkeep.database import postgresql_schema
from orderkeep.database.migration_scripts import alembic_config, versions
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import ReadTransaction, StoreUnavailableError

__all__ = [
    "SCHEMA_WORDS",
    "URL",
    "SchemaState",
    "SchemaTooNewError",
    "find_schema_state",
    "find_schema_version",
    "newest_schema_version",
    "postgresql_url",
    "schema_state_of",
    "sqlite_url",
    "upgrade_schema",
]

_CURRENT: Select[str] = (
    select(column("version_num", Text())).select_from(table("alembic_version")).limit(1)
)
_VERSION = Statement(_CURRENT)


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """Where a PostgreSQL database is, as libpq reads it; it may hold a password."""

    text: str = field(repr=False)


URL: TypeAlias = sqlalchemy.URL | PostgresUrl


class SchemaState(StrEnum):
    """How a database stands to this release."""

    CURRENT = "current"
    BEHIND = "behind"
    # Made by a newer release: this one does not know its migrations.
    AHEAD = "ahead"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaWords:
    """What a state that is not the current one is to a person, and what to do about it."""

    found: str
    remedy: str

    def __str__(self) -> str:
        """Return both, as an error tells them."""
        return f"{self.found}: {self.remedy}"


SCHEMA_WORDS = {
    SchemaState.BEHIND: SchemaWords(
        found="the database has no schema yet, or that of an older release",
        remedy="run `orderkeep migrate`",
    ),
    SchemaState.AHEAD: SchemaWords(
        found="the database was made by a newer release of Orderkeep",
        remedy="install that release, or a newer one",
    ),
}


class SchemaTooNewError(Exception):
    """The database was made by a newer release than this one."""


def sqlite_url(path: Path) -> sqlalchemy.URL:
    """Return the URL by which migrations reach a SQLite file, whatever its path holds."""
    return sqlalchemy.URL.create("sqlite", database=str(path))


def postgresql_url(url: str) -> PostgresUrl:
    """Return the URL by which migrations reach a PostgreSQL database.

    Args:
        url: `postgresql://USER:PW@HOST:PORT/DB?sslmode=…`, past any pooler in transaction mode.
    """
    return PostgresUrl(url)


def newest_schema_version() -> str:
    """Return the version that this release brings a database to."""
    return versions()[-1]


async def find_schema_version(transaction: ReadTransaction) -> str | None:
    """Return the version that the database is at, or None if no migration has run."""
    row = await transaction.fetch_one(_VERSION)
    return None if row is None else row["version_num"]


def schema_state_of(version: str | None) -> SchemaState:
    """Return how a database at the version stands to this release."""
    if version == newest_schema_version():
        return SchemaState.CURRENT
    if version is not None and version not in versions():
        return SchemaState.AHEAD
    return SchemaState.BEHIND


def find_schema_state(url: URL) -> SchemaState:
    """Return how the database stands to this release; not to be called from an event loop.

    Raises:
        StoreUnavailableError: the database cannot be reached.
    """
    if isinstance(url, PostgresUrl):
        return schema_state_of(postgresql_schema.read_version(url.text))
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return schema_state_of(_current(connection))
    except DBAPIError as error:
        raise _unavailable(error) from error
    finally:
        engine.dispose()


def upgrade_schema(url: URL) -> bool:
    """Bring the database to the current schema; return whether there was anything to do.

    Not to be called from an event loop.

    Raises:
        SchemaTooNewError: the database was made by a newer release.
        StoreUnavailableError: the database cannot be reached, or gives a lock to others for long.
    """
    if isinstance(url, PostgresUrl):
        _refuse_newer(postgresql_schema.read_version(url.text))
        return postgresql_schema.run_migrations(url.text)
    engine = _writing_engine(url)
    try:
        with engine.connect() as connection:
            current = _current(connection)
            _refuse_newer(current)
            is_behind = schema_state_of(current) is SchemaState.BEHIND
            if is_behind:
                # Ends the transaction of the look above, so that each migration has its own.
                connection.rollback()
                config = alembic_config()
                config.attributes["connection"] = connection
                from alembic import command

                command.upgrade(config, "head")
            return is_behind
    except DBAPIError as error:
        raise _unavailable(error) from error
    finally:
        engine.dispose()


def _refuse_newer(current: str | None) -> None:
    if schema_state_of(current) is SchemaState.AHEAD:
        words = SCHEMA_WORDS[SchemaState.AHEAD]
        message = f"{words.found}, and is at version {current}: {words.remedy}"
        raise SchemaTooNewError(message)


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(_CURRENT)


def _writing_engine(url: sqlalchemy.URL) -> Engine:
    engine = create_engine(url, poolclass=NullPool)
    # The driver's own transactions skip DDL, so a crash could leave half a migration; these two
    # hooks make every migration one transaction, as the SQLAlchemy documentation advises.
    event.listen(engine, "connect", _leave_transactions_to_us)
    event.listen(engine, "begin", _begin_immediately)
    return engine


def _leave_transactions_to_us(connection: object, _record: object) -> None:
    connection.isolation_level = None  # type: ignore[attr-defined]  # a sqlite3.Connection


def _begin_immediately(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _unavailable(error: DBAPIError) -> StoreUnavailableError:
    return StoreUnavailableError(f"the database cannot be reached: {error.orig}")
