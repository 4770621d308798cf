"""What a foreign program receives from orders, field by field, and what it may send to it."""

import base64
import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from tests.acceptance.buyer import Buyer, Json, collect
from tests.acceptance.fleet import Fleet
from tests.acceptance.foreign_bytes import Value, properties
from tests.acceptance.foreign_programs import Arrived, Digits, ForeignProgram
from tests.acceptance.running import COMMAND_S_MAX, RunningShop, command_line, variables
from tests.acceptance.setups import Setup, servers_of

pytestmark = pytest.mark.slow

PAYMENTS = "payment.success.notify"
REFUND_RESULTS = "payment.refund.result"

# Nothing of ours reads these: a foreign program has each to itself.
READ_BY_OTHERS = (
    "cart-sync",
    "order.outbox",
    "order.timeout.dlq",
    "order.timeout.queue",
    "payment.order.events",
    "payment.refund.request",
)

# A queue of the foreign program's own, bound to the exchange `order.events`.
OF_THEIR_OWN = "their.own.queue"

SETUP = Setup(is_postgresql=True, delay_backend="hold-queue")

# Well-formed, and nobody's.
UNKNOWN_NO = "0100000000000009"


@dataclass(frozen=True, slots=True)
class Sent:
    """What an order's timeline says about a message."""

    at: str
    message_id: str
    type: str
    route: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One order, as its buyer sees it at the end."""

    order: Json
    timeline: Sequence[Json]

    @property
    def order_no(self) -> str:
        return self.order["order_no"]

    @property
    def sent(self) -> list[Sent]:
        return [
            Sent(item["at"], item["message_id"], item["type"], item["route"])
            for item in self.timeline
            if item["kind"] == "message"
        ]

    @property
    def refund_no(self) -> str:
        (refund_no,) = {item["refund_no"] for item in self.timeline if item["kind"] == "refund"}
        return refund_no


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Three orders that have come to their end, and everything that was sent for them."""

    shop: RunningShop
    program: ForeignProgram
    paid: Told
    cancelled: Told
    closed: Told

    def of(self, queue: str, told: Told) -> list[Arrived]:
        """Return what a queue received about an order."""
        return [each for each in self.program.arrived[queue] if order_no_of(each) == told.order_no]


