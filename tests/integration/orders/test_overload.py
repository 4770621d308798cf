"""Beyond what the database can do, orders wait or are refused; cancels and payments go on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.typing import EventDict

from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.postgresql_connection import PostgresLimits
from orderkeep.database.transaction import StoreBusyError, Transaction
from orderkeep.database.turns import _Line, going_first
from orderkeep.orders.placing import PlacedOrder
from orderkeep.orders.store.stock import find_held_skus, lock_skus
from orderkeep.refusal import Refusal
from tests.integration.orders.shop import Shop, payment, request, until


@asynccontextmanager
async def held(database: PostgresDatabase, *sku_ids: str) -> AsyncIterator[None]:
    """Hold the stock of SKUs, as another process that hangs in a transaction would."""
    is_held, may_go = asyncio.Event(), asyncio.Event()

    async def hold(transaction: Transaction) -> None:
        await lock_skus(transaction, sku_ids)
        is_held.set()
        await may_go.wait()

    holding = asyncio.create_task(database.transact(hold))
    try:
        await is_held.wait()
        yield
    finally:
        may_go.set()
        await holding


@pytest.fixture
async def impatient(postgresql_url: str) -> AsyncIterator[PostgresDatabase]:
    """An engine that waits for a lock only briefly, with two connections."""
    database = PostgresDatabase(
        postgresql_url,
        draw_jitter=lambda: 0.5,
        pool_size=2,
        pool_wait_s=10.0,
        limits=PostgresLimits(lock_s=0.2),
    )
    yield database
    await database.close()


async def test_who_wants_what_nobody_holds_is_served_beside_who_wants_what_is_held(
    postgresql_database: PostgresDatabase, impatient: PostgresDatabase, logged: list[EventDict]
) -> None:
    shop = Shop(postgresql_database, served=impatient)
    await shop.fill(tea=10, pot=10, mug=10)
    buyers = [
        asyncio.create_task(shop.desk.place(request(*wanted, user_id=f"buyer-{n}")))
        for n, wanted in enumerate(
            [(("tea", 1),), (("pot", 1),), (("pot", 1), ("tea", 1)), (("mug", 2),)]
        )
    ]
    await until(lambda: len(shop.desk.intake._waiting) == 4)

    async with held(postgresql_database, "tea"), shop.open():
        answers = await asyncio.gather(*buyers, return_exceptions=True)
    async with shop.open():
        later = await shop.order(tea=1)

    assert [type(answer) for answer in answers] == [
        StoreBusyError,
        PlacedOrder,
        StoreBusyError,
        PlacedOrder,
    ]
    assert later.status == "pending_payment"
    assert shop.count_rows("orders") == 3
    assert shop.stock_of("pot") == (9, 1, 0)
    assert [line["held"] for line in logged if line["event"] == "intake_batch_parted"] == [["tea"]]
    assert await shop.breaches() == []


async def test_a_held_sku_is_found_and_one_that_does_not_exist_is_not_taken_for_held(
    postgresql_database: PostgresDatabase, impatient: PostgresDatabase
) -> None:
    shop = Shop(postgresql_database)
    await shop.fill(tea=1, pot=1)

    async def find(transaction: Transaction) -> set[str]:
        return await find_held_skus(transaction, ["tea", "pot", "none"])

    async with held(postgresql_database, "tea"):
        assert await impatient.transact(find) == {"tea"}
    assert await impatient.transact(find) == set()


async def test_while_orders_wait_for_held_stock_others_are_refused_and_the_rest_goes_on(
    postgresql_database: PostgresDatabase, impatient: PostgresDatabase
) -> None:
    shop = Shop(postgresql_database, served=impatient, batch_size_max=1, waiting_count_max=3)
    async with shop.open():
        await shop.fill(tea=10, pot=10)
        paid, cancelled = await shop.order(pot=1), await shop.order(pot=1)
        async with held(postgresql_database, "tea"):
            waiting = [
                asyncio.create_task(shop.desk.place(request(("tea", 1), user_id=f"buyer-{n}")))
                for n in range(4)
            ]
            await until(lambda: len(shop.desk.intake._waiting) == 3)

            with pytest.raises(Refusal, match="overloaded"):
                await shop.order(pot=1)
            await shop.pay(payment(paid, "T1"))
            await shop.cancel(cancelled)
        await asyncio.gather(*waiting, return_exceptions=True)

        assert (await shop.order(tea=1)).status == "pending_payment"
    assert shop.order_row(paid.order_no)["status"] == "paid"
    assert shop.order_row(cancelled.order_no)["status"] == "cancelled"
    assert await shop.breaches() == []


async def test_what_goes_first_takes_the_next_free_connection_before_all_who_wait_longer(
    impatient: PostgresDatabase,
) -> None:
    may_end = asyncio.Event()
    begun: list[str] = []

    async def hold(_transaction: Transaction) -> None:
        await may_end.wait()

    async def note(name: str) -> None:
        async def work(_transaction: Transaction) -> None:
            begun.append(name)

        await impatient.transact(work)

    pool = impatient._pool
    holders = [asyncio.create_task(impatient.transact(hold)) for _ in range(2)]
    await until(lambda: pool._taken_count == 2)
    others = [asyncio.create_task(note("other")) for _ in range(20)]
    await until(lambda: len(pool._waiting._lines[_Line.FRONT]) == 20)
    cancel = asyncio.ensure_future(going_first(note)("cancel"))
    await until(lambda: len(pool._waiting._lines[_Line.FIRST]) == 1)

    may_end.set()
    await asyncio.gather(*holders, *others, cancel)

    # Two connections come free at once, so one other may begin beside it.
    assert "cancel" in begun[:2]
