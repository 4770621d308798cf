"""What orders, stock and money should come to: an independent telling of the rules, in memory.

It shares no code with the service. Money is in minor units; a key is a pair of user and text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PRICES: Mapping[str, int] = {"tea": 2_599, "pot": 10_000}
STOCK: Mapping[str, int] = {"tea": 12, "pot": 5}

Lines = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A request for an order."""

    user_id: str
    key: str
    lines: Lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A payment as it is reported; None is left out."""

    order_no: str
    trade_no: str
    channel: str | None
    amount: int | None
    currency: str | None
    # The order, if it is unknown, has been waited for long enough.
    is_old: bool = False

    @property
    def identity(self) -> tuple[str, str]:
        """What makes two reports one payment."""
        return self.channel or "", self.trade_no


@dataclass(slots=True, kw_only=True)
class ModelOrder:
    """An order."""

    user_id: str
    lines: Lines
    amount: int
    status: str = "pending_payment"
    version: int = 1
    is_due: bool = False
    paid_by: tuple[str, str] | None = None

    @property
    def demand(self) -> dict[str, int]:
        """What it wants of each SKU."""
        return _summed(self.lines)


@dataclass(slots=True)
class Model:
    """Everything that should be in the database.

    Attributes:
        stock: Available, reserved and sold of each SKU.
        keys: The order that a key made, and its lines.
        payments: By identity: order, amount, currency, outcome.
        refunds: By identity: order, amount, currency, reason, status.
        cases: Kind, order, identity, amount, currency.
    """

    policy: str = "refund"
    stock: dict[str, list[int]] = field(
        default_factory=lambda: {sku_id: [count, 0, 0] for sku_id, count in STOCK.items()}
    )
    orders: dict[str, ModelOrder] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[str, Lines]] = field(default_factory=dict)
    payments: dict[tuple[str, str], tuple[str, int | None, str | None, str]] = field(
        default_factory=dict
    )
    refunds: dict[tuple[str, str], list[object]] = field(default_factory=dict)
    cases: list[tuple[str, str, tuple[str, str], int | None, str | None]] = field(
        default_factory=list
    )

    def place(self, wishes: Sequence[Wish], order_nos: Sequence[str | None]) -> list[str]:
        """Return what each wish should be answered: "new", "replayed", or a refusal.

        Args:
            order_nos: The number that each wish was answered, which only the service can draw.
        """
        return [
            self._place(wish, order_no) for wish, order_no in zip(wishes, order_nos, strict=True)
        ]

    def _place(self, wish: Wish, order_no: str | None) -> str:
        made = self.keys.get((wish.user_id, wish.key))
        if made is not None:
            return f"replayed {made[0]}" if made[1] == wish.lines else "idempotency_key_reused"
        if any(sku_id not in PRICES for sku_id, _ in wish.lines):
            return "unknown_sku"
        demand = _summed(wish.lines)
        if any(count > self.stock[sku_id][0] for sku_id, count in demand.items()):
            return "out_of_stock"
        if order_no is None:
            return "new"  # the service refused it: the comparison will tell
        self._move(demand, available=-1, reserved=1)
        self.keys[wish.user_id, wish.key] = (order_no, wish.lines)
        self.orders[order_no] = ModelOrder(
            user_id=wish.user_id,
            lines=wish.lines,
            amount=sum(PRICES[sku_id] * count for sku_id, count in wish.lines),
        )
        return "new"

    def cancel(self, order_no: str) -> str:
        """Return what a wish to cancel should be answered."""
        order = self.orders.get(order_no)
        if order is None:
            return "not_found"
        if order.status in {"paid", "closed"}:
            return "order_not_pending"
        if order.status == "pending_payment":
            self._end(order, "cancelled")
            self._move(order.demand, available=1, reserved=-1)
        return "cancelled"

    def close_if_due(self, order_no: str) -> bool:
        """Close the order if its time has come; return whether it waits instead."""
        order = self.orders[order_no]
        if order.status != "pending_payment":
            return False
        if not order.is_due:
            return True
        self._end(order, "closed")
        self._move(order.demand, available=1, reserved=-1)
        return False

    def hear(self, report: Report) -> str:
        """Return what should become of a report: "handled" or "postponed"."""
        order = self.orders.get(report.order_no)
        currency = report.currency or ("CNY" if order else None)
        known = self.payments.get(report.identity)
        if known is not None:
            if not _is_same(known, report, currency=currency):
                self._open_case("trade_no_conflict", report, currency=currency)
            return "handled"
        if order is None:
            if not report.is_old:
                return "postponed"
            self._doubt("unknown_order", report, currency=currency)
            return "handled"
        match order.status:
            case "paid":
                self._hear_again(order, report, currency=currency)
            case "cancelled":
                self._give_back("late_payment", report, currency=currency)
            case "closed" if self.policy == "manual":
                self._doubt("late_payment", report, currency=currency)
            case "closed":
                self._give_back("late_payment", report, currency=currency)
            case _:
                self._pay(order, report, currency=currency)
        return "handled"

    def end_refund(self, identity: tuple[str, str], status: str) -> str:
        """Return what should become of a result: "handled" or "set_aside"."""
        refund = self.refunds[identity]
        if refund[-1] == "requested":
            refund[-1] = status
            return "handled"
        return "handled" if refund[-1] == status else "set_aside"

    def _pay(self, order: ModelOrder, report: Report, *, currency: str | None) -> None:
        if report.amount is None:
            self._doubt("amount_missing", report, currency=currency)
        elif currency != "CNY":
            self._doubt("currency_mismatch", report, currency=currency)
        elif report.amount != order.amount:
            self._doubt("amount_mismatch", report, currency=currency)
        else:
            self._record(report, currency=currency, outcome="accepted")
            self._end(order, "paid")
            order.paid_by = report.identity
            self._move(order.demand, reserved=-1, sold=1)

    def _hear_again(self, order: ModelOrder, report: Report, *, currency: str | None) -> None:
        assert order.paid_by is not None
        channel, trade_no = order.paid_by
        if report.trade_no == trade_no and "" in {channel, report.channel or ""}:
            self._doubt("trade_no_conflict", report, currency=currency)
        else:
            self._give_back("double_payment", report, currency=currency)

    def _give_back(self, reason: str, report: Report, *, currency: str | None) -> None:
        if not report.amount:
            self._doubt("amount_missing", report, currency=currency)
            return
        self._record(report, currency=currency, outcome="refund")
        self.refunds[report.identity] = [
            report.order_no,
            report.amount,
            currency,
            reason,
            "requested",
        ]

    def _doubt(self, kind: str, report: Report, *, currency: str | None) -> None:
        self._record(report, currency=currency, outcome="case")
        self._open_case(kind, report, currency=currency)

    def _open_case(self, kind: str, report: Report, *, currency: str | None) -> None:
        self.cases.append((kind, report.order_no, report.identity, report.amount, currency))

    def _record(self, report: Report, *, currency: str | None, outcome: str) -> None:
        self.payments[report.identity] = (report.order_no, report.amount, currency, outcome)

    def _end(self, order: ModelOrder, status: str) -> None:
        order.status = status
        order.version += 1

    def _move(
        self, demand: Mapping[str, int], *, available: int = 0, reserved: int = 0, sold: int = 0
    ) -> None:
        for sku_id, count in demand.items():
            counts = self.stock[sku_id]
            for place, direction in enumerate((available, reserved, sold)):
                counts[place] += direction * count


def _is_same(
    known: tuple[str, int | None, str | None, str], report: Report, *, currency: str | None
) -> bool:
    order_no, amount, known_currency, _ = known
    return (
        report.order_no == order_no
        and (report.amount is None or report.amount == amount)
        and (currency is None or known_currency is None or currency == known_currency)
    )


def _summed(lines: Lines) -> dict[str, int]:
    return {sku_id: sum(count for other, count in lines if other == sku_id) for sku_id, _ in lines}
