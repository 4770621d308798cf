"""Orders from the cart to their end, with two seconds to pay, on every set-up that there is."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import pytest

from tests.acceptance.buyer import Buyer, Json, collect
from tests.acceptance.running import RunningShop
from tests.acceptance.setups import SETUPS, opened
from tests.acceptance.webhook_receiver import SECRET, WebhookReceiver, listening

pytestmark = pytest.mark.slow

TIMEOUT_S = 2.0


@pytest.fixture(scope="module")
def receiver() -> Iterator[WebhookReceiver]:
    with listening() as receiver:
        yield receiver


@pytest.fixture(scope="module", params=SETUPS)
def shop(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    receiver: WebhookReceiver,
) -> Iterator[RunningShop]:
    """A shop that every test of this module uses; each sells SKUs of its own."""
    with opened(
        request.param,
        tmp_path_factory.mktemp("shop"),
        order_timeout_s=TIMEOUT_S,
        payment_extension_s=0,
        webhook_urls=receiver.url,
        webhook_secrets=SECRET,
    ) as shop:
        yield shop


@pytest.fixture
def ann(shop: RunningShop) -> Iterator[Buyer]:
    with Buyer(shop, "ann") as ann:
        yield ann


def stock_of(shop: RunningShop, sku_id: str) -> tuple[int, int, int]:
    """Return what is available, reserved and sold."""
    with shop.operator() as operator:
        sku = operator.get(f"/admin/skus/{sku_id}").json()
    return sku["available"], sku["reserved"], sku["sold"]


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def told(timeline: Sequence[Json]) -> list[str]:
    """Return the story in words: what happened, without messages and webhooks."""
    words = {
        "state": lambda item: f"{item.get('from_status', 'nothing')} -> {item['to_status']}",
        "payment_opened": lambda _item: "payment opened",
        "payment": lambda item: f"payment {item['outcome']}",
        "refund": lambda item: f"refund {item['status']}",
        "case": lambda item: f"case {item['case_kind']}",
    }
    return [words[item["kind"]](item) for item in timeline if item["kind"] in words]


def open_payment(shop: RunningShop, buyer: Buyer, order_no: str) -> Json:
    """Begin to pay, and wait until the order's story tells of it: the news travels by queue."""
    payment = buyer.open_payment(order_no)
    shop.wait_until(
        lambda: any(
            item.get("payment_no") == payment["payment_no"] for item in buyer.timeline(order_no)
        ),
        f"order {order_no} knows of payment {payment['payment_no']}",
    )
    return payment


def is_in_order(timeline: Sequence[Json]) -> bool:
    moments = [item["at"] for item in timeline]
    return moments == sorted(moments)


def messages_of(timeline: Sequence[Json]) -> list[str]:
    return [item["type"] for item in timeline if item["kind"] == "message"]


def report_of(shop: RunningShop) -> dict[str, Json]:
    """Return the abandoned-orders report by order."""
    with shop.operator() as operator:
        return {row["order_no"]: row for row in collect(operator, "/admin/timed-out-orders")}


def test_an_order_paid_in_time_empties_its_cart_lines_and_stays_paid(
    shop: RunningShop, ann: Buyer
) -> None:
    for sku_id in ("oolong", "sencha", "assam", "mate"):
        shop.put_sku(sku_id, stock=5, price="10.00")
    cart_item_ids = ann.fill_cart({"oolong": 1, "sencha": 2, "assam": 1, "mate": 1})
    ordered = {"oolong": 1, "sencha": 2, "assam": 1}

    order = ann.order(ordered, cart_item_ids=cart_item_ids)
    order_no = order["order_no"]
    payment = open_payment(shop, ann, order_no)
    ann.settle(payment["payment_no"])
    paid = ann.wait_for(order_no, "paid")
    later = ann.order({"mate": 1})
    ann.wait_for(later["order_no"], "closed")

    assert (order["status"], order["pay_amount"], order["version"]) == (
        "pending_payment",
        "40.00",
        1,
    )
    assert (payment["amount"], payment["currency"]) == ("40.00", "CNY")
    assert seconds_between(order["created_at"], paid["paid_at"]) < TIMEOUT_S
    # The order that came later has timed out, so this one's deadline has passed as well.
    assert ann.see(order_no) == paid
    assert (paid["version"], paid["pay_channel"]) == (2, "sandbox")
    assert ann.see_payment(payment["payment_no"])["trade_no"] == paid["trade_no"]
    shop.wait_until(
        lambda: ann.cart_item_ids() == [cart_item_ids["mate"]], "the ordered lines left the cart"
    )
    assert [stock_of(shop, sku_id) for sku_id in ordered] == [(4, 0, 1), (3, 0, 2), (4, 0, 1)]
    timeline = ann.timeline(order_no)
    assert is_in_order(timeline)
    assert told(timeline) == [
        "nothing -> pending_payment",
        "payment opened",
        "pending_payment -> paid",
        "payment accepted",
    ]
    assert messages_of(timeline) == [
        "order.timeout.check",
        "cart.item.removed",
        "cart.item.removed",
        "cart.item.removed",
        "order.created",
        "order.paid",
    ]
    assert order_no not in report_of(shop)


