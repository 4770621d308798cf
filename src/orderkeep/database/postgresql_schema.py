"""Migrations on PostgreSQL: each one a transaction, run by one process at a time.

Alembic writes the SQL, and the driver that everything else uses runs it: a migration says with
`op` what changes and asks the database nothing.

Invariant: a migration and the version it leads to commit together, so a crash leaves the database
at a version, never between two. Whoever runs one holds the lock of all migrations up to the commit
and looks at the version under it: of two processes that begin at once, one finds nothing to do. A
migration that would have to wait for others' locks for long gives up and tries again: in the
meantime it would have kept everybody else waiting behind it.
"""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING
from zlib import crc32

import asyncpg

from orderkeep.database.migration_scripts import following_version, upgrade_sql
from orderkeep.database.postgresql_connection import (
    PostgresLimits,
    connect,
    end_connection,
    limits_of_transaction,
)
from orderkeep.database.postgresql_errors import DRIVER_ERRORS, said_by
from orderkeep.database.transaction import StoreUnavailableError

if TYPE_CHECKING:
    from orderkeep.database.postgresql_connection import Connection

# Building an index of a large table takes its time; it is the waits for locks that are bounded.
_LIMITS = replace(PostgresLimits(), statement_s=0.0, read_statement_s=0.0)

# How often a migration asks for its locks, `lock_s` each time: for about a minute and a half.
_TRIES_MAX = 30
_PAUSE_S = 1.0

_CLOSE_S_MAX = 1.0

_LOCK_KEY = crc32(b"orderkeep migrations")

_VERSION_SQL = "SELECT version_num FROM alembic_version"


def read_version(url: str) -> str | None:
    """Return the version that the database is at, or None if no migration has run.

    Raises:
        StoreUnavailableError: the database cannot be reached.
    """
    return asyncio.run(_read_version(url))


def run_migrations(url: str) -> bool:
    """Run what migrations are left to run; return whether this process ran any.

    Raises:
        StoreUnavailableError: the database cannot be reached, or gives a lock to others for long.
    """
    return asyncio.run(_run_migrations(url))


async def _read_version(url: str) -> str | None:
    connection = await connect(url, limits=PostgresLimits())
    try:
        return await _version(connection)
    except DRIVER_ERRORS as error:
        message = f"cannot read the version of the schema: {said_by(error)}"
        raise StoreUnavailableError(message) from error
    finally:
        await end_connection(connection, within_s=_CLOSE_S_MAX)


async def _run_migrations(url: str) -> bool:
    connection = await connect(url, limits=_LIMITS)
    has_run = False
    try:
        while await _run_next(connection):
            has_run = True
    except DRIVER_ERRORS as error:
        message = f"a migration failed, and changed nothing: {said_by(error)}"
        raise StoreUnavailableError(message) from error
    finally:
        await end_connection(connection, within_s=_CLOSE_S_MAX)
    return has_run


async def _run_next(connection: "Connection") -> bool:
    """Run the next migration, if there is one, as soon as it has its locks."""
    for tries_count in range(1, _TRIES_MAX + 1):
        try:
            async with connection.transaction():
                return await _migrate(connection)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if tries_count == _TRIES_MAX:
                raise
        await asyncio.sleep(_PAUSE_S)
    raise AssertionError


async def _migrate(connection: "Connection") -> bool:
    await connection.execute(limits_of_transaction(_LIMITS))
    await connection.execute("SELECT pg_advisory_xact_lock($1::bigint)", _LOCK_KEY)
    version = await _version(connection)
    following = following_version(version)
    if following is None:
        return False
    await connection.execute(upgrade_sql(version, following))
    return True


async def _version(connection: "Connection") -> str | None:
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    version: str | None = await connection.fetchval(_VERSION_SQL)
    return version
