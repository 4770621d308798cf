"""A small application with one route of each kind, and tokens to call it with."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import (
    FromPath,
    FromQuery,
    HeaderParameter,
    JSONBody,
    RawBody,
    SkipValidation,
)
from litestar.types import ControllerRouterHandler
from prometheus_client import CollectorRegistry, Gauge

from orderkeep.contracts.caller import Caller
from orderkeep.contracts.page import PageLimit
from orderkeep.contracts.text import Identifier, Quantity
from orderkeep.instant import Instant
from orderkeep.web.app import WebApp, WebParts, build_app
from orderkeep.web.auth import TokenAuthenticator
from orderkeep.web.health import Readiness, ReadinessCheck
from orderkeep.web.tokens import TokenKey, sign_token

NOW = Instant(1_800_000_000_000_000)


class ItemBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of a request."""

    sku_id: Identifier
    quantity: Quantity


class PlaceBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request with lines."""

    items: Annotated[tuple[ItemBody, ...], msgspec.Meta(min_length=1, max_length=100)]


class ReasonBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body that may be left out."""

    reason: str | None = None


class PlacedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Who placed how many lines."""

    user_id: str
    line_count: int


class Desk:
    """Raises what a test wants to see raised; else answers."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.calls: list[object] = []

    async def call(self, what: object) -> None:
        self.calls.append(what)
        if self.error is not None:
            raise self.error


AnyDesk = NamedDependency[SkipValidation[Desk]]


@post("/orders", opt={"access": "user"}, tags=["Orders"], summary="Place an order")
async def place_order(
    request: Request[Caller, object, State], data: JSONBody[PlaceBody], desk: AnyDesk
) -> Response[PlacedAnswer]:
    """Place an order."""
    await desk.call(data)
    answer = PlacedAnswer(user_id=request.user.user_id, line_count=len(data.items))
    return Response(answer, headers={"Location": "/api/v1/orders/1"})


@get("/orders", opt={"access": "user"})
async def list_orders(
    desk: AnyDesk,
    limit: FromQuery[PageLimit] = 20,
    user_id: FromQuery[Identifier | None] = None,
    tag: Annotated[Identifier | None, HeaderParameter(name="X-Tag")] = None,
) -> dict[str, object]:
    await desk.call((limit, user_id, tag))
    return {"limit": limit}


@get("/orders/{order_no:str}", opt={"access": "user"})
async def show_order(order_no: FromPath[str], desk: AnyDesk) -> dict[str, str]:
    await desk.call(order_no)
    return {"order_no": order_no}


@post("/orders/{order_no:str}/cancel", opt={"access": "user"}, status_code=200)
async def cancel_order(
    order_no: FromPath[str], desk: AnyDesk, data: JSONBody[ReasonBody | None] = None
) -> dict[str, object]:
    await desk.call(data)
    return {"order_no": order_no, "reason": data and data.reason}


@get("/public", opt={"access": "public"})
async def public(desk: AnyDesk) -> dict[str, str]:
    await desk.call("public")
    return {"hello": "anybody"}


@get("/read", opt={"access": "operator:read"})
async def read() -> dict[str, str]:
    return {"may": "read"}


@get("/write", opt={"access": "operator"})
async def write() -> dict[str, str]:
    return {"may": "write"}


@get("/messages", opt={"access": "messages"})
async def messages() -> dict[str, str]:
    return {"may": "send"}


@post("/raw", opt={"access": "public"})
async def raw(body: RawBody, desk: AnyDesk) -> dict[str, int]:
    await desk.call(body)
    return {"length": len(body)}


ROUTE_HANDLERS: list[ControllerRouterHandler] = [
    place_order,
    list_orders,
    show_order,
    cancel_order,
    public,
    read,
    write,
    messages,
    raw,
]


async def refresh_nothing() -> None:
    """Stand in for a collector with nothing to collect."""


@dataclass(kw_only=True)
class Shop:
    """Everything a test turns: the clock, the desk, the checks, the numbers."""

    now: Instant = NOW
    desk: Desk = field(default_factory=Desk)
    checks: Sequence[ReadinessCheck] = ()
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    refresh_metrics: Callable[[], Awaitable[None]] = refresh_nothing
    issuer: str | None = None
    requests_in_hand_max: int = 100
    logs_requests: bool = False
    count_answer: Callable[[int], None] = lambda _status: None
    route_handlers: Sequence[ControllerRouterHandler] = field(
        default_factory=lambda: ROUTE_HANDLERS
    )
    dependencies: Mapping[str, object] | None = None
    readiness: Readiness = field(init=False)

    @property
    def key(self) -> TokenKey:
        return TokenKey(secret="k" * 32, audience="orderkeep", issuer=self.issuer)

    def token(self, *scopes: str, user_id: str = "user-1", valid_s: float = 3600) -> str:
        expires_at = Instant(self.now + int(valid_s * 1_000_000))
        return sign_token(self.key, user_id=user_id, scopes=scopes, expires_at=expires_at)

    def headers(self, *scopes: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(*scopes)}"}

    def gauge(self, name: str) -> Gauge:
        return Gauge(name, "A number.", registry=self.registry)

    def build(self) -> WebApp:
        self.readiness = Readiness(self.checks)
        return build_app(
            WebParts(
                route_handlers=self.route_handlers,
                dependencies=self.dependencies or {"desk": self.desk},
                authenticator=TokenAuthenticator(self.key, now=lambda: self.now),
                readiness=self.readiness,
                registry=self.registry,
                refresh_metrics=self.refresh_metrics,
                version="9.8.7",
                new_request_id=lambda: "drawn-id",
                requests_in_hand_max=self.requests_in_hand_max,
                logs_requests=self.logs_requests,
                count_answer=self.count_answer,
            )
        )

    def client(self) -> httpx.AsyncClient:
        return self.client_of(self.build())

    def client_of(self, app: WebApp) -> httpx.AsyncClient:
        application: Any = app.asgi  # httpx's own type is narrower
        transport = httpx.ASGITransport(application, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://shop")
