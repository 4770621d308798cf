"""A shop made of paper: the API as far as shoppers use it, in memory, to be misled in tests."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(kw_only=True)
class PaperShop:
    """Answers requests as the contract says, unless told to misbehave."""

    payment_time: str = "2024-01-01T10:30:00Z"
    is_forgetting_keys: bool = False
    is_losing_orders: bool = False
    is_selling_everything: bool = False
    fail_every: int | None = None
    lose_answer_every: int | None = None
    say_not_now_every: int | None = None
    break_every: int | None = None

    skus: dict[str, dict[str, Any]] = field(default_factory=dict)
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    payments: dict[str, str] = field(default_factory=dict)
    stock_movements: list[tuple[str, int, str]] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    scopes_seen: set[str] = field(default_factory=set)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _request_numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def transport(self) -> httpx.AsyncBaseTransport:
        """Return what to give to the client instead of the network."""
        return httpx.MockTransport(self._receive)

    def _receive(self, request: httpx.Request) -> httpx.Response:
        number = next(self._request_numbers)
        if self.fail_every and number % self.fail_every == 0:
            message = "refused"
            raise httpx.ConnectError(message)
        if self.say_not_now_every and number % self.say_not_now_every == 0:
            return problem(503, "overloaded")
        if self.break_every and number % self.break_every == 0:
            return problem(500, "internal")
        answer = self._answer(request)
        if self.lose_answer_every and number % self.lose_answer_every == 0:
            message = "cut off"
            raise httpx.RemoteProtocolError(message)
        return answer

    def _answer(self, request: httpx.Request) -> httpx.Response:
        user_id, _, scope = request.headers["Authorization"].removeprefix("Bearer ").partition(" ")
        self.scopes_seen.add(scope)
        path = request.url.path.removeprefix("/api/v1").strip("/").split("/")
        body = json.loads(request.content) if request.content else {}
        self.requests[f"{request.method} {path[0]}"] += 1
        match path:
            case ["admin", "skus", sku_id, *rest]:
                return self._sku(request, sku_id, body, is_movement=bool(rest))
            case ["cart", "items"]:
                return httpx.Response(201, json={"cart_item_id": f"c-{body['sku_id']}", **body})
            case ["orders", *rest]:
                return self._orders(request, rest, body, user_id=user_id)
            case ["payments", *rest]:
                return self._payments(rest, body)
            case _:
                return problem(404, "not_found")

    def _orders(
        self, request: httpx.Request, rest: list[str], body: dict[str, Any], *, user_id: str
    ) -> httpx.Response:
        match request.method, rest:
            case "POST", ["tokens"]:
                return httpx.Response(201, json={"token": f"t{next(self._numbers)}"})
            case "POST", []:
                return self._order(request, body, user_id=user_id)
            case "GET", []:
                return self._list(user_id, after=request.url.params.get("cursor", ""))
            case "GET", [order_no]:
                return self._show(request, order_no)
            case "POST", [order_no, "cancel"]:
                return self._end(order_no, status="cancelled")
            case _:
                return problem(404, "not_found")

    def _payments(self, rest: list[str], body: dict[str, Any]) -> httpx.Response:
        if not rest:
            payment_no = f"P{next(self._numbers)}"
            self.payments[payment_no] = body["order_no"]
            return httpx.Response(201, json={"payment_no": payment_no})
        if body["result"] == "succeeded":
            self._end(self.payments[rest[0]], status="paid")
        return httpx.Response(202)

    def _sku(
        self, request: httpx.Request, sku_id: str, body: dict[str, Any], *, is_movement: bool
    ) -> httpx.Response:
        if is_movement:
            key = request.headers["Idempotency-Key"]
            self.stock_movements.append((sku_id, body["quantity"], key))
            self.skus[sku_id]["available"] += body["quantity"]
            return httpx.Response(201, json=self.skus[sku_id])
        if request.method == "PUT":
            is_new = sku_id not in self.skus
            if not is_new and "stock" in body:
                return problem(409, "stock_exists")
            available = body.pop("stock", 0) if is_new else self.skus[sku_id]["available"]
            self.skus[sku_id] = {**body, "available": available}
        if sku_id not in self.skus:
            return problem(404, "not_found")
        return httpx.Response(200, json=self.skus[sku_id])

    def _order(
        self, request: httpx.Request, body: dict[str, Any], *, user_id: str
    ) -> httpx.Response:
        key = body.pop("token", None) or request.headers["Idempotency-Key"]
        sent = json.dumps(body, sort_keys=True)
        if (user_id, key) in self.keys and not self.is_forgetting_keys:
            order_no, first_sent = self.keys[user_id, key]
            if sent != first_sent:
                return problem(422, "idempotency_key_reused")
            return httpx.Response(201, json=self.orders[order_no])
        if not self.is_selling_everything:
            for item in body["items"]:
                if item["sku_id"] not in self.skus:
                    return problem(422, "unknown_sku")
                if item["quantity"] > self.skus[item["sku_id"]]["available"]:
                    return problem(409, "out_of_stock")
        order_no = f"01{next(self._numbers):026d}"
        self.keys[user_id, key] = (order_no, sent)
        self.users[order_no] = user_id
        self.orders[order_no] = {
            "order_no": order_no,
            "status": "pending_payment",
            "created_at": "2024-01-01T10:00:00Z",
            "expires_at": self.payment_time,
        }
        return httpx.Response(201, json=self.orders[order_no])

    def _list(self, user_id: str, *, after: str) -> httpx.Response:
        mine = sorted(each for each, owner in self.users.items() if owner == user_id)
        page = [order_no for order_no in mine if order_no > after][:2]
        cursor = page[-1] if page and page[-1] != mine[-1] else None
        if self.is_losing_orders:
            page = page[1:]
        items = [self.orders[order_no] for order_no in page]
        return httpx.Response(200, json={"items": items, "next_cursor": cursor})

    def _show(self, request: httpx.Request, order_no: str) -> httpx.Response:
        status = self.orders[order_no]["status"]
        if request.headers.get("If-None-Match") == f'"{status}"':
            return httpx.Response(304)
        return httpx.Response(200, json=self.orders[order_no], headers={"ETag": f'"{status}"'})

    def _end(self, order_no: str, *, status: str) -> httpx.Response:
        self.orders[order_no]["status"] = status
        return httpx.Response(200, json=self.orders[order_no])


def problem(status: int, code: str) -> httpx.Response:
    """Return a refusal as the contract shapes it."""
    return httpx.Response(status, json={"code": code, "status": status})
