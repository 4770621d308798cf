"""What becomes of a batch of requests for orders: each is accepted or refused by itself.

Pure: what there is, which keys are free, the time and the numbers are given. Requests are decided
in the order they came, so of two that want the last unit the earlier one gets it, and an order
takes stock for every line or for none.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeAlias

from msgspec import Struct

from orderkeep.instant import Instant, after
from orderkeep.orders.events import created_event_count
from orderkeep.orders.idempotency_key import KeyKind
from orderkeep.orders.order import Order, OrderNumber, Receiver, Status
from orderkeep.orders.order_number import make_order_number
from orderkeep.orders.pricing import WantedLine, price
from orderkeep.orders.stock import Short, Sku, demand_of, out_of_stock, take_or_leave
from orderkeep.orders.store.requests import Claim, RequestKey
from orderkeep.refusal import Refusal

# A batch goes by stock that it has not locked if there is so many times of what it takes: another
# batch as large may take its own meanwhile.
_PLENTY = 2


class PlaceOrder(Struct, frozen=True, kw_only=True):
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


class PlacedOrder(Struct, frozen=True, kw_only=True):
    """The order that a request made, now or when it was first sent."""

    order: Order
    is_replayed: bool


Answer: TypeAlias = PlacedOrder | Refusal


class Numbered(Struct, frozen=True, kw_only=True):
    """A request with the number that its order gets if it is accepted."""

    request: PlaceOrder
    order_no: OrderNumber

    @property
    def claim(self) -> Claim:
        """What its key stands for then."""
        return Claim(order_no=self.order_no, body_hash=self.request.body_hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedBatch:
    """Requests whose keys are claimed, as far as they were free.

    Attributes:
        numbered: The requests, in the order they came.
        claims: What each key was to stand for: the first request that has it.
        fresh: Keys that this batch claimed.
        earlier: What keys claimed before it stand for.
        now: The database's clock in its transaction.
    """

    numbered: Sequence[Numbered]
    claims: Mapping[RequestKey, Claim]
    fresh: AbstractSet[RequestKey]
    earlier: Mapping[RequestKey, Claim]
    now: Instant

    @property
    def wanted_sku_ids(self) -> set[str]:
        """The SKUs that the decision depends on."""
        return {
            line.sku_id
            for one in self.numbered
            if one.request.key in self.fresh
            for line in one.request.wanted
        }


@dataclass(slots=True, kw_only=True)
class Decided:
    """The batch, decided. Built up in arrival order, written afterwards.

    Attributes:
        answers: One for each request; None where an earlier order is still to be read.
        accepted: What keys claimed by an accepted request of this batch stand for.
        orders: New orders by number.
        available: What is left of each SKU.
        taken: What the new orders take of each SKU.
        is_any_short: Whether a request was refused for want of stock.
    """

    answers: list[Answer | None] = field(default_factory=list)
    accepted: dict[RequestKey, Claim] = field(default_factory=dict)
    orders: dict[OrderNumber, Order] = field(default_factory=dict)
    available: dict[str, int]
    taken: dict[str, int] = field(default_factory=dict)
    is_any_short: bool = False

    @property
    def is_stock_plenty(self) -> bool:
        """Whether there was so much of everything that it need not be locked beforehand."""
        return not self.is_any_short and all(
            self.available[sku_id] >= (_PLENTY - 1) * quantity
            for sku_id, quantity in self.taken.items()
        )


def number(
    requests: Sequence[PlaceOrder], *, now: Instant, draw_number: Callable[[], int]
) -> list[Numbered]:
    """Return the requests with the numbers of their orders.

    Args:
        draw_number: Draws 0..10^12-1.
    """
    # Of two orders with one number in one batch, the later would take the place of the earlier
    # before any row is written, so the primary key could not tell.
    numbers: dict[OrderNumber, PlaceOrder] = {}
    for request in requests:
        order_no = make_order_number(now, drawn=draw_number())
        while order_no in numbers:
            order_no = make_order_number(now, drawn=draw_number())
        numbers[order_no] = request
    return [Numbered(request=request, order_no=order_no) for order_no, request in numbers.items()]


def decide(batch: ClaimedBatch, *, skus: Mapping[str, Sku], rules: PlacingRules) -> Decided:
    """Decide each request on the SKUs as they are given, by id; those that do not exist are not."""
    decided = Decided(available={sku.sku_id: sku.available for sku in skus.values()})
    for one in batch.numbered:
        try:
            answer = _decide_one(one, batch=batch, decided=decided, catalogue=skus, rules=rules)
            decided.answers.append(answer)
        except Refusal as refusal:
            decided.answers.append(refusal)
    return decided


def _decide_one(
    one: Numbered,
    *,
    batch: ClaimedBatch,
    decided: Decided,
    catalogue: Mapping[str, Sku],
    rules: PlacingRules,
) -> PlacedOrder | None:
    request = one.request
    # A key that stands for an order answers it, whatever its age; only then may a token be too old.
    claim = batch.earlier.get(request.key) or decided.accepted.get(request.key)
    if claim is not None:
        if claim.body_hash != request.body_hash:
            raise Refusal(
                "idempotency_key_reused", "This key made an order before, from another body."
            )
        new = decided.orders.get(claim.order_no)
        return None if new is None else PlacedOrder(order=new, is_replayed=True)
    if request.key not in batch.fresh:
        # Claimed by another transaction, and gone again before it could be read.
        raise Refusal(
            "in_progress", "A request with this key is being decided right now; ask again."
        )
    _check_token(request, rules=rules, now=batch.now)
    order = _new_order(one, catalogue=catalogue, rules=rules, now=batch.now)
    verdict = take_or_leave(demand_of(order), remaining=decided.available, taken=decided.taken)
    if isinstance(verdict, Short):
        decided.is_any_short = True
        raise out_of_stock(verdict.shortages)
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
    one: Numbered,
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
