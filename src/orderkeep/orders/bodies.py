"""What the order service reads and answers over HTTP: bodies and how domain objects become them."""

from typing import Annotated

import msgspec

from orderkeep.contracts.amount import AmountText, text_of_minor
from orderkeep.contracts.text import (
    LINE_COUNT_MAX,
    BuyerRemark,
    CurrencyCode,
    Identifier,
    Quantity,
    Reason,
    ReceiverAddress,
    ReceiverName,
    ReceiverPhone,
    StockChange,
    StockQuantity,
    Title,
)
from orderkeep.instant import Instant, rfc3339
from orderkeep.orders.order import Order, OrderLine
from orderkeep.orders.stock import Sku
from orderkeep.orders.store.reports import TimedOutOrder


class RequestBody(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A body that a client sends: unknown members are refused."""


class AnswerBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A body that is answered: members without a value are left out."""


class ItemBody(RequestBody, frozen=True):
    """One line of a request for an order."""

    sku_id: Identifier
    quantity: Quantity
    cart_item_id: Identifier | None = None


class ReceiverBody(RequestBody, frozen=True):
    """Who receives the goods, and where."""

    name: ReceiverName
    phone: ReceiverPhone
    address: ReceiverAddress


class PlaceOrderBody(RequestBody, frozen=True):
    """A request for an order; prices come from the catalogue, never from here."""

    items: Annotated[tuple[ItemBody, ...], msgspec.Meta(min_length=1, max_length=LINE_COUNT_MAX)]
    # Any text may claim to be a token: one we never issued is answered as such, not as bad syntax.
    token: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None
    receiver: ReceiverBody | None = None
    buyer_remark: BuyerRemark | None = None
    expected_pay_amount: AmountText | None = None


class CancelOrderBody(RequestBody, frozen=True):
    """Why an order is cancelled."""

    reason: Reason | None = None


class PutSkuBody(RequestBody, frozen=True):
    """What the catalogue says of a SKU; `stock` only when it is created.

    `reason` is for the record of what operators did.
    """

    title: Title
    price: AmountText
    currency: CurrencyCode
    product_id: Identifier | None = None
    stock: StockQuantity | None = None
    is_active: bool = True
    reason: Reason | None = None


class MoveStockBody(RequestBody, frozen=True):
    """An adjustment of stock by an operator."""

    quantity: StockChange
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class TokenAnswer(AnswerBody, frozen=True):
    """A one-time order token."""

    token: str
    expires_in_s: int


class ItemAnswer(AnswerBody, frozen=True):
    """One line of an order."""

    sku_id: str
    title: str
    unit_price: str
    quantity: int
    subtotal: str
    cart_item_id: str | None = None


class ReceiverAnswer(AnswerBody, frozen=True):
    """Who receives the goods, and where."""

    name: str
    phone: str
    address: str


class OrderAnswer(AnswerBody, frozen=True):
    """An order as its buyer sees it; operators see whose it is."""

    order_no: str
    status: str
    items: tuple[ItemAnswer, ...]
    total_amount: str
    pay_amount: str
    currency: str
    created_at: str
    expires_at: str
    version: int
    user_id: str | None = None
    receiver: ReceiverAnswer | None = None
    buyer_remark: str | None = None
    paid_at: str | None = None
    closed_at: str | None = None
    cancelled_at: str | None = None
    close_reason: str | None = None
    pay_channel: str | None = None
    trade_no: str | None = None


class OrderPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of orders."""

    items: tuple[OrderAnswer, ...]
    next_cursor: str | None


class SkuAnswer(AnswerBody, frozen=True):
    """A SKU as the catalogue shows it."""

    sku_id: str
    title: str
    price: str
    currency: str
    is_active: bool
    available: int
    product_id: str | None = None


class SkuPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the catalogue."""

    items: tuple[SkuAnswer, ...]
    next_cursor: str | None


class StockedSkuAnswer(AnswerBody, frozen=True):
    """A SKU as an operator sees it."""

    sku_id: str
    title: str
    price: str
    currency: str
    is_active: bool
    available: int
    reserved: int
    sold: int
    product_id: str | None = None


class TimedOutOrderAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One order of the abandoned-orders report."""

    order_no: str
    user_id: str
    pay_amount: str
    currency: str | None
    reason_code: str
    created_at: str
    timed_out_at: str
    is_recovered: bool
    recovered_by_order_no: str | None


class TimedOutOrderPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the abandoned-orders report."""

    items: tuple[TimedOutOrderAnswer, ...]
    next_cursor: str | None


class TimelineAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that happened to an order, the earliest first."""

    order_no: str
    items: tuple[dict[str, object], ...]


def order_answer(order: Order) -> OrderAnswer:
    """Return the order as its buyer sees it."""
    return _order_answer(order, user_id=None)


def operator_order_answer(order: Order) -> OrderAnswer:
    """Return the order as an operator sees it."""
    return _order_answer(order, user_id=order.user_id)


def item_answer(line: OrderLine) -> ItemAnswer:
    """Return a line of an order."""
    return ItemAnswer(
        sku_id=line.sku_id,
        title=line.title,
        unit_price=text_of_minor(line.unit_price_minor),
        quantity=line.quantity,
        subtotal=text_of_minor(line.subtotal_minor),
        cart_item_id=line.cart_item_id,
    )


def sku_answer(sku: Sku) -> SkuAnswer:
    """Return a SKU as the catalogue shows it."""
    return SkuAnswer(
        sku_id=sku.sku_id,
        product_id=sku.product_id,
        title=sku.title,
        price=text_of_minor(sku.unit_price_minor),
        currency=sku.currency,
        is_active=sku.is_active,
        available=sku.available,
    )


def stocked_sku_answer(sku: Sku) -> StockedSkuAnswer:
    """Return a SKU as an operator sees it."""
    return StockedSkuAnswer(
        sku_id=sku.sku_id,
        product_id=sku.product_id,
        title=sku.title,
        price=text_of_minor(sku.unit_price_minor),
        currency=sku.currency,
        is_active=sku.is_active,
        available=sku.available,
        reserved=sku.reserved,
        sold=sku.sold,
    )


def timed_out_answer(order: TimedOutOrder) -> TimedOutOrderAnswer:
    """Return one order of the abandoned-orders report."""
    return TimedOutOrderAnswer(
        order_no=order.order_no,
        user_id=order.user_id,
        pay_amount=text_of_minor(order.pay_amount_minor),
        currency=order.currency,
        reason_code=order.reason_code,
        created_at=rfc3339(order.created_at),
        timed_out_at=rfc3339(order.timed_out_at),
        is_recovered=order.recovered_by_order_no is not None,
        recovered_by_order_no=order.recovered_by_order_no,
    )


def _order_answer(order: Order, *, user_id: str | None) -> OrderAnswer:
    receiver = None
    if order.receiver is not None:
        receiver = ReceiverAnswer(
            name=order.receiver.name, phone=order.receiver.phone, address=order.receiver.address
        )
    return OrderAnswer(
        order_no=order.order_no,
        status=order.status,
        items=tuple(item_answer(line) for line in order.lines),
        total_amount=text_of_minor(order.total_amount_minor),
        pay_amount=text_of_minor(order.pay_amount_minor),
        currency=order.currency,
        created_at=rfc3339(order.created_at),
        expires_at=rfc3339(order.expires_at),
        version=order.version,
        user_id=user_id,
        receiver=receiver,
        buyer_remark=order.buyer_remark,
        paid_at=_time(order.paid_at),
        closed_at=_time(order.closed_at),
        cancelled_at=_time(order.cancelled_at),
        close_reason=order.close_reason,
        pay_channel=order.pay_channel,
        trade_no=order.trade_no,
    )


def _time(instant: Instant | None) -> str | None:
    return None if instant is None else rfc3339(instant)
