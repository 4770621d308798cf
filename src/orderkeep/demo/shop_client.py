"""One shopper's connection to the shop: every call is timed, counted, and repeated when told to.

A request that got no answer may have taken effect. Every request here is safe to repeat: that is
the point of tokens and keys, and what `is_resilient` puts to the test.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx

from orderkeep.demo.tally import Tally

# "Not now": the service asks to be asked again.
_ASK_AGAIN_STATUSES = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_ASK_AGAIN_CODES = frozenset({"in_progress", "order_not_ready"})

# Somebody who is in no hurry asks so often before going home.
_ASK_COUNT_MAX = 4

_PAUSE_S_MIN = 0.05
_PAUSE_S_MAX = 1.0


class VisitCutShortError(Exception):
    """The shop cannot be reached, or keeps saying "not now": the shopper goes home."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopRequest:
    """A request that is safe to repeat.

    Attributes:
        step: The name under which it is counted.
        path: Below `/api/v1`.
    """

    step: str
    method: str
    path: str
    body: Mapping[str, object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the service answered.

    Attributes:
        code: The status for a success, the problem's code for a refusal.
        body: The decoded object; empty where there was none.
    """

    status: int
    code: str
    body: Mapping[str, Any]  # JSON: the steps read the members they know
    etag: str | None

    @property
    def is_success(self) -> bool:
        """Return whether the service did what was asked."""
        return self.status < HTTPStatus.BAD_REQUEST


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopClient:
    """Calls the API for one user.

    Attributes:
        is_resilient: Repeat a request that got no answer, for up to `patience_s`.
        clock: Rising seconds, for latencies and patience.
    """

    http: httpx.AsyncClient
    bearer: str
    tally: Tally
    clock: Callable[[], float]
    is_resilient: bool
    patience_s: float

    async def send(self, request: ShopRequest) -> Answer:
        """Send a request and return its answer.

        Raises:
            VisitCutShortError: there was no answer, or only "not now", as long as patience lasted.
        """
        give_up_at = self.clock() + self.patience_s
        pause_s = _PAUSE_S_MIN
        asked_count = 0
        while True:
            asked_count += 1
            answer = await self._ask(request)
            if answer is not None and not _asks_again(answer):
                return answer
            if self.clock() >= give_up_at or not self._has_patience(answer, asked_count):
                message = f"{request.step}: {'no answer' if answer is None else answer.code}"
                raise VisitCutShortError(message)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_S_MAX)

    def _has_patience(self, answer: Answer | None, asked_count: int) -> bool:
        if self.is_resilient:
            return True
        return answer is not None and asked_count < _ASK_COUNT_MAX

    async def _ask(self, request: ShopRequest) -> Answer | None:
        started = self.clock()
        try:
            response = await self.http.request(
                request.method,
                f"/api/v1{request.path}",
                json=request.body,
                params=request.query,
                headers={"Authorization": f"Bearer {self.bearer}", **request.headers},
            )
        except httpx.TransportError as error:
            code = "timeout" if isinstance(error, httpx.TimeoutException) else "connection_error"
            self.tally.answer(request.step, code=code, elapsed_s=self.clock() - started)
            return None
        answer = _answer_of(response)
        self.tally.answer(request.step, code=answer.code, elapsed_s=self.clock() - started)
        if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            self.tally.surprise(f"{request.step} was answered {answer.code}")
        return answer


def _asks_again(answer: Answer) -> bool:
    return answer.status in _ASK_AGAIN_STATUSES or answer.code in _ASK_AGAIN_CODES


def _answer_of(response: httpx.Response) -> Answer:
    try:
        body = response.json() if response.content else {}
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    is_refusal = response.status_code >= HTTPStatus.BAD_REQUEST
    return Answer(
        status=response.status_code,
        code=str(body.get("code", response.status_code) if is_refusal else response.status_code),
        body=body,
        etag=response.headers.get("ETag"),
    )
