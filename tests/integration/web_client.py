"""A client of the real application, with the routes of one service and no socket."""

from collections.abc import Mapping, Sequence
from itertools import count

from httpx import ASGITransport, AsyncClient
from litestar.types import ControllerRouterHandler
from prometheus_client import CollectorRegistry

from orderkeep.instant import Instant, after
from orderkeep.web.app import WebParts, build_app
from orderkeep.web.auth import TokenAuthenticator
from orderkeep.web.health import Readiness
from orderkeep.web.tokens import TokenKey, sign_token

# 2024-01-01T10:00:00Z: tokens are signed and checked by this clock alone.
NOW = Instant(1_704_103_200_000_000)

_KEY = TokenKey(secret="a key of thirty-two bytes or more", audience="orderkeep")


def web_client(
    route_handlers: Sequence[ControllerRouterHandler], *, dependencies: Mapping[str, object]
) -> AsyncClient:
    """Return a client whose paths are relative to the API's base."""
    request_ids = count(1)

    async def refresh_metrics() -> None:
        """Have none."""

    app = build_app(
        WebParts(
            route_handlers=route_handlers,
            dependencies=dependencies,
            authenticator=TokenAuthenticator(_KEY, now=lambda: NOW),
            readiness=Readiness([]),
            registry=CollectorRegistry(),
            refresh_metrics=refresh_metrics,
            version="0.0.0",
            new_request_id=lambda: f"r{next(request_ids)}",
        )
    )
    transport = ASGITransport(app.asgi)  # type: ignore[arg-type]  # httpx's own type is narrower
    return AsyncClient(transport=transport, base_url="http://orderkeep/api/v1")


def as_user(user_id: str, *, scopes: Sequence[str] = ()) -> dict[str, str]:
    """Return the headers of a caller."""
    token = sign_token(
        _KEY, user_id=user_id, scopes=list(scopes), expires_at=after(NOW, seconds=60)
    )
    return {"Authorization": f"Bearer {token}"}
