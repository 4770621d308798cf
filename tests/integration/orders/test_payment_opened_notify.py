"""Payments that were opened: noted once, and the order's deadline moves once, by a bounded time."""

import asyncio

import pytest

from orderkeep.contracts.payment_opened_notify import PaymentOpened
from orderkeep.instant import Instant, after, rfc3339
from orderkeep.messaging.consumer import HANDLED, Consumer
from orderkeep.orders.consumers.payment_opened_notify import payment_opened_consumer
from orderkeep.orders.order import Order
from tests.integration.orders.shop import Shop, only, payment

# 2024-01-01T10:05:00Z.
FIVE_PAST_TEN = Instant(1_704_103_500_000_000)

# 9999-12-31T23:59:59Z, as a clock says that is wrong or lies.
FAR_AHEAD = Instant(253_402_300_799_000_000)

# The shop's own deadline is 1800 s.
EXTENSION_S = 3_600.0


@pytest.fixture
async def order(shop: Shop) -> Order:
    """An unpaid order of Ann's."""
    await shop.fill(tea=10)
    return await shop.order("ann", tea=2)


def consumer(shop: Shop, *, extension_s: float = EXTENSION_S) -> Consumer[PaymentOpened]:
    return payment_opened_consumer(outbox=shop.outbox, extension_s=extension_s)


def opened(
    order: Order, payment_no: str = "P1", *, opened_at: Instant | None = None
) -> PaymentOpened:
    return PaymentOpened(
        payment_no=payment_no, order_no=order.order_no, pay_channel="alipay", opened_at=opened_at
    )


async def test_an_opened_payment_is_noted(shop: Shop, order: Order) -> None:
    outcomes = await shop.receive(consumer(shop), opened(order, opened_at=FIVE_PAST_TEN))

    row = shop.row("SELECT * FROM order_opened_payments")
    received_at = row.pop("received_at")
    assert outcomes == [HANDLED]
    assert received_at >= order.created_at
    assert row == {
        "payment_no": "P1",
        "order_no": order.order_no,
        "pay_channel": "alipay",
        "opened_at": FIVE_PAST_TEN,
    }


async def test_a_payment_is_noted_once_whatever_is_sent_again(shop: Shop, order: Order) -> None:
    await shop.receive(consumer(shop), opened(order), opened(order))
    before = shop.dump()

    outcomes = await shop.receive(consumer(shop), opened(order), opened(order, "P2"))

    assert outcomes == [HANDLED, HANDLED]
    assert before["order_opened_payments"][0] in shop.dump()["order_opened_payments"]
    assert shop.count_rows("order_opened_payments") == 2


async def test_a_payment_without_a_time_was_opened_when_it_was_heard_of(
    shop: Shop, order: Order
) -> None:
    await shop.receive(consumer(shop), PaymentOpened(payment_no="P1", order_no=order.order_no))

    row = shop.row("SELECT * FROM order_opened_payments")
    assert row["opened_at"] == row["received_at"]
    assert row["pay_channel"] is None


async def test_a_payment_of_an_order_that_is_not_visible_yet_is_noted(shop: Shop) -> None:
    outcomes = await shop.receive(
        consumer(shop), PaymentOpened(payment_no="P1", order_no="0100000000000009")
    )

    assert outcomes == [HANDLED]
    assert shop.count_rows("order_opened_payments") == 1


async def test_a_payment_under_way_moves_the_deadline_and_tells_of_it(
    shop: Shop, order: Order
) -> None:
    await shop.receive(consumer(shop), opened(order, opened_at=FAR_AHEAD))

    row = shop.order_row(order.order_no)
    assert order.expires_at < row["expires_at"]
    # A clock that is ahead gives no more time than ours.
    assert row["expires_at"] == after(row["deadline_extended_at"], seconds=EXTENSION_S)
    assert only(row, "status", "version", "event_seq") == {
        "status": "pending_payment",
        "version": 1,
        "event_seq": 4,
    }
    assert shop.sent(order.order_no)[2:] == [
        (3, "order.timeout.check"),
        (4, "order.deadline_extended"),
    ]
    new_deadline = rfc3339(row["expires_at"])
    (_, check) = shop.bodies("order.timeout.check")
    (event,) = shop.bodies("order.deadline_extended")
    assert check["expires_at"] == new_deadline
    assert only(event, "status", "version", "expires_at") == {
        "status": "pending_payment",
        "version": 1,
        "expires_at": new_deadline,
    }
    (held,) = shop.rows("SELECT deliver_at FROM order_outbox WHERE sequence = 3")
    assert held["deliver_at"] == row["expires_at"]
    assert await shop.breaches() == []


