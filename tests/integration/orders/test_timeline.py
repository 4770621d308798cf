"""The timeline tells an order's whole story, in order, to its buyer and to operators."""

from datetime import datetime
from typing import Any

import pytest

from orderkeep.contracts.payment_opened_notify import PaymentOpened
from orderkeep.contracts.payment_refund_result import RefundOutcome, RefundResult
from orderkeep.instant import Instant, after
from orderkeep.messaging.signal import Signal
from orderkeep.orders.cancel_order import CancelOrder
from orderkeep.orders.consumers.order_outbox import order_outbox_consumer
from orderkeep.orders.consumers.payment_opened_notify import payment_opened_consumer
from orderkeep.orders.consumers.payment_refund_result import payment_refund_result_consumer
from orderkeep.orders.order import Cause, Order
from orderkeep.refusal import Refusal
from tests.integration.orders.shop import Shop, only, payment
from tests.integration.orders.test_order_outbox import events

HOOK = "https://floor.example/hooks?secret=1"


@pytest.fixture
async def order(shop: Shop) -> Order:
    """An unpaid order of Ann's: 2 teas, for 51.98 CNY."""
    await shop.fill(tea=10)
    order = await shop.order("ann", tea=2)
    await shop.tick()
    return order


async def _timeline(shop: Shop, order: Order, *, user_id: str | None = "ann") -> list[dict]:
    return [dict(item) for item in await shop.desk.timeline(order.order_no, user_id=user_id)]


