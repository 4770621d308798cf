"""The policy `revive`: late money brings its order back, if all of its stock is there."""

from typing import Any

import pytest

from orderkeep.contracts.order_timeout_dlq import TimedOutOrder
from orderkeep.instant import Instant
from orderkeep.messaging.consumer import HANDLED
from orderkeep.orders.consumers.order_timeout_dlq import order_timeout_dlq_consumer
from orderkeep.orders.order import Order
from orderkeep.orders.payment import LatePaymentPolicy
from tests.integration.orders.shop import Shop, only, payment

REVIVE = LatePaymentPolicy.REVIVE

# 2024-01-01T10:05:00Z.
FIVE_PAST_TEN = Instant(1_704_103_500_000_000)


@pytest.fixture
async def closed(shop: Shop) -> Order:
    """A closed order of Ann's: 2 teas of 10 and a pot of 1, for 151.98 CNY."""
    await shop.fill(tea=10, pot=1)
    order = await shop.order("ann", tea=2, pot=1)
    await shop.expire(order)
    return order


def outcomes(shop: Shop) -> list[tuple[str, str]]:
    """Return what became of each payment, by trade number."""
    rows = shop.rows("SELECT trade_no, outcome FROM order_payments ORDER BY trade_no")
    return [(row["trade_no"], row["outcome"]) for row in rows]


def refunds(shop: Shop) -> list[tuple[str, str]]:
    """Return the trade number and reason of each refund."""
    rows = shop.rows("SELECT trade_no, reason FROM order_refunds ORDER BY trade_no")
    return [(row["trade_no"], row["reason"]) for row in rows]


async def test_a_late_payment_pays_its_order_and_takes_the_stock_again(
    shop: Shop, closed: Order
) -> None:
    outcome = await shop.pay(payment(closed, paid_at=FIVE_PAST_TEN), policy=REVIVE)

    order_no = closed.order_no
    row = shop.order_row(order_no)
    assert outcome == [HANDLED]
    assert only(
        row, "status", "version", "event_seq", "paid_at", "trade_no", "pay_channel", "close_reason"
    ) == {
        "status": "paid",
        "version": 3,
        "event_seq": 5,
        "paid_at": FIVE_PAST_TEN,
        "trade_no": "T1",
        "pay_channel": "alipay",
        "close_reason": None,
    }
    assert row["closed_at"] is not None
    assert shop.history(order_no)[1:] == [
        (2, "pending_payment", "closed", "payment_timeout", "check"),
        (3, "closed", "paid", "revival", "in-1"),
    ]
    assert shop.movements(order_no)[-2:] == [("pot", "revive", 1), ("tea", "revive", 2)]
    assert (shop.stock_of("tea"), shop.stock_of("pot")) == ((8, 0, 2), (0, 0, 1))
    assert outcomes(shop) == [("T1", "accepted")]
    assert refunds(shop) == []
    assert shop.sent(order_no)[4:] == [(5, "order.paid")]
    (event,) = shop.bodies("order.paid")
    assert only(event, "status", "version", "trade_no") == {
        "status": "paid",
        "version": 3,
        "trade_no": "T1",
    }
    assert "reason_code" not in event
    assert await shop.breaches() == []


@pytest.mark.parametrize("gone", ["tea", "pot"])
async def test_without_all_of_its_stock_nothing_is_taken_and_the_money_goes_back(
    shop: Shop, closed: Order, gone: str
) -> None:
    wanted = {"tea": 9} if gone == "tea" else {"pot": 1}
    await shop.order("bob", key=None, **wanted)
    stock = (shop.stock_of("tea"), shop.stock_of("pot"))

    await shop.pay(payment(closed), policy=REVIVE)

    assert only(shop.order_row(closed.order_no), "status", "version", "trade_no") == {
        "status": "closed",
        "version": 2,
        "trade_no": None,
    }
    assert (shop.stock_of("tea"), shop.stock_of("pot")) == stock
    assert outcomes(shop) == [("T1", "refund")]
    assert refunds(shop) == [("T1", "late_payment")]
    assert shop.sent(closed.order_no)[4:] == [(5, "refund.requested")]
    assert await shop.breaches() == []


@pytest.mark.parametrize("members", [{"amount_minor": 15_197}, {"currency": "EUR"}])
async def test_late_money_that_does_not_fit_goes_back_although_the_stock_is_there(
    shop: Shop, closed: Order, members: dict[str, Any]
) -> None:
    await shop.pay(payment(closed, **members), policy=REVIVE)

    assert shop.order_row(closed.order_no)["status"] == "closed"
    assert refunds(shop) == [("T1", "late_payment")]
    assert await shop.breaches() == []


async def test_late_money_without_an_amount_is_a_case(shop: Shop, closed: Order) -> None:
    await shop.pay(payment(closed, amount_minor=None), policy=REVIVE)

    assert outcomes(shop) == [("T1", "case")]
    assert shop.row("SELECT kind FROM payment_cases") == {"kind": "amount_missing"}
    assert shop.order_row(closed.order_no)["status"] == "closed"
    assert await shop.breaches() == []


