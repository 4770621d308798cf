"""The payment table, row by row: what each report of a payment does, and leaves on record."""

from typing import Any

import pytest

from orderkeep.contracts import payment_success_notify
from orderkeep.instant import Instant
from orderkeep.messaging.consumer import HANDLED, BadMessageError, TryLater
from orderkeep.orders.consumers.payment_success_notify import payment_success_consumer
from orderkeep.orders.order import Order
from orderkeep.orders.payment import LatePaymentPolicy
from tests.integration.orders.shop import LONG_AGO, Shop, only, payment

# 2024-01-01T10:05:00Z.
FIVE_PAST_TEN = Instant(1_704_103_500_000_000)

UNKNOWN_ORDER_NO = "0100000000000009"


@pytest.fixture
async def order(shop: Shop) -> Order:
    """An unpaid order of Ann's: 2 teas of 10, for 51.98 CNY."""
    await shop.fill(tea=10)
    return await shop.order("ann", tea=2)


def payments(shop: Shop) -> list[tuple[Any, ...]]:
    """Return what is on record: channel, trade number, order, amount, currency, outcome."""
    rows = shop.rows("SELECT * FROM order_payments ORDER BY received_at, trade_no")
    names = ("pay_channel", "trade_no", "order_no", "amount_minor", "currency", "outcome")
    return [tuple(row[name] for name in names) for row in rows]


def cases(shop: Shop) -> list[tuple[Any, ...]]:
    """Return the cases: kind, state, order, trade number, amount, currency."""
    rows = shop.rows("SELECT * FROM payment_cases ORDER BY id")
    names = ("kind", "state", "order_no", "trade_no", "amount_minor", "currency")
    return [tuple(row[name] for name in names) for row in rows]


def refunds(shop: Shop) -> list[tuple[Any, ...]]:
    """Return the refunds: number, order, trade number, amount, currency, reason, status."""
    rows = shop.rows("SELECT * FROM order_refunds ORDER BY refund_no")
    names = ("refund_no", "order_no", "trade_no", "amount_minor", "currency", "reason", "status")
    return [tuple(row[name] for name in names) for row in rows]


# Row: order pending, all fits.


async def test_a_payment_that_fits_pays_its_order(shop: Shop, order: Order) -> None:
    outcomes = await shop.pay(payment(order, paid_at=FIVE_PAST_TEN))

    order_no = order.order_no
    assert outcomes == [HANDLED]
    assert only(
        shop.order_row(order_no),
        "status",
        "version",
        "event_seq",
        "paid_at",
        "pay_channel",
        "trade_no",
    ) == {
        "status": "paid",
        "version": 2,
        "event_seq": 3,
        "paid_at": FIVE_PAST_TEN,
        "pay_channel": "alipay",
        "trade_no": "T1",
    }
    assert shop.history(order_no)[1:] == [(2, "pending_payment", "paid", "payment", "in-1")]
    assert shop.movements(order_no) == [("tea", "reserve", 2), ("tea", "sell", 2)]
    assert shop.stock_of("tea") == (8, 0, 2)
    assert payments(shop) == [("alipay", "T1", order_no, 5_198, "CNY", "accepted")]
    assert (cases(shop), refunds(shop)) == ([], [])
    assert shop.sent(order_no)[2:] == [(3, "order.paid")]
    assert only(shop.bodies("order.paid")[0], "paid_at", "trade_no", "version", "status") == {
        "paid_at": "2024-01-01T10:05:00Z",
        "trade_no": "T1",
        "version": 2,
        "status": "paid",
    }
    assert await shop.breaches() == []


async def test_a_payment_past_the_deadline_pays_while_nothing_has_closed_the_order(
    shop: Shop, order: Order
) -> None:
    shop.make_due(order, since_s=60.0)

    await shop.pay(payment(order))

    assert shop.order_row(order.order_no)["status"] == "paid"


async def test_a_payment_without_currency_is_in_that_of_the_order(shop: Shop, order: Order) -> None:
    await shop.pay(payment(order, currency=None))

    assert shop.order_row(order.order_no)["status"] == "paid"
    assert payments(shop) == [("alipay", "T1", order.order_no, 5_198, "CNY", "accepted")]
    assert await shop.breaches() == []