def test_an_unpaid_order_is_closed_at_its_deadline_and_gives_its_stock_back(
    shop: RunningShop, ann: Buyer
) -> None:
    shop.put_sku("cup", stock=5, price="7.50")

    order = ann.order({"cup": 3})
    held = stock_of(shop, "cup")
    closed = ann.wait_for(order["order_no"], "closed")
    report = shop.wait_until(
        lambda: report_of(shop).get(order["order_no"]), "the order is in the report"
    )

    assert held == (2, 3, 0)
    assert seconds_between(order["created_at"], order["expires_at"]) == TIMEOUT_S
    assert TIMEOUT_S <= seconds_between(closed["created_at"], closed["closed_at"]) < 3.0
    assert (closed["close_reason"], closed["version"]) == ("payment_timeout", 2)
    assert stock_of(shop, "cup") == (5, 0, 0)
    assert (report["user_id"], report["pay_amount"], report["reason_code"]) == (
        "ann",
        "22.50",
        "payment_timeout",
    )
    assert report["timed_out_at"] == closed["closed_at"]
    timeline = ann.timeline(order["order_no"])
    assert is_in_order(timeline)
    assert told(timeline) == ["nothing -> pending_payment", "pending_payment -> closed"]
    assert messages_of(timeline) == [
        "order.timeout.check",
        "order.created",
        "order.timeout",
        "order.closed",
    ]


def test_a_payment_of_a_closed_order_goes_back(shop: RunningShop, ann: Buyer) -> None:
    shop.put_sku("bowl", stock=1, price="30.00")
    order = ann.order({"bowl": 1})
    payment_no = open_payment(shop, ann, order["order_no"])["payment_no"]
    ann.wait_for(order["order_no"], "closed")

    ann.settle(payment_no)
    refunds = shop.wait_until(
        lambda: [
            refund
            for refund in ann.see_payment(payment_no)["refunds"]
            if refund["status"] == "succeeded"
        ],
        "the payment is refunded",
    )
    shop.wait_until(
        lambda: "refund succeeded" in told(ann.timeline(order["order_no"])), "the order knows"
    )

    assert ann.see(order["order_no"])["status"] == "closed"
    assert stock_of(shop, "bowl") == (1, 0, 0)
    assert ann.see_payment(payment_no)["status"] == "succeeded"
    assert [(refund["amount"], refund["reason"]) for refund in refunds] == [
        ("30.00", "late_payment")
    ]
    timeline = ann.timeline(order["order_no"])
    assert is_in_order(timeline)
    assert told(timeline) == [
        "nothing -> pending_payment",
        "payment opened",
        "pending_payment -> closed",
        "payment refund",
        "refund requested",
        "refund succeeded",
    ]


def test_a_cancelled_order_gives_its_stock_back_and_takes_no_money(
    shop: RunningShop, ann: Buyer
) -> None:
    shop.put_sku("fan", stock=2, price="12.00")
    order = ann.order({"fan": 2})
    order_no = order["order_no"]
    payment_no = open_payment(shop, ann, order_no)["payment_no"]

    cancelled = ann.cancel(order_no)
    again = ann.cancel(order_no)
    shop.wait_until(
        lambda: ann.see_payment(payment_no)["status"] == "closed", "the payment is closed"
    )
    ann.settle(payment_no)
    shop.wait_until(lambda: "refund succeeded" in told(ann.timeline(order_no)), "it is refunded")

    assert (cancelled["status"], cancelled["close_reason"]) == ("cancelled", "buyer")
    assert again == cancelled
    assert ann.see(order_no) == cancelled
    assert stock_of(shop, "fan") == (2, 0, 0)
    timeline = ann.timeline(order_no)
    assert is_in_order(timeline)
    assert told(timeline) == [
        "nothing -> pending_payment",
        "payment opened",
        "pending_payment -> cancelled",
        "payment refund",
        "refund requested",
        "refund succeeded",
    ]
    assert order_no not in report_of(shop)


def test_a_payment_that_failed_leaves_the_order_open_for_another(
    shop: RunningShop, ann: Buyer
) -> None:
    shop.put_sku("pen", stock=1, price="5.00")
    order_no = ann.order({"pen": 1})["order_no"]
    failed_no = open_payment(shop, ann, order_no)["payment_no"]

    ann.settle(failed_no, result="failed")
    second_no = open_payment(shop, ann, order_no)["payment_no"]
    ann.settle(second_no)
    ann.wait_for(order_no, "paid")

    assert second_no != failed_no
    assert ann.see_payment(failed_no)["status"] == "failed"
    assert told(ann.timeline(order_no)) == [
        "nothing -> pending_payment",
        "payment opened",
        "payment opened",
        "pending_payment -> paid",
        "payment accepted",
    ]


def test_receivers_hear_of_each_order_in_order_and_signed(
    shop: RunningShop, ann: Buyer, receiver: WebhookReceiver
) -> None:
    shop.put_sku("ink", stock=9, price="2.00")
    paid_no, cancelled_no, closed_no = (ann.order({"ink": 1})["order_no"] for _ in range(3))
    ann.settle(ann.open_payment(paid_no)["payment_no"])
    ann.cancel(cancelled_no)
    expected = {
        paid_no: ["order.created", "order.paid"],
        cancelled_no: ["order.created", "order.cancelled"],
        closed_no: ["order.created", "order.closed"],
    }

    shop.wait_until(
        lambda: all(len(receiver.of_order(order_no)) == 2 for order_no in expected),
        "the receiver has heard of every order",
    )

    assert receiver.forged_count == 0
    for order_no, types in expected.items():
        events = receiver.of_order(order_no)
        assert [event.type for event in events] == types
        assert [event.document["data"]["version"] for event in events] == [1, 2]
        assert [event.document["data"]["status"] for event in events] == [
            "pending_payment",
            types[1].removeprefix("order."),
        ]
        sent_ids = [
            item["message_id"]
            for item in ann.timeline(order_no)
            if item["kind"] == "message" and item["route"] == "order.events"
        ]
        assert [event.message_id for event in events] == sent_ids
