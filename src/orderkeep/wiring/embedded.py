"""The whole shop in one process on an embedded database: what `orderkeep run` is.

Invariant: one `run` holds the data directory; so every lease it finds belongs to nobody, and the
messages of a killed predecessor are handed out again at once.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import structlog

from orderkeep import failure_points
from orderkeep.data_directory import (
    lock_data_directory,
    prepare_data_directory,
    read_or_make_secret,
)
from orderkeep.database.schema_version import upgrade_schema
from orderkeep.settings import Settings
from orderkeep.web.server import listen
from orderkeep.wiring import chance
from orderkeep.wiring.shop import build_shop, run_shop
from orderkeep.wiring.storage import open_database, open_database_queue

log = structlog.get_logger()


def find_jwt_secret(settings: Settings) -> str:
    """Return the key that signs tokens: the setting, else the data directory's own.

    Raises:
        DataDirectoryError: the directory's secret can be neither read nor made.
    """
    if settings.jwt_secret is not None:
        return settings.jwt_secret.get_secret_value()
    prepare_data_directory(settings.data_dir)
    return read_or_make_secret(settings.data_dir, drawn=chance.draw_secret())


async def run_embedded(
    settings: Settings, *, stop: asyncio.Event, announce: Callable[[str], None]
) -> None:
    """Run the whole shop until the stop event is set.

    Args:
        announce: Told the address once requests are answered there.

    Raises:
        DataDirectoryError: the data directory cannot be written, or another `run` holds it.
        PortInUseError: the port cannot be had.
        SchemaTooNewError: the database was made by a newer release.
        NotInThisReleaseError: the settings name an engine that this release does not have.
        StoreUnavailableError: the database cannot be opened.
    """
    failure_points.arm(settings.armed_point)
    with _held_directories(settings):
        await _run_alone(settings, stop=stop, announce=announce)


@contextmanager
def _held_directories(settings: Settings) -> Iterator[None]:
    # The database may lie outside the data directory: then its own directory is held as well.
    held = {settings.data_dir.resolve()}
    if settings.sqlite_path is not None:
        held.add(settings.sqlite_path.resolve().parent)
    with ExitStack() as locks:
        for directory in sorted(held):
            prepare_data_directory(directory)
            locks.callback(lock_data_directory(directory).close)
        yield


async def _run_alone(
    settings: Settings, *, stop: asyncio.Event, announce: Callable[[str], None]
) -> None:
    database = open_database(settings)
    try:
        listener = listen(settings.http_host, settings.http_port)
        try:
            await asyncio.to_thread(upgrade_schema, settings.effective_database_url)
            queue = open_database_queue(settings, database)
            released_count = await queue.release_all_leases()
            if released_count:
                log.info("messages_recovered", message_count=released_count)
            async with httpx.AsyncClient(follow_redirects=False) as client:
                shop = build_shop(
                    settings,
                    database=database,
                    queue=queue,
                    jwt_secret=find_jwt_secret(settings),
                    client=client,
                )
                announce(listener.url)
                await run_shop(shop, listener=listener, stop=stop, shutdown_s=settings.shutdown_s)
        finally:
            listener.close()
    finally:
        await database.close()
