"""Cancelling orders: once, by the right people, and only while they are unpaid."""

import asyncio

import pytest

from orderkeep.orders.cancel_order import CancelOrder, cancel_orders
from orderkeep.orders.order import Cause, Order
from orderkeep.refusal import Refusal
from tests.integration.orders.shop import Shop, only, payment


@pytest.fixture
async def order(shop: Shop) -> Order:
    """An unpaid order of Ann's: 2 teas of 10, and a pot of 5."""
    await shop.fill(tea=10, pot=5)
    return await shop.order("ann", tea=2, pot=1)


def wish(order: Order, *, user_id: str | None = "ann", version: int | None = None) -> CancelOrder:
    return CancelOrder(
        order_no=order.order_no,
        user_id=user_id,
        by=Cause.BUYER,
        actor="ann",
        note="too late",
        expected_version=version,
    )


async def _refused(shop: Shop, cancellation: CancelOrder) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await shop.desk.cancel(cancellation)
    return refused.value


async def test_a_cancelled_order_gives_its_stock_back_and_tells_everyone(
    shop: Shop, order: Order
) -> None:
    cancelled = await shop.desk.cancel(wish(order))

    row = shop.order_row(order.order_no)
    assert cancelled.status == "cancelled"
    assert only(row, "status", "version", "event_seq", "close_reason") == {
        "status": "cancelled",
        "version": 2,
        "event_seq": 3,
        "close_reason": "buyer",
    }
    assert row["cancelled_at"] >= row["created_at"]
    assert shop.history(order.order_no) == [
        (1, None, "pending_payment", "buyer", "ann"),
        (2, "pending_payment", "cancelled", "buyer", "ann"),
    ]
    assert shop.row("SELECT note FROM order_history WHERE version = 2") == {"note": "too late"}
    assert shop.movements(order.order_no) == [
        ("tea", "reserve", 2),
        ("pot", "reserve", 1),
        ("pot", "release", 1),
        ("tea", "release", 2),
    ]
    assert (shop.stock_of("tea"), shop.stock_of("pot")) == ((10, 0, 0), (5, 0, 0))
    assert shop.sent(order.order_no)[2:] == [(3, "order.cancelled")]
    assert await shop.breaches() == []


async def test_cancelling_again_answers_the_order_and_changes_nothing(
    shop: Shop, order: Order
) -> None:
    first = await shop.desk.cancel(wish(order))
    before = shop.dump()

    again = await shop.desk.cancel(wish(order))

    assert again == first
    assert shop.dump() == before


async def test_cancelling_again_is_answered_even_if_the_expected_version_has_passed(
    shop: Shop, order: Order
) -> None:
    await shop.desk.cancel(wish(order, version=1))

    again = await shop.desk.cancel(wish(order, version=1))

    assert again.version == 2


async def test_an_operator_cancels_anyones_order(shop: Shop, order: Order) -> None:
    cancelled = await shop.cancel(order, by=Cause.OPERATOR)

    assert cancelled.close_reason == "operator"
    assert shop.history(order.order_no)[1] == (
        2,
        "pending_payment",
        "cancelled",
        "operator",
        "olga",
    )


async def test_another_users_order_is_not_found(shop: Shop, order: Order) -> None:
    before = shop.dump()

    refusal = await _refused(shop, wish(order, user_id="bob"))

    assert refusal.code == "not_found"
    assert shop.dump() == before


async def test_an_order_that_is_not_there_is_not_found(shop: Shop) -> None:
    unknown = CancelOrder(order_no="0100000000000009", user_id=None, by=Cause.OPERATOR, actor="o")

    assert (await _refused(shop, unknown)).code == "not_found"


async def test_a_paid_order_cannot_be_cancelled(shop: Shop, order: Order) -> None:
    await shop.pay(payment(order))
    before = shop.dump()

    refusal = await _refused(shop, wish(order))

    assert (refusal.code, refusal.members) == ("order_not_pending", {"order_status": "paid"})
    assert shop.dump() == before


async def test_a_closed_order_cannot_be_cancelled(shop: Shop, order: Order) -> None:
    await shop.expire(order)

    refusal = await _refused(shop, wish(order))

    assert (refusal.code, refusal.members) == ("order_not_pending", {"order_status": "closed"})


async def test_an_order_of_another_version_than_expected_stays(shop: Shop, order: Order) -> None:
    before = shop.dump()

    refusal = await _refused(shop, wish(order, version=2))

    assert (refusal.code, refusal.members) == ("version_mismatch", {"version": 1})
    assert shop.dump() == before
    assert (await shop.desk.cancel(wish(order, version=1))).status == "cancelled"


async def test_an_overdue_order_that_nothing_closed_yet_can_be_cancelled(
    shop: Shop, order: Order
) -> None:
    shop.make_due(order)

    assert (await shop.desk.cancel(wish(order))).status == "cancelled"


async def test_a_batch_decides_each_wish_by_what_those_before_it_did(
    shop: Shop, order: Order
) -> None:
    other = await shop.order("bob", tea=1)

    async def work(transaction):
        return await cancel_orders(
            transaction,
            [wish(order), wish(other, user_id="bob"), wish(order), wish(order, user_id="bob")],
            outbox=shop.outbox,
        )

    first, second, again, foreign = await shop.database.transact(work)

    assert isinstance(first, Order)
    assert isinstance(second, Order)
    assert again == first
    assert isinstance(foreign, Refusal)
    assert shop.sent(order.order_no)[2:] == [(3, "order.cancelled")]
    assert shop.stock_of("tea") == (10, 0, 0)
    assert await shop.breaches() == []


async def test_of_20_cancellations_at_once_one_takes_effect(shop: Shop, order: Order) -> None:
    answers = await asyncio.gather(*(shop.desk.cancel(wish(order)) for _ in range(20)))

    assert {answer.version for answer in answers} == {2}
    assert len(shop.history(order.order_no)) == 2
    assert await shop.breaches() == []
