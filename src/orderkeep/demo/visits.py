"""The stories, step by step: what a shopper calls, and what it must be told.

A refusal is part of most stories and only counted. What no refusal explains is a surprise.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from orderkeep.demo.shop_client import Answer, ShopClient, ShopRequest
from orderkeep.demo.shopper import KeyKind, Story, Visit, WantedLine

# The channel that succeeds or fails on demand.
SANDBOX = "sandbox"

# A paid order shows within this, or the shopper stops looking. Nothing promises a time: messages
# may wait behind others.
_WATCH_S_MAX = 10.0

_WATCH_PAUSE_S_MIN = 0.02
_WATCH_PAUSE_S_MAX = 0.5

PENDING = "pending_payment"


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgedOrder:
    """An order that a shopper was told exists: from now on it must.

    Attributes:
        key: The one-time token or the value of `Idempotency-Key` that it was ordered with.
    """

    order_no: str
    user_id: str
    key_kind: KeyKind
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderKey:
    """What makes one order request safe to repeat."""

    kind: KeyKind
    text: str


@dataclass(slots=True, kw_only=True)
class Shopper:
    """A user who visits the shop again and again.

    Attributes:
        new_key: Draws a value for `Idempotency-Key`.
        on_acknowledged: Told of each order before anything else happens.
        over_at: When the demo ends, on the client's clock: nobody starts to wait beyond it.
        orders: Every order that was acknowledged, by its number.
    """

    user_id: str
    client: ShopClient
    new_key: Callable[[], str]
    on_acknowledged: Callable[[AcknowledgedOrder], None]
    over_at: float
    orders: dict[str, AcknowledgedOrder]

    async def visit(self, visit: Visit) -> None:
        """Live through one visit.

        Raises:
            VisitCutShortError: the shop could not be reached.
        """
        cart_item_ids = await self._fill_cart(visit)
        key = await self._order_key(visit.key_kind)
        request = _order_request(visit.lines, cart_item_ids=cart_item_ids)
        await asyncio.sleep(visit.pause_s)
        order = await self._order(key, request)
        if order is None:
            return
        self._check_story(visit, order)
        await asyncio.sleep(visit.pause_s)
        await self._after_order(visit, order, key=key, request=request)

    async def _after_order(
        self, visit: Visit, order: Answer, *, key: OrderKey, request: Mapping[str, object]
    ) -> None:
        order_no = str(order.body.get("order_no"))
        match visit.story:
            case Story.PAYS:
                await self._pay(order_no, results=("succeeded",))
            case Story.PAYS_AT_SECOND_TRY:
                await self._pay(order_no, results=("failed", "succeeded"))
            case Story.PAYS_LATE:
                await self._pay_late(order)
            case Story.CANCELS:
                await self._cancel(order_no)
            case Story.ORDERS_TWICE:
                await self._order_again(order_no, key=key, request=request)
                await self._pay(order_no, results=("succeeded",))
            case Story.CHANGES_ORDER_UNDER_KEY:
                await self._change_under_key(key, request)
            case Story.WALKS_AWAY | Story.WANTS_UNKNOWN_SKU | Story.WANTS_TOO_MUCH:
                pass
            case _:
                assert_never(visit.story)

    async def _fill_cart(self, visit: Visit) -> dict[str, str]:
        cart_item_ids: dict[str, str] = {}
        for line in visit.lines:
            answer = await self._post(
                "add to cart",
                "/cart/items",
                body={"sku_id": line.sku_id, "quantity": line.quantity},
            )
            if isinstance(cart_item_id := answer.body.get("cart_item_id"), str):
                cart_item_ids[line.sku_id] = cart_item_id
        return cart_item_ids

    async def _order_key(self, kind: KeyKind) -> OrderKey:
        match kind:
            case KeyKind.HEADER:
                return OrderKey(kind=kind, text=self.new_key())
            case KeyKind.TOKEN:
                answer = await self._post("get token", "/orders/tokens", body=None)
                return OrderKey(kind=kind, text=str(answer.body.get("token")))
            case _:
                assert_never(kind)

    async def _order(self, key: OrderKey, request: Mapping[str, object]) -> Answer | None:
        answer = await self._send_order("order", key=key, request=request)
        if not answer.is_success:
            return None
        order = AcknowledgedOrder(
            order_no=str(answer.body.get("order_no")),
            user_id=self.user_id,
            key_kind=key.kind,
            key=key.text,
        )
        self.on_acknowledged(order)
        self.client.tally.order_count += 1
        if order.order_no in self.orders:
            self.client.tally.surprise(f"a new key was answered the old order {order.order_no}")
        self.orders[order.order_no] = order
        return answer

    async def _send_order(
        self, step: str, *, key: OrderKey, request: Mapping[str, object]
    ) -> Answer:
        match key.kind:
            case KeyKind.HEADER:
                headers, token = {"Idempotency-Key": key.text}, {}
            case KeyKind.TOKEN:
                headers, token = {}, {"token": key.text}
            case _:
                assert_never(key.kind)
        return await self.client.send(
            ShopRequest(
                step=step,
                method="POST",
                path="/orders",
                body={**request, **token},
                headers=headers,
            )
        )

    async def _order_again(
        self, order_no: str, *, key: OrderKey, request: Mapping[str, object]
    ) -> None:
        again = await self._send_order("order again", key=key, request=request)
        if again.is_success and again.body.get("order_no") != order_no:
            self.client.tally.surprise(
                f"one key made two orders, {order_no} and {again.body.get('order_no')}"
            )

    async def _change_under_key(self, key: OrderKey, request: Mapping[str, object]) -> None:
        changed = {**request, "buyer_remark": "and a ribbon, please"}
        answer = await self._send_order("order something else", key=key, request=changed)
        if answer.is_success:
            self.client.tally.surprise(f"the key of {key.kind} took a second, other order")

    async def _cancel(self, order_no: str) -> None:
        await self._post("cancel", f"/orders/{order_no}/cancel", body={"reason": "changed my mind"})

    async def _pay(self, order_no: str, *, results: tuple[str, ...]) -> None:
        started = self.client.clock()
        for result in results:
            if not await self._open_and_settle(order_no, result=result):
                return
        if await self._watch(order_no, until=started + _WATCH_S_MAX) == "paid":
            self.client.tally.duration(
                "payment to paid order", elapsed_s=self.client.clock() - started
            )

    async def _pay_late(self, order: Answer) -> None:
        order_no = str(order.body.get("order_no"))
        payment_no = await self._open_payment(order_no)
        wait_s = _payment_time_s(order)
        if payment_no is None or self.client.clock() + wait_s > self.over_at:
            return
        await asyncio.sleep(wait_s)
        await self._watch(order_no, until=self.client.clock() + _WATCH_S_MAX)
        await self._settle(payment_no, result="succeeded")

    async def _open_and_settle(self, order_no: str, *, result: str) -> bool:
        payment_no = await self._open_payment(order_no)
        return payment_no is not None and await self._settle(payment_no, result=result)

    async def _open_payment(self, order_no: str) -> str | None:
        answer = await self._post(
            "open payment", "/payments", body={"order_no": order_no, "pay_channel": SANDBOX}
        )
        return str(answer.body.get("payment_no")) if answer.is_success else None

    async def _settle(self, payment_no: str, *, result: str) -> bool:
        answer = await self._post(
            "settle payment", f"/payments/{payment_no}/sandbox", body={"result": result}
        )
        return answer.is_success

    async def _watch(self, order_no: str, *, until: float) -> str:
        """Look at an order until it has ended or the time is over; return its last status."""
        status, pause_s = PENDING, _WATCH_PAUSE_S_MIN
        headers: dict[str, str] = {}
        while status == PENDING and self.client.clock() < min(until, self.over_at):
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _WATCH_PAUSE_S_MAX)
            answer = await self.client.send(
                ShopRequest(
                    step="look at order",
                    method="GET",
                    path=f"/orders/{order_no}",
                    headers=headers,
                )
            )
            status = str(answer.body.get("status", status))
            headers = {"If-None-Match": answer.etag} if answer.etag else {}
        return status

    async def _post(self, step: str, path: str, *, body: Mapping[str, object] | None) -> Answer:
        return await self.client.send(ShopRequest(step=step, method="POST", path=path, body=body))

    def _check_story(self, visit: Visit, order: Answer) -> None:
        if visit.story in {Story.WANTS_UNKNOWN_SKU, Story.WANTS_TOO_MUCH}:
            order_no = order.body.get("order_no")
            self.client.tally.surprise(f"{visit.story} was answered the order {order_no}")

    async def count_orders(self) -> None:
        """List this user's orders, count their statuses, and miss what was acknowledged.

        Raises:
            VisitCutShortError: the shop could not be reached.
        """
        listed: set[str] = set()
        query = {"limit": "100"}
        while True:
            answer = await self.client.send(
                ShopRequest(step="list orders", method="GET", path="/orders", query=query)
            )
            if not answer.is_success:
                self.client.tally.surprise(f"the orders of {self.user_id} cannot be listed")
                return
            for order in answer.body.get("items", []):
                listed.add(order["order_no"])
                self.client.tally.statuses[order["status"]] += 1
            cursor = answer.body.get("next_cursor")
            if not cursor:
                break
            query = {"limit": "100", "cursor": cursor}
        for order_no in sorted(self.orders.keys() - listed):
            self.client.tally.surprise(f"the acknowledged order {order_no} is gone")


def _order_request(
    lines: tuple[WantedLine, ...], *, cart_item_ids: Mapping[str, str]
) -> dict[str, object]:
    items = []
    for line in lines:
        item: dict[str, object] = {"sku_id": line.sku_id, "quantity": line.quantity}
        if line.sku_id in cart_item_ids:
            item["cart_item_id"] = cart_item_ids[line.sku_id]
        items.append(item)
    return {"items": items, "buyer_remark": "from the demo"}


def _payment_time_s(order: Answer) -> float:
    """Return how long the service gave the order to be paid."""
    created_at = datetime.fromisoformat(str(order.body.get("created_at")))
    expires_at = datetime.fromisoformat(str(order.body.get("expires_at")))
    return (expires_at - created_at).total_seconds()
