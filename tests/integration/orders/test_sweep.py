"""The sweep: what no message closed is closed all the same."""

import asyncio

import asyncpg
import pytest
from structlog.typing import EventDict

from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.transaction import Database, StoreUnavailableError
from orderkeep.orders.order import Order
from orderkeep.orders.sweep import Sweep
from tests.integration.orders.shop import CountingDatabase, Shop, request, until


def sweep_of(shop: Shop, *, grace_s: float = 30.0, interval_s: float = 30.0) -> Sweep:
    return Sweep(database=shop.database, outbox=shop.outbox, interval_s=interval_s, grace_s=grace_s)


async def _orders(shop: Shop, count: int) -> list[Order]:
    await shop.fill(tea=count)
    placed = await asyncio.gather(
        *(shop.desk.place(request(("tea", 1), user_id=f"buyer-{n}")) for n in range(count))
    )
    return [answer.order for answer in placed]


def _statuses(shop: Shop) -> dict[str, int]:
    rows = shop.rows("SELECT status, count(*) AS n FROM orders GROUP BY status")
    return {row["status"]: row["n"] for row in rows}


async def test_only_what_is_overdue_by_more_than_the_grace_is_closed(shop: Shop) -> None:
    fresh, overdue, forgotten = await _orders(shop, 3)
    shop.make_due(overdue, since_s=20.0)
    shop.make_due(forgotten, since_s=40.0)

    closed_count = await sweep_of(shop, grace_s=30.0).run_once()

    assert closed_count == 1
    assert [shop.order_row(one.order_no)["status"] for one in (fresh, overdue, forgotten)] == [
        "pending_payment",
        "pending_payment",
        "closed",
    ]
    assert shop.history(forgotten.order_no)[1] == (
        2,
        "pending_payment",
        "closed",
        "payment_timeout",
        "sweep",
    )
    assert await shop.breaches() == []


async def test_nothing_is_closed_before_its_deadline_even_without_grace(shop: Shop) -> None:
    await _orders(shop, 3)
    before = shop.dump()

    assert await sweep_of(shop, grace_s=0.0).run_once() == 0
    assert shop.dump() == before


async def test_ended_orders_are_left_alone(shop: Shop) -> None:
    cancelled, closed = await _orders(shop, 2)
    await shop.cancel(cancelled)
    await shop.expire(closed)
    shop.make_due(cancelled, since_s=60.0)
    before = shop.dump()

    assert await sweep_of(shop).run_once() == 0
    assert shop.dump() == before


async def test_more_orders_than_fit_a_transaction_are_closed_in_one_sweep(
    database: Database,
) -> None:
    counted = CountingDatabase(database)
    async with Shop(database, served=counted).open() as shop:
        orders = await _orders(shop, 450)
        shop.write("UPDATE orders SET expires_at = :at", at=orders[0].created_at - 60_000_000)
        counted.transactions_count = 0

        closed_count = await sweep_of(shop).run_once()

    assert closed_count == 450
    assert counted.transactions_count == 3
    assert _statuses(shop) == {"closed": 450}
    assert shop.stock_of("tea") == (450, 0, 0)
    assert await shop.breaches() == []


async def test_the_sweep_and_the_message_at_once_close_an_order_once(shop: Shop) -> None:
    orders = await _orders(shop, 20)
    for order in orders:
        shop.make_due(order, since_s=60.0)

    await asyncio.gather(
        sweep_of(shop).run_once(),
        *(shop.close(order) for order in orders),
        sweep_of(shop).run_once(),
    )

    assert _statuses(shop) == {"closed": 20}
    assert [len(shop.history(order.order_no)) for order in orders] == [2] * 20
    assert await shop.breaches() == []


