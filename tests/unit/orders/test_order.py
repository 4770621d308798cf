"""The states of an order and what leads from one to another."""

from itertools import product

import pytest
from msgspec.structs import replace

from orderkeep.instant import Instant
from orderkeep.orders.order import (
    NOTHING_TO_DO,
    Cause,
    CloseReason,
    Order,
    OrderLine,
    OrderNumber,
    Status,
    Transition,
    WaitUntil,
    cancel,
    close_when_due,
    find_extended,
    pay,
    revive,
)
from orderkeep.refusal import Refusal

# 2024-01-01T10:00:00Z, and half an hour later.
TEN = Instant(1_704_103_200_000_000)
HALF_PAST_TEN = Instant(1_704_105_000_000_000)

PENDING = Order(
    order_no=OrderNumber("0100000000000009"),
    user_id="user123",
    status=Status.PENDING_PAYMENT,
    version=1,
    event_seq=3,
    lines=(
        OrderLine(
            line_no=1,
            sku_id="tea-1",
            title="Tea",
            unit_price_minor=5_000,
            quantity=2,
            subtotal_minor=10_000,
        ),
    ),
    total_amount_minor=10_000,
    pay_amount_minor=10_000,
    currency="CNY",
    created_at=TEN,
    expires_at=HALF_PAST_TEN,
)
PAID = replace(PENDING, status=Status.PAID, version=2)
CANCELLED = replace(PENDING, status=Status.CANCELLED, version=2)
CLOSED = replace(
    PENDING,
    status=Status.CLOSED,
    version=2,
    closed_at=HALF_PAST_TEN,
    close_reason=CloseReason.PAYMENT_TIMEOUT,
)


def test_there_are_exactly_four_states() -> None:
    assert [status.value for status in Status] == [
        "pending_payment",
        "paid",
        "cancelled",
        "closed",
    ]


def test_only_four_changes_of_state_exist_each_for_its_own_causes() -> None:
    allowed = {
        (before, after, cause)
        for before, after, cause in product(Status, Status, Cause)
        if is_allowed(before, after, cause)
    }

    assert allowed == {
        (Status.PENDING_PAYMENT, Status.PAID, Cause.PAYMENT),
        (Status.PENDING_PAYMENT, Status.PAID, Cause.OPERATOR),
        (Status.PENDING_PAYMENT, Status.CANCELLED, Cause.BUYER),
        (Status.PENDING_PAYMENT, Status.CANCELLED, Cause.OPERATOR),
        (Status.PENDING_PAYMENT, Status.CLOSED, Cause.PAYMENT_TIMEOUT),
        (Status.CLOSED, Status.PAID, Cause.REVIVAL),
    }


def is_allowed(before: Status, after: Status, cause: Cause) -> bool:
    try:
        Transition(
            before=replace(PENDING, status=before),
            after=replace(PENDING, status=after),
            cause=cause,
            changed_at=TEN,
        )
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("by", "reason"),
    [(Cause.BUYER, CloseReason.BUYER), (Cause.OPERATOR, CloseReason.OPERATOR)],
)
def test_a_pending_order_is_cancelled(by: Cause, reason: CloseReason) -> None:
    decision = cancel(PENDING, by=by, now=TEN, expected_version=1)

    assert decision == Transition(
        before=PENDING,
        after=replace(
            PENDING, status=Status.CANCELLED, version=2, cancelled_at=TEN, close_reason=reason
        ),
        cause=by,
        changed_at=TEN,
    )


@pytest.mark.parametrize("expected_version", [None, 1, 2])
def test_a_cancelled_order_is_cancelled_already(expected_version: int | None) -> None:
    decision = cancel(CANCELLED, by=Cause.BUYER, now=TEN, expected_version=expected_version)

    assert decision is NOTHING_TO_DO


@pytest.mark.parametrize(("order", "status"), [(PAID, "paid"), (CLOSED, "closed")])
def test_an_order_that_ended_otherwise_cannot_be_cancelled(order: Order, status: str) -> None:
    with pytest.raises(Refusal) as refused:
        cancel(order, by=Cause.OPERATOR, now=TEN)

    assert refused.value.code == "order_not_pending"
    assert refused.value.members == {"order_status": status}


@pytest.mark.parametrize("order", [replace(PENDING, version=5), replace(PAID, version=5)])
def test_an_order_that_has_moved_on_is_not_cancelled_unseen(order: Order) -> None:
    with pytest.raises(Refusal) as refused:
        cancel(order, by=Cause.BUYER, now=TEN, expected_version=1)

    assert refused.value.code == "version_mismatch"
    assert refused.value.members == {"version": 5}