@pytest.mark.parametrize("is_short", [False, True])
async def test_two_late_payments_in_one_batch_revive_once_and_the_other_goes_back(
    shop: Shop, closed: Order, *, is_short: bool
) -> None:
    if is_short:
        await shop.order("bob", pot=1)

    await shop.pay(payment(closed, "T1"), payment(closed, "T2"), policy=REVIVE)

    if is_short:
        assert outcomes(shop) == [("T1", "refund"), ("T2", "refund")]
        assert refunds(shop) == [("T1", "late_payment"), ("T2", "late_payment")]
    else:
        assert outcomes(shop) == [("T1", "accepted"), ("T2", "refund")]
        assert refunds(shop) == [("T2", "double_payment")]
    assert await shop.breaches() == []


async def test_a_batch_revives_in_order_of_arrival_as_far_as_the_stock_goes(shop: Shop) -> None:
    await shop.fill(tea=5, mug=5)
    first, second, third = [await shop.order(user, tea=1) for user in ("ann", "bob", "eve")]
    pending = await shop.order("joe", tea=1, mug=1)
    await shop.expire(first, second, third)
    await shop.order("zoe", tea=2)

    await shop.pay(
        payment(third, "T3"),
        payment(pending, "T4"),
        payment(first, "T1"),
        payment(second, "T2"),
        policy=REVIVE,
    )

    statuses = [shop.order_row(it.order_no)["status"] for it in (first, second, third, pending)]
    assert statuses == ["paid", "closed", "paid", "paid"]
    assert outcomes(shop) == [
        ("T1", "accepted"),
        ("T2", "refund"),
        ("T3", "accepted"),
        ("T4", "accepted"),
    ]
    assert shop.stock_of("tea") == (0, 2, 3)
    assert await shop.breaches() == []


async def test_a_revival_told_again_has_no_effect(shop: Shop, closed: Order) -> None:
    await shop.pay(payment(closed), policy=REVIVE)
    before = shop.dump()

    await shop.pay(payment(closed), payment(closed), policy=REVIVE)

    assert shop.dump() == before


async def test_money_for_a_revived_order_goes_back_as_any_second_payment_does(
    shop: Shop, closed: Order
) -> None:
    await shop.pay(payment(closed, "T1"), policy=REVIVE)

    await shop.pay(payment(closed, "T2"), policy=REVIVE)

    assert refunds(shop) == [("T2", "double_payment")]
    assert shop.stock_of("tea") == (8, 0, 2)
    assert await shop.breaches() == []


async def test_a_refunded_payment_is_no_reason_to_revive_when_stock_comes_back(
    shop: Shop, closed: Order
) -> None:
    taken = await shop.order("bob", pot=1)
    await shop.pay(payment(closed), policy=REVIVE)
    await shop.cancel(taken)

    await shop.pay(payment(closed), policy=REVIVE)

    assert shop.order_row(closed.order_no)["status"] == "closed"
    assert outcomes(shop) == [("T1", "refund")]
    assert await shop.breaches() == []


async def test_a_cancelled_order_is_never_revived(shop: Shop) -> None:
    await shop.fill(tea=10)
    order = await shop.order(tea=2)
    await shop.cancel(order)

    await shop.pay(payment(order), policy=REVIVE)

    assert shop.order_row(order.order_no)["status"] == "cancelled"
    assert refunds(shop) == [("T1", "late_payment")]


@pytest.mark.parametrize("is_reported_late", [False, True])
async def test_the_report_of_abandoned_orders_says_that_it_was_recovered(
    shop: Shop, closed: Order, *, is_reported_late: bool
) -> None:
    timed_out = TimedOutOrder(
        order_no=closed.order_no,
        user_id="ann",
        pay_amount_minor=closed.pay_amount_minor,
        created_at=closed.created_at,
        timeout_at=closed.expires_at,
    )
    if not is_reported_late:
        await shop.receive(order_timeout_dlq_consumer(), timed_out)
    await shop.pay(payment(closed), policy=REVIVE)
    if is_reported_late:
        await shop.receive(order_timeout_dlq_consumer(), timed_out)

    (row,) = await shop.desk.list_timed_out(before=None, limit_count=10)

    assert row.recovered_by_order_no == closed.order_no


async def test_the_timeline_shows_closed_and_then_paid(shop: Shop, closed: Order) -> None:
    await shop.pay(payment(closed), policy=REVIVE)

    story = await shop.desk.timeline(closed.order_no, user_id="ann")

    states = [(item["to_status"], item["cause"]) for item in story if item["kind"] == "state"]
    assert states == [
        ("pending_payment", "buyer"),
        ("closed", "payment_timeout"),
        ("paid", "revival"),
    ]


async def test_stock_no_longer_for_sale_is_there_for_a_revival(shop: Shop, closed: Order) -> None:
    await shop.put_sku("pot", is_active=False)

    await shop.pay(payment(closed), policy=REVIVE)

    assert shop.order_row(closed.order_no)["status"] == "paid"
