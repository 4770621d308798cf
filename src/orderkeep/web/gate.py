"""What every request passes first and every answer last, whatever happens in between.

An answer always bears a request id, and an error that nobody caught is still a problem document.
The number of requests in hand is bounded: one more is told to come again, at once and cheaply.
What frees stock or brings money, a cancel or a payment, has places of its own beyond that bound,
and its transactions go before others: new orders are refused first.
"""

import asyncio
import re
from collections.abc import Callable

import structlog
from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from orderkeep.database.turns import going_first
from orderkeep.refusal import Refusal
from orderkeep.web.problems import MEDIA_TYPE, problem_of, refusal_of

log = structlog.get_logger()

# A client's own id is kept, so that it finds its request in our logs; within reason.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")

# Whoever watches must hear from an overloaded process as well.
_ALWAYS_SERVED = ("/health/live", "/health/ready", "/metrics")


class Gate:
    """The outermost ASGI application."""

    def __init__(
        self,
        application: ASGIApp,
        *,
        new_request_id: Callable[[], str],
        requests_in_hand_max: int,
        goes_first: Callable[[str, str], bool] = lambda _method, _path: False,
        first_in_hand_max: int = 0,
        logs_requests: bool = False,
    ) -> None:
        """Stand before the application.

        Args:
            application: Answers every request that is let in.
            new_request_id: Draws an id for a request that brings none.
            requests_in_hand_max: One more request than that is refused as `overloaded`.
            goes_first: Returns, for a method and a path, whether the request goes before others.
            first_in_hand_max: So many requests that go first are served beyond the bound.
            logs_requests: Write a line, at `debug`, for each request.
        """
        self._application = application
        self._new_request_id = new_request_id
        self._requests_in_hand_max = requests_in_hand_max
        self._requests_in_hand_count = 0
        self._goes_first = goes_first
        self._first_in_hand_max = first_in_hand_max
        self._logs_requests = logs_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI call."""
        if scope["type"] != ScopeType.HTTP:
            await self._application(scope, receive, send)
            return
        request_id = self._request_id_of(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, request_id=request_id, is_head=scope["method"] == "HEAD")
        if answer.is_head:
            # What GET would answer, without the body.
            scope = scope.copy()
            scope["method"] = HttpMethod.GET
        is_first = self._goes_first(scope["method"], scope["path"])
        reserved_count = self._first_in_hand_max if is_first else 0
        is_full = self._requests_in_hand_count >= self._requests_in_hand_max + reserved_count
        if is_full and scope["path"] not in _ALWAYS_SERVED:
            refusal = Refusal("overloaded", "Too many requests are in hand; try again shortly.")
            await answer.send_problem(refusal)
            return
        started_at_s = asyncio.get_running_loop().time() if self._logs_requests else 0.0
        self._requests_in_hand_count += 1
        try:
            serve = going_first(self._serve) if is_first else self._serve
            await serve(scope, receive, answer)
        finally:
            self._requests_in_hand_count -= 1
            if self._logs_requests:
                took_s = asyncio.get_running_loop().time() - started_at_s
                _log_request(scope, answer, took_s=took_s)

    async def _serve(self, scope: HTTPScope, receive: Receive, answer: "_Answer") -> None:
        try:
            await self._application(scope, receive, answer.send)
        except asyncio.CancelledError:
            # Only a shutdown that ran out of time cancels a request: a client that hangs up does
            # not. Whether the request took effect is open; the same key tells, next time.
            if not answer.is_started:
                refusal = Refusal("overloaded", "The service is shutting down; try again.")
                await answer.send_problem(refusal)
            raise
        except Exception as error:
            refusal = refusal_of(error, scope=scope, request_id=answer.request_id)
            if answer.is_started:
                # Too late for a problem document: closing the connection tells that it failed.
                raise
            await answer.send_problem(refusal)

    def _request_id_of(self, scope: HTTPScope) -> str:
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                return value.decode()
        return self._new_request_id()


class _Answer:
    """One answer on its way out."""

    __slots__ = ("_send", "is_head", "request_id", "status")

    def __init__(self, send: Send, *, request_id: str, is_head: bool) -> None:
        self._send = send
        self.request_id = request_id
        self.is_head = is_head
        self.status: int | None = None

    @property
    def is_started(self) -> bool:
        return self.status is not None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", self.request_id.encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
        elif self.is_head and message["type"] == "http.response.body":
            message["body"] = b""
        await self._send(message)

    async def send_problem(self, refusal: Refusal) -> None:
        problem = problem_of(refusal, request_id=self.request_id)
        headers = {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(problem.body)),
            **problem.headers,
        }
        await self.send(
            {
                "type": "http.response.start",
                "status": problem.status,
                "headers": [
                    (name.lower().encode(), text.encode()) for name, text in headers.items()
                ],
            }
        )
        await self.send({"type": "http.response.body", "body": problem.body, "more_body": False})


def _log_request(scope: HTTPScope, answer: _Answer, *, took_s: float) -> None:
    log.debug(
        "request_answered",
        request_id=answer.request_id,
        method=scope["method"],
        path=scope["path"],
        status=answer.status,
        took_ms=round(took_s * 1000, 2),
    )
