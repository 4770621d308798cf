"""What an order costs: lines from the catalogue, never from the client."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from orderkeep.contracts.amount import check_amount, text_of_minor
from orderkeep.orders.order import OrderLine
from orderkeep.orders.stock import Sku
from orderkeep.refusal import Refusal


class WantedLine(Struct, frozen=True, kw_only=True):
    """A line of a request: how much of which SKU."""

    sku_id: str
    quantity: int
    cart_item_id: str | None = None


class Pricing(Struct, frozen=True, kw_only=True):
    """The lines of an order to be, and what is owed for them."""

    lines: tuple[OrderLine, ...]
    total_amount_minor: int
    pay_amount_minor: int
    currency: str


def price(
    wanted: Sequence[WantedLine],
    *,
    catalogue: Mapping[str, Sku],
    expected_pay_amount_minor: int | None = None,
) -> Pricing:
    """Return the lines with the catalogue's titles and prices, and their sum.

    Lines stay as they were asked for: two of one SKU are two lines.

    Args:
        wanted: At least one line.
        catalogue: By SKU; one that is missing is not known.
        expected_pay_amount_minor: What the buyer was shown; None is whatever it costs.

    Raises:
        Refusal: `unknown_sku`, `mixed_currencies`, `amount_too_large` or `price_changed`, tested
            in this order.
    """
    entries = [_find_for_sale(line.sku_id, catalogue=catalogue) for line in wanted]
    currency = _one_currency(entries)
    lines = tuple(
        _line(line_no, line=line, entry=entry)
        for line_no, (line, entry) in enumerate(zip(wanted, entries, strict=True), start=1)
    )
    total_amount_minor = sum([line.subtotal_minor for line in lines])
    check_amount(total_amount_minor)
    pricing = Pricing(
        lines=lines,
        total_amount_minor=total_amount_minor,
        pay_amount_minor=total_amount_minor,
        currency=currency,
    )
    if expected_pay_amount_minor not in (None, pricing.pay_amount_minor):
        raise _price_changed(pricing)
    return pricing


def _find_for_sale(sku_id: str, *, catalogue: Mapping[str, Sku]) -> Sku:
    entry = catalogue.get(sku_id)
    if entry is None or not entry.is_active:
        detail = f"{sku_id} is not for sale here"
        raise Refusal("unknown_sku", detail, members={"sku_id": sku_id})
    return entry


def _one_currency(entries: Sequence[Sku]) -> str:
    currencies = {entry.currency for entry in entries}
    if len(currencies) > 1:
        named = sorted(currencies)
        detail = f"one order has one currency, these lines have {', '.join(named)}"
        raise Refusal("mixed_currencies", detail, members={"currencies": named})
    return currencies.pop()


def _line(line_no: int, *, line: WantedLine, entry: Sku) -> OrderLine:
    return OrderLine(
        line_no=line_no,
        sku_id=entry.sku_id,
        title=entry.title,
        unit_price_minor=entry.unit_price_minor,
        quantity=line.quantity,
        subtotal_minor=entry.unit_price_minor * line.quantity,
        cart_item_id=line.cart_item_id,
    )


def _price_changed(pricing: Pricing) -> Refusal:
    pay_amount = text_of_minor(pricing.pay_amount_minor)
    items: list[dict[str, str | int]] = []
    for line in pricing.lines:
        item: dict[str, str | int] = {
            "sku_id": line.sku_id,
            "title": line.title,
            "unit_price": text_of_minor(line.unit_price_minor),
            "quantity": line.quantity,
            "subtotal": text_of_minor(line.subtotal_minor),
        }
        if line.cart_item_id is not None:
            item["cart_item_id"] = line.cart_item_id
        items.append(item)
    return Refusal(
        "price_changed",
        f"these lines cost {pay_amount} {pricing.currency} now; show that and ask again",
        members={"items": items, "pay_amount": pay_amount, "currency": pricing.currency},
    )