def test_nothing_but_a_person_cancels() -> None:
    with pytest.raises(ValueError, match="payment_timeout cannot cancel"):
        cancel(PENDING, by=Cause.PAYMENT_TIMEOUT, now=TEN)


@pytest.mark.parametrize("now", [HALF_PAST_TEN, Instant(HALF_PAST_TEN + 1)])
def test_a_pending_order_is_closed_once_its_deadline_has_come(now: Instant) -> None:
    decision = close_when_due(PENDING, now=now)

    assert decision == Transition(
        before=PENDING,
        after=replace(
            PENDING,
            status=Status.CLOSED,
            version=2,
            closed_at=now,
            close_reason=CloseReason.PAYMENT_TIMEOUT,
        ),
        cause=Cause.PAYMENT_TIMEOUT,
        changed_at=now,
    )


def test_a_microsecond_before_its_deadline_an_order_waits() -> None:
    decision = close_when_due(PENDING, now=Instant(HALF_PAST_TEN - 1))

    assert decision == WaitUntil(due_at=HALF_PAST_TEN)


@pytest.mark.parametrize("order", [PAID, CANCELLED, CLOSED])
def test_an_order_that_has_ended_is_not_closed(order: Order) -> None:
    assert close_when_due(order, now=HALF_PAST_TEN) is NOTHING_TO_DO


def test_a_pending_order_is_paid_past_its_deadline_too() -> None:
    now = Instant(HALF_PAST_TEN + 5)

    transition = pay(PENDING, pay_channel="alipay", trade_no="T1", paid_at=TEN, now=now)

    assert transition == Transition(
        before=PENDING,
        after=replace(
            PENDING,
            status=Status.PAID,
            version=2,
            paid_at=TEN,
            pay_channel="alipay",
            trade_no="T1",
        ),
        cause=Cause.PAYMENT,
        changed_at=now,
    )


@pytest.mark.parametrize("order", [PAID, CANCELLED, CLOSED])
def test_only_a_pending_order_can_be_paid(order: Order) -> None:
    with pytest.raises(ValueError, match="0100000000000009"):
        pay(order, pay_channel=None, trade_no="T1", paid_at=TEN, now=TEN)


def test_a_closed_order_is_revived_and_keeps_the_time_it_was_closed() -> None:
    transition = revive(CLOSED, pay_channel=None, trade_no="T1", paid_at=TEN, now=HALF_PAST_TEN)

    assert transition.cause is Cause.REVIVAL
    assert transition.after == replace(
        PENDING,
        status=Status.PAID,
        version=3,
        paid_at=TEN,
        trade_no="T1",
        closed_at=HALF_PAST_TEN,
    )


@pytest.mark.parametrize("order", [PENDING, PAID, CANCELLED])
def test_only_a_closed_order_can_be_revived(order: Order) -> None:
    with pytest.raises(ValueError, match="0100000000000009"):
        revive(order, pay_channel=None, trade_no="T1", paid_at=TEN, now=TEN)


def test_a_payment_under_way_moves_the_deadline_behind_its_opening() -> None:
    extended = find_extended(PENDING, opened_at=TEN, extension_s=1_900.5, now=TEN)

    assert extended == replace(
        PENDING, expires_at=Instant(TEN + 1_900_500_000), deadline_extended_at=TEN
    )


def test_a_payment_opened_by_a_clock_that_is_ahead_counts_from_now() -> None:
    extended = find_extended(PENDING, opened_at=HALF_PAST_TEN, extension_s=1_900, now=TEN)

    assert extended is not None
    assert extended.expires_at == TEN + 1_900_000_000


@pytest.mark.parametrize(
    "order",
    [
        PENDING,
        replace(PENDING, deadline_extended_at=TEN),
        replace(PENDING, expires_at=TEN),
        replace(PENDING, status=Status.PAID),
        replace(PENDING, status=Status.CANCELLED),
        CLOSED,
    ],
)
def test_a_deadline_stays_that_would_not_be_later_or_moved_before_or_is_over(order: Order) -> None:
    # Half an hour behind ten is where the pending order's deadline is already.
    extension_s = 1_800 if order is PENDING else 7_200

    assert find_extended(order, opened_at=TEN, extension_s=extension_s, now=TEN) is None
