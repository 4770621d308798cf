"""The bodies of every queue: what leaves is to the letter, what comes is read more widely."""

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from orderkeep.contracts import (
    cart_sync,
    order_events,
    order_timeout_dlq,
    order_timeout_queue,
    payment_opened_notify,
    payment_refund_request,
    payment_refund_result,
    payment_success_notify,
)
from orderkeep.contracts.order_events import OrderEvent, OrderEventItem, OrderEventType
from orderkeep.contracts.order_status import Status
from orderkeep.contracts.payment_refund_result import RefundOutcome
from orderkeep.contracts.refund_reason import RefundReason
from orderkeep.instant import Instant
from orderkeep.messaging.consumer import BadMessageError

TEN = Instant(1_704_103_200_000_000)
TEN_FIVE = Instant(1_704_103_500_000_000)
HALF_PAST_TEN = Instant(1_704_105_000_000_000)

ORDER_EVENT = OrderEvent(
    event_type=OrderEventType.PAID,
    order_no="0100000000000009",
    user_id="user123",
    status=Status.PAID,
    version=2,
    pay_amount_minor=10_000,
    currency="CNY",
    items=(
        OrderEventItem(
            sku_id="tea-1", title="茶", unit_price_minor=5_000, quantity=2, subtotal_minor=10_000
        ),
    ),
    created_at=TEN,
    expires_at=HALF_PAST_TEN,
    occurred_at=TEN_FIVE,
    paid_at=TEN_FIVE,
    trade_no="T1",
)

# For each queue: its module, a full body, and that body to the letter of the contract.
EXAMPLES: list[tuple[ModuleType, Any, str]] = [
    (
        order_timeout_queue,
        order_timeout_queue.TimeoutCheck(
            order_no="0100000000000009",
            user_id="user123",
            pay_amount_minor=10_000,
            created_at=TEN,
            expires_at=HALF_PAST_TEN,
        ),
        (
            '{"order_no":"0100000000000009","user_id":"user123","pay_amount":100.00,'
            '"created_at":"2024-01-01T10:00:00Z","expires_at":"2024-01-01T10:30:00Z"}'
        ),
    ),
    (
        cart_sync,
        cart_sync.CartItemRemoved(
            user_id="user123", item_id="c1", order_no="0100000000000009", occurred_at=TEN
        ),
        (
            '{"event_type":"cart.item.removed","user_id":"user123","item_id":"c1",'
            '"data":{"order_no":"0100000000000009"},"timestamp":"2024-01-01T10:00:00Z"}'
        ),
    ),
    (
        cart_sync,
        cart_sync.CartItemAdded(
            user_id="user123", sku_id="tea-1", quantity=2, item_id="c1", occurred_at=TEN
        ),
        (
            '{"event_type":"cart.item.added","user_id":"user123","item_id":"c1",'
            '"data":{"sku_id":"tea-1","quantity":2},"timestamp":"2024-01-01T10:00:00Z"}'
        ),
    ),
    (
        cart_sync,
        cart_sync.CartItemUpdated(user_id="user123", item_id="c1", quantity=3, occurred_at=TEN),
        (
            '{"event_type":"cart.item.updated","user_id":"user123","item_id":"c1",'
            '"data":{"quantity":3},"timestamp":"2024-01-01T10:00:00Z"}'
        ),
    ),
    (
        cart_sync,
        cart_sync.CartCleared(user_id="user123"),
        '{"event_type":"cart.cleared","user_id":"user123","data":{}}',
    ),
    (
        payment_success_notify,
        payment_success_notify.PaymentSucceeded(
            payment_no="P1",
            order_no="0100000000000009",
            user_id="user123",
            amount_minor=10_000,
            currency="CNY",
            trade_no="T1",
            paid_at=TEN_FIVE,
            pay_channel="alipay",
        ),
        (
            '{"payment_no":"P1","order_no":"0100000000000009","user_id":"user123","amount":100.00,'
            '"currency":"CNY","trade_no":"T1","paid_at":"2024-01-01T10:05:00Z","pay_channel":"alipay"}'
        ),
    ),
    (
        order_timeout_dlq,
        order_timeout_dlq.TimedOutOrder(
            order_no="0100000000000009",
            user_id="user123",
            pay_amount_minor=10_000,
            created_at=TEN,
            timeout_at=HALF_PAST_TEN,
        ),
        (
            '{"order_no":"0100000000000009","user_id":"user123","pay_amount":100.00,'
            '"created_at":"2024-01-01T10:00:00Z","timeout_at":"2024-01-01T10:30:00Z",'
            '"reason":"订单超时未支付","reason_code":"payment_timeout"}'
        ),
    ),
    (
        order_events,
        ORDER_EVENT,
        (
            '{"event_type":"order.paid","order_no":"0100000000000009","user_id":"user123",'
            '"status":"paid","version":2,"pay_amount":100.00,"currency":"CNY",'
            '"items":[{"sku_id":"tea-1","title":"茶","unit_price":50.00,"quantity":2,'
            '"subtotal":100.00}],"created_at":"2024-01-01T10:00:00Z",'
            '"expires_at":"2024-01-01T10:30:00Z","occurred_at":"2024-01-01T10:05:00Z",'
            '"paid_at":"2024-01-01T10:05:00Z","trade_no":"T1"}'
        ),
    ),
    (
        payment_refund_request,
        payment_refund_request.RefundRequest(
            refund_no="R1",
            order_no="0100000000000009",
            user_id="user123",
            payment_no="P1",
            trade_no="T1",
            pay_channel="alipay",
            amount_minor=10_005,
            currency="CNY",
            reason=RefundReason.LATE_PAYMENT,
            requested_at=TEN_FIVE,
        ),
        (
            '{"refund_no":"R1","order_no":"0100000000000009","user_id":"user123","payment_no":"P1",'
            '"trade_no":"T1","pay_channel":"alipay","amount":100.05,"currency":"CNY",'
            '"reason":"late_payment","requested_at":"2024-01-01T10:05:00Z"}'
        ),
    ),
    (
        payment_refund_result,
        payment_refund_result.RefundResult(
            refund_no="R1",
            order_no="0100000000000009",
            amount_minor=10_000,
            currency="CNY",
            status=RefundOutcome.FAILED,
            channel_refund_no="CR1",
            reason="account closed",
            finished_at=TEN_FIVE,
        ),
        (
            '{"refund_no":"R1","order_no":"0100000000000009","amount":100.00,"currency":"CNY",'
            '"status":"failed","channel_refund_no":"CR1","reason":"account closed",'
            '"finished_at":"2024-01-01T10:05:00Z"}'
        ),
    ),
    (
        payment_opened_notify,
        payment_opened_notify.PaymentOpened(
            payment_no="P1", order_no="0100000000000009", pay_channel="alipay", opened_at=TEN
        ),
        (
            '{"payment_no":"P1","order_no":"0100000000000009","pay_channel":"alipay",'
            '"opened_at":"2024-01-01T10:00:00Z"}'
        ),
    ),
]

