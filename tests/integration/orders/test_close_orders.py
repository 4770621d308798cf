"""Closing orders whose deadline has passed: by the database's clock, once, never early."""

import asyncio

import pytest
from structlog.typing import EventDict

from orderkeep.contracts.order_timeout_queue import TimeoutCheck
from orderkeep.database.transaction import Database
from orderkeep.messaging.consumer import HANDLED, SetAside
from orderkeep.orders.consumers.order_timeout_queue import order_timeout_consumer
from orderkeep.orders.order import Order
from orderkeep.refusal import Refusal
from tests.integration.orders.shop import Shop, only, payment


@pytest.fixture
async def order(shop: Shop) -> Order:
    """An unpaid order of Ann's: 2 teas of 10, and a pot of 5."""
    await shop.fill(tea=10, pot=5)
    return await shop.order("ann", tea=2, pot=1)


def check(order_no: str) -> TimeoutCheck:
    return TimeoutCheck(order_no=order_no)


async def test_a_due_order_is_closed_and_gives_its_stock_back(shop: Shop, order: Order) -> None:
    shop.make_due(order)

    outcomes = await shop.receive(
        order_timeout_consumer(outbox=shop.outbox), check(order.order_no), message_ids=["m-check"]
    )

    row = shop.order_row(order.order_no)
    assert outcomes == [HANDLED]
    assert only(row, "status", "version", "event_seq", "close_reason") == {
        "status": "closed",
        "version": 2,
        "event_seq": 4,
        "close_reason": "payment_timeout",
    }
    assert row["closed_at"] >= row["expires_at"]
    assert shop.history(order.order_no)[1:] == [
        (2, "pending_payment", "closed", "payment_timeout", "m-check")
    ]
    assert shop.movements(order.order_no)[2:] == [("pot", "release", 1), ("tea", "release", 2)]
    assert (shop.stock_of("tea"), shop.stock_of("pot")) == ((10, 0, 0), (5, 0, 0))
    assert shop.sent(order.order_no)[2:] == [(3, "order.timeout"), (4, "order.closed")]
    assert await shop.breaches() == []


async def test_a_check_that_comes_early_is_a_new_wait(shop: Shop, order: Order) -> None:
    outcomes = await shop.receive(order_timeout_consumer(outbox=shop.outbox), check(order.order_no))

    assert outcomes == [HANDLED]
    assert only(shop.order_row(order.order_no), "status", "version", "event_seq") == {
        "status": "pending_payment",
        "version": 1,
        "event_seq": 3,
    }
    again = shop.rows("SELECT * FROM order_outbox ORDER BY id")[-1]
    assert only(again, "sequence", "type", "route", "ordered", "deliver_at") == {
        "sequence": 3,
        "type": "order.timeout.check",
        "route": "order.timeout.queue",
        "ordered": 0,
        "deliver_at": order.expires_at,
    }
    assert shop.stock_of("tea") == (8, 2, 0)


async def test_an_early_check_is_told_in_the_log_with_its_order_and_message(
    shop: Shop, order: Order, logged: list[EventDict]
) -> None:
    await shop.receive(
        order_timeout_consumer(outbox=shop.outbox), check(order.order_no), message_ids=["m-check"]
    )

    assert [line for line in logged if line["event"] == "order_timeout_early"] == [
        {
            "event": "order_timeout_early",
            "log_level": "info",
            "order_no": order.order_no,
            "message_id": "m-check",
        }
    ]


@pytest.mark.parametrize("end", ["paid", "cancelled", "closed"])
async def test_a_check_of_an_ended_order_changes_nothing(
    shop: Shop, order: Order, end: str
) -> None:
    if end == "paid":
        await shop.pay(payment(order))
    elif end == "cancelled":
        await shop.cancel(order)
    else:
        await shop.expire(order)
    shop.make_due(order)
    before = shop.dump()

    outcomes = await shop.receive(order_timeout_consumer(outbox=shop.outbox), check(order.order_no))

    assert outcomes == [HANDLED]
    assert shop.order_row(order.order_no)["status"] == end
    assert shop.dump() == before


