"""What the order service tells others, as events ready for the outbox. Pure.

Events are numbered on from the count that the order's row had when it was locked; whoever appends
them saves the order with the raised count, guarded by the count it had. That row is the lock that
makes the order of events the order of commits.
"""

from collections.abc import Sequence

from orderkeep.contracts import (
    cart_sync,
    order_events,
    order_timeout_dlq,
    order_timeout_queue,
    payment_refund_request,
)
from orderkeep.contracts.order_events import OrderEvent, OrderEventItem, OrderEventType
from orderkeep.instant import Instant
from orderkeep.messaging.message import Event
from orderkeep.orders.order import Order, OrderLine
from orderkeep.orders.refund import OrderRefund


def created_events(order: Order) -> list[Event]:
    """Return the events of a new order: its timeout check, its cart items, its creation."""
    removed = [
        _cart_item_removed(order, cart_item_id, sequence=sequence)
        for sequence, cart_item_id in enumerate(_cart_item_ids(order.lines), start=2)
    ]
    created = _order_event(
        OrderEventType.CREATED,
        order,
        sequence=len(removed) + 2,
        occurred_at=order.created_at,
    )
    return [timeout_check(order, sequence=1), *removed, created]


def created_event_count(lines: Sequence[OrderLine]) -> int:
    """Return how many events a new order of these lines has."""
    return len(_cart_item_ids(lines)) + 2


def timeout_check(order: Order, *, sequence: int) -> Event:
    """Return the message that comes back when the order's deadline is reached."""
    return Event(
        aggregate_id=order.order_no,
        sequence=sequence,
        type=order_timeout_queue.TYPE,
        route=order_timeout_queue.ROUTE,
        body=order_timeout_queue.encode(
            order_timeout_queue.TimeoutCheck(
                order_no=order.order_no,
                user_id=order.user_id,
                pay_amount_minor=order.pay_amount_minor,
                created_at=order.created_at,
                expires_at=order.expires_at,
            )
        ),
        ordered=False,
        deliver_at=order.expires_at,
    )


def paid_events(order: Order, *, sequence: int, now: Instant) -> list[Event]:
    """Return the events of an order that was just paid, numbered from `sequence`."""
    return [_order_event(OrderEventType.PAID, order, sequence=sequence, occurred_at=now)]


def extended_events(order: Order, *, sequence: int, now: Instant) -> list[Event]:
    """Return the events of an order whose deadline just moved, numbered from `sequence`.

    The timeout check of the old deadline is on its way already, and will find that it is early.
    """
    return [
        timeout_check(order, sequence=sequence),
        _order_event(
            OrderEventType.DEADLINE_EXTENDED, order, sequence=sequence + 1, occurred_at=now
        ),
    ]


def cancelled_events(order: Order, *, sequence: int, now: Instant) -> list[Event]:
    """Return the events of an order that was just cancelled, numbered from `sequence`."""
    return [_order_event(OrderEventType.CANCELLED, order, sequence=sequence, occurred_at=now)]


def closed_events(order: Order, *, sequence: int, now: Instant) -> list[Event]:
    """Return the events of an order whose deadline just passed, numbered from `sequence`."""
    timed_out = Event(
        aggregate_id=order.order_no,
        sequence=sequence,
        type=order_timeout_dlq.TYPE,
        route=order_timeout_dlq.ROUTE,
        body=order_timeout_dlq.encode(
            order_timeout_dlq.TimedOutOrder(
                order_no=order.order_no,
                user_id=order.user_id,
                pay_amount_minor=order.pay_amount_minor,
                created_at=order.created_at,
                timeout_at=now,
            )
        ),
    )
    return [
        timed_out,
        _order_event(OrderEventType.CLOSED, order, sequence=sequence + 1, occurred_at=now),
    ]


def refund_events(
    refunds: Sequence[OrderRefund], *, user_id: str | None, sequence: int
) -> list[Event]:
    """Return one request for each refund of one order, numbered from `sequence`.

    Args:
        user_id: None where there is no such order here.
    """
    return [
        Event(
            aggregate_id=refund.order_no,
            sequence=number,
            type=payment_refund_request.TYPE,
            route=payment_refund_request.ROUTE,
            body=payment_refund_request.encode(
                payment_refund_request.RefundRequest(
                    refund_no=refund.refund_no,
                    order_no=refund.order_no,
                    user_id=user_id,
                    payment_no=refund.payment_no,
                    trade_no=refund.identity.trade_no,
                    pay_channel=refund.identity.pay_channel or None,
                    amount_minor=refund.amount_minor,
                    currency=refund.currency,
                    reason=refund.reason,
                    requested_at=refund.requested_at,
                )
            ),
        )
        for number, refund in enumerate(refunds, start=sequence)
    ]


def _cart_item_ids(lines: Sequence[OrderLine]) -> list[str]:
    # Two lines may name one cart item; it is removed once.
    named = [line.cart_item_id for line in lines if line.cart_item_id is not None]
    return list(dict.fromkeys(named))


def _cart_item_removed(order: Order, cart_item_id: str, *, sequence: int) -> Event:
    return Event(
        aggregate_id=order.order_no,
        sequence=sequence,
        type=cart_sync.TYPE_REMOVED,
        route=cart_sync.ROUTE,
        body=cart_sync.encode(
            cart_sync.CartItemRemoved(
                user_id=order.user_id,
                item_id=cart_item_id,
                order_no=order.order_no,
                occurred_at=order.created_at,
            )
        ),
    )


def _order_event(
    event_type: OrderEventType, order: Order, *, sequence: int, occurred_at: Instant
) -> Event:
    return Event(
        aggregate_id=order.order_no,
        sequence=sequence,
        type=event_type,
        route=order_events.ROUTE,
        body=order_events.encode(
            OrderEvent(
                event_type=event_type,
                order_no=order.order_no,
                user_id=order.user_id,
                status=order.status,
                version=order.version,
                pay_amount_minor=order.pay_amount_minor,
                currency=order.currency,
                items=tuple(
                    OrderEventItem(
                        sku_id=line.sku_id,
                        title=line.title,
                        unit_price_minor=line.unit_price_minor,
                        quantity=line.quantity,
                        subtotal_minor=line.subtotal_minor,
                    )
                    for line in order.lines
                ),
                created_at=order.created_at,
                expires_at=order.expires_at,
                occurred_at=occurred_at,
                reason_code=order.close_reason,
                paid_at=order.paid_at,
                trade_no=order.trade_no,
            )
        ),
    )
