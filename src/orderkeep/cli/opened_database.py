"""Opens the database for one command, beside a service that may be running on it.

Invariant: a command that only reads makes no file. A database of another schema is left alone: a
newer one is not understood, an older one is brought up by `orderkeep migrate` or the next `run`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from orderkeep.cli.exits import WrongUsageError
from orderkeep.data_directory import prepare_data_directory
from orderkeep.database.postgresql_connection import PostgresLimits
from orderkeep.database.schema_version import (
    SCHEMA_WORDS,
    SchemaState,
    SchemaTooNewError,
    find_schema_state,
    upgrade_schema,
)
from orderkeep.database.transaction import Database
from orderkeep.settings import Settings
from orderkeep.wiring.storage import open_database, schema_url

T = TypeVar("T")


# A query over all of tens of millions of orders takes minutes.
PATIENT_READS = PostgresLimits(read_statement_s=3600.0)


def with_database(
    settings: Settings,
    work: Callable[[Database], Awaitable[T]],
    *,
    limits: PostgresLimits | None = None,
) -> T:
    """Do the work with the database open, and return its answer.

    Args:
        settings: Which one.
        work: What is to be done.
        limits: How long anything may take on PostgreSQL; None takes the defaults.

    Raises:
        WrongUsageError: there is no database yet, or its schema is an older one.
        SchemaTooNewError: the database was made by a newer release.
        StoreUnavailableError: it cannot be opened.
    """

    async def run() -> T:
        async with opened_database(settings, limits=limits) as database:
            return await work(database)

    return asyncio.run(run())


@asynccontextmanager
async def opened_database(
    settings: Settings, *, limits: PostgresLimits | None = None
) -> AsyncIterator[Database]:
    """Open the database as it stands; see `with_database` for what is raised."""
    database = open_database(settings, limits=limits)
    try:
        path = settings.sqlite_path
        if path is not None and not path.exists():
            message = (
                f"there is no database at {path}: start the service with `orderkeep run`,"
                " or set ORDERKEEP_DATA_DIR to where it keeps its data"
            )
            raise WrongUsageError(message)
        _check_schema(await asyncio.to_thread(find_schema_state, schema_url(settings)))
        yield database
    finally:
        await database.close()


async def bring_up(settings: Settings) -> bool:
    """Make the database if it is missing, bring it to the current schema; return what changed.

    Raises:
        DataDirectoryError: the database's directory cannot be written.
        SchemaTooNewError: the database was made by a newer release.
        StoreUnavailableError: it cannot be opened.
    """
    if settings.sqlite_path is not None:
        prepare_data_directory(settings.sqlite_path.parent)
    return await asyncio.to_thread(upgrade_schema, schema_url(settings))


def _check_schema(state: SchemaState) -> None:
    match state:
        case SchemaState.AHEAD:
            raise SchemaTooNewError(str(SCHEMA_WORDS[state]))
        case SchemaState.BEHIND:
            raise WrongUsageError(str(SCHEMA_WORDS[state]))
        case SchemaState.CURRENT:
            return
