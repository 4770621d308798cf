"""Place a batch of orders in one transaction, each accepted or refused by itself.

Invariant: one key makes at most one order, for ever. The key's row is claimed in the order's own
transaction, so it is the lock that holds across any number of processes; a refused request leaves
no claim. Stock is taken for every line of an order or for none, and only from counts that are
locked: a request is refused for want of stock on these alone.

A row of stock that everyone wants is locked as late as may be, after all else is written. Until
then a batch goes by what it saw without a lock, if there is plenty: as much again as it takes.
Where there is less, or a request falls short, the stock is locked first and the batch is decided on
that. Where others have taken too much between look and lock, nothing is written, and the caller
comes again with `locks_stock_first`.

Locks are taken in one order everywhere: keys, sorted; then stock, by SKU. A crash before the commit
leaves nothing; after it, the client asks again with its key and is answered the order.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeAlias

from orderkeep.database.transaction import Transaction
from orderkeep.failure_points import reach
from orderkeep.instant import Instant, after
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.drafted_changes import demand_of
from orderkeep.orders.events import created_event_count, created_events
from orderkeep.orders.idempotency_key import KeyKind
from orderkeep.orders.order import Order, OrderNumber, Receiver, Status
from orderkeep.orders.order_number import make_order_number
from orderkeep.orders.pricing import WantedLine, price
from orderkeep.orders.stock import (
    MovementKind,
    Short,
    Sku,
    admit,
    out_of_stock,
)
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
    find_skus,
    insert_movements,
    lock_skus,
    reserve_stock,
)
from orderkeep.refusal import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOrder:
    """One request for an order.

    Attributes:
        token_issued_at: When the token that is its key was issued to this user; None if it never
            was, and for a key of another kind.
    """

    key: RequestKey
    body_hash: str
    token_issued_at: Instant | None
    wanted: tuple[WantedLine, ...]
    receiver: Receiver | None
    buyer_remark: str | None
    expected_pay_amount_minor: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacingRules:
    """What holds for every new order.

    Attributes:
        payment_timeout_s: From its making to its deadline.
        token_ttl_s: How long an unused one-time token lives.
    """

    payment_timeout_s: float
    token_ttl_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedOrder:
    """The order that a request made, now or when it was first sent."""

    order: Order
    is_replayed: bool


Answer: TypeAlias = PlacedOrder | Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbered:
    """A request with the number that its order gets if it is accepted."""

    request: PlaceOrder
    order_no: OrderNumber

    @property
    def claim(self) -> Claim:
        return Claim(order_no=self.order_no, body_hash=self.request.body_hash)


@dataclass(slots=True, kw_only=True)
class _Decided:
    """The batch, decided. Built up in arrival order, written afterwards.

    Attributes:
        answers: One for each request; None where an earlier order is still to be read.
        claimed: Keys that this transaction claimed.
        earlier: What keys claimed before this batch stand for.
        accepted: What keys claimed by an accepted request of this batch stand for.
        orders: New orders by number.
        available: What is left of each SKU.
        taken: What the new orders take of each SKU.
        is_any_short: Whether a request was refused for want of stock.
    """

    answers: list[Answer | None] = field(default_factory=list)
    claimed: AbstractSet[RequestKey]
    earlier: Mapping[RequestKey, Claim]
    accepted: dict[RequestKey, Claim] = field(default_factory=dict)
    orders: dict[OrderNumber, Order] = field(default_factory=dict)
    available: Mapping[str, int]
    taken: dict[str, int] = field(default_factory=dict)
    is_any_short: bool = False

    @property
    def is_stock_plenty(self) -> bool:
        """Whether there is as much again of everything, so that another batch may take it too."""
        return not self.is_any_short and all(
            self.available[sku_id] >= quantity for sku_id, quantity in self.taken.items()
        )


async def place_orders(
    transaction: Transaction,
    requests: Sequence[PlaceOrder],
    *,
    outbox: Outbox,
    rules: PlacingRules,
    draw_number: Callable[[], int],
    locks_stock_first: bool = False,
) -> list[Answer]:
    """Decide the requests in the order they came and write what was accepted.

    Args:
        draw_number: Draws 0..10^12-1 for an order's number.
        locks_stock_first: Whether the stock is locked before anything is decided.

    Returns:
        One answer for each request, in order.

    Raises:
        StockTakenError: stock was not locked first, and others have taken it.
    """
    now = await transaction.now()
    numbered = _numbered(requests, now=now, draw_number=draw_number)
    claims: dict[RequestKey, Claim] = {}
    for one in numbered:
        claims.setdefault(one.request.key, one.claim)
    fresh = await claim_keys(transaction, claims)
    reach("place_orders.after_claim")
    earlier = await find_claims(transaction, claims.keys() - fresh)
    wanted = {
        line.sku_id for request in requests if request.key in fresh for line in request.wanted
    }

    def decided_on(skus: Mapping[str, Sku]) -> _Decided:
        return _decide(numbered, claimed=fresh, earlier=earlier, skus=skus, rules=rules, now=now)

    skus = await (lock_skus if locks_stock_first else find_skus)(transaction, wanted)
    decided = decided_on(skus)
    is_stock_locked = locks_stock_first
    if not (is_stock_locked or decided.is_stock_plenty):
        decided = decided_on(await lock_skus(transaction, wanted))
        is_stock_locked = True
    await _settle_claims(transaction, claims=claims, fresh=fresh, accepted=decided.accepted)
    await _write(transaction, list(decided.orders.values()), outbox=outbox, now=now)
    await reserve_stock(transaction, decided.taken, is_locked=is_stock_locked)
    reach("place_orders.after_stock")
    return await _answer(transaction, numbered, decided=decided)


def _numbered(
    requests: Sequence[PlaceOrder], *, now: Instant, draw_number: Callable[[], int]
) -> list[_Numbered]:
    # Of two orders with one number in one batch, the later would take the place of the earlier
    # before any row is written, so the primary key could not tell.
    numbers: dict[OrderNumber, PlaceOrder] = {}
    for request in requests:
        order_no = make_order_number(now, drawn=draw_number())
        while order_no in numbers:
            order_no = make_order_number(now, drawn=draw_number())
        numbers[order_no] = request
    return [_Numbered(request=request, order_no=order_no) for order_no, request in numbers.items()]


def _decide(
    numbered: Sequence[_Numbered],
    *,
    claimed: AbstractSet[RequestKey],
    earlier: Mapping[RequestKey, Claim],
    skus: Mapping[str, Sku],
    rules: PlacingRules,
    now: Instant,
) -> _Decided:
    decided = _Decided(
        claimed=claimed,
        earlier=earlier,
        available={sku.sku_id: sku.available for sku in skus.values()},
    )
    for one in numbered:
        try:
            decided.answers.append(
                _decide_one(one, decided=decided, catalogue=skus, rules=rules, now=now)
            )
        except Refusal as refusal:
            decided.answers.append(refusal)
    return decided


def _decide_one(
    one: _Numbered,
    *,
    decided: _Decided,
    catalogue: Mapping[str, Sku],
    rules: PlacingRules,
    now: Instant,
) -> PlacedOrder | None:
    request = one.request
    # A key that stands for an order answers it, whatever its age; only then may a token be too old.
    claim = decided.earlier.get(request.key) or decided.accepted.get(request.key)
    if claim is not None:
        if claim.body_hash != request.body_hash:
            raise Refusal(
                "idempotency_key_reused", "This key made an order before, from another body."
            )
        new = decided.orders.get(claim.order_no)
        return None if new is None else PlacedOrder(order=new, is_replayed=True)
    if request.key not in decided.claimed:
        # Claimed by another transaction, and gone again before it could be read.
        raise Refusal(
            "in_progress", "A request with this key is being decided right now; ask again."
        )
    _check_token(request, rules=rules, now=now)
    order = _new_order(one, catalogue=catalogue, rules=rules, now=now)
    demand = demand_of(order)
    admission = admit([demand], available=decided.available)
    (verdict,) = admission.verdicts
    if isinstance(verdict, Short):
        decided.is_any_short = True
        raise out_of_stock(verdict.shortages)
    decided.available = admission.remaining
    for sku_id, quantity in demand.items():
        decided.taken[sku_id] = decided.taken.get(sku_id, 0) + quantity
    decided.orders[order.order_no] = order
    decided.accepted[request.key] = one.claim
    return PlacedOrder(order=order, is_replayed=False)


def _check_token(request: PlaceOrder, *, rules: PlacingRules, now: Instant) -> None:
    if request.key.kind != KeyKind.TOKEN:
        return
    issued_at = request.token_issued_at
    if issued_at is None or now >= after(issued_at, seconds=rules.token_ttl_s):
        raise Refusal(
            "token_expired",
            "This token is unknown or has expired unused: get a new one and order again.",
        )


def _new_order(
    one: _Numbered,
    *,
    catalogue: Mapping[str, Sku],
    rules: PlacingRules,
    now: Instant,
) -> Order:
    request = one.request
    pricing = price(
        request.wanted,
        catalogue=catalogue,
        expected_pay_amount_minor=request.expected_pay_amount_minor,
    )
    return Order(
        order_no=one.order_no,
        user_id=request.key.user_id,
        status=Status.PENDING_PAYMENT,
        version=1,
        event_seq=created_event_count(pricing.lines),
        lines=pricing.lines,
        total_amount_minor=pricing.total_amount_minor,
        pay_amount_minor=pricing.pay_amount_minor,
        currency=pricing.currency,
        created_at=now,
        expires_at=after(now, seconds=rules.payment_timeout_s),
        receiver=request.receiver,
        buyer_remark=request.buyer_remark,
    )


async def _settle_claims(
    transaction: Transaction,
    *,
    claims: Mapping[RequestKey, Claim],
    fresh: set[RequestKey],
    accepted: Mapping[RequestKey, Claim],
) -> None:
    # The claims were made for the first request of each key. Where all of them were refused the
    # key goes free again; where a later one was accepted, the key stands for that one.
    await release_claims(transaction, fresh - accepted.keys())
    await correct_claims(
        transaction, {key: claim for key, claim in accepted.items() if claims[key] != claim}
    )


async def _write(
    transaction: Transaction, orders: Sequence[Order], *, outbox: Outbox, now: Instant
) -> None:
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
        now=now,
    )
    await outbox.append(
        transaction, [event for order in orders for event in created_events(order)], now=now
    )
    reach("place_orders.after_outbox")


async def _answer(
    transaction: Transaction, numbered: Sequence[_Numbered], *, decided: _Decided
) -> list[Answer]:
    replayed = [
        decided.earlier[one.request.key].order_no
        for one, answer in zip(numbered, decided.answers, strict=True)
        if answer is None
    ]
    found = await find_orders(transaction, set(replayed)) if replayed else {}
    return [
        PlacedOrder(order=found[decided.earlier[one.request.key].order_no], is_replayed=True)
        if answer is None
        else answer
        for one, answer in zip(numbered, decided.answers, strict=True)
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
