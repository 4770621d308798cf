"""The one ASGI application: the services' routes under `/api/v1`, and what stands beside them.

Nothing here knows an order. A service's routes come as a list, what they need comes by name, and
the routes of a service that this process does not run are simply not there: 404.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.types import ASGIApp, ControllerRouterHandler
from prometheus_client import CollectorRegistry

from orderkeep.web.auth import Admission, TokenAuthenticator
from orderkeep.web.docs_page import docs_handlers
from orderkeep.web.door import Door
from orderkeep.web.gate import Gate
from orderkeep.web.health import Readiness, health_handlers
from orderkeep.web.json_request import BODY_BYTES_MAX, JsonRequest
from orderkeep.web.openapi import openapi_json
from orderkeep.web.problems import answer_problem
from orderkeep.web.route_rules import find_paths, read_rules
from orderkeep.web.short_way import ShortWay

API_BASE = "/api/v1"

# Four full batches of orders keep the intake busy. More would only make each wait longer, and the
# loop stand still for longer when a crowd comes at once.
LAST_IN_HAND_MAX = 512

# With what takes little, such as a look at an order. Far below what would exhaust memory at 64 KiB
# of body each.
REQUESTS_IN_HAND_MAX = 640

# Beyond them: what frees stock or brings money is served while everybody else is told to wait.
FIRST_IN_HAND_MAX = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class WebParts:
    """What an application is made of.

    Attributes:
        route_handlers: Of every service that this process runs; paths relative to `/api/v1`.
        dependencies: What handlers ask for, by parameter name, such as `order_desk`.
        refresh_metrics: Brings gauges that are read from the database up to date, before each
            scrape.
        version: The release.
        new_request_id: Draws an id for a request that brings none: 1 to 64 of `[A-Za-z0-9._:-]`.
        requests_in_hand_max: One more request than that is answered 503 `overloaded`.
        last_in_hand_max: Likewise one that goes last; None is no lower bound than the other.
        first_in_hand_max: So many requests that go first are served beyond that.
        logs_requests: Write a line, at `debug`, for each request.
        count_answer: Told the status of each answer.
    """

    route_handlers: Sequence[ControllerRouterHandler]
    dependencies: Mapping[str, object] = field(default_factory=dict)
    authenticator: TokenAuthenticator
    readiness: Readiness
    registry: CollectorRegistry
    refresh_metrics: Callable[[], Awaitable[None]]
    version: str
    new_request_id: Callable[[], str]
    requests_in_hand_max: int = REQUESTS_IN_HAND_MAX
    last_in_hand_max: int | None = LAST_IN_HAND_MAX
    first_in_hand_max: int = FIRST_IN_HAND_MAX
    logs_requests: bool = False
    count_answer: Callable[[int], None] = lambda _status: None


class WebApp:
    """An application, ready to be served."""

    def __init__(self, parts: WebParts) -> None:
        """Put the application together.

        Raises:
            RouteDeclarationError: a handler does not say who may call it.
        """
        self._version = parts.version
        self._dependencies = {
            name: Provide(_always(value), sync_to_thread=False)
            for name, value in parts.dependencies.items()
        }
        self._handlers: list[ControllerRouterHandler] = [
            Router(API_BASE, route_handlers=parts.route_handlers, opt={"knows_its_query": True}),
            *health_handlers(
                parts.readiness, registry=parts.registry, refresh_metrics=parts.refresh_metrics
            ),
        ]
        admission = Admission(parts.authenticator)
        application = Litestar(
            [
                *self._handlers,
                *docs_handlers(lambda: self.openapi_json, api=API_BASE, version=parts.version),
            ],
            dependencies=self._dependencies,
            before_request=admission.admit,
            exception_handlers={Exception: answer_problem},
            request_class=JsonRequest,
            request_max_body_size=BODY_BYTES_MAX,
            openapi_config=None,
            logging_config=None,
        )
        read_rules(application.routes, expected_hook=application.before_request)
        self.door = Door(
            new_request_id=parts.new_request_id,
            requests_in_hand_max=parts.requests_in_hand_max,
            goes_first=find_paths(application.routes, option="goes_first"),
            goes_last=find_paths(application.routes, option="goes_last"),
            last_in_hand_max=parts.last_in_hand_max,
            first_in_hand_max=parts.first_in_hand_max,
            count_answer=parts.count_answer,
        )
        self._gate = Gate(
            ShortWay(application, admission=admission, dependencies=parts.dependencies),
            door=self.door,
            logs_requests=parts.logs_requests,
        )
        self.asgi: ASGIApp = self._gate

    @property
    def requests_in_hand_count(self) -> int:
        """Requests that were let in and are not answered yet."""
        return self._gate.requests_in_hand_count

    @cached_property
    def openapi_json(self) -> bytes:
        """The OpenAPI 3.1 document; made when it is first asked for, which few processes are."""
        return openapi_json(self._handlers, dependencies=self._dependencies, version=self._version)


def build_app(parts: WebParts) -> WebApp:
    """Return the application that the parts make.

    Raises:
        RouteDeclarationError: a handler does not say who may call it.
    """
    return WebApp(parts)


def _always(value: object) -> Callable[[], object]:
    def provide() -> object:
        return value

    return provide
