"""Stock: who gets it when many ask at once, and what the movements of it add up to.

Requests are admitted in the order they arrived, each for itself: it gets every SKU it asks for or
none, and one that is refused leaves what it could not use to those behind it.

Invariant, for each SKU: the sum of adjustments = available + reserved + sold, none negative.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TypeAlias, assert_never

from msgspec import Struct

from orderkeep.orders.order import Order
from orderkeep.refusal import Refusal


class Sku(Struct, frozen=True, kw_only=True):
    """A thing for sale, with its stock.

    Attributes:
        available: What can be ordered now.
        reserved: What unpaid orders hold.
        sold: What paid orders took.
    """

    sku_id: str
    product_id: str | None
    title: str
    unit_price_minor: int
    currency: str
    is_active: bool
    available: int
    reserved: int
    sold: int


class Shortage(Struct, frozen=True, kw_only=True):
    """A SKU of which there was less than was asked for.

    Attributes:
        available: What was left when the request's turn came.
    """

    sku_id: str
    requested: int
    available: int


class Accepted(Struct, frozen=True, kw_only=True):
    """The demand is met in full."""


class Short(Struct, frozen=True, kw_only=True):
    """The demand is refused as a whole; shortages holds at least one, by SKU."""

    shortages: tuple[Shortage, ...]


Verdict: TypeAlias = Accepted | Short

ACCEPTED = Accepted()


class Admission(Struct, frozen=True, kw_only=True):
    """What became of a batch.

    Attributes:
        verdicts: One for each demand, in order.
        remaining: What is left of every SKU there was.
        taken: What all accepted demands together took, without the SKUs nobody got.
    """

    verdicts: tuple[Verdict, ...]
    remaining: Mapping[str, int]
    taken: Mapping[str, int]


def sum_by_sku(lines: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the demand of lines of (SKU, quantity), those of one SKU summed."""
    demand: dict[str, int] = {}
    for sku_id, quantity in lines:
        demand[sku_id] = demand.get(sku_id, 0) + quantity
    return demand


def demand_of(order: Order) -> dict[str, int]:
    """Return what the order wants of each SKU."""
    return sum_by_sku([(line.sku_id, line.quantity) for line in order.lines])


def admit(demands: Sequence[Mapping[str, int]], *, available: Mapping[str, int]) -> Admission:
    """Decide a batch of demands in the order they arrived.

    Args:
        demands: For each request what it asks of each SKU, at least 1; see `sum_by_sku`.
        available: What there is of each SKU, at least 0; of one that is missing there is nothing.
    """
    remaining = dict(available)
    taken: dict[str, int] = {}
    verdicts = tuple(take_or_leave(demand, remaining=remaining, taken=taken) for demand in demands)
    return Admission(verdicts=verdicts, remaining=remaining, taken=taken)


def take_or_leave(
    demand: Mapping[str, int], *, remaining: dict[str, int], taken: dict[str, int]
) -> Verdict:
    """Take the demand if all of it is there; else say what is short, and take nothing.

    Args:
        remaining: What is left of each SKU; made less.
        taken: What was taken of each SKU; made more.
    """
    if any(quantity > remaining.get(sku_id, 0) for sku_id, quantity in demand.items()):
        return Short(
            shortages=tuple(
                Shortage(sku_id=sku_id, requested=quantity, available=remaining.get(sku_id, 0))
                for sku_id, quantity in sorted(demand.items())
                if quantity > remaining.get(sku_id, 0)
            )
        )
    for sku_id, quantity in demand.items():
        remaining[sku_id] -= quantity
        taken[sku_id] = taken.get(sku_id, 0) + quantity
    return ACCEPTED


def out_of_stock(shortages: Sequence[Shortage]) -> Refusal:
    """Return the refusal that names each SKU with what is available of it."""
    named = ", ".join(f"{it.sku_id} ({it.available} of {it.requested})" for it in shortages)
    items = [
        {"sku_id": it.sku_id, "requested": it.requested, "available": it.available}
        for it in shortages
    ]
    return Refusal("out_of_stock", f"not enough in stock: {named}", members={"items": items})


class MovementKind(StrEnum):
    """What moves stock, and from where to where."""

    # An operator adds to what is available, or takes away.
    ADJUST = "adjust"
    # available to reserved: an order is made.
    RESERVE = "reserve"
    # reserved to available: it is cancelled or closed.
    RELEASE = "release"
    # reserved to sold: it is paid.
    SELL = "sell"
    # available to sold: it was closed, and a late payment brings it back.
    REVIVE = "revive"


class StockCounts(Struct, frozen=True, kw_only=True):
    """The three counts of one SKU; or what is added to them."""

    available: int = 0
    reserved: int = 0
    sold: int = 0

    def plus(self, other: "StockCounts") -> "StockCounts":
        """Return the sum, count by count."""
        return StockCounts(
            available=self.available + other.available,
            reserved=self.reserved + other.reserved,
            sold=self.sold + other.sold,
        )

    @property
    def total(self) -> int:
        """All there is; adjustments change it, and nothing else."""
        return self.available + self.reserved + self.sold


def change_of(kind: MovementKind, *, quantity: int) -> StockCounts:
    """Return what a movement adds to the three counts.

    Args:
        quantity: At least 1; an adjustment may take away, so it may be negative.

    Raises:
        ValueError: quantity is below 1 and this is no adjustment.
    """
    if quantity < 1 and kind is not MovementKind.ADJUST:
        message = f"{kind} of {quantity}: only an adjustment may be below 1"
        raise ValueError(message)
    match kind:
        case MovementKind.ADJUST:
            return StockCounts(available=quantity)
        case MovementKind.RESERVE:
            return StockCounts(available=-quantity, reserved=quantity)
        case MovementKind.RELEASE:
            return StockCounts(available=quantity, reserved=-quantity)
        case MovementKind.SELL:
            return StockCounts(reserved=-quantity, sold=quantity)
        case MovementKind.REVIVE:
            return StockCounts(available=-quantity, sold=quantity)
        case _ as never:
            assert_never(never)


def counts_from(movements: Iterable[tuple[MovementKind, int]]) -> StockCounts:
    """Return the counts that the movements of one SKU, as (kind, quantity), add up to."""
    counts = StockCounts()
    for kind, quantity in movements:
        counts = counts.plus(change_of(kind, quantity=quantity))
    return counts