async def test_a_check_of_an_unknown_order_is_set_aside(shop: Shop, order: Order) -> None:
    shop.make_due(order)

    outcomes = await shop.receive(
        order_timeout_consumer(outbox=shop.outbox), check("0100000000000009"), check(order.order_no)
    )

    assert outcomes == [
        SetAside(reason="unknown_order", detail="there is no order 0100000000000009"),
        HANDLED,
    ]
    assert shop.order_row(order.order_no)["status"] == "closed"


async def test_a_batch_closes_what_is_due_and_lets_the_rest_wait(shop: Shop, order: Order) -> None:
    early = await shop.order("bob", tea=1)
    due = await shop.order("eve", tea=3)
    shop.make_due(order)
    shop.make_due(due)

    outcomes = await shop.receive(
        order_timeout_consumer(outbox=shop.outbox),
        *(check(one.order_no) for one in (order, early, due, order)),
    )

    assert outcomes == [HANDLED] * 4
    assert [shop.order_row(one.order_no)["status"] for one in (order, early, due)] == [
        "closed",
        "pending_payment",
        "closed",
    ]
    assert len(shop.history(order.order_no)) == 2
    assert shop.stock_of("tea") == (9, 1, 0)
    assert await shop.breaches() == []


async def test_after_the_commit_the_lag_of_each_closing_is_told(shop: Shop, order: Order) -> None:
    other = await shop.order("bob", tea=1)
    shop.make_due(order, since_s=5.0)
    told: list[float] = []
    consumer = order_timeout_consumer(outbox=shop.outbox, observe_lag_s=told.extend)

    await shop.receive(consumer, check(order.order_no), check(other.order_no))

    (lag_s,) = told
    assert 5.0 <= lag_s < 60.0


async def test_an_order_is_not_closed_a_millisecond_before_its_deadline(
    database: Database,
) -> None:
    async with Shop(database, payment_timeout_s=0.2).open() as shop:
        await shop.fill(tea=10)
        order = await shop.order(tea=1)
        closings = await shop.close(order)
        assert closings.waiting == {order.order_no}

        async with asyncio.timeout(10):
            while not closings.closed:
                closings = await shop.close(order)

    row = shop.order_row(order.order_no)
    assert row["closed_at"] >= row["expires_at"] == row["created_at"] + 200_000
    assert await shop.breaches() == []


async def test_of_a_payment_a_cancellation_and_a_closing_at_once_one_wins(shop: Shop) -> None:
    await shop.fill(tea=100)
    orders = [await shop.order(f"buyer-{n}", tea=1) for n in range(20)]
    for order in orders:
        shop.make_due(order)

    await asyncio.gather(
        *(
            act
            for n, order in enumerate(orders)
            for act in (
                shop.close(order),
                shop.pay(payment(order, trade_no=f"T{n}")),
                shop.cancel(order),
            )
        ),
        return_exceptions=True,
    )

    for order in orders:
        versions = [entry[0] for entry in shop.history(order.order_no)]
        assert versions == [1, 2]
    available, reserved, sold = shop.stock_of("tea")
    paid = shop.row("SELECT count(*) AS n FROM orders WHERE status = 'paid'")["n"]
    assert (available, reserved, sold) == (100 - paid, 0, paid)
    assert shop.count_rows("order_refunds") == 20 - paid
    assert await shop.breaches() == []


async def test_a_paid_order_is_never_closed_however_late_it_is(shop: Shop, order: Order) -> None:
    await shop.pay(payment(order))
    shop.make_due(order, since_s=86_400.0)

    closings = await shop.close(order)

    assert (closings.closed, closings.waiting, closings.unknown) == ((), set(), set())
    with pytest.raises(Refusal, match="order_not_pending"):
        await shop.cancel(order)


async def test_an_application_whose_clock_is_ahead_closes_nothing_early(
    shop: Shop, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The deadline is half an hour away, and by the application's clock half an hour ago.
    ahead = order.expires_at + 1_800_000_000
    monkeypatch.setattr("time.time", lambda: ahead / 1_000_000)
    monkeypatch.setattr("time.time_ns", lambda: ahead * 1_000)

    closings = await shop.close(order)

    assert (closings.closed, closings.waiting) == ((), {order.order_no})
    assert shop.order_row(order.order_no)["status"] == "pending_payment"
    assert shop.stock_of("tea") == (8, 2, 0)