async def test_an_order_that_cannot_be_closed_holds_back_nobody_else(
    shop: Shop, logged: list[EventDict]
) -> None:
    orders = await _orders(shop, 5)
    for order in orders:
        shop.make_due(order, since_s=60.0)
    shop.sql.poison("orders", on="UPDATE", when=f"NEW.order_no = '{orders[2].order_no}'")

    async with asyncio.timeout(10):
        closed_count = await sweep_of(shop).run_once()

    assert closed_count == 4
    assert [line["order_no"] for line in logged if line["event"] == "sweep_failed"] == [
        orders[2].order_no
    ]
    assert _statuses(shop) == {"closed": 4, "pending_payment": 1}


async def test_a_batch_full_of_orders_that_cannot_be_closed_ends_and_holds_back_nobody(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orderkeep.orders.sweep.CLOSED_PER_TRANSACTION_MAX", 3)
    orders = await _orders(shop, 8)
    for n, order in enumerate(orders):
        shop.make_due(order, since_s=1_000.0 - n)
    poisoned = ", ".join(f"'{order.order_no}'" for order in orders[:3])
    shop.sql.poison("orders", on="UPDATE", when=f"NEW.order_no IN ({poisoned})")

    async with asyncio.timeout(10):
        closed_count = await sweep_of(shop).run_once()

    assert closed_count == 5
    assert _statuses(shop) == {"closed": 5, "pending_payment": 3}


async def test_an_order_whose_row_somebody_holds_holds_back_nobody_else(
    postgresql_database: PostgresDatabase, postgresql_url: str, logged: list[EventDict]
) -> None:
    """An operator's forgotten transaction, say: the others are closed, that one later."""
    async with Shop(postgresql_database).open() as shop:
        orders = await _orders(shop, 3)
        for order in orders:
            shop.make_due(order, since_s=60.0)
        connection = await asyncpg.connect(postgresql_url)
        async with connection.transaction():
            await connection.execute(
                "SELECT 1 FROM orders WHERE order_no = $1 FOR UPDATE", orders[0].order_no
            )

            assert await sweep_of(shop).run_once() == 2
            assert _statuses(shop) == {"pending_payment": 1, "closed": 2}
        await connection.close()
        # Nothing is broken: no traceback.
        waited = [line for line in logged if line["event"].startswith("sweep_")]
        assert [line["event"] for line in waited[:2]] == ["sweep_waited"] * 2
        assert not any("exc_info" in line for line in waited)

        assert await sweep_of(shop).run_once() == 1
        assert await shop.breaches() == []


async def test_orders_of_one_deadline_are_all_found(shop: Shop) -> None:
    orders = await _orders(shop, 250)
    shop.write("UPDATE orders SET expires_at = :at", at=orders[0].created_at - 60_000_000)

    assert await sweep_of(shop).run_once() == 250


async def test_who_observes_is_told_of_what_was_closed(shop: Shop) -> None:
    (order,) = await _orders(shop, 1)
    shop.make_due(order, since_s=60.0)
    counts: list[int] = []
    lags_s: list[float] = []
    sweep = Sweep(
        database=shop.database,
        outbox=shop.outbox,
        interval_s=1.0,
        grace_s=0.0,
        observe_closed=counts.append,
        observe_lag_s=lags_s.extend,
    )

    await sweep.run_once()
    await sweep.run_once()

    assert counts == [1]
    assert len(lags_s) == 1
    assert 60.0 <= lags_s[0] < 120.0


@pytest.mark.parametrize("outages", [0, 2])
async def test_it_sweeps_until_it_is_told_to_stop_whatever_outage_comes(
    database: Database, outages: int
) -> None:
    counted = CountingDatabase(database)
    stop = asyncio.Event()
    async with Shop(database, served=counted).open() as shop:
        (order,) = await _orders(shop, 1)
        shop.make_due(order, since_s=60.0)
        counted.errors = [StoreUnavailableError("away")] * outages
        sweeping = asyncio.create_task(sweep_of(shop, interval_s=0.01).run(stop))

        await until(lambda: _statuses(shop) == {"closed": 1})
        assert not sweeping.done()
        stop.set()

        async with asyncio.timeout(10):
            await sweeping
