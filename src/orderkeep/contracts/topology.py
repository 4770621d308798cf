"""Every exchange, queue and binding, as data; the names stand beside the bodies they carry.

A route is the name of an exchange or of a queue. A timeout check is routed to its queue; the
exchange `order.timeout.delayed` is a way to hold it until it is due, and which way is taken is the
broker's own business: its type depends on that way, so it is a `Delay`, not an `Exchange`.
"""

from orderkeep.contracts import (
    cart_sync,
    order_events,
    order_timeout_dlq,
    order_timeout_queue,
    payment_opened_notify,
    payment_refund_request,
    payment_refund_result,
    payment_success_notify,
)
from orderkeep.messaging.broker import Binding, Delay, Exchange, ExchangeType, Queue, Topology

TIMEOUT_EXCHANGE = "order.timeout.delayed"
HOLD_QUEUE_PREFIX = "order.timeout.hold."
ORDER_EVENTS_EXCHANGE = order_events.EXCHANGE

# Every order event: `order.created`, `order.paid`, and what may come.
ORDER_EVENTS_KEY = "order.#"

TOPOLOGY = Topology(
    queues=(
        Queue(name=order_timeout_queue.QUEUE),
        Queue(name=cart_sync.QUEUE),
        Queue(name=payment_success_notify.QUEUE),
        Queue(name=order_timeout_dlq.QUEUE),
        Queue(name=order_events.QUEUE_OUTBOX),
        Queue(name=order_events.QUEUE_PAYMENT),
        Queue(name=payment_refund_request.QUEUE),
        Queue(name=payment_refund_result.QUEUE),
        Queue(name=payment_opened_notify.QUEUE),
    ),
    exchanges=(Exchange(name=ORDER_EVENTS_EXCHANGE, type=ExchangeType.TOPIC),),
    bindings=(
        Binding(
            exchange=ORDER_EVENTS_EXCHANGE,
            queue=order_events.QUEUE_OUTBOX,
            routing_key=ORDER_EVENTS_KEY,
        ),
        Binding(
            exchange=ORDER_EVENTS_EXCHANGE,
            queue=order_events.QUEUE_PAYMENT,
            routing_key=ORDER_EVENTS_KEY,
        ),
    ),
    delays=(
        Delay(
            queue=order_timeout_queue.QUEUE,
            exchange=TIMEOUT_EXCHANGE,
            hold_queue_prefix=HOLD_QUEUE_PREFIX,
        ),
    ),
)

# Which service reads a queue; its consumer has the queue's name.
READER_BY_QUEUE = {
    order_timeout_queue.QUEUE: "orders",
    payment_success_notify.QUEUE: "orders",
    order_timeout_dlq.QUEUE: "orders",
    order_events.QUEUE_OUTBOX: "orders",
    payment_refund_result.QUEUE: "orders",
    payment_opened_notify.QUEUE: "orders",
    cart_sync.QUEUE: "carts",
    order_events.QUEUE_PAYMENT: "payments",
    payment_refund_request.QUEUE: "payments",
}
