"""Bring a database to the schema that this release expects, or say why not.

Each migration runs in a transaction of its own with its new version, so a crash leaves the database
at a version, never between two.
"""

from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, column, create_engine, event, select, table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from orderkeep.database.statement import Statement
from orderkeep.database.transaction import ReadTransaction, StoreUnavailableError

__all__ = [
    "URL",
    "SchemaState",
    "SchemaTooNewError",
    "find_schema_state",
    "find_schema_version",
    "newest_schema_version",
    "sqlite_url",
    "upgrade_schema",
]

_VERSION = Statement(select(column("version_num")).select_from(table("alembic_version")).limit(1))

_SCRIPTS = Path(__file__).parent / "migrations"


class SchemaState(StrEnum):
    """How a database stands to this release."""

    CURRENT = "current"
    BEHIND = "behind"
    # Made by a newer release: this one does not know its migrations.
    AHEAD = "ahead"


class SchemaTooNewError(Exception):
    """The database was made by a newer release than this one."""


def sqlite_url(path: Path) -> URL:
    """Return the URL by which migrations reach a SQLite file, whatever its path holds."""
    return URL.create("sqlite", database=str(path))


@lru_cache(maxsize=1)
def newest_schema_version() -> str:
    """Return the version that this release brings a database to."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


async def find_schema_version(transaction: ReadTransaction) -> str | None:
    """Return the version that the database is at, or None if no migration has run."""
    row = await transaction.fetch_one(_VERSION)
    return None if row is None else row["version_num"]


def find_schema_state(url: URL) -> SchemaState:
    """Return how the database stands to this release.

    Raises:
        StoreUnavailableError: the database cannot be reached.
    """
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return _state(connection)
    except DBAPIError as error:
        raise _unavailable(error) from error
    finally:
        engine.dispose()


def upgrade_schema(url: URL) -> bool:
    """Bring the database to the current schema; return whether there was anything to do.

    Raises:
        SchemaTooNewError: the database was made by a newer release.
        StoreUnavailableError: the database cannot be reached.
    """
    engine = _writing_engine(url)
    try:
        with engine.connect() as connection:
            state = _state(connection)
            if state is SchemaState.AHEAD:
                message = (
                    f"the database is at version {_current(connection)}, which this release of"
                    " Orderkeep does not know: install the release that made it, or a newer one"
                )
                raise SchemaTooNewError(message)
            if state is SchemaState.BEHIND:
                # Ends the transaction of the look above, so that each migration has its own.
                connection.rollback()
                config = _config()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
            return state is SchemaState.BEHIND
    except DBAPIError as error:
        raise _unavailable(error) from error
    finally:
        engine.dispose()


def _state(connection: Connection) -> SchemaState:
    current = _current(connection)
    if current == newest_schema_version():
        return SchemaState.CURRENT
    scripts = ScriptDirectory.from_config(_config())
    known = {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        return SchemaState.AHEAD
    return SchemaState.BEHIND


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _writing_engine(url: URL) -> Engine:
    engine = create_engine(url, poolclass=NullPool)
    if engine.dialect.name == "sqlite":
        # The driver's own transactions skip DDL, so a crash could leave half a migration; these
        # two hooks make every migration one transaction, as the SQLAlchemy documentation advises.
        event.listen(engine, "connect", _leave_transactions_to_us)
        event.listen(engine, "begin", _begin_immediately)
    return engine


def _leave_transactions_to_us(connection: object, _record: object) -> None:
    connection.isolation_level = None  # type: ignore[attr-defined]  # a sqlite3.Connection


def _begin_immediately(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _unavailable(error: DBAPIError) -> StoreUnavailableError:
    return StoreUnavailableError(f"the database cannot be reached: {error.orig}")
