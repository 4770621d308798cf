"""Consumes `cart-sync`: orders take lines out of carts, foreign programs keep carts in step.

Invariant: an event takes its effect on the cart of its own user and on no other, once; the kernel's
inbox holds back copies. An item that is to be removed and is not there is removed already. What a
cart refuses (over its limits, a change of an item that is gone) is set aside with the reason.

A crash before the commit leaves cart and inbox as they were, and the messages come again; one
after it leaves both changed, and the copies that come again meet the inbox.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import assert_never

import structlog

from orderkeep.carts import change_cart, store
from orderkeep.carts.cart import Addition, CartItem, QuantityChange, Removal
from orderkeep.contracts import cart_sync
from orderkeep.contracts.cart_sync import (
    CartCleared,
    CartEvent,
    CartItemAdded,
    CartItemRemoved,
    CartItemUpdated,
)
from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.consumer import HANDLED, Consumer, Outcome, Received, SetAside
from orderkeep.refusal import Refusal

log = structlog.get_logger()


def cart_sync_consumer(*, new_cart_item_id: Callable[[], str]) -> Consumer[CartEvent]:
    """Return the consumer of `cart-sync`.

    Args:
        new_cart_item_id: Draws the id of an added item that comes without one.
    """

    async def handle(
        transaction: Transaction, batch: Sequence[Received[CartEvent]]
    ) -> Sequence[Outcome]:
        now = await transaction.now()
        # All carts at once and in one order: whatever the batch holds, no deadlock.
        await store.lock_carts(transaction, [message.body.user_id for message in batch], now=now)
        outcomes: list[Outcome] = []
        # Runs of one kind are one set of statements, and the order between kinds is kept.
        for _, run in groupby(batch, key=lambda message: type(message.body)):
            events = [message.body for message in run]
            outcomes += await _take_effect(
                transaction, events, new_cart_item_id=new_cart_item_id, now=now
            )
        transaction.after_commit(partial(_log, batch, outcomes))
        return outcomes

    return Consumer(
        name=cart_sync.QUEUE,
        queue=cart_sync.QUEUE,
        decode=cart_sync.decode,
        business_key=cart_sync.business_key,
        handle=handle,
    )


async def _take_effect(
    transaction: Transaction,
    events: Sequence[CartEvent],
    *,
    new_cart_item_id: Callable[[], str],
    now: Instant,
) -> list[Outcome]:
    """Take the effect of a run of events that are all of one kind."""
    match events[0]:
        case CartItemRemoved():
            await store.remove_lines(transaction, _removals(events))
            return [HANDLED] * len(events)
        case CartCleared():
            await store.clear_carts(transaction, {event.user_id for event in events})
            return [HANDLED] * len(events)
        case CartItemAdded():
            additions = _additions(events, new_cart_item_id=new_cart_item_id)
            added = await change_cart.add_items(transaction, additions, now=now)
            return [_outcome(answer) for answer in added]
        case CartItemUpdated():
            changed = await change_cart.change_quantities(transaction, _changes(events), now=now)
            return [_outcome(answer) for answer in changed]
        case _ as never:
            assert_never(never)


def _removals(events: Sequence[CartEvent]) -> list[Removal]:
    return [
        Removal(cart_item_id=event.item_id, user_id=event.user_id)
        for event in events
        if isinstance(event, CartItemRemoved)
    ]


def _additions(
    events: Sequence[CartEvent], *, new_cart_item_id: Callable[[], str]
) -> list[Addition]:
    return [
        Addition(
            cart_item_id=event.item_id or new_cart_item_id(),
            user_id=event.user_id,
            sku_id=event.sku_id,
            quantity=event.quantity,
        )
        for event in events
        if isinstance(event, CartItemAdded)
    ]


def _changes(events: Sequence[CartEvent]) -> list[QuantityChange]:
    return [
        QuantityChange(cart_item_id=event.item_id, user_id=event.user_id, quantity=event.quantity)
        for event in events
        if isinstance(event, CartItemUpdated)
    ]


def _outcome(answer: CartItem | Refusal) -> Outcome:
    if isinstance(answer, Refusal):
        return SetAside(reason=answer.code, detail=answer.detail)
    return HANDLED


def _log(batch: Sequence[Received[CartEvent]], outcomes: Sequence[Outcome]) -> None:
    for message, outcome in zip(batch, outcomes, strict=True):
        order_no = message.body.order_no if isinstance(message.body, CartItemRemoved) else None
        log.info(
            "cart_changed" if outcome is HANDLED else "cart_event_refused",
            message_id=message.message_id,
            order_no=order_no,
            event_type=type(message.body).__name__,
        )
