"""`order.outbox`: something happened to an order; note it, and make a delivery for each webhook.

Invariant: each order event makes at most one delivery for each receiver, whatever is sent again,
and the deliveries of one order are recorded in the order of its events. Messages may come in
another order: several processes read the queue, and one of them may lose its connection with an
event in hand while another already has the next. So whoever records an event records with it what
stands before it in the outbox and was not heard of yet; when that comes, it is there. If the
process dies before the commit, the message comes again and makes them.
"""

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import structlog

from orderkeep.contracts import order_events
from orderkeep.contracts.amount import text_of_minor
from orderkeep.contracts.order_events import OrderEvent, OrderEventType
from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant, rfc3339
from orderkeep.messaging.consumer import HANDLED, Consumer, Outcome, Received
from orderkeep.messaging.signal import Signal
from orderkeep.orders.store.webhooks import (
    WebhookDelivery,
    insert_deliveries,
    list_events,
)

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
        if receivers:
            events = await _with_earlier(transaction, messages)
            now = await transaction.now()
            await insert_deliveries(
                transaction,
                [
                    _delivery(receiver, message_id, event, now=now)
                    for message_id, event in events
                    for receiver in receivers
                ],
            )
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


async def _with_earlier(
    transaction: Transaction, messages: Sequence[Received[OrderEvent]]
) -> list[tuple[str, OrderEvent]]:
    """Return the events by message id, with those of the same orders that should have come before.

    They come order by order, so that two processes that record the same ones wait for each other in
    the same order, and never both.
    """
    heard = {message.message_id: message.body for message in messages}
    # Before the first event of an order there is none.
    order_nos = {
        event.order_no for event in heard.values() if event.event_type is not OrderEventType.CREATED
    }
    written = await list_events(transaction, sorted(order_nos)) if order_nos else []
    sequences = {event.message_id: event.sequence for event in written}
    last: dict[str, int] = {}
    for message_id, body in heard.items():
        last[body.order_no] = max(last.get(body.order_no, 0), sequences.get(message_id, 0))
    events = dict(heard)
    for event in written:
        if not event.is_heard and event.sequence < last[event.order_no]:
            events.setdefault(event.message_id, order_events.decode(event.body))
    return sorted(events.items(), key=lambda each: (each[1].order_no, sequences.get(each[0], 0)))


def _delivery(
    receiver: str, message_id: str, event: OrderEvent, *, now: Instant
) -> WebhookDelivery:
    return WebhookDelivery(
        delivery_id=0,
        receiver=receiver,
        message_id=message_id,
        order_no=event.order_no,
        type=event.event_type,
        body=webhook_body(event),
        attempts=0,
        created_at=now,
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
