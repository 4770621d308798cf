"""What operators call: any order, the catalogue with its stock, the abandoned-orders report."""

from typing import Literal

from litestar import get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, JSONBody

from orderkeep.contracts.amount import minor_of_text
from orderkeep.contracts.json_answer import JsonAnswer
from orderkeep.contracts.page import (
    PAGE_LIMIT_DEFAULT,
    PageLimit,
    decode_cursor,
    encode_cursor,
)
from orderkeep.contracts.time_text import read_instant
from orderkeep.database.audit import Act
from orderkeep.instant import Instant
from orderkeep.orders.bodies import (
    CancelOrderBody,
    MoveStockBody,
    OrderAnswer,
    OrderPage,
    PutSkuBody,
    StockedSkuAnswer,
    TimedOutOrderPage,
    TimelineAnswer,
    operator_order_answer,
    stocked_sku_answer,
    timed_out_answer,
)
from orderkeep.orders.cancel_order import CancelOrder
from orderkeep.orders.catalogue_desk import SkuEntry
from orderkeep.orders.idempotency_key import choose_key
from orderkeep.orders.order import Cause, Status
from orderkeep.orders.routes import (
    BuyerRequest,
    Catalogue,
    IdempotencyKey,
    IfMatch,
    IfNoneMatch,
    Orders,
    page_of_orders,
)
from orderkeep.orders.store.reports import OrderFilter
from orderkeep.orders.version_tag import find_expected_version, is_none_match, version_tag
from orderkeep.refusal import Refusal

# How a refund of an order stands.
RefundState = Literal["requested", "succeeded", "failed"]

_READ = {"access": "operator:read"}
_WRITE = {"access": "operator"}


@get("/admin/orders", opt=_READ, tags=["Operators"], summary="Find orders")
async def find_orders(  # noqa: PLR0917 (the framework passes each by name)
    order_desk: Orders,
    order_no: FromQuery[str | None] = None,
    user_id: FromQuery[str | None] = None,
    status: FromQuery[Status | None] = None,
    trade_no: FromQuery[str | None] = None,
    refund_status: FromQuery[RefundState | None] = None,
    created_from: FromQuery[str | None] = None,
    created_to: FromQuery[str | None] = None,
    limit: FromQuery[PageLimit] = PAGE_LIMIT_DEFAULT,
    cursor: FromQuery[str | None] = None,
) -> OrderPage:
    """Find orders by what is known of them, newest first."""
    wanted = OrderFilter(
        order_no=order_no,
        user_id=user_id,
        status=status,
        trade_no=trade_no,
        refund_status=refund_status,
        created_from=_time("created_from", created_from),
        created_to=_time("created_to", created_to),
        before=None if cursor is None else decode_cursor(cursor, str)[0],
    )
    orders = await order_desk.list(wanted, limit_count=limit + 1)
    shown, next_cursor = page_of_orders(list(orders), limit=limit)
    return OrderPage(
        items=tuple(operator_order_answer(order) for order in shown), next_cursor=next_cursor
    )


@get(
    "/admin/orders/{order_no:str}",
    opt={**_READ, "answer_headers": ("ETag",)},
    tags=["Operators"],
    summary="Show any order",
)
async def get_any_order(
    order_no: FromPath[str], order_desk: Orders, if_none_match: IfNoneMatch = None
) -> JsonAnswer[OrderAnswer | None]:
    """Show any order, and whose it is."""
    order = await order_desk.get(order_no, user_id=None)
    tag = {"ETag": version_tag(order.version)}
    if is_none_match(if_none_match, version=order.version):
        return JsonAnswer(None, status_code=304, headers=tag)
    return JsonAnswer(operator_order_answer(order), headers=tag)


@get(
    "/admin/orders/{order_no:str}/timeline",
    opt=_READ,
    tags=["Operators"],
    summary="Tell the story of any order",
)
async def get_any_timeline(order_no: FromPath[str], order_desk: Orders) -> TimelineAnswer:
    """Tell everything that happened to an order, the earliest first."""
    items = await order_desk.timeline(order_no, user_id=None)
    return TimelineAnswer(order_no=order_no, items=tuple(items))


