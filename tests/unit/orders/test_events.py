"""What the order service tells others."""

import json

import pytest
from msgspec.structs import replace

from orderkeep.instant import Instant
from orderkeep.messaging.message import Event
from orderkeep.orders.events import (
    cancelled_events,
    closed_events,
    created_event_count,
    created_events,
    paid_events,
    refund_events,
    timeout_check,
)
from orderkeep.orders.order import CloseReason, Order, OrderLine, OrderNumber, Status
from orderkeep.orders.payment import PaymentIdentity
from orderkeep.orders.refund import OrderRefund

# 2024-01-01, at 10:00, 10:05 and 10:30 UTC.
TEN = Instant(1_704_103_200_000_000)
FIVE_PAST_TEN = Instant(1_704_103_500_000_000)
HALF_PAST_TEN = Instant(1_704_105_000_000_000)

ORDER_NO = OrderNumber("0100000000000009")


def line(line_no: int, *, cart_item_id: str | None) -> OrderLine:
    return OrderLine(
        line_no=line_no,
        sku_id="tea-1",
        title="Tea",
        unit_price_minor=2_500,
        quantity=2,
        subtotal_minor=5_000,
        cart_item_id=cart_item_id,
    )


ORDER = Order(
    order_no=ORDER_NO,
    user_id="user123",
    status=Status.PENDING_PAYMENT,
    version=1,
    event_seq=4,
    lines=(line(1, cart_item_id="c1"), line(2, cart_item_id="c2")),
    total_amount_minor=10_000,
    pay_amount_minor=10_000,
    currency="CNY",
    created_at=TEN,
    expires_at=HALF_PAST_TEN,
)

# The order event of the contract, as far as it is the same for every type.
EVENT_BODY = {
    "order_no": "0100000000000009",
    "user_id": "user123",
    "pay_amount": 100.0,
    "currency": "CNY",
    "items": [
        {"sku_id": "tea-1", "title": "Tea", "unit_price": 25.0, "quantity": 2, "subtotal": 50.0},
        {"sku_id": "tea-1", "title": "Tea", "unit_price": 25.0, "quantity": 2, "subtotal": 50.0},
    ],
    "created_at": "2024-01-01T10:00:00Z",
    "expires_at": "2024-01-01T10:30:00Z",
}


def summary(events: list[Event]) -> list[tuple[int, str, str, bool]]:
    return [(event.sequence, event.type, event.route, event.ordered) for event in events]


def test_a_new_order_sends_its_timeout_check_its_cart_items_and_its_creation() -> None:
    events = created_events(ORDER)

    assert summary(events) == [
        (1, "order.timeout.check", "order.timeout.queue", False),
        (2, "cart.item.removed", "cart-sync", True),
        (3, "cart.item.removed", "cart-sync", True),
        (4, "order.created", "order.events", True),
    ]
    assert {event.aggregate_id for event in events} == {"0100000000000009"}
    assert [event.deliver_at for event in events] == [HALF_PAST_TEN, None, None, None]
    assert [json.loads(event.body) for event in events] == [
        {
            "order_no": "0100000000000009",
            "user_id": "user123",
            "pay_amount": 100.0,
            "created_at": "2024-01-01T10:00:00Z",
            "expires_at": "2024-01-01T10:30:00Z",
        },
        {
            "event_type": "cart.item.removed",
            "user_id": "user123",
            "item_id": "c1",
            "data": {"order_no": "0100000000000009"},
            "timestamp": "2024-01-01T10:00:00Z",
        },
        {
            "event_type": "cart.item.removed",
            "user_id": "user123",
            "item_id": "c2",
            "data": {"order_no": "0100000000000009"},
            "timestamp": "2024-01-01T10:00:00Z",
        },
        {
            **EVENT_BODY,
            "event_type": "order.created",
            "status": "pending_payment",
            "version": 1,
            "occurred_at": "2024-01-01T10:00:00Z",
        },
    ]


def test_amounts_leave_with_two_decimals() -> None:
    created = created_events(ORDER)[-1]

    assert b'"pay_amount":100.00' in created.body


@pytest.mark.parametrize(
    ("cart_item_ids", "removed"),
    [
        ([None], []),
        (["c1"], ["c1"]),
        (["c1", "c1"], ["c1"]),
        (["c2", None, "c1", "c2"], ["c2", "c1"]),
    ],
)
def test_each_cart_item_is_removed_once(
    cart_item_ids: list[str | None], removed: list[str]
) -> None:
    lines = tuple(
        line(line_no, cart_item_id=cart_item_id)
        for line_no, cart_item_id in enumerate(cart_item_ids, start=1)
    )

    events = created_events(replace(ORDER, lines=lines))

    told = [json.loads(event.body)["item_id"] for event in events if event.route == "cart-sync"]
    assert told == removed
    assert [event.sequence for event in events] == list(range(1, len(removed) + 3))
    assert created_event_count(lines) == len(events)