async def test_a_payment_without_channel_pays_and_leaves_the_order_without_one(
    shop: Shop, order: Order
) -> None:
    await shop.pay(payment(order, pay_channel=None))

    assert only(shop.order_row(order.order_no), "status", "pay_channel") == {
        "status": "paid",
        "pay_channel": None,
    }
    assert payments(shop) == [("", "T1", order.order_no, 5_198, "CNY", "accepted")]
    assert await shop.breaches() == []


# Row: `paid_at` missing is the time of receipt.


async def test_a_payment_without_a_time_was_made_when_it_was_received(
    shop: Shop, order: Order
) -> None:
    await shop.pay(payment(order, paid_at=None))

    record = shop.row("SELECT * FROM order_payments")
    assert record["paid_at"] == record["received_at"] >= order.created_at
    assert shop.order_row(order.order_no)["paid_at"] == record["received_at"]


@pytest.mark.parametrize("paid_at", [b"null", b'""'])
def test_a_time_that_is_null_or_empty_is_missing(paid_at: bytes) -> None:
    body = b'{"order_no": "0100000000000009", "trade_no": "T1", "paid_at": ' + paid_at + b"}"

    assert payment_success_notify.decode(body).paid_at is None


@pytest.mark.parametrize("paid_at", [b'"yesterday"', b'"2024-01-01T10:00:00"', b"0", b"1.5", b"{}"])
def test_a_time_that_cannot_be_read_is_bad_input_and_not_now(paid_at: bytes) -> None:
    body = b'{"order_no": "0100000000000009", "trade_no": "T1", "paid_at": ' + paid_at + b"}"

    with pytest.raises(BadMessageError, match="/paid_at"):
        payment_success_notify.decode(body)


# Row: the same payment again, same order and amount.


@pytest.mark.parametrize("less", [{}, {"amount_minor": None}, {"currency": None}, {"paid_at": 1}])
async def test_the_same_payment_again_has_no_effect(
    shop: Shop, order: Order, less: dict[str, Any]
) -> None:
    await shop.pay(payment(order))
    before = shop.dump()

    outcomes = await shop.pay(payment(order, **less))

    assert outcomes == [HANDLED]
    assert shop.dump() == before


async def test_the_same_payment_twice_in_one_batch_pays_once(shop: Shop, order: Order) -> None:
    outcomes = await shop.pay(payment(order), payment(order))

    assert outcomes == [HANDLED, HANDLED]
    assert shop.sent(order.order_no)[2:] == [(3, "order.paid")]
    assert (len(payments(shop)), refunds(shop), cases(shop)) == (1, [], [])
    assert await shop.breaches() == []


async def test_a_refunded_payment_reported_again_is_not_refunded_again(
    shop: Shop, order: Order
) -> None:
    await shop.cancel(order)
    await shop.pay(payment(order))
    before = shop.dump()

    await shop.pay(payment(order), payment(order))

    assert shop.dump() == before


# Row: the same payment, another order or amount.


async def test_the_same_payment_with_another_amount_is_a_case(shop: Shop, order: Order) -> None:
    await shop.pay(payment(order))

    outcomes = await shop.pay(payment(order, amount_minor=5_199))

    assert outcomes == [HANDLED]
    assert cases(shop) == [("trade_no_conflict", "open", order.order_no, "T1", 5_199, "CNY")]
    assert shop.row("SELECT detail FROM payment_cases")["detail"] == (
        f"trade T1 was reported first as 51.98 CNY for order {order.order_no},"
        f" then as 51.99 CNY for order {order.order_no}"
    )
    assert payments(shop) == [("alipay", "T1", order.order_no, 5_198, "CNY", "accepted")]
    assert refunds(shop) == []
    assert shop.sent(order.order_no)[2:] == [(3, "order.paid")]
    assert await shop.breaches() == []


async def test_the_same_payment_for_another_order_is_a_case_and_pays_nothing(
    shop: Shop, order: Order
) -> None:
    other = await shop.order("bob", tea=2)
    await shop.pay(payment(order))

    await shop.pay(payment(other))

    assert shop.order_row(other.order_no)["status"] == "pending_payment"
    assert cases(shop) == [("trade_no_conflict", "open", other.order_no, "T1", 5_198, "CNY")]
    assert len(payments(shop)) == 1
    assert await shop.breaches() == []


