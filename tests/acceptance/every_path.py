"""One round through everything that can happen to orders, which goes on wherever it was cut off.

Every request can be sent again, and is: if the shop dies, it is started again and the same request
is repeated. So the round always ends in the same state, whatever was killed when; `check` compares
that state with what it must be.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.orders.verify import find_breaches
from tests.acceptance.books import contradictions, dead_letters, open_work, rows
from tests.acceptance.running import RunningShop, pause, variables
from tests.acceptance.webhook_receiver import SECRET, WebhookReceiver

# Long enough to pay in, if nothing is killed; short enough to wait for.
ORDER_TIMEOUT_S = 1.5

STOCK = 100

UNKNOWN_ORDER_NO = "0100000000000009"

# One restart can take an order's whole time to pay, not every one.
_LATE_ORDERS_MAX = 5

# With a restart or two in between.
_WAIT_S_MAX = 60.0

# What the shop answers while its payment service has not heard of an order.
_NOT_YET = "order_not_ready"

T = TypeVar("T")
Json = dict[str, Any]


def settings_for(receiver: WebhookReceiver, **more: object) -> dict[str, str]:
    """Return the settings that the round is made for."""
    return variables(
        **{
            "order_timeout_s": ORDER_TIMEOUT_S,
            "payment_extension_s": 0,
            "webhook_urls": receiver.url,
            "webhook_secrets": SECRET,
            "retry_base_s": 0.1,
            "retry_max_s": 0.5,
            "unknown_order_retry_for_s": 0.5,
            **more,
        }
    )


class EveryPath:
    """The round, at one shop.

    Attributes:
        deaths: How each process ended that ended.
        orders: The orders made, by the key they were ordered with.
        set_aside: Queue and reason of each message that was sent in order to be set aside.
    """

    def __init__(self, shop: RunningShop, receiver: WebhookReceiver) -> None:
        self.shop = shop
        self.receiver = receiver
        self.deaths: list[int] = []
        self.orders: dict[str, str] = {}
        self.set_aside = [("cart-sync", "malformed_json")]
        self._clients: dict[str, httpx.Client] = {}
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._exits.close()

    def start(self) -> None:
        """Start the shop; it may die before it is ready."""
        self.shop.start()
        self.until(self.shop._is_ready, "the shop is ready")

    def stock_shelves(self) -> None:
        """Put on sale what is ordered."""
        for sku_id in ("tea", "cup"):
            offer = {"title": sku_id, "price": "10.00", "currency": "CNY", "stock": STOCK}
            answer = self._send("operator", "PUT", f"/admin/skus/{sku_id}", offer)
            # The second time it has its stock already.
            assert answer.status_code in {201, 409}, answer.text

    def go(self) -> None:
        """Go the round, to the point where nothing is under way."""
        self.stock_shelves()
        self._send_bad_message()
        self._pay_from_outside("T-unknown", order_no=UNKNOWN_ORDER_NO)
        self.order("to-forget", {"tea": 3})
        late_no, late_payment_no = self._open_late_payment()
        to_pay = self.order("to-pay", {"tea": 1, "cup": 2}, from_cart=True)
        payment_no = self._find_opened_payment(to_pay)
        if payment_no is not None:
            self._settle(payment_no)
        to_cancel = self.order("to-cancel", {"cup": 1})
        self._send("ann", "POST", f"/orders/{to_cancel}/cancel", {"reason": "not needed"})
        # While it is unpaid, money from anywhere would pay it.
        self.until(lambda: self._status_of(to_pay) != "pending_payment", "it is paid, or closed")
        self._pay_from_outside("T-double", order_no=to_pay)
        self.until(lambda: self._status_of(late_no) == "closed", "the deadline passes")
        self._settle(late_payment_no)
        self._give_back(self.until(self._find_case, "money for no order waits in a case"))
        self.until(lambda: not open_work(self.shop.database_path), "nothing is under way")

    def order(self, key: str, quantities: Mapping[str, int], *, from_cart: bool = False) -> str:
        """Order with a key; return the order's number."""
        items: list[Json] = []
        for sku_id, quantity in quantities.items():
            item: Json = {"sku_id": sku_id, "quantity": quantity}
            if from_cart:
                added = self._send("ann", "POST", "/cart/items", item)
                item = {**item, "cart_item_id": added.json()["cart_item_id"]}
            items.append(item)
        answer = self._send("ann", "POST", "/orders", {"items": items}, key=key)
        assert answer.status_code == 201, answer.text
        self.orders[key] = answer.json()["order_no"]
        return self.orders[key]

    def until(self, condition: Callable[[], T | None], what: str) -> T:
        """Wait until the condition holds, starting the shop again whenever it has died.

        Raises:
            TimeoutError: it took too long.
        """
        give_up_at = time.monotonic() + _WAIT_S_MAX
        while time.monotonic() < give_up_at:
            self._revive()
            answer = condition()
            if answer:
                return answer
            assert self.shop.process is not None
            pause(self.shop.process)
        message = f"not within {_WAIT_S_MAX} s: {what}\n{self.shop.log_text()[-4000:]}"
        raise TimeoutError(message)

    def check(self, *, message_was_lost: bool = False) -> None:
        """See that the round has left exactly what it must.

        Args:
            message_was_lost: A timeout check was taken out of its queue on the way.
        """
        path = self.shop.database_path
        found = contradictions(path)
        if message_was_lost:
            (subject,) = found.pop("an event that no consumer has received")
            assert subject.startswith("order.timeout.queue ")
        assert found == {}, found
        breaches = asyncio.run(_breaches(path))
        assert breaches == [], breaches
        letters = dead_letters(path)
        assert sorted(letters) == sorted(self.set_aside), letters
        made = dict(rows(path, "select key, order_no from order_requests"))
        assert made == self.orders, (made, self.orders)
        assert len(rows(path, "select 1 from orders")) == len(made)
        self._check_money(path)
        self._check_webhooks(path)

    def _check_money(self, path: Path) -> None:
        """See that all money that came has paid its order, or went back, or waits in a case."""
        statuses = dict(rows(path, "select order_no, status from orders"))
        paid_no, late_no = self.orders["to-pay"], self._late_order_no()
        assert statuses[self.orders["to-forget"]] == "closed"
        assert statuses[late_no] == "closed"
        # A shop that was dead for too long finds their deadlines passed.
        assert statuses[self.orders["to-cancel"]] in {"cancelled", "closed"}
        outcomes = dict(
            rows(path, "select trade_no, outcome from order_payments where trade_no like 'T-%'")
        )
        assert outcomes == {"T-double": "refund", "T-unknown": "refund"}, outcomes
        cases = rows(path, "select state, resolution, resolved_by from payment_cases")
        assert cases == [("resolved", "refund", "operator")], cases
        acts = rows(path, "select 1 from admin_audit where action = 'payment_cases.resolve'")
        assert len(acts) == 1, acts
        refunds = rows(
            path, "select order_no, status from order_refunds where trade_no != 'T-double'"
        )
        # No payment here brought what was paid for an order that is not here.
        expected = {(late_no, "succeeded"), (UNKNOWN_ORDER_NO, "failed")}
        if statuses[paid_no] == "closed" and self._has_money(path, paid_no):
            expected.add((paid_no, "succeeded"))
        else:
            assert statuses[paid_no] in {"paid", "closed"}
        assert sorted(refunds) == sorted(expected), (refunds, statuses)

    def _check_webhooks(self, path: Path) -> None:
        """See that the receiver has heard of everything, in order; copies keep their id."""
        told = rows(
            path,
            "select aggregate_id, message_id from order_outbox where route = 'order.events'"
            " and retry_key is null order by sequence",
        )
        assert self.receiver.forged_count == 0
        for order_no in set(self.orders.values()):
            arrived = [event.message_id for event in self.receiver.of_order(order_no)]
            sent = [message_id for number, message_id in told if number == order_no]
            assert arrived == sent, (arrived, sent)

    def _has_money(self, path: Path, order_no: str) -> bool:
        statement = "select 1 from payments where status = 'succeeded' and order_no = ?"
        return bool(rows(path, statement, order_no))

    def _late_order_no(self) -> str:
        return next(
            order_no for key, order_no in reversed(self.orders.items()) if key.startswith("late-")
        )

    def _open_late_payment(self) -> tuple[str, str]:
        """Open the payment of an order that will be paid too late; return both numbers."""
        for attempt in range(1, _LATE_ORDERS_MAX + 1):
            order_no = self.order(f"late-{attempt}", {"tea": 1})
            payment_no = self._find_opened_payment(order_no)
            if payment_no is not None:
                return order_no, payment_no
            # The shop was dead for longer than the deadline.
        message = "no payment could be opened in time"
        raise TimeoutError(message)

    def _status_of(self, order_no: str) -> str:
        return self._send("ann", "GET", f"/orders/{order_no}").json()["status"]

    def _find_opened_payment(self, order_no: str) -> str | None:
        """Open a payment, or return None where the order has ended."""
        body = {"order_no": order_no, "pay_channel": "sandbox"}

        def answer() -> httpx.Response | None:
            given = self._send("ann", "POST", "/payments", body)
            return None if given.json().get("code") == _NOT_YET else given

        given = self.until(answer, "payments have heard of the order")
        if given.status_code == 409:
            return None
        return given.json()["payment_no"]

    def _settle(self, payment_no: str) -> None:
        answer = self._send(
            "ann", "POST", f"/payments/{payment_no}/sandbox", {"result": "succeeded"}
        )
        assert answer.status_code == 202, answer.text

    def _find_case(self) -> int | None:
        cases = self._send("operator", "GET", "/admin/payment-cases?state=open").json()["items"]
        return cases[0]["id"] if cases else None

    def _give_back(self, case_id: int) -> None:
        body = {"action": "refund", "reason": "no such order"}
        answer = self._send("operator", "POST", f"/admin/payment-cases/{case_id}/resolve", body)
        # The second time it is done already.
        assert answer.status_code in {200, 409}, answer.text

    def _pay_from_outside(self, trade_no: str, *, order_no: str) -> None:
        body = {"order_no": order_no, "trade_no": trade_no, "amount": 30.0, "currency": "CNY"}
        answer = self._send("operator", "POST", "/queues/payment.success.notify/messages", body)
        assert answer.status_code == 202, answer.text

    def contradict_refund(self) -> None:
        """Say of money that went back that it did not: what can be read, and must not count."""
        (refund_no, order_no), *_ = rows(
            self.shop.database_path,
            "select refund_no, order_no from order_refunds where status = 'succeeded'",
        )
        body = {"refund_no": refund_no, "order_no": order_no, "status": "failed"}
        answer = self._send("operator", "POST", "/queues/payment.refund.result/messages", body)
        assert answer.status_code == 202, answer.text
        self.set_aside.append(("payment.refund.result", "refund_already_finished"))
        self.until(lambda: not open_work(self.shop.database_path), "it is set aside")

    def _send_bad_message(self) -> None:
        answer = self._send("operator", "POST", "/queues/cart-sync/messages", content=b"{")
        assert answer.status_code == 202, answer.text

    def _send(
        self,
        user_id: str,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        content: bytes | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        """Send a request until it is answered, starting the shop again where it has died."""
        headers = {} if key is None else {"Idempotency-Key": key}

        def answer() -> httpx.Response | None:
            client = self._client(user_id)
            try:
                given = client.request(method, path, json=body, content=content, headers=headers)
            except httpx.TransportError:
                return None
            return None if given.status_code == 503 else given

        return self.until(answer, f"{method} {path} is answered")

    def _client(self, user_id: str) -> httpx.Client:
        if user_id not in self._clients:
            client = self.shop.operator() if user_id == "operator" else self.shop.client(user_id)
            self._clients[user_id] = self._exits.enter_context(client)
        return self._clients[user_id]

    def _revive(self) -> None:
        process = self.shop.process
        if process is not None and process.poll() is not None:
            self.deaths.append(process.returncode)
            self.shop.environment.pop("ORDERKEEP_FAILURE_POINT", None)
            self.shop.start()


async def _breaches(path: Path) -> list[str]:
    database = SqliteDatabase(path)
    try:
        return [finding.invariant for finding in await database.read(find_breaches)]
    finally:
        await database.close()