def test_a_new_wait_is_a_timeout_check_of_its_own_number() -> None:
    event = timeout_check(ORDER, sequence=5)

    assert (event.sequence, event.deliver_at, event.ordered) == (5, HALF_PAST_TEN, False)


def test_a_paid_order_tells_when_and_by_which_trade() -> None:
    paid = replace(
        ORDER, status=Status.PAID, version=2, paid_at=FIVE_PAST_TEN, trade_no="T1", pay_channel="a"
    )

    events = paid_events(paid, sequence=5, now=HALF_PAST_TEN)

    assert summary(events) == [(5, "order.paid", "order.events", True)]
    assert json.loads(events[0].body) == {
        **EVENT_BODY,
        "event_type": "order.paid",
        "status": "paid",
        "version": 2,
        "occurred_at": "2024-01-01T10:30:00Z",
        "paid_at": "2024-01-01T10:05:00Z",
        "trade_no": "T1",
    }


def test_a_cancelled_order_tells_who_cancelled_it() -> None:
    cancelled = replace(
        ORDER, status=Status.CANCELLED, version=2, close_reason=CloseReason.OPERATOR
    )

    events = cancelled_events(cancelled, sequence=5, now=FIVE_PAST_TEN)

    assert summary(events) == [(5, "order.cancelled", "order.events", True)]
    assert json.loads(events[0].body) == {
        **EVENT_BODY,
        "event_type": "order.cancelled",
        "status": "cancelled",
        "version": 2,
        "occurred_at": "2024-01-01T10:05:00Z",
        "reason_code": "operator",
    }


def test_a_closed_order_goes_into_the_report_and_tells_why() -> None:
    closed = replace(
        ORDER, status=Status.CLOSED, version=2, close_reason=CloseReason.PAYMENT_TIMEOUT
    )

    events = closed_events(closed, sequence=5, now=HALF_PAST_TEN)

    assert summary(events) == [
        (5, "order.timeout", "order.timeout.dlq", True),
        (6, "order.closed", "order.events", True),
    ]
    assert [json.loads(event.body) for event in events] == [
        {
            "order_no": "0100000000000009",
            "user_id": "user123",
            "pay_amount": 100.0,
            "created_at": "2024-01-01T10:00:00Z",
            "timeout_at": "2024-01-01T10:30:00Z",
            "reason": "订单超时未支付",
            "reason_code": "payment_timeout",
        },
        {
            **EVENT_BODY,
            "event_type": "order.closed",
            "status": "closed",
            "version": 2,
            "occurred_at": "2024-01-01T10:30:00Z",
            "reason_code": "payment_timeout",
        },
    ]


def test_each_refund_of_an_order_is_asked_for_once() -> None:
    refund = OrderRefund(
        refund_no="R1",
        order_no=ORDER_NO,
        identity=PaymentIdentity(pay_channel="alipay", trade_no="T1"),
        payment_no="P1",
        amount_minor=10_000,
        currency="CNY",
        reason="late_payment",
        status="requested",
        requested_at=HALF_PAST_TEN,
    )
    without_channel = replace(
        refund,
        refund_no="R2",
        identity=PaymentIdentity(pay_channel="", trade_no="T2"),
        payment_no=None,
    )

    events = refund_events([refund, without_channel], user_id="user123", sequence=7)

    assert summary(events) == [
        (7, "refund.requested", "payment.refund.request", True),
        (8, "refund.requested", "payment.refund.request", True),
    ]
    assert [json.loads(event.body) for event in events] == [
        {
            "refund_no": "R1",
            "order_no": "0100000000000009",
            "user_id": "user123",
            "payment_no": "P1",
            "trade_no": "T1",
            "pay_channel": "alipay",
            "amount": 100.0,
            "currency": "CNY",
            "reason": "late_payment",
            "requested_at": "2024-01-01T10:30:00Z",
        },
        {
            "refund_no": "R2",
            "order_no": "0100000000000009",
            "user_id": "user123",
            "trade_no": "T2",
            "amount": 100.0,
            "currency": "CNY",
            "reason": "late_payment",
            "requested_at": "2024-01-01T10:30:00Z",
        },
    ]