async def test_a_conflict_within_one_batch_is_a_case(shop: Shop, order: Order) -> None:
    other = await shop.order("bob", tea=2)

    await shop.pay(payment(order), payment(other), payment(order, amount_minor=1))

    assert [shop.order_row(one.order_no)["status"] for one in (order, other)] == [
        "paid",
        "pending_payment",
    ]
    assert [(case[0], case[2], case[4]) for case in cases(shop)] == [
        ("trade_no_conflict", other.order_no, 5_198),
        ("trade_no_conflict", order.order_no, 1),
    ]
    assert await shop.breaches() == []


async def test_the_same_trade_number_of_another_channel_is_another_payment(
    shop: Shop, order: Order
) -> None:
    await shop.pay(payment(order))

    await shop.pay(payment(order, pay_channel="wechat"))

    assert [row[0] for row in payments(shop)] == ["alipay", "wechat"]
    assert len(refunds(shop)) == 1


async def test_the_trade_that_paid_told_again_without_its_channel_is_a_case(
    shop: Shop, order: Order
) -> None:
    await shop.pay(payment(order))

    await shop.pay(payment(order, pay_channel=None))

    assert [case[0] for case in cases(shop)] == ["trade_no_conflict"]
    assert refunds(shop) == []
    assert await shop.breaches() == []


# Row: order unknown.


async def test_a_payment_of_an_unknown_order_is_tried_later_and_leaves_nothing(
    shop: Shop, order: Order
) -> None:
    before = shop.dump()

    outcomes = await shop.pay(payment(order, order_no=UNKNOWN_ORDER_NO))

    assert outcomes == [
        TryLater(reason="unknown_order", detail="order 0100000000000009 is not visible yet")
    ]
    assert shop.dump() == before


async def test_a_payment_whose_order_stays_unknown_becomes_a_case(shop: Shop, order: Order) -> None:
    outcomes = await shop.pay(payment(order, order_no=UNKNOWN_ORDER_NO), first_received_at=LONG_AGO)

    assert outcomes == [HANDLED]
    assert cases(shop) == [("unknown_order", "open", UNKNOWN_ORDER_NO, "T1", 5_198, "CNY")]
    assert payments(shop) == [("alipay", "T1", UNKNOWN_ORDER_NO, 5_198, "CNY", "case")]
    assert refunds(shop) == []
    assert await shop.breaches() == []


async def test_an_order_is_waited_for_as_long_as_the_setting_says(shop: Shop, order: Order) -> None:
    almost_an_hour_ago = Instant(order.created_at - 3_590_000_000)
    over_an_hour_ago = Instant(order.created_at - 3_600_000_000)
    report = payment(order, order_no=UNKNOWN_ORDER_NO)

    waiting = await shop.pay(report, first_received_at=almost_an_hour_ago)
    given_up = await shop.pay(report, first_received_at=over_an_hour_ago)

    assert isinstance(waiting[0], TryLater)
    assert given_up == [HANDLED]


async def test_a_payment_that_came_before_its_order_pays_it_when_tried_again(
    shop: Shop, order: Order
) -> None:
    (outcome,) = await shop.pay(payment(order, order_no=UNKNOWN_ORDER_NO))
    assert isinstance(outcome, TryLater)
    shop.write(
        "UPDATE order_lines SET order_no = :new WHERE order_no = :old",
        new=UNKNOWN_ORDER_NO,
        old=order.order_no,
    )
    for table in ("orders", "order_history", "order_requests"):
        shop.write(
            f"UPDATE {table} SET order_no = :new WHERE order_no = :old",  # noqa: S608 (a test's own names)
            new=UNKNOWN_ORDER_NO,
            old=order.order_no,
        )

    outcomes = await shop.pay(payment(order, order_no=UNKNOWN_ORDER_NO))

    assert outcomes == [HANDLED]
    assert shop.order_row(UNKNOWN_ORDER_NO)["status"] == "paid"


async def test_in_a_batch_an_unknown_order_holds_back_nobody(shop: Shop, order: Order) -> None:
    outcomes = await shop.pay(payment(order, "T0", order_no=UNKNOWN_ORDER_NO), payment(order, "T1"))

    assert [type(outcome).__name__ for outcome in outcomes] == ["TryLater", "Handled"]
    assert shop.order_row(order.order_no)["status"] == "paid"


# Row: order already paid by another payment.


