"""Several processes on one PostgreSQL: they wait for each other, and never for ever."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count, cycle
from typing import Any

import pytest
from sqlalchemy import text

from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import CommitUnknownError, StoreUnavailableError
from orderkeep.orders.order import Order
from orderkeep.orders.placing import PlacedOrder
from orderkeep.orders.sweep import Sweep
from orderkeep.refusal import Refusal
from tests.conftest import opened_postgresql
from tests.integration.orders.shop import Shop, payment, request
from tests.servers.fault_proxy import FaultProxy

SKUS = ("tea", "pot", "mug")


@asynccontextmanager
async def opened_shops(url: str, shop_count: int) -> AsyncIterator[list[Shop]]:
    """Open as many shops as processes would, each with numbers of its own."""
    async with AsyncExitStack() as stack:
        shops = []
        for index in range(shop_count):
            database = await stack.enter_async_context(opened_postgresql(url))
            shop = Shop(database)
            shop._numbers = count(index + 1, shop_count)
            shop._refund_numbers = count(index + 1, shop_count)
            shop._message_ids = count(index + 1, shop_count)
            shops.append(await stack.enter_async_context(shop.open()))
        yield shops


def deadlocks(shop: Shop) -> int:
    row = shop.row("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    return row["deadlocks"]


def waits_for_a_lock(shop: Shop) -> bool:
    """Return whether any transaction in the shop's database waits for a lock."""
    rows = shop.rows(
        "SELECT 1 FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return len(rows) > 0


async def all_of(*works: Awaitable[Any]) -> list[Any]:
    """Let all end; refusals are answers, everything else that is raised is a failure."""
    answers = await asyncio.gather(*works, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, Refusal):
            raise answer
    return answers


async def place(shop: Shop, user_id: str, skus: Sequence[str]) -> Order:
    return await shop.order(user_id, key=f"{user_id}-key", **dict.fromkeys(skus, 1))


async def test_crowds_on_the_same_skus_in_every_order_never_deadlock(postgresql_url: str) -> None:
    async with opened_shops(postgresql_url, 3) as shops:
        await shops[0].fill(tea=500, pot=500, mug=500)
        before = deadlocks(shops[0])
        turns = cycle(shops)
        for turn in range(4):
            placed = await all_of(
                *(
                    place(next(turns), f"u{turn}-{n}", SKUS if n % 2 else SKUS[::-1])
                    for n in range(30)
                )
            )
            orders = [order for order in placed if isinstance(order, Order)]
            assert len(orders) == 30
            for order in orders[:20]:
                shops[0].make_due(order)
            due = orders[:20]
            await all_of(
                *(next(turns).close(*due[start : start + 10]) for start in (0, 10)),
                *(next(turns).close(*due[start : start + 10][::-1]) for start in (0, 10)),
                *(next(turns).cancel(order) for order in orders[10:25]),
                next(turns).pay(*(payment(order, f"T{order.order_no}") for order in orders[5:30])),
                next(turns).pay(
                    *(payment(order, f"U{order.order_no}") for order in reversed(orders[5:30]))
                ),
                *(place(next(turns), f"v{turn}-{n}", SKUS[n % 3 :]) for n in range(10)),
            )

        assert deadlocks(shops[0]) == before
        assert await shops[0].breaches() == []
        assert shops[0].count_rows("orders") == 4 * 40


async def test_the_same_key_in_every_process_is_one_order(postgresql_url: str) -> None:
    async with opened_shops(postgresql_url, 4) as shops:
        await shops[0].fill(tea=100)

        answers = await all_of(*(shop.desk.place(request(("tea", 2), key="k")) for shop in shops))

        placed = [answer for answer in answers if isinstance(answer, PlacedOrder)]
        assert len({answer.order.order_no for answer in placed}) == 1
        assert sum(not answer.is_replayed for answer in placed) == 1
        assert shops[0].stock_of("tea") == (98, 2, 0)


async def test_the_last_piece_is_sold_once(postgresql_url: str) -> None:
    async with opened_shops(postgresql_url, 4) as shops:
        await shops[0].fill(tea=1)

        answers = await all_of(
            *(shop.order(f"u{n}", key="k", tea=1) for n, shop in enumerate(shops))
        )

        assert sum(isinstance(answer, Order) for answer in answers) == 1
        assert shops[0].stock_of("tea") == (0, 1, 0)


async def test_one_payment_that_every_process_hears_of_is_recorded_once(
    postgresql_url: str,
) -> None:
    """Also where no order is there to be locked: whoever comes second finds it on record."""
    async with opened_shops(postgresql_url, 4) as shops:
        await shops[0].fill(tea=10)
        order = await shops[0].order(tea=1)
        other = await shops[0].order("bob", tea=1)

        await all_of(
            *(shop.pay(payment(order if n % 2 else other, "T1")) for n, shop in enumerate(shops))
        )

        assert shops[0].count_rows("order_payments") == 1
        assert await shops[0].breaches() == []


async def test_sweeps_beside_each_other_close_each_order_once(postgresql_url: str) -> None:
    async with opened_shops(postgresql_url, 3) as shops:
        await shops[0].fill(tea=100)
        orders = [await shops[0].order(f"u{n}", tea=1) for n in range(40)]
        for order in orders:
            shops[0].make_due(order, since_s=60.0)
        sweeps = [
            Sweep(database=shop.database, outbox=shop.outbox, interval_s=30, grace_s=30)
            for shop in shops
        ]

        closed_counts = await all_of(*(sweep.run_once() for sweep in sweeps))

        assert sum(closed_counts) == 40
        assert shops[0].stock_of("tea") == (100, 0, 0)
        assert await shops[0].breaches() == []


@pytest.fixture
async def proxy(postgresql_url: str) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(postgresql_url).listening() as proxy:
        yield proxy


async def test_a_batch_whose_commit_is_unknown_is_answered_with_the_orders_it_made(
    proxy: FaultProxy, postgresql_database: PostgresDatabase
) -> None:
    beside = Shop(postgresql_database)
    await beside.fill(tea=10)
    async with opened_postgresql(proxy.url) as database, Shop(database).open() as shop:
        proxy.cuts_count = 1

        answers = await all_of(
            *(shop.desk.place(request(("tea", 1), user_id=f"u{n}")) for n in range(3))
        )

    # The client sees its order for the first time, although its key is known.
    assert all(isinstance(answer, PlacedOrder) for answer in answers)
    assert answers[0].is_replayed
    assert proxy.cut_count == 1
    assert beside.count_rows("orders") == 3
    assert beside.stock_of("tea") == (7, 3, 0)
    assert await beside.breaches() == []


async def test_a_batch_that_stays_unknown_is_no_verdict_and_its_key_answers_later(
    proxy: FaultProxy, postgresql_database: PostgresDatabase
) -> None:
    beside = Shop(postgresql_database)
    await beside.fill(tea=10)
    async with opened_postgresql(proxy.url) as database, Shop(database).open() as shop:
        proxy.cuts_count = 3

        with pytest.raises(CommitUnknownError):
            await shop.desk.place(request(("tea", 1), key="k"))
        later = await shop.desk.place(request(("tea", 1), key="k"))

    assert later.is_replayed
    assert beside.count_rows("orders") == 1
    assert beside.stock_of("tea") == (9, 1, 0)


async def test_what_cannot_be_served_now_is_not_run_again_by_the_intake(
    postgresql_url: str, postgresql_database: PostgresDatabase
) -> None:
    beside = Shop(postgresql_database)
    await beside.fill(tea=10)

    async def lock(transaction) -> None:
        await transaction.execute(Statement(text("SELECT 1")))
        async with opened_postgresql(postgresql_url) as database, Shop(database).open() as shop:
            database._limits = database._limits.__class__(lock_s=0.05)
            await transaction.fetch_all(Statement(text("SELECT * FROM stock FOR UPDATE")))
            with pytest.raises(StoreUnavailableError, match="lock timeout"):
                await shop.desk.place(request(("tea", 1), key="k"))

    await postgresql_database.transact(lock)

    assert beside.count_rows("orders") == 0
