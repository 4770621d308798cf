"""The whole shop in one process on an embedded database: what `orderkeep run` is.

Invariant: one `run` holds the data directory; so every lease it finds belongs to nobody, and what
a killed predecessor had in hand, messages and refunds, is taken up again at once.
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
)
from orderkeep.database.schema_version import upgrade_schema
from orderkeep.database.transaction import Database
from orderkeep.messaging.database_queue import DatabaseQueue
from orderkeep.payments.carry_out_refunds import release_refund_claims
from orderkeep.settings import Settings
from orderkeep.web.server import listen
from orderkeep.wiring.keys import find_jwt_secret
from orderkeep.wiring.shop import build_shop, run_shop
from orderkeep.wiring.storage import open_database, open_database_queue, schema_url

log = structlog.get_logger()


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
            await asyncio.to_thread(upgrade_schema, schema_url(settings))
            queue = open_database_queue(settings, database)
            await _recover(database, queue)
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


async def _recover(database: Database, queue: DatabaseQueue) -> None:
    """Take up at once what a killed predecessor had in hand."""
    message_count = await queue.release_all_leases()
    if message_count:
        log.info("messages_recovered", message_count=message_count)
    refund_count = await database.transact(release_refund_claims)
    if refund_count:
        log.info("refunds_recovered", refund_count=refund_count)