# For each queue: the least that is needed, and what it is read as.
LEAST: list[tuple[ModuleType, str, Any]] = [
    (
        order_timeout_queue,
        '{"order_no": "7"}',
        order_timeout_queue.TimeoutCheck(order_no="7"),
    ),
    (
        cart_sync,
        '{"event_type": "cart.item.removed", "user_id": "u", "item_id": "c1"}',
        cart_sync.CartItemRemoved(user_id="u", item_id="c1"),
    ),
    (
        cart_sync,
        '{"event_type": "cart.item.added", "user_id": "u", "data": {"sku_id": "s", "quantity": 1}}',
        cart_sync.CartItemAdded(user_id="u", sku_id="s", quantity=1),
    ),
    (
        payment_success_notify,
        '{"order_no": "7", "trade_no": "T1"}',
        payment_success_notify.PaymentSucceeded(order_no="7", trade_no="T1"),
    ),
    (
        order_timeout_dlq,
        '{"order_no": "7"}',
        order_timeout_dlq.TimedOutOrder(
            order_no="7", reason="订单超时未支付", reason_code="payment_timeout"
        ),
    ),
    (
        payment_refund_request,
        '{"refund_no": "R1", "order_no": "7", "trade_no": "T1", "amount": 1, "currency": "CNY"}',
        payment_refund_request.RefundRequest(
            refund_no="R1",
            order_no="7",
            trade_no="T1",
            amount_minor=100,
            currency="CNY",
            reason="operator",
        ),
    ),
    (
        payment_refund_result,
        '{"refund_no": "R1", "order_no": "7", "status": "succeeded"}',
        payment_refund_result.RefundResult(
            refund_no="R1", order_no="7", status=RefundOutcome.SUCCEEDED
        ),
    ),
    (
        payment_opened_notify,
        '{"payment_no": "P1", "order_no": "7"}',
        payment_opened_notify.PaymentOpened(payment_no="P1", order_no="7"),
    ),
]


def names(cases: list[tuple[ModuleType, Any, Any]]) -> list[str]:
    return [
        f"{index}-{module.__name__.rpartition('.')[2]}"
        for index, (module, _, _) in enumerate(cases)
    ]


