"""Payments that were opened: noted once, and nothing else follows."""

import pytest

from orderkeep.contracts.payment_opened_notify import PaymentOpened
from orderkeep.instant import Instant
from orderkeep.messaging.consumer import HANDLED
from orderkeep.orders.consumers.payment_opened_notify import payment_opened_consumer
from orderkeep.orders.order import Order
from tests.integration.orders.shop import Shop

# 2024-01-01T10:05:00Z.
FIVE_PAST_TEN = Instant(1_704_103_500_000_000)


@pytest.fixture
async def order(shop: Shop) -> Order:
    """An unpaid order of Ann's."""
    await shop.fill(tea=10)
    return await shop.order("ann", tea=2)


def opened(order: Order, payment_no: str = "P1") -> PaymentOpened:
    return PaymentOpened(
        payment_no=payment_no,
        order_no=order.order_no,
        pay_channel="alipay",
        opened_at=FIVE_PAST_TEN,
    )


async def test_an_opened_payment_is_noted_and_the_order_keeps_its_deadline(
    shop: Shop, order: Order
) -> None:
    before = shop.order_row(order.order_no)

    outcomes = await shop.receive(payment_opened_consumer(), opened(order))

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
    assert shop.order_row(order.order_no) == before


async def test_a_payment_is_noted_once_whatever_is_sent_again(shop: Shop, order: Order) -> None:
    await shop.receive(payment_opened_consumer(), opened(order), opened(order))
    before = shop.dump()

    outcomes = await shop.receive(payment_opened_consumer(), opened(order), opened(order, "P2"))

    assert outcomes == [HANDLED, HANDLED]
    assert before["order_opened_payments"][0] in shop.dump()["order_opened_payments"]
    assert shop.count_rows("order_opened_payments") == 2


async def test_a_payment_without_a_time_was_opened_when_it_was_heard_of(
    shop: Shop, order: Order
) -> None:
    await shop.receive(
        payment_opened_consumer(), PaymentOpened(payment_no="P1", order_no=order.order_no)
    )

    row = shop.row("SELECT * FROM order_opened_payments")
    assert row["opened_at"] == row["received_at"]
    assert row["pay_channel"] is None


async def test_a_payment_of_an_order_that_is_not_visible_yet_is_noted(shop: Shop) -> None:
    outcomes = await shop.receive(
        payment_opened_consumer(), PaymentOpened(payment_no="P1", order_no="0100000000000009")
    )

    assert outcomes == [HANDLED]
    assert shop.count_rows("order_opened_payments") == 1
