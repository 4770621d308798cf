"""The process that crash tests kill: it dispatches and consumes until nothing is on its way."""

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import structlog

from orderkeep import failure_points
from orderkeep.database.transaction import Transaction
from orderkeep.messaging import Outcome, Received
from orderkeep.messaging.database_queue import DatabaseQueue
from tests.integration.messaging.shop_kernel import Shop, open_shop, record_effects


async def handle(transaction: Transaction, batch: Sequence[Received[str]]) -> Sequence[Outcome]:
    """Take effect; raise for poison, and end the process for what is deadly."""
    for message in batch:
        if message.body == "poison":
            raise ZeroDivisionError
        if message.body == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
    return await record_effects(transaction, batch)


async def drain(shop: Shop) -> None:
    """Start as `orderkeep run` does, and work until nothing is left to do."""
    assert isinstance(shop.broker, DatabaseQueue)
    await shop.broker.release_all_leases()
    await shop.work_until_drained(handle)
    await shop.database.close()


def main(arguments: list[str]) -> None:
    """Work on the database, the first argument; the second is a failure point to arm."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    if len(arguments) > 1:
        failure_points.arm(failure_points.parse(arguments[1]))
    asyncio.run(drain(open_shop(Path(arguments[0]))))
