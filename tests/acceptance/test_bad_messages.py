"""Bad input on every queue: set aside with its reason and its bytes, and the queue goes on."""

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.acceptance.books import rows
from tests.acceptance.buyer import Buyer, Json, collect
from tests.acceptance.running import RunningShop, start_shop

pytestmark = pytest.mark.slow

Body = dict[str, Any]

# What no queue can read, whatever it is for.
UNREADABLE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "malformed_json"),
    "broken JSON": (b'{"order_no": "01', "malformed_json"),
    "two documents": (b"{}{}", "malformed_json"),
    "NaN": (b'{"order_no": NaN}', "malformed_json"),
    "infinity": (b'{"order_no": -Infinity}', "malformed_json"),
    "a key twice": (b'{"order_no": "1", "order_no": "2"}', "malformed_json"),
    "65,536 deep": (b"[" * 65_536, "malformed_json"),
    "NUL": (b"\x00", "malformed_json"),
    "a NUL in a string": (b'{"order_no": "\x00"}', "malformed_json"),
    "no UTF-8": (b'{"order_no": "\xff\xfe\x80"}', "malformed_json"),
    "a surrogate in UTF-8": (b'{"order_no": "\xed\xa0\x80"}', "malformed_json"),
    "every byte": (bytes(range(256)), "malformed_json"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "malformed_json"),
    "a number that is too long": (b'{"order_no": ' + b"9" * 5_000 + b"}", "malformed_json"),
    "no object": (b'["order_no"]', "invalid_body"),
    "null": (b"null", "invalid_body"),
    "no members": (b"{}", "invalid_body"),
}

