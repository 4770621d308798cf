"""What buyers call: tokens, their orders, and the catalogue."""

import hashlib
from typing import Annotated, TypeAlias

import msgspec
from litestar import Request, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, SkipValidation

from orderkeep.contracts.amount import minor_of_text
from orderkeep.contracts.caller import Caller
from orderkeep.contracts.json_answer import JsonAnswer
from orderkeep.contracts.page import (
    PAGE_LIMIT_DEFAULT,
    PageLimit,
    decode_cursor,
    encode_cursor,
)
from orderkeep.orders.bodies import (
    CancelOrderBody,
    OrderAnswer,
    OrderPage,
    PlaceOrderBody,
    SkuAnswer,
    SkuPage,
    TimelineAnswer,
    TokenAnswer,
    order_answer,
    sku_answer,
)
from orderkeep.orders.cancel_order import CancelOrder
from orderkeep.orders.catalogue_desk import CatalogueDesk
from orderkeep.orders.desk import OrderDesk, OrderRequest
from orderkeep.orders.idempotency_key import choose_key
from orderkeep.orders.order import Cause, Order, Receiver, Status
from orderkeep.orders.pricing import WantedLine
from orderkeep.orders.store.reports import OrderFilter
from orderkeep.orders.version_tag import find_expected_version, is_none_match, version_tag

Orders: TypeAlias = NamedDependency[SkipValidation[OrderDesk]]
Catalogue: TypeAlias = NamedDependency[SkipValidation[CatalogueDesk]]
BuyerRequest: TypeAlias = Request[Caller, object, State]
IdempotencyKey: TypeAlias = Annotated[str | None, HeaderParameter(name="Idempotency-Key")]
IfMatch: TypeAlias = Annotated[str | None, HeaderParameter(name="If-Match")]
IfNoneMatch: TypeAlias = Annotated[str | None, HeaderParameter(name="If-None-Match")]

_USER = {"access": "user"}
_PUBLIC = {"access": "public"}

_BODY_ENCODER = msgspec.json.Encoder(order="sorted")


@post("/orders/tokens", opt=_USER, tags=["Orders"], summary="Issue a one-time order token")
async def issue_token(request: BuyerRequest, order_desk: Orders) -> TokenAnswer:
    """Issue a token that is good for one order by this user."""
    token = await order_desk.issue_token(request.user.user_id)
    return TokenAnswer(token=token, expires_in_s=int(order_desk.token_ttl_s))


@post(
    "/orders",
    opt={
        **_USER,
        "goes_last": True,
        "is_asked_most": True,
        "answer_headers": ("Location", "ETag", "Idempotent-Replayed"),
        "conflicts": True,
    },
    tags=["Orders"],
    summary="Place an order",
)
async def place_order(
    request: BuyerRequest,
    data: JSONBody[PlaceOrderBody],
    order_desk: Orders,
    idempotency_key: IdempotencyKey = None,
) -> JsonAnswer[OrderAnswer]:
    """Place an order, once for each key: the token in the body, or the header."""
    # `request.headers` would be built from all that there are, for each order anew.
    given = [] if idempotency_key is None else request.scope["headers"]
    keys = [value.decode("latin-1") for name, value in given if name == b"idempotency-key"]
    kind, key = choose_key(token=data.token, headers=keys)
    placed = await order_desk.place(
        OrderRequest(
            user_id=request.user.user_id,
            key_kind=kind,
            key=key,
            body_hash=_body_hash(data),
            wanted=tuple(
                WantedLine(
                    sku_id=item.sku_id, quantity=item.quantity, cart_item_id=item.cart_item_id
                )
                for item in data.items
            ),
            receiver=_receiver(data),
            buyer_remark=data.buyer_remark,
            expected_pay_amount_minor=_expected_pay_amount_minor(data),
        )
    )
    headers = {
        "Location": f"/api/v1/orders/{placed.order.order_no}",
        "ETag": version_tag(placed.order.version),
    }
    if placed.is_replayed:
        headers["Idempotent-Replayed"] = "true"
    return JsonAnswer(order_answer(placed.order), headers=headers)


@get(
    "/orders/{order_no:str}",
    opt={**_USER, "answer_headers": ("ETag",)},
    tags=["Orders"],
    summary="Show an order",
)
async def get_order(
    request: BuyerRequest,
    order_no: FromPath[str],
    order_desk: Orders,
    if_none_match: IfNoneMatch = None,
) -> JsonAnswer[OrderAnswer | None]:
    """Show one of the caller's orders; operators see any."""
    order = await order_desk.get(order_no, user_id=_whose(request))
    tag = {"ETag": version_tag(order.version)}
    if is_none_match(if_none_match, version=order.version):
        return JsonAnswer(None, status_code=304, headers=tag)
    return JsonAnswer(order_answer(order), headers=tag)


