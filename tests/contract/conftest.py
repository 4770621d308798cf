"""Each broker that ships, set up the same way for the suite of the port."""

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.database.transaction import Database
from orderkeep.instant import Instant
from orderkeep.messaging import Broker, Consumption, Delivery, Message
from orderkeep.messaging.database_queue import DatabaseQueue
from orderkeep.messaging.rabbitmq import RabbitBroker, RabbitOptions
from tests.cleaned_databases import CleanedDatabases
from tests.conftest import opened_postgresql
from tests.integration.messaging.shop_kernel import TOPOLOGY, create_tables
from tests.servers.availability import fresh_vhost, rabbitmq_server

# The delay that the suite's delayed messages have: what a hold queue is made for.
DELAY_S = 0.4

DEADLINE_S = 10.0


class BrokerUnderTest(ABC):
    """A broker, and what the suite may do to it that the port does not offer."""

    broker: Broker

    def __init__(self, database: Database) -> None:
        self.database = database

    @abstractmethod
    async def restart(self) -> None:
        """Take up the same store with a new client that remembers nothing."""

    @abstractmethod
    async def end_consumers(self) -> None:
        """Have every consumer die with what it has in hand."""

    @abstractmethod
    async def taken_at_once(self, consumption: Consumption, *, queue: str) -> Sequence[Delivery]:
        """Return what the queue hands out without waiting; the consumption ends with it."""

    async def now(self) -> Instant:
        """Return the clock that due times are compared with."""
        return await self.database.read(lambda transaction: transaction.now())


class DatabaseUnderTest(BrokerUnderTest):
    """Queues in the database."""

    broker: DatabaseQueue

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.broker = self._new_broker()

    async def restart(self) -> None:
        await self.broker.close()
        self.broker = self._new_broker()
        await self.broker.declare(TOPOLOGY)

    async def end_consumers(self) -> None:
        await self.broker.release_all_leases()

    async def taken_at_once(self, consumption: Consumption, *, queue: str) -> Sequence[Delivery]:
        del queue
        taking = asyncio.create_task(consumption.take(count_max=100))
        await asyncio.sleep(0)
        consumption.stop_taking()
        async with asyncio.timeout(DEADLINE_S):
            return await taking

    def _new_broker(self) -> DatabaseQueue:
        return DatabaseQueue(
            self.database, new_token=lambda: str(uuid.uuid4()), poll_interval_s=5.0
        )


class RabbitUnderTest(BrokerUnderTest):
    """A virtual host of a real RabbitMQ."""

    broker: RabbitBroker

    def __init__(self, database: SqliteDatabase, *, url: str) -> None:
        super().__init__(database)
        self._url = url
        self.broker = self._new_broker()

    async def restart(self) -> None:
        await self.broker.close()
        self.broker = self._new_broker()
        await self.broker.declare(TOPOLOGY)

    async def end_consumers(self) -> None:
        # With a goodbye: behind it every acknowledgement has arrived. `drop` has tests elsewhere.
        await self.broker._consuming.close()

    async def taken_at_once(self, consumption: Consumption, *, queue: str) -> Sequence[Delivery]:
        # What was there before comes before what is sent now.
        last = Message(
            route=queue,
            message_id="last",
            type="",
            body=b"last",
            headers={},
            published_at=await self.now(),
        )
        await self.broker.publish([last], now=await self.now())
        taken: list[Delivery] = []
        async with asyncio.timeout(DEADLINE_S):
            while not any(delivery.message_id == b"last" for delivery in taken):
                taken += await consumption.take(count_max=100)
        await consumption.close()
        return [delivery for delivery in taken if delivery.message_id != b"last"]

    def _new_broker(self) -> RabbitBroker:
        return RabbitBroker(
            [self._url], options=RabbitOptions(hold_s=DELAY_S), draw_jitter=lambda: 0.5
        )


@pytest.fixture(params=["database", "postgresql", "rabbitmq"])
async def under_test(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[BrokerUnderTest]:
    """A broker with the shop's queues and nothing in them."""
    if request.param == "postgresql":
        # Queues in the database as well, and another engine behind them.
        databases: CleanedDatabases = request.getfixturevalue("shop_databases")
        with databases.given() as url:
            async with opened_postgresql(url) as postgresql_database:
                of_postgresql = DatabaseUnderTest(postgresql_database)
                await of_postgresql.broker.declare(TOPOLOGY)
                yield of_postgresql
                await of_postgresql.broker.close()
        return
    database = SqliteDatabase(tmp_path / "queues.db")
    await create_tables(database)
    if request.param == "database":
        tested: BrokerUnderTest = DatabaseUnderTest(database)
        await tested.broker.declare(TOPOLOGY)
        yield tested
        await tested.broker.close()
    else:
        with fresh_vhost(rabbitmq_server()) as url:
            tested = RabbitUnderTest(database, url=url)
            await tested.broker.declare(TOPOLOGY)
            yield tested
            await tested.broker.close()
    await database.close()


@pytest.fixture
async def queues_in_database(tmp_path: Path) -> AsyncIterator[BrokerUnderTest]:
    """Queues in the database, for what only they promise."""
    database = SqliteDatabase(tmp_path / "queues.db")
    await create_tables(database)
    tested = DatabaseUnderTest(database)
    await tested.broker.declare(TOPOLOGY)
    yield tested
    await tested.broker.close()
    await database.close()
