"""How refunds end: once, and never in silence when two reports disagree."""

from typing import Any

import pytest

from orderkeep.contracts.payment_refund_result import RefundOutcome, RefundResult
from orderkeep.instant import Instant
from orderkeep.messaging.consumer import HANDLED, SetAside
from orderkeep.orders.consumers.payment_refund_result import payment_refund_result_consumer
from orderkeep.orders.order import Order
from tests.integration.orders.shop import Shop, only, payment

# 2024-01-01T10:05:00Z.
FIVE_PAST_TEN = Instant(1_704_103_500_000_000)


@pytest.fixture
async def order(shop: Shop) -> Order:
    """A cancelled order of Ann's; 51.98 CNY came for it, and R1 is to give them back."""
    await shop.fill(tea=10)
    order = await shop.order("ann", tea=2)
    await shop.cancel(order)
    await shop.pay(payment(order))
    return order


def result(order: Order, **members: Any) -> RefundResult:
    told: dict[str, Any] = {
        "refund_no": "R1",
        "order_no": order.order_no,
        "status": RefundOutcome.SUCCEEDED,
        "amount_minor": 5_198,
        "currency": "CNY",
        "channel_refund_no": "CR1",
        "finished_at": FIVE_PAST_TEN,
    }
    return RefundResult(**{**told, **members})


def refund(shop: Shop) -> dict[str, Any]:
    return only(
        shop.row("SELECT * FROM order_refunds"),
        "status",
        "channel_refund_no",
        "failure_reason",
        "finished_at",
    )


async def test_a_refund_succeeds(shop: Shop, order: Order) -> None:
    outcomes = await shop.receive(payment_refund_result_consumer(), result(order))

    assert outcomes == [HANDLED]
    assert refund(shop) == {
        "status": "succeeded",
        "channel_refund_no": "CR1",
        "failure_reason": None,
        "finished_at": FIVE_PAST_TEN,
    }
    assert await shop.breaches() == []


async def test_a_refund_fails_with_its_reason(shop: Shop, order: Order) -> None:
    failed = result(
        order, status=RefundOutcome.FAILED, reason="account closed", channel_refund_no=None
    )

    outcomes = await shop.receive(payment_refund_result_consumer(), failed)

    assert outcomes == [HANDLED]
    assert refund(shop) == {
        "status": "failed",
        "channel_refund_no": None,
        "failure_reason": "account closed",
        "finished_at": FIVE_PAST_TEN,
    }


async def test_a_result_that_says_only_how_it_ended_is_enough(shop: Shop, order: Order) -> None:
    said = result(order, amount_minor=None, currency=None, channel_refund_no=None, finished_at=None)

    outcomes = await shop.receive(payment_refund_result_consumer(), said)

    assert outcomes == [HANDLED]
    assert refund(shop)["status"] == "succeeded"
    assert refund(shop)["finished_at"] >= order.created_at


async def test_a_repeated_result_changes_nothing(shop: Shop, order: Order) -> None:
    await shop.receive(payment_refund_result_consumer(), result(order))
    before = shop.dump()

    outcomes = await shop.receive(
        payment_refund_result_consumer(),
        result(order, channel_refund_no="CR2", finished_at=None),
        result(order),
    )

    assert outcomes == [HANDLED, HANDLED]
    assert shop.dump() == before


async def test_a_result_that_contradicts_the_first_is_set_aside(shop: Shop, order: Order) -> None:
    await shop.receive(payment_refund_result_consumer(), result(order))
    before = shop.dump()

    outcomes = await shop.receive(
        payment_refund_result_consumer(), result(order, status=RefundOutcome.FAILED)
    )

    assert outcomes == [
        SetAside(reason="refund_already_finished", detail="refund R1 has succeeded already")
    ]
    assert shop.dump() == before


async def test_of_two_results_in_one_batch_the_first_counts(shop: Shop, order: Order) -> None:
    outcomes = await shop.receive(
        payment_refund_result_consumer(),
        result(order, status=RefundOutcome.FAILED, reason="account closed"),
        result(order),
        result(order, status=RefundOutcome.FAILED),
    )

    assert outcomes == [
        HANDLED,
        SetAside(reason="refund_already_finished", detail="refund R1 has failed already"),
        HANDLED,
    ]
    assert refund(shop)["failure_reason"] == "account closed"


async def test_a_result_of_no_refund_of_ours_is_set_aside_and_holds_back_nobody(
    shop: Shop, order: Order
) -> None:
    outcomes = await shop.receive(
        payment_refund_result_consumer(), result(order, refund_no="R9"), result(order)
    )

    assert outcomes == [
        SetAside(reason="unknown_refund", detail="no refund R9 was asked for"),
        HANDLED,
    ]
    assert refund(shop)["status"] == "succeeded"


@pytest.mark.parametrize(
    ("members", "detail"),
    [
        ({"amount_minor": 5_197}, "refund R1 is of 51.98 CNY, the result tells of 51.97 CNY"),
        ({"currency": "EUR"}, "refund R1 is of 51.98 CNY, the result tells of 51.98 EUR"),
        (
            {"order_no": "0100000000000009"},
            "refund R1 is not of order 0100000000000009",
        ),
    ],
)
async def test_a_result_that_tells_of_other_money_is_set_aside(
    shop: Shop, order: Order, members: dict[str, Any], detail: str
) -> None:
    before = shop.dump()

    outcomes = await shop.receive(payment_refund_result_consumer(), result(order, **members))

    assert outcomes == [SetAside(reason="refund_mismatch", detail=detail)]
    assert shop.dump() == before
