"""The page at `/docs`: the API, readable and to be tried out, without any other server.

The page and its script are files of this package and load nothing from elsewhere; the policy that
is sent along makes the browser hold them to it.
"""

import asyncio
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

_PUBLIC = {"access": "public"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FOLDER = files("orderkeep.web") / "docs"


class WhereAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What this is, and where to go on."""

    service: str = "orderkeep"
    version: str
    api: str
    docs: str = "/docs"
    openapi: str = "/openapi.json"
    health: str = "/health/ready"
    metrics: str = "/metrics"


def docs_handlers(
    openapi_json: Callable[[], bytes], *, api: str, version: str
) -> list[HTTPRouteHandler]:
    """Return the handlers of `/`, `/docs` and `/openapi.json`.

    Args:
        openapi_json: Returns the document, and may take its time for it.
        api: Where the API is.
        version: The release.
    """

    @get("/", opt=_PUBLIC, include_in_schema=False)
    async def where() -> WhereAnswer:
        return WhereAnswer(version=version, api=api)

    @get("/openapi.json", opt=_PUBLIC, include_in_schema=False)
    async def openapi() -> Response[bytes]:
        # It takes a good part of a second to make, once, which requests must not wait for.
        content = await asyncio.to_thread(openapi_json)
        return Response(content, media_type="application/json")

    handlers: list[Any] = [  # Litestar's decorators return handlers
        where,
        openapi,
        _page("/docs", file_name="docs.html", media_type="text/html"),
        _page("/docs/docs.css", file_name="docs.css", media_type="text/css"),
        _page("/docs/docs.js", file_name="docs.js", media_type="text/javascript"),
    ]
    return handlers


def _page(path: str, *, file_name: str, media_type: str) -> HTTPRouteHandler:
    content = (_FOLDER / file_name).read_bytes()

    @get(path, opt=_PUBLIC, include_in_schema=False, name=f"docs:{file_name}")
    async def page() -> Response[bytes]:
        return Response(
            content, media_type=media_type, headers={"Content-Security-Policy": _POLICY}
        )

    return page
