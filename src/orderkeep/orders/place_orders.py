"""Place a batch of orders in one transaction, each accepted or refused by itself.

Invariant: one key makes at most one order, for ever. The key's row is claimed in the order's own
transaction, so it is the lock that holds across any number of processes; a refused request leaves
no claim. Stock is taken only from counts that are locked, and a request is refused for want of
stock on such counts alone.

A row of stock that everyone wants is locked as late as may be, after all else is written. Until
then a batch goes by what it saw without a lock, where there is plenty; where there is less, the
stock is locked first and the batch is decided on that. Where others have changed what it saw (taken
the stock, withdrawn a SKU, changed a price), nothing of the batch may be committed: the caller
comes again with `place_orders_on_locked_stock`.

Locks are taken in one order everywhere: keys, sorted; then stock, by SKU. A crash before the commit
leaves nothing; after it, the client asks again with its key and is answered the order.
"""

from collections.abc import Callable, Sequence

from orderkeep.database.transaction import Transaction
from orderkeep.failure_points import reach
from orderkeep.instant import Instant
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.events import created_events
from orderkeep.orders.order import Order
from orderkeep.orders.placing import (
    Answer,
    ClaimedBatch,
    Decided,
    PlacedOrder,
    PlaceOrder,
    PlacingRules,
    decide,
    number,
)
from orderkeep.orders.stock import MovementKind, demand_of
from orderkeep.orders.store.orders import (
    HistoryEntry,
    find_orders,
    insert_history,
    insert_orders,
)
from orderkeep.orders.store.requests import (
    Claim,
    RequestKey,
    claim_keys,
    correct_claims,
    find_claims,
    release_claims,
)
from orderkeep.orders.store.stock import (
    Movement,
    insert_movements,
    lock_skus,
    look_at_skus,
    reserve_locked_stock,
    reserve_seen_stock,
)


async def place_orders(
    transaction: Transaction,
    requests: Sequence[PlaceOrder],
    *,
    outbox: Outbox,
    rules: PlacingRules,
    draw_number: Callable[[], int],
) -> list[Answer]:
    """Decide the requests in the order they came and write what was accepted.

    Args:
        draw_number: Draws 0..10^12-1 for an order's number.

    Returns:
        One answer for each request, in order.

    Raises:
        SkuChangedError: others have changed what was seen; see above.
    """
    wanted = {line.sku_id for request in requests for line in request.wanted}
    seen, now = await look_at_skus(transaction, wanted)
    batch = await _claim(transaction, requests, now=now, draw_number=draw_number)
    decided = decide(batch, skus=seen, rules=rules)
    if not decided.is_stock_plenty:
        return await _place_on_locked_stock(transaction, batch, outbox=outbox, rules=rules)
    await _write(transaction, batch, decided, outbox=outbox)
    await reserve_seen_stock(transaction, decided.taken, seen=seen)
    return await _answer(transaction, batch, decided)


async def place_orders_on_locked_stock(
    transaction: Transaction,
    requests: Sequence[PlaceOrder],
    *,
    outbox: Outbox,
    rules: PlacingRules,
    draw_number: Callable[[], int],
) -> list[Answer]:
    """Do the same with the stock locked before anything is decided, so that nobody changes it."""
    now = await transaction.now()
    batch = await _claim(transaction, requests, now=now, draw_number=draw_number)
    return await _place_on_locked_stock(transaction, batch, outbox=outbox, rules=rules)


async def _claim(
    transaction: Transaction,
    requests: Sequence[PlaceOrder],
    *,
    now: Instant,
    draw_number: Callable[[], int],
) -> ClaimedBatch:
    numbered = number(requests, now=now, draw_number=draw_number)
    claims: dict[RequestKey, Claim] = {}
    for one in numbered:
        claims.setdefault(one.request.key, one.claim)
    fresh = await claim_keys(transaction, claims)
    reach("place_orders.after_claim")
    earlier = await find_claims(transaction, claims.keys() - fresh)
    return ClaimedBatch(numbered=numbered, claims=claims, fresh=fresh, earlier=earlier, now=now)


async def _place_on_locked_stock(
    transaction: Transaction, batch: ClaimedBatch, *, outbox: Outbox, rules: PlacingRules
) -> list[Answer]:
    skus = await lock_skus(transaction, batch.wanted_sku_ids)
    decided = decide(batch, skus=skus, rules=rules)
    await _write(transaction, batch, decided, outbox=outbox)
    await reserve_locked_stock(transaction, decided.taken)
    return await _answer(transaction, batch, decided)


async def _write(
    transaction: Transaction, batch: ClaimedBatch, decided: Decided, *, outbox: Outbox
) -> None:
    """Write all but the stock."""
    await _settle_claims(transaction, batch, decided)
    orders = list(decided.orders.values())
    if not orders:
        return
    await insert_orders(transaction, orders)
    reach("place_orders.after_orders")
    await insert_history(transaction, [_beginning(order) for order in orders])
    await insert_movements(
        transaction,
        [
            Movement(
                sku_id=sku_id, kind=MovementKind.RESERVE, cause=order.order_no, quantity=quantity
            )
            for order in orders
            for sku_id, quantity in demand_of(order).items()
        ],
        now=batch.now,
    )
    await outbox.append(
        transaction, [event for order in orders for event in created_events(order)], now=batch.now
    )
    reach("place_orders.after_outbox")


async def _settle_claims(transaction: Transaction, batch: ClaimedBatch, decided: Decided) -> None:
    # The claims were made for the first request of each key. Where all of them were refused the
    # key goes free again; where a later one was accepted, the key stands for that one.
    accepted = decided.accepted
    await release_claims(transaction, batch.fresh - accepted.keys())
    await correct_claims(
        transaction,
        {key: claim for key, claim in accepted.items() if batch.claims[key] != claim},
    )


async def _answer(transaction: Transaction, batch: ClaimedBatch, decided: Decided) -> list[Answer]:
    reach("place_orders.after_stock")
    replayed = [
        batch.earlier[one.request.key].order_no
        for one, answer in zip(batch.numbered, decided.answers, strict=True)
        if answer is None
    ]
    found = await find_orders(transaction, set(replayed)) if replayed else {}
    return [
        PlacedOrder(order=found[batch.earlier[one.request.key].order_no], is_replayed=True)
        if answer is None
        else answer
        for one, answer in zip(batch.numbered, decided.answers, strict=True)
    ]


def _beginning(order: Order) -> HistoryEntry:
    return HistoryEntry(
        order_no=order.order_no,
        version=order.version,
        from_status=None,
        to_status=order.status,
        cause="buyer",
        actor=order.user_id,
        changed_at=order.created_at,
    )