def payment(**members: object) -> bytes:
    return json.dumps({"order_no": "0100000000000009", "trade_no": "T1", **members}).encode()


@pytest.mark.parametrize(("module", "body", "text"), EXAMPLES, ids=names(EXAMPLES))
def test_what_leaves_is_the_contract_to_the_letter(
    module: ModuleType, body: object, text: str
) -> None:
    assert module.encode(body).decode() == text


@pytest.mark.parametrize(("module", "body", "text"), EXAMPLES, ids=names(EXAMPLES))
def test_what_leaves_is_read_as_what_it_was(module: ModuleType, body: object, text: str) -> None:
    assert module.decode(text.encode()) == body


@pytest.mark.parametrize(("module", "text", "body"), LEAST, ids=names(LEAST))
def test_a_body_with_the_least_that_is_needed_is_read(
    module: ModuleType, text: str, body: object
) -> None:
    assert module.decode(text.encode()) == body
    assert module.decode(module.encode(body)) == body


@pytest.mark.parametrize(("module", "text", "body"), LEAST, ids=names(LEAST))
def test_null_empty_text_and_unknown_members_change_nothing(
    module: ModuleType, text: str, body: object
) -> None:
    members = json.loads(text)
    every_other = {
        "user_id": None,
        "item_id": "",
        "payment_no": "",
        "pay_amount": None,
        "amount": "",
        "currency": "",
        "created_at": "",
        "expires_at": None,
        "timeout_at": "",
        "timestamp": "",
        "paid_at": "",
        "opened_at": "",
        "requested_at": None,
        "finished_at": "",
        "pay_channel": "",
        "channel": None,
        "channel_refund_no": "",
        "reason": "",
        "reason_code": None,
        "data": None,
        "shop": {"of": ["someone", 1.5]},
    }

    assert module.decode(json.dumps({**every_other, **members}).encode()) == body


@pytest.mark.parametrize(
    ("module", "text", "needed"),
    [
        (module, text, name)
        for module, text, _ in LEAST
        for name in json.loads(text)
        if name != "data"
    ],
)
def test_without_what_is_needed_a_body_is_bad(module: ModuleType, text: str, needed: str) -> None:
    members = json.loads(text)
    del members[needed]

    with pytest.raises(BadMessageError) as bad:
        module.decode(json.dumps(members).encode())

    assert bad.value.reason == "invalid_body"
    assert bad.value.detail == f"/{needed}: is missing"


@pytest.mark.parametrize(
    "amount",
    [100, 100.0, "100", "100.00", "100.000"],
    ids=["int", "float", "text", "cents", "long"],
)
def test_a_foreign_amount_may_be_a_number_or_a_decimal_string(amount: object) -> None:
    assert payment_success_notify.decode(payment(amount=amount)).amount_minor == 10_000


def test_a_foreign_time_may_have_any_offset() -> None:
    read = payment_success_notify.decode(payment(paid_at="2024-01-01T18:05:00.0+08:00"))

    assert read.paid_at == TEN_FIVE


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (payment_success_notify, '{"order_no": "7", "trade_no": "T1"}'),
        (payment_opened_notify, '{"order_no": "7", "payment_no": "P1"}'),
        (
            payment_refund_request,
            (
                '{"order_no": "7", "trade_no": "T1", "refund_no": "R1", "amount": 1,'
                ' "currency": "CNY"}'
            ),
        ),
    ],
    ids=["success", "opened", "refund"],
)
def test_channel_is_read_as_pay_channel_which_goes_before_it(module: ModuleType, text: str) -> None:
    members = json.loads(text)

    alone = module.decode(json.dumps({**members, "channel": "alipay"}).encode())
    second = module.decode(
        json.dumps({**members, "channel": "x", "pay_channel": "alipay"}).encode()
    )

    assert alone.pay_channel == "alipay"
    assert second.pay_channel == "alipay"


def test_an_order_number_is_never_refused_for_its_check_digit() -> None:
    read = payment_success_notify.decode(payment(order_no="0100000000000001"))

    assert read.order_no == "0100000000000001"