def told(items: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return each item's kind, and what of it tells most."""
    names = {
        "state": "to_status",
        "message": "type",
        "payment": "outcome",
        "payment_opened": "payment_no",
        "case": "case_kind",
        "refund": "status",
        "webhook": "type",
    }
    return [(item["kind"], item[names[item["kind"]]]) for item in items]


def moments(items: list[dict[str, Any]]) -> list[datetime]:
    return [datetime.fromisoformat(item["at"]) for item in items]


async def _finish_refund(shop: Shop, order: Order, **members: Any) -> None:
    result = RefundResult(
        **{
            "refund_no": "R1",
            "order_no": order.order_no,
            "status": RefundOutcome.SUCCEEDED,
            "channel_refund_no": "CR1",
            **members,
        }
    )
    await shop.receive(payment_refund_result_consumer(), result)


async def test_the_story_of_a_paid_order(shop: Shop, order: Order) -> None:
    await shop.receive(
        payment_opened_consumer(outbox=shop.outbox, extension_s=0.0),
        PaymentOpened(payment_no="P-T1", order_no=order.order_no, pay_channel="alipay"),
    )
    await shop.tick()
    await shop.pay(payment(order))

    items = await _timeline(shop, order)

    assert told(items) == [
        ("state", "pending_payment"),
        ("message", "order.timeout.check"),
        ("message", "order.created"),
        ("payment_opened", "P-T1"),
        ("state", "paid"),
        ("payment", "accepted"),
        ("message", "order.paid"),
    ]
    created, _, _, opened, became_paid, paid, message = items
    assert {name: value for name, value in created.items() if name != "at"} == {
        "kind": "state",
        "version": 1,
        "to_status": "pending_payment",
        "cause": "buyer",
        "actor": "ann",
    }
    assert only(opened, "payment_no", "pay_channel") == {
        "payment_no": "P-T1",
        "pay_channel": "alipay",
    }
    assert only(paid, "trade_no", "pay_channel", "amount", "currency", "payment_no") == {
        "trade_no": "T1",
        "pay_channel": "alipay",
        "amount": "51.98",
        "currency": "CNY",
        "payment_no": "P-T1",
    }
    assert only(became_paid, "from_status", "to_status", "version", "cause", "actor") == {
        "from_status": "pending_payment",
        "to_status": "paid",
        "version": 2,
        "cause": "payment",
        "actor": "in-2",
    }
    assert only(message, "type", "route", "state") == {
        "type": "order.paid",
        "route": "order.events",
        "state": "pending",
    }
    assert moments(items) == sorted(moments(items))


async def test_the_story_of_a_cancelled_order(shop: Shop, order: Order) -> None:
    await shop.desk.cancel(
        CancelOrder(
            order_no=order.order_no, user_id="ann", by=Cause.BUYER, actor="ann", note="too late"
        )
    )

    items = await _timeline(shop, order)

    assert told(items)[3:] == [("state", "cancelled"), ("message", "order.cancelled")]
    assert only(items[3], "cause", "actor", "note") == {
        "cause": "buyer",
        "actor": "ann",
        "note": "too late",
    }


async def test_the_story_of_an_order_that_was_closed_and_paid_too_late(
    shop: Shop, order: Order
) -> None:
    await shop.expire(order)
    await shop.tick()
    await shop.pay(payment(order))
    await shop.tick()
    await _finish_refund(shop, order)

    items = await _timeline(shop, order)

    assert told(items)[3:] == [
        ("state", "closed"),
        ("message", "order.timeout"),
        ("message", "order.closed"),
        ("payment", "refund"),
        ("refund", "requested"),
        ("message", "refund.requested"),
        ("refund", "succeeded"),
    ]
    assert only(items[-1], "refund_no", "trade_no", "amount", "reason", "channel_refund_no") == {
        "refund_no": "R1",
        "trade_no": "T1",
        "amount": "51.98",
        "reason": "late_payment",
        "channel_refund_no": "CR1",
    }


async def test_the_story_of_a_refund_that_failed(shop: Shop, order: Order) -> None:
    await shop.cancel(order)
    await shop.tick()
    await shop.pay(payment(order))
    await shop.tick()
    await _finish_refund(
        shop, order, status=RefundOutcome.FAILED, reason="account closed", channel_refund_no=None
    )

    *_, failed = await _timeline(shop, order)

    assert only(failed, "kind", "status", "failure_reason") == {
        "kind": "refund",
        "status": "failed",
        "failure_reason": "account closed",
    }


async def test_the_story_of_a_payment_that_did_not_fit(shop: Shop, order: Order) -> None:
    await shop.pay(payment(order, amount_minor=1))

    items = await _timeline(shop, order, user_id=None)

    assert told(items)[3:] == [("payment", "case"), ("case", "amount_mismatch")]
    assert only(items[4], "state", "trade_no", "amount", "currency", "detail") == {
        "state": "open",
        "trade_no": "T1",
        "amount": "0.01",
        "currency": "CNY",
        "detail": f"order {order.order_no} owes 51.98 CNY, 0.01 was received",
    }


@pytest.mark.parametrize("early_s", [0.9, 3_600.0])
async def test_a_clock_of_another_program_that_is_behind_does_not_mix_the_story_up(
    shop: Shop, order: Order, early_s: float
) -> None:
    before_the_order: Instant = after(order.created_at, seconds=-early_s)
    await shop.receive(
        payment_opened_consumer(outbox=shop.outbox, extension_s=0.0),
        PaymentOpened(payment_no="P-T1", order_no=order.order_no, opened_at=before_the_order),
    )
    await shop.tick()
    await shop.cancel(order)
    await shop.tick()
    await shop.pay(payment(order, paid_at=before_the_order))
    await shop.tick()
    await _finish_refund(shop, order, finished_at=before_the_order)

    items = await _timeline(shop, order)

    assert told(items)[2:] == [
        ("message", "order.created"),
        ("payment_opened", "P-T1"),
        ("state", "cancelled"),
        ("message", "order.cancelled"),
        ("payment", "refund"),
        ("refund", "requested"),
        ("message", "refund.requested"),
        ("refund", "succeeded"),
    ]
    assert moments(items) == sorted(moments(items))


async def test_messages_tell_when_they_left_or_why_they_did_not(shop: Shop, order: Order) -> None:
    shop.write("UPDATE order_outbox SET state = 'sent', sent_at = created_at WHERE sequence = 1")
    shop.write("UPDATE order_outbox SET state = 'failed', last_error = 'no' WHERE sequence = 2")

    _, check, created = await _timeline(shop, order, user_id=None)

    assert (check["state"], check["sent_at"]) == ("sent", check["at"])
    assert "deliver_at" in check
    assert (created["state"], created["last_error"]) == ("failed", "no")


async def test_operators_see_webhooks_and_errors_and_buyers_do_not(
    shop: Shop, order: Order
) -> None:
    await shop.receive(order_outbox_consumer(receivers=[HOOK], recorded=Signal()), *events(shop))
    shop.write("UPDATE webhook_deliveries SET attempts = 1, last_error = 'HTTP 500'")
    shop.write("UPDATE order_outbox SET last_error = 'broker at 10.0.0.1 said no'")

    to_operators = await _timeline(shop, order, user_id=None)
    to_ann = await _timeline(shop, order)

    assert only(to_operators[-1], "kind", "receiver", "state", "attempts", "last_error") == {
        "kind": "webhook",
        "receiver": HOOK,
        "state": "pending",
        "attempts": 1,
        "last_error": "HTTP 500",
    }
    assert told(to_ann) == told(to_operators)[:-1]
    assert "last_error" in to_operators[1]
    assert all("last_error" not in item for item in to_ann)


async def test_a_buyer_is_not_told_of_another_buyers_order(shop: Shop, order: Order) -> None:
    other = await shop.order("bob", tea=1)
    await shop.pay(payment(other))
    await shop.pay(payment(order))

    items = await _timeline(shop, order)

    assert told(items)[3:] == [("case", "trade_no_conflict")]
    assert other.order_no not in str(items)


async def test_another_users_order_has_no_story(shop: Shop, order: Order) -> None:
    with pytest.raises(Refusal, match="not_found"):
        await shop.desk.timeline(order.order_no, user_id="bob")


async def test_an_order_that_is_not_there_has_no_story(shop: Shop) -> None:
    with pytest.raises(Refusal, match="not_found"):
        await shop.desk.timeline("0100000000000009", user_id=None)
