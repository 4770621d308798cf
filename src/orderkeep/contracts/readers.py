"""How the messages of each queue are read, for those who want to know before they are sent."""

from collections.abc import Callable, Mapping

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

# Each raises `BadMessageError` for what its consumer would set aside.
READERS: Mapping[str, Callable[[bytes], object]] = {
    order_timeout_queue.QUEUE: order_timeout_queue.decode,
    cart_sync.QUEUE: cart_sync.decode,
    payment_success_notify.QUEUE: payment_success_notify.decode,
    order_timeout_dlq.QUEUE: order_timeout_dlq.decode,
    order_events.QUEUE_OUTBOX: order_events.decode,
    order_events.QUEUE_PAYMENT: order_events.decode,
    payment_refund_request.QUEUE: payment_refund_request.decode,
    payment_refund_result.QUEUE: payment_refund_result.decode,
    payment_opened_notify.QUEUE: payment_opened_notify.decode,
}