async def test_the_new_deadline_counts_from_the_opening_and_not_from_hearing_of_it(
    shop: Shop, order: Order
) -> None:
    opened_at = after(order.created_at, seconds=-60)

    await shop.receive(consumer(shop), opened(order, opened_at=opened_at))

    expected = after(opened_at, seconds=EXTENSION_S)
    assert shop.order_row(order.order_no)["expires_at"] == expected


async def test_a_deadline_moves_once_however_many_payments_are_opened(
    shop: Shop, order: Order
) -> None:
    await shop.receive(consumer(shop), opened(order, "P1"), opened(order, "P2"))
    moved = shop.order_row(order.order_no)

    await shop.receive(consumer(shop, extension_s=9_999.0), opened(order, "P1"))
    await shop.receive(consumer(shop, extension_s=9_999.0), opened(order, "P3"))

    assert shop.order_row(order.order_no) == moved
    assert len(shop.bodies("order.deadline_extended")) == 1


async def test_a_payment_noted_before_moves_nothing_when_it_is_told_again(
    shop: Shop, order: Order
) -> None:
    # At first the deadline was far enough away.
    await shop.receive(consumer(shop, extension_s=300.0), opened(order))
    before = shop.dump()

    await shop.receive(consumer(shop, extension_s=9_999.0), opened(order))

    assert shop.dump() == before


@pytest.mark.parametrize("extension_s", [0.0, 300.0])
async def test_a_deadline_never_moves_to_an_earlier_time(
    shop: Shop, order: Order, extension_s: float
) -> None:
    before = shop.order_row(order.order_no)

    await shop.receive(consumer(shop, extension_s=extension_s), opened(order))

    assert shop.order_row(order.order_no) == before
    assert shop.sent(order.order_no)[2:] == []


async def test_an_order_past_its_deadline_is_not_given_another(shop: Shop, order: Order) -> None:
    shop.make_due(order)
    before = shop.order_row(order.order_no)

    await shop.receive(consumer(shop), opened(order))

    assert shop.order_row(order.order_no) == before


@pytest.mark.parametrize("end", ["paid", "cancelled", "closed"])
async def test_an_ended_order_keeps_its_deadline(shop: Shop, order: Order, end: str) -> None:
    if end == "paid":
        await shop.pay(payment(order))
    elif end == "cancelled":
        await shop.cancel(order)
    else:
        await shop.expire(order)
    before = shop.order_row(order.order_no)
    assert before["status"] == end

    await shop.receive(consumer(shop), opened(order))

    assert shop.order_row(order.order_no) == before


async def test_the_check_of_the_old_deadline_waits_again_and_the_new_one_closes(
    shop: Shop, order: Order
) -> None:
    await shop.receive(consumer(shop), opened(order))

    early = await shop.close(order, actor="old check")

    assert (early.closed, early.waiting) == ((), {order.order_no})
    shop.make_due(order)
    await shop.close(order, actor="new check")
    assert shop.history(order.order_no)[1:] == [
        (2, "pending_payment", "closed", "payment_timeout", "new check")
    ]
    assert await shop.breaches() == []


async def test_payments_opened_at_once_for_the_same_orders_move_each_deadline_once(
    shop: Shop,
) -> None:
    await shop.fill(tea=100)
    orders = [await shop.order("ann", tea=1) for _ in range(8)]

    await asyncio.gather(
        *(
            shop.receive(
                consumer(shop), *(opened(order, f"P{worker}-{order.order_no}") for order in batch)
            )
            for worker, batch in enumerate([orders, orders[::-1], orders[2:], orders[5::-1]])
        )
    )

    events = shop.bodies("order.deadline_extended")
    assert sorted(event["order_no"] for event in events) == sorted(
        order.order_no for order in orders
    )
    assert await shop.breaches() == []