@pytest.mark.parametrize(
    ("members", "pointer"),
    [
        ({"order_no": 100000000000009}, "/order_no"),
        ({"order_no": "a" * 65}, "/order_no"),
        ({"order_no": "a\u0000"}, "/order_no"),
        ({"order_no": ["7"]}, "/order_no"),
        ({"trade_no": 1}, "/trade_no"),
        ({"trade_no": "a b"}, "/trade_no"),
        ({"trade_no": "a\ud800"}, "/trade_no"),
        ({"amount": -1}, "/amount"),
        ({"amount": "-0.01"}, "/amount"),
        ({"amount": 0.001}, "/amount"),
        ({"amount": True}, "/amount"),
        ({"amount": "one"}, "/amount"),
        ({"amount": 10_000_000_000}, "/amount"),
        ({"currency": "cny"}, "/currency"),
        ({"currency": 156}, "/currency"),
        ({"paid_at": "yesterday"}, "/paid_at"),
        ({"paid_at": 1704103500}, "/paid_at"),
        ({"paid_at": "2024-01-01 10:05"}, "/paid_at"),
        ({"user_id": {}}, "/user_id"),
        ({"payment_no": False}, "/payment_no"),
        ({"pay_channel": "a b"}, "/pay_channel"),
        ({"channel": 1}, "/channel"),
    ],
    ids=repr,
)
def test_what_is_there_and_wrong_makes_the_message_bad(
    members: dict[str, object], pointer: str
) -> None:
    with pytest.raises(BadMessageError) as bad:
        payment_success_notify.decode(payment(**members))

    assert bad.value.reason == "invalid_body"
    assert bad.value.detail.startswith(f"{pointer}: ")


@pytest.mark.parametrize(
    ("decode", "text"),
    [
        (cart_sync.decode, '{"event_type": "cart.exploded", "user_id": "u"}'),
        (order_events.decode, '{"event_type": "order.exploded", "order_no": "7"}'),
    ],
    ids=["cart", "order"],
)
def test_an_event_of_a_type_nobody_knows_is_named(
    decode: Callable[[bytes], object], text: str
) -> None:
    with pytest.raises(BadMessageError, match=r"exploded' is no event") as bad:
        decode(text.encode())

    assert bad.value.reason == "unknown_event_type"


@pytest.mark.parametrize(
    ("module", "text", "detail"),
    [
        (
            payment_refund_result,
            '{"refund_no": "R1", "order_no": "7", "status": "maybe"}',
            "/status: expected one of succeeded, failed",
        ),
        (
            payment_refund_result,
            '{"refund_no": "R1", "order_no": "7", "status": []}',
            "/status: expected one of succeeded, failed",
        ),
        (
            cart_sync,
            '{"event_type": "cart.item.updated", "user_id": "u", "item_id": "c", "data": {}}',
            "/data/quantity: is missing",
        ),
        (
            cart_sync,
            '{"event_type": "cart.item.added", "user_id": "u", "data": []}',
            "/data: expected an object",
        ),
    ],
    ids=["word", "list", "quantity", "data"],
)
def test_a_bad_member_is_named_with_what_was_expected(
    module: ModuleType, text: str, detail: str
) -> None:
    with pytest.raises(BadMessageError) as bad:
        module.decode(text.encode())

    assert bad.value.detail == detail


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (
            {"status": "shipped"},
            "/status: expected one of pending_payment, paid, cancelled, closed",
        ),
        ({"status": 1}, "/status: expected one of pending_payment, paid, cancelled, closed"),
        ({"version": None}, "/version: is missing"),
        ({"items": [{"sku_id": "a"}]}, "/items/0/title: is missing"),
        ({"occurred_at": "now"}, "/occurred_at: expected a time as in RFC 3339"),
    ],
    ids=repr,
)
def test_a_bad_order_event_is_named_with_what_was_expected(
    change: dict[str, object], detail: str
) -> None:
    members = {**json.loads(order_events.encode(ORDER_EVENT)), **change}

    with pytest.raises(BadMessageError) as bad:
        order_events.decode(json.dumps(members).encode())

    assert bad.value.detail.startswith(detail)


def test_without_a_message_id_a_payment_is_its_channel_and_trade_number() -> None:
    def key(**members: object) -> str | None:
        return payment_success_notify.business_key(
            payment_success_notify.decode(payment(**members))
        )

    assert key(pay_channel="alipay") == "alipay T1"
    assert key() == " T1"
    assert key(channel="alipay", amount=5, order_no="8") == "alipay T1"


def test_without_a_message_id_a_refund_is_its_number_and_an_opened_payment_is_its_own() -> None:
    by_module = {module: module.business_key(body) for module, body, _ in EXAMPLES}

    assert by_module == {
        order_timeout_queue: None,
        cart_sync: None,
        payment_success_notify: "alipay T1",
        order_timeout_dlq: None,
        order_events: None,
        payment_refund_request: "R1",
        payment_refund_result: "R1",
        payment_opened_notify: "P1",
    }
