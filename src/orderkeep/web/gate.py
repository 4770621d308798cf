"""What every request passes first and every answer last, whatever happens in between.

An answer always bears a request id, and an error that nobody caught is still a problem document.
The number of requests in hand is bounded: one more is told to come again, at once and cheaply.
What frees stock or brings money, a cancel or a payment, has places of its own beyond that bound,
and its transactions go before others: new orders are refused first.
"""

import asyncio
from collections.abc import Callable

import structlog
from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from orderkeep.database.turns import going_first
from orderkeep.refusal import Refusal
from orderkeep.web.door import Door, header_bytes, headers_of_all, overloaded
from orderkeep.web.problems import problem_of, refusal_of

log = structlog.get_logger()


class Gate:
    """The outermost ASGI application.

    Attributes:
        requests_in_hand_count: Requests that were let in and are not answered yet.
    """

    def __init__(self, application: ASGIApp, *, door: Door, logs_requests: bool = False) -> None:
        """Stand before the application.

        Args:
            application: Answers every request that is let in.
            door: Says who is; a server asks it as well, before there is a call.
            logs_requests: Write a line, at `debug`, for each request.
        """
        self._application = application
        self._door = door
        self.requests_in_hand_count = 0
        self._logs_requests = logs_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI call."""
        if scope["type"] != ScopeType.HTTP:
            await self._application(scope, receive, send)
            return
        request_id = self._door.request_id_of(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(
            send,
            request_id=request_id,
            is_head=scope["method"] == "HEAD",
            count_answer=self._door.count_answer,
        )
        if answer.is_head:
            # What GET would answer, without the body.
            scope = scope.copy()
            scope["method"] = HttpMethod.GET
        method, path = scope["method"], scope["path"]
        if not self._door.lets_in(method, path, in_hand_count=self.requests_in_hand_count):
            await answer.send_problem(overloaded())
            return
        is_first = self._door.goes_first(method, path)
        started_at_s = asyncio.get_running_loop().time() if self._logs_requests else 0.0
        self.requests_in_hand_count += 1
        try:
            serve = going_first(self._serve) if is_first else self._serve
            await serve(scope, receive, answer)
        finally:
            self.requests_in_hand_count -= 1
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


class _Answer:
    """One answer on its way out."""

    __slots__ = ("_count_answer", "_send", "is_head", "request_id", "status")

    def __init__(
        self, send: Send, *, request_id: str, is_head: bool, count_answer: Callable[[int], None]
    ) -> None:
        self._send = send
        self._count_answer = count_answer
        self.request_id = request_id
        self.is_head = is_head
        self.status: int | None = None

    @property
    def is_started(self) -> bool:
        return self.status is not None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._count_answer(message["status"])
            message["headers"] = [*message["headers"], *headers_of_all(self.request_id)]
        elif self.is_head and message["type"] == "http.response.body":
            message["body"] = b""
        await self._send(message)

    async def send_problem(self, refusal: Refusal) -> None:
        problem = problem_of(refusal, request_id=self.request_id)
        length = (b"content-length", b"%d" % len(problem.body))
        await self.send(
            {
                "type": "http.response.start",
                "status": problem.status,
                "headers": [*header_bytes(problem), length],
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