# What comes over a broker may be larger than a request.
TOO_LARGE_FOR_HTTP: dict[str, tuple[bytes, str]] = {
    "100,000 deep": (b'{"a":' * 100_000, "malformed_json"),
    "over a mebibyte": (b'{"order_no": "' + b"x" * 1_048_576 + b'"}', "invalid_body"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What a queue needs in a body, and which inbox shows what it took.

    Attributes:
        service: Whose inbox and dead letters.
        needed: Members it cannot do without.
        times: Members that are times, needed or not.
        amounts: Members that are amounts, needed or not.
        types: Whether it knows its messages by `event_type`.
    """

    service: str
    needed: tuple[str, ...]
    times: tuple[str, ...]
    amounts: tuple[str, ...] = ()
    types: bool = False


EVENT = Queue(
    service="order",
    needed=(
        "event_type",
        "order_no",
        "user_id",
        "status",
        "version",
        "pay_amount",
        "currency",
        "items",
        "created_at",
        "expires_at",
        "occurred_at",
    ),
    times=("created_at", "expires_at", "occurred_at", "paid_at"),
    amounts=("pay_amount",),
    types=True,
)

QUEUES = {
    "order.timeout.queue": Queue(
        service="order",
        needed=("order_no",),
        times=("created_at", "expires_at"),
        amounts=("pay_amount",),
    ),
    "cart-sync": Queue(
        service="cart", needed=("event_type", "user_id"), times=("timestamp",), types=True
    ),
    "payment.success.notify": Queue(
        service="order", needed=("order_no", "trade_no"), times=("paid_at",), amounts=("amount",)
    ),
    "order.timeout.dlq": Queue(
        service="order",
        needed=("order_no",),
        times=("created_at", "timeout_at"),
        amounts=("pay_amount",),
    ),
    "order.outbox": EVENT,
    "payment.order.events": Queue(
        service="payment",
        needed=EVENT.needed,
        times=EVENT.times,
        amounts=EVENT.amounts,
        types=True,
    ),
    "payment.refund.request": Queue(
        service="payment",
        needed=("refund_no", "order_no", "trade_no", "amount", "currency"),
        times=("requested_at",),
        amounts=("amount",),
    ),
    "payment.refund.result": Queue(
        service="order",
        needed=("refund_no", "order_no", "status"),
        times=("finished_at",),
        amounts=("amount",),
    ),
    "payment.opened.notify": Queue(
        service="order", needed=("payment_no", "order_no"), times=("opened_at",)
    ),
}


@dataclass(frozen=True, slots=True)
class Fixed:
    """What exists in the shop, for good messages to be about."""

    shop: RunningShop
    order: Json
    refund_no: str


@dataclass(frozen=True, slots=True)
class Bad:
    """A bad message and what is to be said of it."""

    what: str
    body: bytes
    reason: str
    pointer: str = ""


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fixed]:
    """A shop with an order that was paid twice: the second payment could not be refunded."""
    folder = tmp_path_factory.mktemp("shop")
    with start_shop(folder, outbox_poll_interval_s=0.2) as shop, Buyer(shop, "ann") as ann:
        shop.put_sku("tea", stock=10)
        order_no = ann.order({"tea": 1})["order_no"]
        with shop.operator() as operator:
            for trade_no in ("T-1", "T-2"):
                payment = {"order_no": order_no, "trade_no": trade_no, "amount": 10}
                answer = operator.post("/queues/payment.success.notify/messages", json=payment)
                assert answer.status_code == 202, answer.text

        def ended() -> list[str]:
            return [
                item["refund_no"]
                for item in ann.timeline(order_no)
                if item["kind"] == "refund" and item["status"] == "failed"
            ]

        refund_nos = shop.wait_until(ended, "the second payment could not be refunded")
        yield Fixed(shop, ann.see(order_no), refund_nos[0])


def good_body(queue: str, fixed: Fixed) -> Body:
    """Return a body that the queue's consumer takes."""
    order = fixed.order
    order_no = order["order_no"]
    event = {
        "event_type": "order.created",
        "order_no": order_no,
        "user_id": "ann",
        "status": "pending_payment",
        "version": 1,
        "pay_amount": 10.00,
        "currency": "CNY",
        "items": [
            {"sku_id": "tea", "title": "Tea", "unit_price": 10, "quantity": 1, "subtotal": 10}
        ],
        "created_at": order["created_at"],
        "expires_at": order["expires_at"],
        "occurred_at": order["created_at"],
    }
    bodies: dict[str, Body] = {
        "order.timeout.queue": {"order_no": order_no},
        "cart-sync": {
            "event_type": "cart.item.added",
            "user_id": "ann",
            "data": {"sku_id": "tea", "quantity": 1},
        },
        "payment.success.notify": {"order_no": order_no, "trade_no": "T-1", "amount": 10},
        "order.timeout.dlq": {"order_no": order_no},
        "order.outbox": event,
        "payment.order.events": event,
        "payment.refund.request": {
            "refund_no": "R-good",
            "order_no": order_no,
            "trade_no": "T-9",
            "amount": 1,
            "currency": "CNY",
        },
        "payment.refund.result": {
            "refund_no": fixed.refund_no,
            "order_no": order_no,
            "status": "failed",
        },
        "payment.opened.notify": {"payment_no": "P-good", "order_no": order_no},
    }
    return bodies[queue]


def bad_messages(queue: Queue, good: Body) -> list[Bad]:
    """Return everything that can be wrong with a body of the queue, each thing by itself."""
    bad = [Bad(what, body, reason) for what, (body, reason) in UNREADABLE.items()]

    def changed(what: str, name: str, value: object, reason: str = "invalid_body") -> None:
        body = json.dumps({**good, name: value}).encode()
        bad.append(Bad(f"{name} {what}", body, reason, pointer=f"/{name}"))

    for name in queue.needed:
        without = {key: value for key, value in good.items() if key != name}
        missing = json.dumps(without).encode()
        bad.append(Bad(f"{name} missing", missing, "invalid_body", pointer=f"/{name}"))
        changed("null", name, None)
        changed("empty", name, "")
        changed("of a wrong type", name, {"an": "object"})
    for name in queue.times:
        for text in ("yesterday", "2024-02-30T10:00:00Z", "2024-01-01T10:00:00", "2024-01-01"):
            changed(f"unreadable: {text}", name, text)
        changed("a number", name, 1_704_103_200)
    for name in queue.amounts:
        for value in (-1, -0.01, 1.001, "ten", 10**13, True):
            changed(f"wrong: {value}", name, value)
    if queue.types:
        changed("unknown", "event_type", "order.exploded", "unknown_event_type")
    return bad


def put_into_queue(shop: RunningShop, queue: str, *, message_id: str, body: bytes) -> None:
    """Put a message into a queue as a broker would that takes larger ones than HTTP does."""
    with closing(sqlite3.connect(shop.database_path, timeout=30)) as connection, connection:
        connection.execute(
            "insert into queue_messages (queue, message_id, type, body, headers, published_at,"
            " due_at, delivery_count) values (?, ?, '', ?, ?, 1, 1, 0)",
            [queue, message_id, body, b"{}"],
        )


def post(operator: httpx.Client, queue: str, *, message_id: str, body: bytes) -> httpx.Response:
    return operator.post(
        f"/queues/{queue}/messages", content=body, headers={"Message-Id": message_id}
    )


@pytest.mark.parametrize("queue", QUEUES)
def test_bad_messages_are_set_aside_exactly_as_they_came_and_the_queue_goes_on(
    fixed: Fixed, queue: str
) -> None:
    shop, needs = fixed.shop, QUEUES[queue]
    good = good_body(queue, fixed)
    sent = {f"{queue}:{number}": bad for number, bad in enumerate(bad_messages(needs, good))} | {
        f"{queue}:large:{number}": Bad(what, body, reason)
        for number, (what, (body, reason)) in enumerate(TOO_LARGE_FOR_HTTP.items())
    }
    good_id = f"{queue}:good"

    with shop.operator() as operator:
        for message_id, bad in sent.items():
            if ":large:" in message_id:
                put_into_queue(shop, queue, message_id=message_id, body=bad.body)
            else:
                taken = post(operator, queue, message_id=message_id, body=bad.body)
                assert (taken.status_code, taken.json()) == (202, {"message_id": message_id})
        behind = post(operator, queue, message_id=good_id, body=json.dumps(good).encode())
        assert behind.status_code == 202
        inbox = f"select 1 from {needs.service}_inbox where consumer = ? and message_id = ?"  # noqa: S608
        shop.wait_until(
            lambda: rows(shop.database_path, inbox, queue, good_id), "the good one is handled"
        )
        shop.wait_until(
            lambda: sent.keys() <= set(letter_ids(operator, queue)), "the bad ones are set aside"
        )
        letters = letter_ids(operator, queue)
        shown = {
            message_id: operator.get(f"/admin/dead-letters/{letters[message_id]}").json()
            for message_id in sent
        }

    for message_id, bad in sent.items():
        letter = shown[message_id]
        assert letter["reason"] == bad.reason, (bad.what, letter["detail"])
        assert letter["detail"].startswith(bad.pointer), (bad.what, letter["detail"])
        assert base64.b64decode(letter["body_base64"]) == bad.body, bad.what
        assert (letter["queue"], letter["state"], letter["tries"]) == (queue, "open", 1)
        assert letter["sender_message_id"] == message_id
    assert good_id not in letters


def letter_ids(operator: httpx.Client, queue: str) -> dict[str, str]:
    """Return the dead letters of a queue by message id."""
    return {
        letter["message_id"]: letter["id"]
        for letter in collect(operator, "/admin/dead-letters", queue=queue)
    }


def test_a_message_over_64_kib_is_refused_at_the_door(fixed: Fixed) -> None:
    with fixed.shop.operator() as operator:
        before = rows(fixed.shop.database_path, "select max(id) from cart_outbox")
        answer = post(operator, "cart-sync", message_id="deep", body=b"[" * 100_000)
        after = rows(fixed.shop.database_path, "select max(id) from cart_outbox")

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert after == before


def test_nobody_hands_in_messages_without_the_scope_or_to_a_queue_that_is_not_read_here(
    fixed: Fixed,
) -> None:
    with fixed.shop.client("ann") as ann, fixed.shop.operator() as operator:
        without_scope = post(ann, "cart-sync", message_id="m", body=b"{}")
        unknown = post(operator, "no-such-queue", message_id="m", body=b"{}")

    assert (without_scope.status_code, without_scope.json()["code"]) == (403, "insufficient_scope")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
