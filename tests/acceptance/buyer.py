"""A person at a running shop: fills a cart, orders, pays, cancels and looks, over HTTP alone."""

from collections.abc import Mapping
from typing import Any, Self

import httpx

from tests.acceptance.running import RunningShop

SANDBOX = "sandbox"

Json = dict[str, Any]


class Buyer:
    """One user of the shop; closes its connections when its context ends."""

    def __init__(self, shop: RunningShop, user_id: str) -> None:
        self.shop = shop
        self.user_id = user_id
        self.client = shop.client(user_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.client.close()

    def fill_cart(self, quantities: Mapping[str, int]) -> dict[str, str]:
        """Put SKUs into the cart; return the cart item of each."""
        return {
            sku_id: self._made("/cart/items", {"sku_id": sku_id, "quantity": quantity})[
                "cart_item_id"
            ]
            for sku_id, quantity in quantities.items()
        }

    def cart_item_ids(self) -> list[str]:
        """Return what is in the cart."""
        answer = self.client.get("/cart")
        assert answer.status_code == 200, answer.text
        return [item["cart_item_id"] for item in answer.json()["items"]]

    def order(
        self, quantities: Mapping[str, int], *, cart_item_ids: Mapping[str, str] | None = None
    ) -> Json:
        """Order with a fresh one-time token."""
        named = cart_item_ids or {}
        token = self._made("/orders/tokens")["token"]
        items = [
            {"sku_id": sku_id, "quantity": quantity}
            | ({"cart_item_id": named[sku_id]} if sku_id in named else {})
            for sku_id, quantity in quantities.items()
        ]
        return self._made("/orders", {"token": token, "items": items})

    def open_payment(self, order_no: str, *, pay_channel: str = SANDBOX) -> Json:
        """Begin to pay; asks again while the payment service has not heard of the order."""
        body = {"order_no": order_no, "pay_channel": pay_channel}
        answer = self.client.post("/payments", json=body)
        while answer.status_code == 409 and answer.json()["code"] == "order_not_ready":
            answer = self.client.post("/payments", json=body)
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    def settle(self, payment_no: str, *, result: str = "succeeded") -> Json:
        """Let the sandbox pay."""
        answer = self.client.post(f"/payments/{payment_no}/sandbox", json={"result": result})
        assert answer.status_code == 202, answer.text
        return answer.json()

    def cancel(self, order_no: str) -> Json:
        """Cancel an order."""
        answer = self.client.post(f"/orders/{order_no}/cancel", json={"reason": "not needed"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def see(self, order_no: str) -> Json:
        """Look at an order."""
        return self._seen(f"/orders/{order_no}")

    def see_payment(self, payment_no: str) -> Json:
        """Look at a payment."""
        return self._seen(f"/payments/{payment_no}")

    def timeline(self, order_no: str) -> list[Json]:
        """Return the story of an order."""
        return self._seen(f"/orders/{order_no}/timeline")["items"]

    def wait_for(self, order_no: str, status: str) -> Json:
        """Return the order once it has the status."""

        def arrived() -> Json | None:
            order = self.see(order_no)
            return order if order["status"] == status else None

        return self.shop.wait_until(arrived, f"order {order_no} is {status}")

    def _made(self, path: str, body: Json | None = None) -> Json:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def _seen(self, path: str) -> Json:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


def collect(client: httpx.Client, path: str, **query: str) -> list[Json]:
    """Return every item of a list, page by page."""
    items: list[Json] = []
    cursor: str | None = None
    while True:
        page_query = {"limit": "100", **query, **({"cursor": cursor} if cursor else {})}
        answer = client.get(path, params=page_query)
        assert answer.status_code == 200, answer.text
        items += answer.json()["items"]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return items
