"""The abandoned-orders report: each timed-out order once, and whether its buyer came back."""

import contextlib
import sqlite3
from typing import Any

import pytest
from sqlalchemy.dialects import sqlite

from orderkeep.contracts.order_timeout_dlq import TimedOutOrder
from orderkeep.contracts.order_timeout_dlq import decode as decode_timed_out
from orderkeep.instant import Instant
from orderkeep.messaging.consumer import HANDLED, SetAside
from orderkeep.orders.consumers.order_timeout_dlq import order_timeout_dlq_consumer
from orderkeep.orders.order import Order
from orderkeep.orders.store.reports import _TIMED_OUT
from tests.conftest import create_tables_sql
from tests.integration.orders.shop import Shop, payment

# 2024-01-01T10:30:00Z.
HALF_PAST_TEN = Instant(1_704_105_000_000_000)


@pytest.fixture
async def order(shop: Shop) -> Order:
    """An order of Ann's that was closed: 2 teas."""
    await shop.fill(tea=10)
    order = await shop.order("ann", tea=2)
    await shop.expire(order)
    return order


async def _report(shop: Shop, *bodies: TimedOutOrder) -> Any:
    return await shop.receive(order_timeout_dlq_consumer(), *bodies)


async def _recovered_by(shop: Shop, order: Order) -> str | None:
    listed = await shop.desk.list_timed_out(before=None, limit_count=10)
    (entry,) = [entry for entry in listed if entry.order_no == order.order_no]
    return entry.recovered_by_order_no


async def test_the_message_of_a_closed_order_enters_it_in_the_report(
    shop: Shop, order: Order
) -> None:
    (row,) = shop.rows("SELECT body FROM order_outbox WHERE type = 'order.timeout'")

    outcomes = await _report(shop, decode_timed_out(row["body"]))

    closed = shop.order_row(order.order_no)
    assert outcomes == [HANDLED]
    assert shop.row("SELECT * FROM timed_out_orders") == {
        "order_no": order.order_no,
        "user_id": "ann",
        "pay_amount_minor": 5_198,
        "reason_code": "payment_timeout",
        "created_at": order.created_at,
        "timed_out_at": closed["closed_at"],
    }


async def test_an_order_stands_in_the_report_once(shop: Shop, order: Order) -> None:
    body = TimedOutOrder(order_no=order.order_no, timeout_at=HALF_PAST_TEN)
    await _report(shop, body, body)
    before = shop.dump()

    outcomes = await _report(shop, TimedOutOrder(order_no=order.order_no, reason_code="other"))

    assert outcomes == [HANDLED]
    assert shop.dump() == before


async def test_what_the_message_leaves_out_is_taken_from_the_order(
    shop: Shop, order: Order
) -> None:
    await _report(shop, TimedOutOrder(order_no=order.order_no))

    row = shop.row("SELECT * FROM timed_out_orders")
    assert (row["user_id"], row["pay_amount_minor"]) == ("ann", 5_198)
    assert row["timed_out_at"] == shop.order_row(order.order_no)["closed_at"]


async def test_who_and_how_much_are_those_of_the_order_whatever_a_message_says(
    shop: Shop, order: Order
) -> None:
    await _report(shop, TimedOutOrder(order_no=order.order_no, user_id="eve", pay_amount_minor=1))

    row = shop.row("SELECT * FROM timed_out_orders")
    assert (row["user_id"], row["pay_amount_minor"]) == ("ann", 5_198)


async def test_an_unknown_order_is_set_aside_and_holds_back_nobody(
    shop: Shop, order: Order
) -> None:
    outcomes = await _report(
        shop, TimedOutOrder(order_no="0100000000000009"), TimedOutOrder(order_no=order.order_no)
    )

    assert outcomes == [
        SetAside(reason="unknown_order", detail="there is no order 0100000000000009"),
        HANDLED,
    ]
    assert shop.count_rows("timed_out_orders") == 1


async def test_an_abandoned_order_is_recovered_by_the_next_one_that_its_buyer_pays(
    shop: Shop, order: Order
) -> None:
    await _report(shop, TimedOutOrder(order_no=order.order_no))
    assert await _recovered_by(shop, order) is None
    unpaid = await shop.order("ann", tea=1)
    assert await _recovered_by(shop, order) is None
    paid = await shop.order("ann", tea=1)
    await shop.pay(payment(paid, "T1"))
    assert await _recovered_by(shop, order) == paid.order_no

    await shop.pay(payment(unpaid, "T2"))

    assert await _recovered_by(shop, order) == unpaid.order_no


async def test_an_abandoned_order_is_not_recovered_by_another_buyer_or_an_earlier_order(
    shop: Shop,
) -> None:
    await shop.fill(tea=10)
    earlier = await shop.order("ann", tea=1)
    await shop.pay(payment(earlier, "T1"))
    abandoned = await shop.order("ann", tea=1)
    await shop.expire(abandoned)
    other = await shop.order("bob", tea=1)
    await shop.pay(payment(other, "T2"))

    await _report(shop, TimedOutOrder(order_no=abandoned.order_no))

    assert await _recovered_by(shop, abandoned) is None


async def test_the_report_is_read_newest_first_in_pages(shop: Shop) -> None:
    await shop.fill(tea=10)
    orders = [await shop.order(f"buyer-{n}", tea=1) for n in range(3)]
    await shop.expire(*orders)
    await _report(shop, *(TimedOutOrder(order_no=order.order_no) for order in orders))
    oldest, middle, newest = (order.order_no for order in orders)

    first = await shop.desk.list_timed_out(before=None, limit_count=2)
    rest = await shop.desk.list_timed_out(before=first[-1].order_no, limit_count=2)

    assert [entry.order_no for entry in first] == [newest, middle]
    assert [entry.order_no for entry in rest] == [oldest]
    assert first[0].currency == "CNY"


def test_the_report_looks_for_paid_orders_of_its_buyers_alone() -> None:
    # Not among all paid orders of the shop: one page would read every one of them.
    statement = _TIMED_OUT.compiled_for(sqlite.dialect(paramstyle="named"))
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for sql in create_tables_sql():
            connection.execute(sql)
        parameters = {**statement.defaults, "before": "~", "limit_count": 20}
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement.sql}", parameters).fetchall()

    steps = [row[3] for row in plan]
    assert "SEARCH later USING INDEX ix_orders_user_id (user_id=? AND order_no>?)" in steps
