"""What is known of orders, on PostgreSQL: whoever locks or notes an order holds it to the end."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from orderkeep.contracts.order_status import Status
from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.payments.store.known_orders import KnownOrder, lock_orders, note_orders
from tests.condition import DEADLINE_S

NOW = Instant(1_704_103_200_000_000)

WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def order(order_no: str, *, version: int) -> KnownOrder:
    return KnownOrder(
        order_no=order_no,
        user_id="ann",
        status=Status.PENDING_PAYMENT,
        version=version,
        amount_minor=100,
        currency="CNY",
        expires_at=NOW,
    )


async def lock(transaction: Transaction) -> None:
    await lock_orders(transaction, {"2", "1"}, now=NOW)


async def note_news(transaction: Transaction) -> None:
    assert await note_orders(transaction, [order("1", version=3)], now=NOW) == {"1"}


async def note_nothing_new(transaction: Transaction) -> None:
    assert await note_orders(transaction, [order("1", version=2)], now=NOW) == set()


@pytest.mark.parametrize("second", [lock, note_nothing_new])
@pytest.mark.parametrize("first", [lock, note_news, note_nothing_new])
async def test_the_second_waits_for_the_end_of_the_first(
    postgresql_database: PostgresDatabase,
    postgresql_url: str,
    first: Callable[[Transaction], Awaitable[None]],
    second: Callable[[Transaction], Awaitable[None]],
) -> None:
    database = postgresql_database
    is_held, may_end = asyncio.Event(), asyncio.Event()
    ends: list[str] = []

    async def know(transaction: Transaction) -> None:
        await note_orders(transaction, [order("1", version=2)], now=NOW)

    async def hold(transaction: Transaction) -> None:
        await first(transaction)
        is_held.set()
        await may_end.wait()
        ends.append("first")

    async def follow(transaction: Transaction) -> None:
        await second(transaction)
        ends.append("second")

    await database.transact(know)
    holding = asyncio.create_task(database.transact(hold))
    await is_held.wait()
    following = asyncio.create_task(database.transact(follow))
    connection = await asyncpg.connect(postgresql_url)
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await connection.fetchval(WAITING):
                await asyncio.sleep(0.005)
    finally:
        may_end.set()
        await asyncio.wait([holding, following])
        await connection.close()

    assert holding.exception() is None
    assert following.exception() is None
    assert ends == ["first", "second"]
