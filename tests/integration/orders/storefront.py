"""The shop over HTTP: the real application with the order service's routes, called in process."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from prometheus_client import CollectorRegistry

from orderkeep.instant import Instant, after
from orderkeep.orders.case_routes import ROUTE_HANDLERS as CASE_ROUTES
from orderkeep.orders.operator_routes import ROUTE_HANDLERS as OPERATOR_ROUTES
from orderkeep.orders.routes import ROUTE_HANDLERS as BUYER_ROUTES
from orderkeep.web.app import WebParts, build_app
from orderkeep.web.auth import TokenAuthenticator
from orderkeep.web.health import Readiness
from orderkeep.web.tokens import TokenKey, sign_token
from tests.integration.orders.shop import Shop

# 2024-01-01T10:00:00Z: the wall clock of the application, by which bearer tokens expire.
TEN = Instant(1_704_103_200_000_000)
KEY = TokenKey(secret="a secret of at least 32 bytes, or more", audience="orderkeep")

Headers = Mapping[str, str] | Sequence[tuple[str, str]]


class Storefront:
    """Callers of a shop: `ann` and `bob` buy, `olga` operates, `otto` looks on, None is unknown."""

    SCOPES: Mapping[str, tuple[str, ...]] = {"olga": ("operator",), "otto": ("operator:read",)}

    def __init__(self, shop: Shop, http: httpx.AsyncClient) -> None:
        self.shop = shop
        self._http = http

    async def get(self, path: str, *, by: str | None = "ann", headers: Headers = ()) -> Any:
        """Get a path."""
        return await self.call("GET", path, by=by, headers=headers)

    async def post(
        self, path: str, body: object = None, *, by: str | None = "ann", headers: Headers = ()
    ) -> Any:
        """Post a body as JSON; None is no body at all."""
        return await self.call("POST", path, by=by, headers=headers, json=body)

    async def put(self, path: str, body: object, *, by: str | None = "olga") -> Any:
        """Put a body as JSON."""
        return await self.call("PUT", path, by=by, json=body)

    async def place(self, *wanted: tuple[str, int], by: str = "ann", key: str = "k") -> Any:
        """Place an order under a key."""
        items = [{"sku_id": sku_id, "quantity": quantity} for sku_id, quantity in wanted]
        headers = {"Idempotency-Key": key}
        return await self.post("/orders", {"items": items}, by=by, headers=headers)

    async def call(
        self, method: str, path: str, *, by: str | None, headers: Headers = (), **content: Any
    ) -> httpx.Response:
        """Send a request with the caller's bearer token."""
        sent = [*(headers.items() if isinstance(headers, Mapping) else headers)]
        if by is not None:
            sent.append(("Authorization", f"Bearer {bearer_token(by)}"))
        return await self._http.request(method, f"/api/v1{path}", headers=sent, **content)


def bearer_token(user_id: str, *, key: TokenKey = KEY) -> str:
    """Return a token of the user, with the scopes the user has."""
    return sign_token(
        key,
        user_id=user_id,
        scopes=Storefront.SCOPES.get(user_id, ()),
        expires_at=after(TEN, seconds=3_600.0),
    )


@asynccontextmanager
async def storefront_of(shop: Shop) -> AsyncIterator[Storefront]:
    """Serve the shop over HTTP as long as the context lasts."""

    async def refresh_metrics() -> None:
        pass

    app = build_app(
        WebParts(
            route_handlers=[*BUYER_ROUTES, *OPERATOR_ROUTES, *CASE_ROUTES],
            dependencies={
                "order_desk": shop.desk,
                "catalogue_desk": shop.catalogue,
                "case_desk": shop.cases,
            },
            authenticator=TokenAuthenticator(KEY, now=lambda: TEN),
            readiness=Readiness([]),
            registry=CollectorRegistry(),
            refresh_metrics=refresh_metrics,
            version="0",
            new_request_id=lambda: "request-1",
        )
    )
    transport = httpx.ASGITransport(app=app.asgi)  # type: ignore[arg-type]  # as Litestar types ASGI
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
        yield Storefront(shop, http)


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the code of a problem document, and see that it is one."""
    document = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["status"] == answer.status_code
    assert document["type"] == f"urn:orderkeep:problem:{document['code']}"
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document["title"]
    assert document["detail"]
    return answer.status_code, document["code"]