async def test_a_second_payment_of_a_paid_order_is_recorded_and_goes_back(
    shop: Shop, order: Order
) -> None:
    await shop.pay(payment(order))

    outcomes = await shop.pay(payment(order, "T2", paid_at=FIVE_PAST_TEN))

    order_no = order.order_no
    assert outcomes == [HANDLED]
    assert payments(shop) == [
        ("alipay", "T1", order_no, 5_198, "CNY", "accepted"),
        ("alipay", "T2", order_no, 5_198, "CNY", "refund"),
    ]
    assert refunds(shop) == [("R1", order_no, "T2", 5_198, "CNY", "double_payment", "requested")]
    assert cases(shop) == []
    assert only(shop.order_row(order_no), "status", "version", "event_seq", "trade_no") == {
        "status": "paid",
        "version": 2,
        "event_seq": 4,
        "trade_no": "T1",
    }
    assert shop.sent(order_no)[2:] == [(3, "order.paid"), (4, "refund.requested")]
    (wanted,) = shop.bodies("refund.requested")
    requested_at = wanted.pop("requested_at")
    assert requested_at.endswith("Z")
    assert wanted == {
        "refund_no": "R1",
        "order_no": order_no,
        "user_id": "ann",
        "payment_no": "P-T2",
        "trade_no": "T2",
        "pay_channel": "alipay",
        "amount": 51.98,
        "currency": "CNY",
        "reason": "double_payment",
    }
    assert shop.stock_of("tea") == (8, 0, 2)
    assert await shop.breaches() == []


async def test_what_goes_back_is_what_was_received(shop: Shop, order: Order) -> None:
    await shop.pay(payment(order))

    await shop.pay(payment(order, "T2", amount_minor=1, currency="EUR"))

    assert refunds(shop) == [("R1", order.order_no, "T2", 1, "EUR", "double_payment", "requested")]
    assert await shop.breaches() == []


async def test_two_payments_of_one_order_in_one_batch_pay_once_and_refund_once(
    shop: Shop, order: Order
) -> None:
    outcomes = await shop.pay(payment(order, "T1"), payment(order, "T2"), payment(order, "T3"))

    assert outcomes == [HANDLED] * 3
    assert [(row[1], row[5]) for row in payments(shop)] == [
        ("T1", "accepted"),
        ("T2", "refund"),
        ("T3", "refund"),
    ]
    assert [row[2] for row in refunds(shop)] == ["T2", "T3"]
    assert shop.sent(order.order_no)[2:] == [
        (3, "order.paid"),
        (4, "refund.requested"),
        (5, "refund.requested"),
    ]
    assert shop.order_row(order.order_no)["event_seq"] == 5
    assert shop.stock_of("tea") == (8, 0, 2)
    assert await shop.breaches() == []


# Row: order cancelled.


async def test_a_payment_of_a_cancelled_order_is_recorded_and_goes_back(
    shop: Shop, order: Order
) -> None:
    await shop.cancel(order)

    outcomes = await shop.pay(payment(order))

    order_no = order.order_no
    assert outcomes == [HANDLED]
    assert payments(shop) == [("alipay", "T1", order_no, 5_198, "CNY", "refund")]
    assert refunds(shop) == [("R1", order_no, "T1", 5_198, "CNY", "late_payment", "requested")]
    assert cases(shop) == []
    assert only(shop.order_row(order_no), "status", "version", "event_seq") == {
        "status": "cancelled",
        "version": 2,
        "event_seq": 4,
    }
    assert shop.sent(order_no)[2:] == [(3, "order.cancelled"), (4, "refund.requested")]
    assert shop.stock_of("tea") == (10, 0, 0)
    assert await shop.breaches() == []


# Row: order closed, by each policy.


async def test_a_payment_of_a_closed_order_goes_back_by_the_policy_refund(
    shop: Shop, order: Order
) -> None:
    await shop.expire(order)

    outcomes = await shop.pay(payment(order), policy=LatePaymentPolicy.REFUND)

    order_no = order.order_no
    assert outcomes == [HANDLED]
    assert payments(shop) == [("alipay", "T1", order_no, 5_198, "CNY", "refund")]
    assert refunds(shop) == [("R1", order_no, "T1", 5_198, "CNY", "late_payment", "requested")]
    assert cases(shop) == []
    assert only(shop.order_row(order_no), "status", "version", "paid_at") == {
        "status": "closed",
        "version": 2,
        "paid_at": None,
    }
    assert shop.sent(order_no)[4:] == [(5, "refund.requested")]
    assert shop.stock_of("tea") == (10, 0, 0)
    assert await shop.breaches() == []


