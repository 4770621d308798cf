"""`order.outbox`: something happened to an order; note it, and make a delivery for each webhook.

Invariant: each order event makes at most one delivery for each receiver, whatever is sent again.
If the process dies before the commit, the message comes again and makes them.
"""

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import structlog

from orderkeep.contracts import order_events
from orderkeep.contracts.amount import text_of_minor
from orderkeep.contracts.order_events import OrderEvent
from orderkeep.database.transaction import Transaction
from orderkeep.instant import rfc3339
from orderkeep.messaging.consumer import HANDLED, Consumer, Outcome, Received
from orderkeep.messaging.signal import Signal
from orderkeep.orders.store.webhooks import WebhookDelivery, insert_deliveries

log = structlog.get_logger()


def order_outbox_consumer(
    *,
    receivers: Sequence[str],
    recorded: Signal,
    count_event: Callable[[str], None] = lambda _type: None,
) -> Consumer[OrderEvent]:
    """Return the consumer that writes webhook deliveries.

    Args:
        receivers: The URLs to deliver to; may be empty.
        recorded: Set after each commit, to wake the worker that sends.
        count_event: Told the type of each event, once, after its commit.
    """

    async def handle(
        transaction: Transaction, messages: Sequence[Received[OrderEvent]]
    ) -> Sequence[Outcome]:
        now = await transaction.now()
        deliveries = [
            WebhookDelivery(
                delivery_id=0,
                receiver=receiver,
                message_id=message.message_id,
                order_no=message.body.order_no,
                type=message.body.event_type,
                body=webhook_body(message.body),
                attempts=0,
                created_at=now,
            )
            for message in messages
            for receiver in receivers
        ]
        if deliveries:
            await insert_deliveries(transaction, deliveries)
            transaction.after_commit(recorded.set)
        transaction.after_commit(partial(_note, messages, count_event=count_event))
        return [HANDLED] * len(messages)

    return Consumer(
        name=order_events.QUEUE_OUTBOX,
        queue=order_events.QUEUE_OUTBOX,
        decode=order_events.decode,
        business_key=order_events.business_key,
        handle=handle,
    )


def _note(messages: Sequence[Received[OrderEvent]], *, count_event: Callable[[str], None]) -> None:
    # The one place that sees every order event exactly once: here a person reads what happens.
    for message in messages:
        event = message.body
        count_event(event.event_type)
        log.info(
            event.event_type.value.replace(".", "_"),
            order_no=event.order_no,
            message_id=message.message_id,
            user_id=event.user_id,
            status=event.status.value,
            pay_amount=text_of_minor(event.pay_amount_minor),
            currency=event.currency,
        )


def webhook_body(event: OrderEvent) -> bytes:
    """Return the body that receivers get: the event under `data`, exactly as it travelled."""
    return msgspec.json.encode(
        {
            "type": event.event_type,
            "timestamp": rfc3339(event.occurred_at),
            "data": msgspec.Raw(order_events.encode(event)),
        }
    )