@post(
    "/admin/orders/{order_no:str}/cancel",
    opt={**_WRITE, "goes_first": True, "answer_headers": ("ETag",), "conflicts": True},
    status_code=200,
    tags=["Operators"],
    summary="Cancel any unpaid order",
)
async def cancel_any_order(
    request: BuyerRequest,
    order_no: FromPath[str],
    order_desk: Orders,
    data: JSONBody[CancelOrderBody | None] = None,
    if_match: IfMatch = None,
) -> JsonAnswer[OrderAnswer]:
    """Cancel an unpaid order of any user; cancelling it again changes nothing."""
    order = await order_desk.cancel(
        CancelOrder(
            order_no=order_no,
            user_id=None,
            by=Cause.OPERATOR,
            actor=request.user.user_id,
            note=None if data is None else data.reason,
            expected_version=find_expected_version(if_match),
        )
    )
    return JsonAnswer(operator_order_answer(order), headers={"ETag": version_tag(order.version)})


@put(
    "/admin/skus/{sku_id:str}",
    opt={**_WRITE, "conflicts": True},
    tags=["Operators"],
    summary="Write a SKU",
)
async def put_sku(
    request: BuyerRequest,
    sku_id: FromPath[str],
    data: JSONBody[PutSkuBody],
    catalogue_desk: Catalogue,
) -> JsonAnswer[StockedSkuAnswer]:
    """Write what the catalogue says of a SKU; its stock only when it is created."""
    sku, is_new = await catalogue_desk.put(
        SkuEntry(
            sku_id=sku_id,
            product_id=data.product_id,
            title=data.title,
            unit_price_minor=minor_of_text(data.price),
            currency=data.currency,
            is_active=data.is_active,
            stock=data.stock,
        ),
        act=Act(actor=request.user.user_id, reason=data.reason),
    )
    return JsonAnswer(stocked_sku_answer(sku), status_code=201 if is_new else 200)


@get("/admin/skus/{sku_id:str}", opt=_READ, tags=["Operators"], summary="Show a SKU's stock")
async def get_stocked_sku(sku_id: FromPath[str], catalogue_desk: Catalogue) -> StockedSkuAnswer:
    """Show a SKU with what is available, reserved and sold of it."""
    return stocked_sku_answer(await catalogue_desk.get(sku_id))


@post(
    "/admin/skus/{sku_id:str}/stock-movements",
    opt={**_WRITE, "conflicts": True, "required_header": "Idempotency-Key"},
    tags=["Operators"],
    summary="Move stock",
)
async def move_stock(
    request: BuyerRequest,
    sku_id: FromPath[str],
    data: JSONBody[MoveStockBody],
    catalogue_desk: Catalogue,
    idempotency_key: IdempotencyKey = None,
) -> StockedSkuAnswer:
    """Add to what is available of a SKU, or take from it, once for each key."""
    keys = [] if idempotency_key is None else request.headers.getall("Idempotency-Key")
    _, key = choose_key(token=None, headers=keys)
    sku = await catalogue_desk.move_stock(
        sku_id=sku_id,
        quantity=data.quantity,
        reason=data.reason,
        # Neither a user id nor a key holds a space: no two operators' keys make one cause.
        cause=f"{request.user.user_id} {key}",
        actor=request.user.user_id,
    )
    return stocked_sku_answer(sku)


@get(
    "/admin/timed-out-orders",
    opt=_READ,
    tags=["Operators"],
    summary="List abandoned orders",
)
async def list_timed_out_orders(
    order_desk: Orders,
    limit: FromQuery[PageLimit] = PAGE_LIMIT_DEFAULT,
    cursor: FromQuery[str | None] = None,
) -> TimedOutOrderPage:
    """List orders whose buyers never paid, newest first, and whether they came back."""
    before = None if cursor is None else decode_cursor(cursor, str)[0]
    orders = await order_desk.list_timed_out(before=before, limit_count=limit + 1)
    shown = orders[:limit]
    return TimedOutOrderPage(
        items=tuple(timed_out_answer(order) for order in shown),
        next_cursor=encode_cursor(shown[-1].order_no) if len(orders) > limit else None,
    )


ROUTE_HANDLERS: list[HTTPRouteHandler] = [
    find_orders,
    get_any_order,
    get_any_timeline,
    cancel_any_order,
    put_sku,
    get_stocked_sku,
    move_stock,
    list_timed_out_orders,
]


def _time(name: str, text: str | None) -> Instant | None:
    if text is None:
        return None
    try:
        return read_instant(text)
    except ValueError as error:
        detail = f"query parameter {name}: {error}"
        errors = [{"pointer": f"query/{name}", "detail": str(error)}]
        refusal = Refusal("invalid_request", detail, members={"errors": errors})
        raise refusal from None