def order_no_of(arrived: Arrived) -> str:
    members = arrived.members
    return members["order_no"] if "order_no" in members else members["data"]["order_no"]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A shop whose messages go to a foreign program, but for those that only the program sends."""
    folder = tmp_path_factory.mktemp("shop")
    with (
        servers_of(SETUP) as servers,
        Fleet(
            folder,
            servers
            | variables(
                services="orders",
                order_timeout_s=3,
                sweep_interval_s=0.2,
                sweep_grace_s=0,
                retry_base_s=0.2,
                retry_max_s=0.2,
            ),
        ) as fleet,
        ForeignProgram(servers["ORDERKEEP_BROKER_URL"]) as program,
    ):
        shop = fleet.start_serve()
        fleet.start_work("--only", f"dispatchers,sweep,{PAYMENTS},{REFUND_RESULTS}")
        shop.wait_until(lambda: program.finds(*READ_BY_OTHERS), "the queues are there")
        program.declare(OF_THEIR_OWN)
        program.bind(OF_THEIR_OWN, exchange="order.events", routing_key="#")
        program.give_back_first(OF_THEIR_OWN)
        for queue in READ_BY_OTHERS:
            program.consume(queue)
        with Buyer(shop, "ann") as ann:
            yield tell(shop, program, ann)


def tell(shop: RunningShop, program: ForeignProgram, ann: Buyer) -> Story:
    """Let three orders come to their three ends, and two payments go back."""
    shop.put_sku("tea", stock=10_000, price="50.00")
    shop.put_sku("cup", stock=10_000, price="0.50")
    payment: Json = {"pay_channel": "bank", "payment_no": "P1", "amount": 100.50}
    paid_no = ann.order({"tea": 2, "cup": 1}, cart_item_ids={"tea": "c1", "cup": "c2"})["order_no"]
    program.send(PAYMENTS, {**payment, "order_no": paid_no, "trade_no": "T/1"})
    cancelled_no = ann.order({"cup": 3})["order_no"]
    ann.cancel(cancelled_no)
    closed_no = ann.order({"tea": 1})["order_no"]
    ann.wait_for(paid_no, "paid")
    program.send(PAYMENTS, {**payment, "order_no": paid_no, "trade_no": "T/2"})
    ann.wait_for(closed_no, "closed")
    program.send(PAYMENTS, {"order_no": closed_no, "trade_no": "T/3", "amount": 50})

    def told(order_no: str) -> Told:
        return Told(order=ann.see(order_no), timeline=ann.timeline(order_no))

    def everything_arrived() -> bool:
        arrived = program.arrived
        return (
            len(arrived["payment.refund.request"]) == 2
            and len(arrived["order.timeout.queue"]) == 3
            and len(arrived["payment.order.events"]) == len(arrived["order.outbox"]) == 6
            and len(arrived[OF_THEIR_OWN]) == 12
            and len(arrived["order.timeout.dlq"]) == 1
            and len(arrived["cart-sync"]) == 2
        )

    shop.wait_until(everything_arrived, "the foreign program has everything")
    return Story(
        shop=shop,
        program=program,
        paid=told(paid_no),
        cancelled=told(cancelled_no),
        closed=told(closed_no),
    )


@pytest.fixture
def ann(story: Story) -> Iterator[Buyer]:
    with Buyer(story.shop, "ann") as ann:
        yield ann


def assert_is(
    arrived: Arrived, sent: Sent, *, told: Told, sequence: int, body: dict[str, Any]
) -> None:
    """Compare one message with the contract: every property, every header, every member."""
    assert arrived.members == body
    assert arrived.content_type == "application/json"
    assert arrived.delivery_mode == 2
    assert arrived.message_id == sent.message_id == str(UUID(sent.message_id))
    assert arrived.type == sent.type
    written_at = datetime.fromisoformat(sent.at).replace(microsecond=0)
    assert arrived.timestamp is not None
    assert arrived.timestamp.astimezone(UTC) == written_at
    assert arrived.headers == {
        "x-schema-version": 1,
        "x-aggregate-id": told.order_no,
        "x-sequence": sequence,
    }
    assert arrived.other_properties == {}


TEA = {"sku_id": "tea", "title": "The tea", "unit_price": Digits("50.00")}
CUP = {"sku_id": "cup", "title": "The cup", "unit_price": Digits("0.50")}


def event_body(event_type: str, told: Told, **members: object) -> dict[str, Any]:
    return {
        "event_type": event_type,
        "order_no": told.order_no,
        "user_id": "ann",
        "currency": "CNY",
        "created_at": told.order["created_at"],
        "expires_at": told.order["expires_at"],
        **members,
    }


def created_body(told: Told, **owed: object) -> dict[str, Any]:
    return event_body(
        "order.created",
        told,
        status="pending_payment",
        version=1,
        occurred_at=told.order["created_at"],
        **owed,
    )


EVENT_QUEUES = pytest.mark.parametrize("queue", ["order.outbox", "payment.order.events"])


@EVENT_QUEUES
def test_the_events_of_a_paid_order_are_as_the_contract_has_them(story: Story, queue: str) -> None:
    paid = story.paid
    owed: Json = {
        "pay_amount": Digits("100.50"),
        "items": [
            {**TEA, "quantity": 2, "subtotal": Digits("100.00")},
            {**CUP, "quantity": 1, "subtotal": Digits("0.50")},
        ],
    }

    created, was_paid = story.of(queue, paid)

    assert_is(created, paid.sent[3], told=paid, sequence=4, body=created_body(paid, **owed))
    assert_is(
        was_paid,
        paid.sent[4],
        told=paid,
        sequence=5,
        body=event_body(
            "order.paid",
            paid,
            status="paid",
            version=2,
            occurred_at=paid.sent[4].at,
            paid_at=paid.order["paid_at"],
            trade_no="T/1",
            **owed,
        ),
    )
    assert [created.type, was_paid.type] == ["order.created", "order.paid"]
    assert [created.routing_key, was_paid.routing_key] == ["order.created", "order.paid"]


@EVENT_QUEUES
def test_the_events_of_a_cancelled_order_are_as_the_contract_has_them(
    story: Story, queue: str
) -> None:
    cancelled = story.cancelled
    owed: Json = {
        "pay_amount": Digits("1.50"),
        "items": [{**CUP, "quantity": 3, "subtotal": Digits("1.50")}],
    }

    created, was_cancelled = story.of(queue, cancelled)

    assert_is(
        created, cancelled.sent[1], told=cancelled, sequence=2, body=created_body(cancelled, **owed)
    )
    assert_is(
        was_cancelled,
        cancelled.sent[2],
        told=cancelled,
        sequence=3,
        body=event_body(
            "order.cancelled",
            cancelled,
            status="cancelled",
            version=2,
            occurred_at=cancelled.order["cancelled_at"],
            reason_code="buyer",
            **owed,
        ),
    )
    assert was_cancelled.type == was_cancelled.routing_key == "order.cancelled"


@EVENT_QUEUES
def test_the_events_of_a_closed_order_are_as_the_contract_has_them(
    story: Story, queue: str
) -> None:
    closed = story.closed
    owed: Json = {
        "pay_amount": Digits("50.00"),
        "items": [{**TEA, "quantity": 1, "subtotal": Digits("50.00")}],
    }

    created, was_closed = story.of(queue, closed)

    assert_is(created, closed.sent[1], told=closed, sequence=2, body=created_body(closed, **owed))
    assert_is(
        was_closed,
        closed.sent[3],
        told=closed,
        sequence=4,
        body=event_body(
            "order.closed",
            closed,
            status="closed",
            version=2,
            occurred_at=closed.order["closed_at"],
            reason_code="payment_timeout",
            **owed,
        ),
    )
    assert was_closed.type == was_closed.routing_key == "order.closed"


def test_each_cart_item_of_an_order_is_told_to_the_cart(story: Story) -> None:
    paid = story.paid

    messages = story.of("cart-sync", paid)

    assert len(messages) == 2
    for message, sent, sequence, item_id in zip(
        messages, paid.sent[1:3], (2, 3), ("c1", "c2"), strict=True
    ):
        assert_is(
            message,
            sent,
            told=paid,
            sequence=sequence,
            body={
                "event_type": "cart.item.removed",
                "user_id": "ann",
                "item_id": item_id,
                "data": {"order_no": paid.order_no},
                "timestamp": paid.order["created_at"],
            },
        )


def test_a_timeout_check_comes_at_the_deadline_whatever_became_of_its_order(story: Story) -> None:
    for told, owed in (
        (story.paid, "100.50"),
        (story.cancelled, "1.50"),
        (story.closed, "50.00"),
    ):
        (check,) = story.of("order.timeout.queue", told)

        # The broker adds what it knows of the hold queue.
        ours = {
            name: value
            for name, value in check.headers.items()
            if not name.startswith(("x-death", "x-first-death", "x-last-death"))
        }
        assert_is(
            Arrived(**{name: getattr(check, name) for name in check.__slots__} | {"headers": ours}),
            told.sent[0],
            told=told,
            sequence=1,
            body={
                "order_no": told.order_no,
                "user_id": "ann",
                "pay_amount": Digits(owed),
                "created_at": told.order["created_at"],
                "expires_at": told.order["expires_at"],
            },
        )
        assert told.sent[0].type == "order.timeout.check"


def test_a_timed_out_order_is_told_in_both_languages(story: Story) -> None:
    closed = story.closed

    (message,) = story.of("order.timeout.dlq", closed)

    assert_is(
        message,
        closed.sent[2],
        told=closed,
        sequence=3,
        body={
            "order_no": closed.order_no,
            "user_id": "ann",
            "pay_amount": Digits("50.00"),
            "created_at": closed.order["created_at"],
            "timeout_at": closed.order["closed_at"],
            "reason": "订单超时未支付",
            "reason_code": "payment_timeout",
        },
    )
    assert "订单超时未支付".encode() in message.body
    assert message.type == "order.timeout"


def test_refunds_are_asked_for_with_all_that_is_known_of_the_payment(story: Story) -> None:
    paid, closed = story.paid, story.closed

    (double,) = story.of("payment.refund.request", paid)
    (late,) = story.of("payment.refund.request", closed)

    assert_is(
        double,
        paid.sent[5],
        told=paid,
        sequence=6,
        body={
            "refund_no": paid.refund_no,
            "order_no": paid.order_no,
            "user_id": "ann",
            "payment_no": "P1",
            "trade_no": "T/2",
            "pay_channel": "bank",
            "amount": Digits("100.50"),
            "currency": "CNY",
            "reason": "double_payment",
            "requested_at": paid.sent[5].at,
        },
    )
    assert_is(
        late,
        closed.sent[4],
        told=closed,
        sequence=5,
        body={
            "refund_no": closed.refund_no,
            "order_no": closed.order_no,
            "user_id": "ann",
            "trade_no": "T/3",
            "amount": Digits("50.00"),
            "currency": "CNY",
            "reason": "late_payment",
            "requested_at": closed.sent[4].at,
        },
    )
    assert (double.type, late.type) == ("refund.requested", "refund.requested")


def test_times_are_rfc_3339_in_utc(story: Story) -> None:
    times = [
        value
        for queue in READ_BY_OTHERS
        for arrived in story.program.arrived[queue]
        for name, value in arrived.members.items()
        if name == "timestamp" or name.endswith("_at")
    ]

    assert len(times) >= 30
    assert all(text.endswith("Z") and "T" in text for text in times)
    assert all(datetime.fromisoformat(text).tzinfo is not None for text in times)


def test_a_message_that_is_given_back_comes_again_as_it_was(story: Story) -> None:
    for told in (story.paid, story.cancelled, story.closed):
        first, first_again, last, last_again = story.of(OF_THEIR_OWN, told)

        for original, again in ((first, first_again), (last, last_again)):
            assert (original.is_redelivered, again.is_redelivered) == (False, True)
            assert (again.message_id, again.body, again.type, again.timestamp) == (
                original.message_id,
                original.body,
                original.type,
                original.timestamp,
            )
            # How often it has tried is the broker's own.
            tries = {"x-delivery-count": 1}
            assert {**again.headers, **tries} == {**original.headers, **tries}
        assert [first.message_id, last.message_id] == [
            each.message_id for each in story.of("order.outbox", told)
        ]


# What stands in a payment besides order and trade number, as JSON, and what the order says of it.
IN_THEIR_OWN_WAY: dict[str, tuple[str, Json]] = {
    "a decimal string": ('"amount": "50.00"', {}),
    "a string without decimals": ('"amount": "50"', {}),
    "an integer": ('"amount": 50', {}),
    "one decimal": ('"amount": 50.0', {}),
    "many decimals": ('"amount": 50.0000', {}),
    "an exponent": ('"amount": 5e1', {}),
    "another name of the channel": ('"amount": 50, "channel": "wire"', {"pay_channel": "wire"}),
    "an empty channel beside it": (
        '"amount": 50, "pay_channel": "", "channel": "wire"',
        {"pay_channel": "wire"},
    ),
    "null and empty for what is not known": (
        '"amount": 50, "currency": "", "paid_at": null, "payment_no": "", "user_id": null',
        {},
    ),
    "a time to the east": (
        '"amount": 50, "paid_at": "2024-01-01T18:05:00+08:00"',
        {"paid_at": "2024-01-01T10:05:00Z"},
    ),
    "a time to the west, with a fraction": (
        '"amount": 50, "paid_at": "2024-01-01t04:35:00.25-05:30"',
        {"paid_at": "2024-01-01T10:05:00.250000Z"},
    ),
    "members that nobody here knows": (
        '"amount": 50, "batch": {"lines": [1, {"deep": null}]}, "version": "7", "status": true',
        {},
    ),
}


def test_payments_are_read_however_a_bank_writes_them(story: Story, ann: Buyer) -> None:
    order_nos = {}
    for number, (what, (members, _said)) in enumerate(IN_THEIR_OWN_WAY.items()):
        order_no = order_nos[what] = ann.order({"tea": 1})["order_no"]
        body = f'{{"order_no": "{order_no}", "trade_no": "W-{number}", {members}}}'
        story.program.send(PAYMENTS, body.encode())

    for what, (_members, said) in IN_THEIR_OWN_WAY.items():
        order = ann.wait_for(order_nos[what], "paid")
        assert {name: order[name] for name in said} == said, what


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """A message that cannot be handled.

    Attributes:
        headers_shown: As JSON shows them; bytes that are no UTF-8 stand in text as surrogates,
            each for its byte.
    """

    body: bytes
    reason: str
    queue: str = PAYMENTS
    message_id: bytes | None = None
    type: bytes | None = None
    headers: dict[bytes, Value] | None = None
    headers_shown: Json | None = None


# Deeper than anybody's headers, and than `x-death`.
NESTED: dict[bytes, Value] = {
    b"list": [None, True, 1.5, -7, [], {b"table": {b"in": [{b"a": b"table"}]}}],
    b"bytes": bytearray(b"\x00\xff"),
    b"text": b"gr\xc3\xb6\xc3\x9fer",
    b"big": 2**62,
}
NESTED_SHOWN = {
    "list": [None, True, 1.5, -7, [], {"table": {"in": [{"a": "table"}]}}],
    "bytes": "\x00\\xff",
    "text": "größer",
    "big": 2**62,
}

POISON: dict[str, Poison] = {
    "broken JSON": Poison(body=b'{"order_no": "01', reason="malformed_json"),
    "no UTF-8": Poison(body=b'{"order_no": "\xff\xfe\x80"}', reason="malformed_json"),
    "every byte": Poison(body=bytes(range(256)), reason="malformed_json"),
    "a member missing": Poison(body=b'{"order_no": "0100"}', reason="invalid_body"),
    "a wrong time": Poison(
        body=b'{"order_no": "0100", "trade_no": "x", "paid_at": "yesterday"}',
        reason="invalid_body",
    ),
    "a wrong amount": Poison(
        body=b'{"order_no": "0100", "trade_no": "x", "amount": 0.001}', reason="invalid_body"
    ),
    "a refund that nobody asked for": Poison(
        queue=REFUND_RESULTS,
        body=b'{"refund_no": "R?", "order_no": "0100", "status": "succeeded"}',
        reason="unknown_refund",
    ),
    "a message id that is no text": Poison(
        body=b"a", reason="malformed_json", message_id=b"\xff\x00id\x80"
    ),
    "a type that is no text": Poison(body=b"b", reason="malformed_json", type=b"\xfe\x00type"),
    "header text that is no text": Poison(
        body=b"c",
        reason="malformed_json",
        headers={b"\xfa\xfb": b"\xff\xfe", b"": b"\x00"},
        headers_shown={"\udcfa\udcfb": "\udcff\udcfe", "": "\x00"},
    ),
    "nested headers": Poison(
        body=b"d", reason="malformed_json", headers=NESTED, headers_shown=NESTED_SHOWN
    ),
    "headers in our own name": Poison(
        body=b"e",
        reason="malformed_json",
        headers={b"x-aggregate-id": [1], b"x-sequence": b"first", b"x-orderkeep-attempt": b"no"},
        headers_shown={
            "x-aggregate-id": [1],
            "x-sequence": "first",
            "x-orderkeep-attempt": "no",
        },
    ),
}


def test_poison_is_set_aside_as_it_came_and_the_queue_goes_on(story: Story, ann: Buyer) -> None:
    for poison in POISON.values():
        story.program.send(
            poison.queue,
            poison.body,
            properties=properties(
                headers=poison.headers, message_id=poison.message_id, type_=poison.type
            ),
        )
    order_no = ann.order({"tea": 1})["order_no"]
    story.program.send(PAYMENTS, {"order_no": order_no, "trade_no": "T-behind", "amount": 50})
    ann.wait_for(order_no, "paid")

    for what, poison in POISON.items():
        letter = wait_for_letter(story, poison.body)
        assert (letter["queue"], letter["reason"]) == (poison.queue, poison.reason), what
        assert letter["sender_message_id"] == shown(poison.message_id), what
        assert letter["type"] == (shown(poison.type) or ""), what
        assert letter["headers"] == (poison.headers_shown or {}), what
        assert (letter["state"], letter["tries"]) == ("open", 1), what


def test_the_command_line_shows_a_dead_letter_byte_for_byte(story: Story) -> None:
    body = b'\x00\xff{"order_no": \xc3\xb6}\r\n'
    story.program.send(
        PAYMENTS, body, properties=properties(headers=NESTED, message_id=b"\xff", type_=b"\xfe")
    )
    letter = wait_for_letter(story, body)

    whole = story.shop.command_json("dead-letters", "show", letter["id"])
    raw = subprocess.run(
        command_line("dead-letters", "show", letter["id"], "--raw"),
        env=story.shop.environment,
        capture_output=True,
        timeout=COMMAND_S_MAX,
        check=True,
    )

    assert raw.stdout == body
    assert whole == letter
    assert base64.b64decode(whole["body_base64"]) == body
    assert whole["headers"] == NESTED_SHOWN
    assert (whole["sender_message_id"], whole["type"]) == ("\\xff", "\\xfe")


def test_a_good_body_counts_whatever_stands_around_it(story: Story, ann: Buyer) -> None:
    order_no = ann.order({"tea": 1})["order_no"]

    story.program.send(
        PAYMENTS,
        {"order_no": order_no, "trade_no": "T-around", "amount": 50},
        properties=properties(
            headers={**NESTED, b"\xff": b"\xff"}, message_id=b"\xff\xfe", type_=b"\x80"
        ),
    )

    assert ann.wait_for(order_no, "paid")["trade_no"] == "T-around"


def test_nothing_that_others_send_breaks_a_guarantee(story: Story) -> None:
    verified = story.shop.command("verify")

    assert (verified.returncode, verified.stderr) == (0, ""), verified.stdout


def shown(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "backslashreplace")


def find_letter(story: Story, body: bytes) -> Json | None:
    """Return the open dead letter with the body, whole."""
    with story.shop.operator() as operator:
        for listed in collect(operator, "/admin/dead-letters"):
            letter = operator.get(f"/admin/dead-letters/{listed['id']}").json()
            if base64.b64decode(letter["body_base64"]) == body:
                return letter
    return None


def wait_for_letter(story: Story, body: bytes) -> Json:
    return story.shop.wait_until(lambda: find_letter(story, body), "it is set aside")


@pytest.fixture
def waiting_room(story: Story) -> str:
    """A queue of the foreign program whose messages expire at once, into that of payments."""
    story.program.declare(
        "their.waiting.room",
        arguments={
            "x-message-ttl": 1,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": PAYMENTS,
        },
    )
    return "their.waiting.room"


def test_a_next_try_leaves_out_what_the_broker_wrote_of_the_last_one(
    story: Story, waiting_room: str
) -> None:
    body = {"order_no": UNKNOWN_NO, "trade_no": "T-next", "channel": "bank", "amount": 50}
    story.program.send(waiting_room, body, properties=properties(headers={b"their": b"own"}))
    story.shop.wait_until(lambda: is_sent_again(story, "bank T-next"), "it is tried again")

    # It is tried again and again, until somebody else takes it.
    with taken_by_them(story, PAYMENTS):
        again = wait_for_arrival(story, PAYMENTS, json.dumps(body).encode())

    assert again.message_id == "bank T-next"
    assert again.headers["their"] == "own"
    assert again.headers["x-orderkeep-attempt"] >= 2
    assert [name for name in again.headers if "death" in name] == []


def test_a_replay_is_the_message_that_it_was_without_its_deaths(
    story: Story, waiting_room: str
) -> None:
    body = b'{"order_no": "replay"}'
    story.program.send(
        waiting_room,
        body,
        properties=properties(headers={b"their": b"own"}, message_id=b"their-id", type_=b"their.t"),
    )
    letter = wait_for_letter(story, body)

    with story.shop.operator() as operator, taken_by_them(story, PAYMENTS):
        replayed = operator.post("/admin/dead-letters/replay", json={"ids": [letter["id"]]})
        again = wait_for_arrival(story, PAYMENTS, body)

    (death,) = letter["headers"]["x-death"]
    assert (death["queue"], death["reason"]) == (waiting_room, "expired")
    assert replayed.json()["results"] == [{"id": letter["id"], "result": "replayed"}]
    assert (again.message_id, again.type) == ("their-id", "their.t")
    assert again.headers == {"their": "own"}


def is_sent_again(story: Story, message_id: str) -> bool:
    """Whether orders has had the message and sent it back to its queue, or is about to."""
    with story.shop.operator() as operator:
        return any(
            row["message_id"] == message_id
            for state in ("pending", "sent")
            for row in collect(operator, "/admin/outbox", state=state)
        )


@contextmanager
def taken_by_them(story: Story, queue: str) -> Iterator[None]:
    """Let the foreign program have what comes to a queue that orders reads."""
    end = story.program.consume(queue, priority=10)
    try:
        yield
    finally:
        end()


def wait_for_arrival(story: Story, queue: str, body: bytes) -> Arrived:
    return story.shop.wait_until(
        lambda: next((each for each in story.program.arrived[queue] if each.body == body), None),
        "it comes to the foreign program",
    )
