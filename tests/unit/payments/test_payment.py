"""The states of a payment and a refund and what leads from one to another."""

from dataclasses import replace

import pytest

from orderkeep.instant import Instant
from orderkeep.payments.payment import (
    Payment,
    PaymentStatus,
    Refund,
    RefundStatus,
    after_order_end,
    fits,
    not_refunded,
    refundable_minor,
    refunded,
    with_money,
    without_money,
)

# 2024-01-01T10:00:00Z, five past, and half past.
TEN = Instant(1_704_103_200_000_000)
TEN_FIVE = Instant(1_704_103_500_000_000)
HALF_PAST_TEN = Instant(1_704_105_000_000_000)

OPEN = Payment(
    payment_no="P1",
    order_no="0100000000000009",
    user_id="user123",
    pay_channel="alipay",
    amount_minor=10_000,
    currency="CNY",
    status=PaymentStatus.OPEN,
    opened_at=TEN,
)
SUCCEEDED = replace(OPEN, status=PaymentStatus.SUCCEEDED, trade_no="T1", paid_at=TEN, ended_at=TEN)
FAILED = replace(OPEN, status=PaymentStatus.FAILED, ended_at=TEN, reason="no funds")
CLOSED = replace(OPEN, status=PaymentStatus.CLOSED, ended_at=TEN)

REQUESTED = Refund(
    refund_no="R1",
    order_no="0100000000000009",
    trade_no="T1",
    amount_minor=10_000,
    currency="CNY",
    reason="late_payment",
    status=RefundStatus.REQUESTED,
    requested_at=TEN,
)
REFUNDED = replace(REQUESTED, status=RefundStatus.SUCCEEDED, finished_at=TEN)
NOT_REFUNDED = replace(REQUESTED, status=RefundStatus.FAILED, finished_at=TEN)


@pytest.mark.parametrize("payment", [OPEN, FAILED, CLOSED])
def test_money_that_came_makes_a_payment_succeed_however_it_had_ended(payment: Payment) -> None:
    changed = with_money(payment, trade_no="T1", paid_at=TEN_FIVE, now=HALF_PAST_TEN)

    assert changed == replace(
        OPEN,
        status=PaymentStatus.SUCCEEDED,
        trade_no="T1",
        paid_at=TEN_FIVE,
        ended_at=HALF_PAST_TEN,
    )


def test_nothing_changes_a_payment_that_succeeded() -> None:
    assert with_money(SUCCEEDED, trade_no="T2", paid_at=TEN_FIVE, now=HALF_PAST_TEN) is SUCCEEDED
    assert without_money(SUCCEEDED, reason="no", now=HALF_PAST_TEN) is SUCCEEDED
    assert after_order_end(SUCCEEDED, now=HALF_PAST_TEN) is SUCCEEDED


def test_an_open_payment_fails_with_the_reason_of_the_channel() -> None:
    changed = without_money(OPEN, reason="no funds", now=HALF_PAST_TEN)

    assert changed == replace(
        OPEN, status=PaymentStatus.FAILED, ended_at=HALF_PAST_TEN, reason="no funds"
    )


def test_an_open_payment_is_closed_when_its_order_has_ended() -> None:
    changed = after_order_end(OPEN, now=HALF_PAST_TEN)

    assert changed == replace(OPEN, status=PaymentStatus.CLOSED, ended_at=HALF_PAST_TEN)


@pytest.mark.parametrize("payment", [FAILED, CLOSED])
def test_a_payment_that_ended_without_money_ends_only_once(payment: Payment) -> None:
    assert without_money(payment, reason="again", now=HALF_PAST_TEN) is payment
    assert after_order_end(payment, now=HALF_PAST_TEN) is payment


@pytest.mark.parametrize(
    ("amount_minor", "currency", "is_fitting"),
    [
        (10_000, "CNY", True),
        (10_000, None, True),
        (9_999, "CNY", False),
        (10_000, "EUR", False),
        (9_999, None, False),
    ],
)
def test_what_came_fits_when_amount_and_currency_do(
    amount_minor: int, currency: str | None, *, is_fitting: bool
) -> None:
    assert fits(OPEN, amount_minor=amount_minor, currency=currency) is is_fitting


def test_a_refund_that_was_asked_for_succeeds_or_fails() -> None:
    assert refunded(REQUESTED, channel_refund_no="CR1", now=TEN_FIVE) == replace(
        REQUESTED,
        status=RefundStatus.SUCCEEDED,
        channel_refund_no="CR1",
        finished_at=TEN_FIVE,
    )
    assert not_refunded(REQUESTED, reason="account closed", now=TEN_FIVE) == replace(
        REQUESTED,
        status=RefundStatus.FAILED,
        failure_reason="account closed",
        finished_at=TEN_FIVE,
    )


@pytest.mark.parametrize("refund", [REFUNDED, NOT_REFUNDED])
def test_a_refund_ends_only_once(refund: Refund) -> None:
    assert refunded(refund, channel_refund_no="CR2", now=HALF_PAST_TEN) is refund
    assert not_refunded(refund, reason="again", now=HALF_PAST_TEN) is refund


@pytest.mark.parametrize(
    ("refunds", "refundable"),
    [
        ((), 10_000),
        ((replace(REQUESTED, amount_minor=4_000),), 6_000),
        ((replace(REFUNDED, amount_minor=4_000), replace(REQUESTED, amount_minor=6_000)), 0),
        ((NOT_REFUNDED,), 10_000),
        ((replace(REFUNDED, amount_minor=12_000),), 0),
    ],
    ids=["none", "asked", "all", "failed", "more"],
)
def test_no_more_goes_back_than_came(refunds: tuple[Refund, ...], refundable: int) -> None:
    assert refundable_minor(received_minor=10_000, refunds=refunds) == refundable