@get("/orders", opt=_USER, tags=["Orders"], summary="List one's orders")
async def list_orders(
    request: BuyerRequest,
    order_desk: Orders,
    status: FromQuery[Status | None] = None,
    limit: FromQuery[PageLimit] = PAGE_LIMIT_DEFAULT,
    cursor: FromQuery[str | None] = None,
) -> OrderPage:
    """List the caller's orders, newest first."""
    before = None if cursor is None else decode_cursor(cursor, str)[0]
    orders = await order_desk.list(
        OrderFilter(user_id=request.user.user_id, status=status, before=before),
        limit_count=limit + 1,
    )
    shown, next_cursor = page_of_orders(list(orders), limit=limit)
    return OrderPage(items=tuple(order_answer(order) for order in shown), next_cursor=next_cursor)


@post(
    "/orders/{order_no:str}/cancel",
    opt={**_USER, "goes_first": True, "answer_headers": ("ETag",), "conflicts": True},
    status_code=200,
    tags=["Orders"],
    summary="Cancel an order",
)
async def cancel_order(
    request: BuyerRequest,
    order_no: FromPath[str],
    order_desk: Orders,
    data: JSONBody[CancelOrderBody | None] = None,
    if_match: IfMatch = None,
) -> JsonAnswer[OrderAnswer]:
    """Cancel an unpaid order; cancelling it again changes nothing."""
    order = await order_desk.cancel(
        CancelOrder(
            order_no=order_no,
            user_id=request.user.user_id,
            by=Cause.BUYER,
            actor=request.user.user_id,
            note=None if data is None else data.reason,
            expected_version=find_expected_version(if_match),
        )
    )
    return JsonAnswer(order_answer(order), headers={"ETag": version_tag(order.version)})


@get(
    "/orders/{order_no:str}/timeline",
    opt=_USER,
    tags=["Orders"],
    summary="Tell the story of an order",
)
async def get_timeline(
    request: BuyerRequest, order_no: FromPath[str], order_desk: Orders
) -> TimelineAnswer:
    """Tell everything that happened to an order, the earliest first."""
    items = await order_desk.timeline(order_no, user_id=_whose(request))
    return TimelineAnswer(order_no=order_no, items=tuple(items))


@get("/skus", opt=_PUBLIC, tags=["Catalogue"], summary="List the catalogue")
async def list_skus(
    catalogue_desk: Catalogue,
    limit: FromQuery[PageLimit] = PAGE_LIMIT_DEFAULT,
    cursor: FromQuery[str | None] = None,
) -> SkuPage:
    """List what is for sale, by SKU."""
    after = "" if cursor is None else decode_cursor(cursor, str)[0]
    skus = await catalogue_desk.list_active(after=after, limit_count=limit + 1)
    next_cursor = encode_cursor(skus[limit - 1].sku_id) if len(skus) > limit else None
    return SkuPage(items=tuple(sku_answer(sku) for sku in skus[:limit]), next_cursor=next_cursor)


@get("/skus/{sku_id:str}", opt=_PUBLIC, tags=["Catalogue"], summary="Show a SKU")
async def get_sku(sku_id: FromPath[str], catalogue_desk: Catalogue) -> SkuAnswer:
    """Show one SKU that is for sale."""
    return sku_answer(await catalogue_desk.get_active(sku_id))


ROUTE_HANDLERS: list[HTTPRouteHandler] = [
    issue_token,
    place_order,
    get_order,
    list_orders,
    cancel_order,
    get_timeline,
    list_skus,
    get_sku,
]


def page_of_orders(orders: list[Order], *, limit: int) -> tuple[list[Order], str | None]:
    """Return the orders of one page and the cursor to the next.

    Args:
        orders: Up to one more than fit the page, so that it shows whether there are more.
        limit: How many fit the page.
    """
    shown = orders[:limit]
    return shown, encode_cursor(shown[-1].order_no) if len(orders) > limit else None


def _whose(request: BuyerRequest) -> str | None:
    # Operators see any order, also on the buyers' routes.
    return None if request.user.is_operator_reader else request.user.user_id


def _body_hash(data: PlaceOrderBody) -> str:
    # Of the body as decoded, without the token: spelling and member order make no difference. Of
    # what is left out nothing is written: a member that a later release adds changes no hash.
    without_token = msgspec.structs.replace(data, token=None)
    return hashlib.sha256(_BODY_ENCODER.encode(without_token)).hexdigest()


def _receiver(data: PlaceOrderBody) -> Receiver | None:
    if data.receiver is None:
        return None
    return Receiver(
        name=data.receiver.name, phone=data.receiver.phone, address=data.receiver.address
    )


def _expected_pay_amount_minor(data: PlaceOrderBody) -> int | None:
    if data.expected_pay_amount is None:
        return None
    return minor_of_text(data.expected_pay_amount)