async def test_a_payment_of_a_closed_order_is_a_case_by_the_policy_manual(
    shop: Shop, order: Order
) -> None:
    await shop.expire(order)

    outcomes = await shop.pay(payment(order), policy=LatePaymentPolicy.MANUAL)

    assert outcomes == [HANDLED]
    assert payments(shop) == [("alipay", "T1", order.order_no, 5_198, "CNY", "case")]
    assert cases(shop) == [("late_payment", "open", order.order_no, "T1", 5_198, "CNY")]
    assert refunds(shop) == []
    assert shop.order_row(order.order_no)["status"] == "closed"
    assert shop.sent(order.order_no)[4:] == []
    assert await shop.breaches() == []


# By the policy `revive`: test_revive.py.


# Row: order pending, amount or currency wrong, or amount missing.


@pytest.mark.parametrize(
    ("members", "kind", "received"),
    [
        ({"amount_minor": 5_197}, "amount_mismatch", (5_197, "CNY")),
        ({"amount_minor": 5_199}, "amount_mismatch", (5_199, "CNY")),
        ({"amount_minor": 0}, "amount_mismatch", (0, "CNY")),
        ({"currency": "EUR"}, "currency_mismatch", (5_198, "EUR")),
        ({"currency": "EUR", "amount_minor": 1}, "currency_mismatch", (1, "EUR")),
        ({"amount_minor": None}, "amount_missing", (None, "CNY")),
        ({"amount_minor": None, "currency": None}, "amount_missing", (None, "CNY")),
    ],
)
async def test_a_payment_that_does_not_fit_never_pays_and_is_a_case(
    shop: Shop,
    order: Order,
    members: dict[str, Any],
    kind: str,
    received: tuple[int | None, str],
) -> None:
    outcomes = await shop.pay(payment(order, **members))

    order_no = order.order_no
    assert outcomes == [HANDLED]
    assert cases(shop) == [(kind, "open", order_no, "T1", *received)]
    assert payments(shop) == [("alipay", "T1", order_no, *received, "case")]
    assert refunds(shop) == []
    assert only(shop.order_row(order_no), "status", "version", "event_seq") == {
        "status": "pending_payment",
        "version": 1,
        "event_seq": 2,
    }
    assert shop.stock_of("tea") == (8, 2, 0)
    assert await shop.breaches() == []


async def test_an_order_with_a_case_can_still_be_paid_right(shop: Shop, order: Order) -> None:
    await shop.pay(payment(order, "T1", amount_minor=1))

    await shop.pay(payment(order, "T2"))

    assert shop.order_row(order.order_no)["status"] == "paid"
    assert await shop.breaches() == []


@pytest.mark.parametrize("end", ["paid", "cancelled", "closed"])
@pytest.mark.parametrize("amount_minor", [None, 0])
async def test_what_should_go_back_and_names_no_amount_is_a_case(
    shop: Shop, order: Order, end: str, amount_minor: int | None
) -> None:
    if end == "paid":
        await shop.pay(payment(order))
    elif end == "cancelled":
        await shop.cancel(order)
    else:
        await shop.expire(order)

    await shop.pay(payment(order, "T2", amount_minor=amount_minor))

    assert [(case[0], case[3]) for case in cases(shop)] == [("amount_missing", "T2")]
    assert refunds(shop) == []
    assert await shop.breaches() == []


async def test_a_report_that_is_tried_again_after_a_crash_opens_no_second_case(
    shop: Shop, order: Order
) -> None:
    await shop.pay(payment(order))
    wrong = payment(order, amount_minor=1)
    consumer = payment_success_consumer(
        outbox=shop.outbox,
        policy=LatePaymentPolicy.REFUND,
        unknown_order_retry_for_s=1.0,
        draw_refund_no=lambda: "R1",
    )
    await shop.receive(consumer, wrong, message_ids=["m-1"])

    await shop.receive(consumer, wrong, message_ids=["m-1"])

    assert len(cases(shop)) == 1
