"""Each broker that ships, set up the same way for the suite of the port."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.instant import Instant
from orderkeep.messaging import Broker, Consumption, Delivery
from orderkeep.messaging.database_queue import DatabaseQueue
from tests.integration.messaging.shop_kernel import TOPOLOGY, create_tables


@dataclass
class BrokerUnderTest:
    """A broker, and what the suite may do to it that the port does not offer."""

    broker: Broker
    database: SqliteDatabase

    async def restart(self) -> None:
        """Take up the same store with a new client that remembers nothing."""
        await self.broker.close()
        self.broker = _database_queue(self.database)
        await self.broker.declare(TOPOLOGY)

    async def end_consumers(self) -> None:
        """Have every consumer die with what it has in hand."""
        assert isinstance(self.broker, DatabaseQueue)
        await self.broker.release_all_leases()

    async def taken_at_once(self, consumption: Consumption) -> Sequence[Delivery]:
        """Return what the queue hands out without waiting; the consumption ends with it."""
        taking = asyncio.create_task(consumption.take(count_max=100))
        await asyncio.sleep(0)
        consumption.stop_taking()
        async with asyncio.timeout(5):
            return await taking

    async def now(self) -> Instant:
        """Return the clock that due times are compared with."""
        return await self.database.read(lambda transaction: transaction.now())


def _database_queue(database: SqliteDatabase) -> DatabaseQueue:
    return DatabaseQueue(database, new_token=lambda: str(uuid.uuid4()), poll_interval_s=5.0)


@pytest.fixture(params=["database"])
async def under_test(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[BrokerUnderTest]:
    """A broker with the shop's queues and nothing in them."""
    assert request.param == "database"
    database = SqliteDatabase(tmp_path / "queues.db")
    await create_tables(database)
    broker = _database_queue(database)
    await broker.declare(TOPOLOGY)
    yield BrokerUnderTest(broker=broker, database=database)
    await broker.close()
    await database.close()
