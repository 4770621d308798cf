"""A short way to the handlers that are asked most: what is the same each time is looked up once.

Litestar finds out for each request which handler it is for, what that depends on, how its arguments
are called and what kind of answer it gives. With an order that takes as long as deciding it. A
handler that declares `opt["is_asked_most"]` is reached from here, with the same arguments, past the
same admission, and gives the same answer; Litestar still knows it, for everything else.

Invariant: a request is served here only if its method and path are, letter for letter, those of
such a handler, and its Host header is plain. Every other request goes Litestar's way, as does one
for the same handler that is spelled differently. Whatever is raised here the gate answers.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Litestar
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import HTTPScope, Receive, Scope, Send

from orderkeep.contracts.json_answer import JsonAnswer
from orderkeep.refusal import Refusal
from orderkeep.web.auth import Admission
from orderkeep.web.json_request import JsonRequest
from orderkeep.web.route_rules import RouteDeclarationError, limit_of

_PLAIN_HOST = re.compile(rb"[A-Za-z0-9.:\[\]-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """A handler, with what is the same for each of its requests.

    Attributes:
        arguments: What it depends on, by parameter name.
        headers: The headers that it is given, in lower case, by parameter name.
    """

    handler: HTTPRouteHandler
    serve: Callable[..., Awaitable[JsonAnswer[Any]]]
    status: int
    arguments: Mapping[str, object]
    headers: Mapping[str, bytes]


class ShortWay:
    """The ASGI application before Litestar's."""

    def __init__(
        self, application: Litestar, *, admission: Admission, dependencies: Mapping[str, object]
    ) -> None:
        """Look up the handlers that are asked most.

        Args:
            application: Serves all other requests.
            admission: Lets requests pass to their handlers, as it does in the application.
            dependencies: What handlers ask for, by parameter name.

        Raises:
            RouteDeclarationError: a handler asks for what it cannot be given here.
        """
        self._application = application
        self._admission = admission
        self._ways = {
            (method, route.path): _way_to(handler, route, dependencies=dependencies)
            for route in application.routes
            if isinstance(route, HTTPRoute)
            for handler in route.route_handlers
            if handler.opt.get("is_asked_most")
            for method in handler.http_methods
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI call."""
        if scope["type"] == ScopeType.HTTP:
            way = self._ways.get((scope["method"], scope["path"]))
            if way is not None and _has_plain_host(scope):
                await self._serve(way, scope, receive, send)
                return
        await self._application(scope, receive, send)

    async def _serve(self, way: _Way, scope: HTTPScope, receive: Receive, send: Send) -> None:
        scope["litestar_app"] = self._application
        scope["route_handler"] = way.handler
        scope["path_template"] = scope["path"]
        scope["path_params"] = {}
        request = JsonRequest(scope, receive, send)
        await self._admission.admit(request)
        if not await request.body():
            raise Refusal("malformed_json", "The body is empty; a JSON document is expected.")
        answer = await way.serve(
            request=request,
            data=await request.json(),
            **way.arguments,
            **{name: _find_header(scope, header) for name, header in way.headers.items()},
        )
        await answer.to_asgi_response(status_code=way.status)(scope, receive, send)


def _way_to(
    handler: HTTPRouteHandler, route: HTTPRoute, *, dependencies: Mapping[str, object]
) -> _Way:
    parameters = handler.parsed_fn_signature.parameters
    given = {"request", "data", *dependencies}
    limits = {name: limit_of(name, parameters[name]) for name in parameters.keys() - given}
    if not {"request", "data"} <= parameters.keys() or route.path_parameters:
        message = f"{route.path}: {handler} is not asked with a JSON body and nothing in its path"
        raise RouteDeclarationError(message)
    unknown = [
        limit.name
        for name, limit in limits.items()
        if limit.place != "header"
        or not _is_text_or_none(limit.type, default=parameters[name].default)
    ]
    if _has_hooks(handler):
        message = f"{route.path}: {handler} has hooks, which nobody calls here"
        raise RouteDeclarationError(message)
    if unknown:
        message = f"{route.path}: {handler} cannot be given {', '.join(unknown)} here"
        raise RouteDeclarationError(message)
    return _Way(
        handler=handler,
        serve=handler.fn,
        status=handler.status_code,
        arguments={name: dependencies[name] for name in parameters.keys() & dependencies.keys()},
        headers={name: limit.name.lower().encode("ascii") for name, limit in limits.items()},
    )


def _has_hooks(handler: HTTPRouteHandler) -> bool:
    return bool(
        handler.resolve_guards()
        or handler.resolve_middleware()
        or handler.after_request
        or handler.resolve_after_response()
        or handler.cache
        or handler.has_sync_callable
    )


def _is_text_or_none(type_: Any, *, default: object) -> bool:  # noqa: ANN401 (an annotation, which has no type of its own)
    """Return whether a parameter is text that may be left out, so that nothing has to be read."""
    try:
        msgspec.convert("7", type_, strict=True)
    except msgspec.ValidationError:
        return False
    return default is None


def _has_plain_host(scope: HTTPScope) -> bool:
    # What Litestar has to say of another one is its own.
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    return all(_PLAIN_HOST.fullmatch(host) for host in hosts)


def _find_header(scope: HTTPScope, header: bytes) -> str | None:
    for name, value in scope["headers"]:
        if name == header:
            return value.decode("latin-1")
    return None
