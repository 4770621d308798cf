"""What clients asked for and were told, written down before each request and after each answer.

    transport = JournalingTransport(journal)
    DemoOptions(..., transport=transport)

A request whose answer never came may have taken effect or not; every other one says which. The
journal stands between a client and the network, so it sees each repetition by itself.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import httpx

# The service may have cut off the request in the middle of a commit and says so with this.
_NO_VERDICT = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INTERNAL_SERVER_ERROR})


class Outcome(StrEnum):
    """What a client knows of its request."""

    SENT = "sent"  # no answer yet, or never one
    UNREACHED = "unreached"  # there was nobody to send it to
    NO_VERDICT = "no_verdict"
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderKey:
    """What makes an order request one request, however often it is sent."""

    bearer: str
    kind: str
    text: str


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One request, as it left and as it was answered."""

    method: str
    path: str
    bearer: str
    headers: Mapping[str, str]
    body: Any
    outcome: Outcome = Outcome.SENT
    status: int | None = None
    answer: Any = None

    @property
    def order_key(self) -> OrderKey | None:
        """The key, if this asks for an order."""
        if (self.method, self.path) != ("POST", "/api/v1/orders"):
            return None
        token = self.body.get("token")
        kind, text = (
            ("header", self.headers["idempotency-key"]) if token is None else ("token", token)
        )
        return OrderKey(bearer=self.bearer, kind=kind, text=text)


@dataclass(slots=True)
class Journal:
    """Every request, in the order they were sent."""

    attempts: list[Attempt] = field(default_factory=list)

    def orders(self) -> dict[OrderKey, list[Attempt]]:
        """Return the requests for orders by their key."""
        by_key: dict[OrderKey, list[Attempt]] = defaultdict(list)
        for attempt in self.attempts:
            if attempt.order_key is not None:
                by_key[attempt.order_key].append(attempt)
        return dict(by_key)

    def paid_payment_nos(self) -> set[str]:
        """Return the payments that a client was told have succeeded."""
        return {
            attempt.answer["payment_no"]
            for attempt in self._answered_with("/payments/", HTTPStatus.ACCEPTED)
            if attempt.answer["status"] == "succeeded"
        }

    def cancelled_order_nos(self) -> set[str]:
        """Return the orders that a client was told are cancelled."""
        return {
            attempt.answer["order_no"] for attempt in self._answered_with("/cancel", HTTPStatus.OK)
        }

    def breakdowns(self) -> list[str]:
        """Return the answers that say that the service met a bug."""
        return [
            f"{attempt.method} {attempt.path}: {attempt.answer}"
            for attempt in self.attempts
            if attempt.status == HTTPStatus.INTERNAL_SERVER_ERROR
        ]

    def _answered_with(self, path_part: str, status: HTTPStatus) -> Iterator[Attempt]:
        for attempt in self.attempts:
            if path_part in attempt.path and attempt.status == status:
                yield attempt


class JournalingTransport(httpx.AsyncBaseTransport):
    """Sends requests over the network and keeps the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._network = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Write the request down, send it, and write down what came of it."""
        attempt = Attempt(
            method=request.method,
            path=request.url.path,
            bearer=request.headers["authorization"],
            headers=dict(request.headers),
            body=json.loads(request.content or b"null"),
        )
        self._journal.attempts.append(attempt)
        try:
            response = await self._network.handle_async_request(request)
            content = await response.aread()
        except httpx.ConnectError:
            attempt.outcome = Outcome.UNREACHED
            raise
        attempt.status = response.status_code
        attempt.answer = json.loads(content or b"null")
        is_verdict = response.status_code not in _NO_VERDICT
        attempt.outcome = Outcome.ANSWERED if is_verdict else Outcome.NO_VERDICT
        return httpx.Response(response.status_code, headers=response.headers, content=content)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._network.aclose()
