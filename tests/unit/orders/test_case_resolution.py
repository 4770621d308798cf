"""What each verdict does with each kind of case, on each state of the order."""

import pytest
from msgspec.structs import replace

from orderkeep.instant import Instant
from orderkeep.orders.case_resolution import (
    CaseAction,
    CaseState,
    GiveBack,
    LeaveAsIs,
    PaymentCase,
    PayOrder,
    Resolution,
    Verdict,
    judge,
)
from orderkeep.orders.order import Cause, Order, OrderNumber, Status
from orderkeep.orders.payment import CaseKind, PaymentIdentity, PaymentOutcome, RecordedPayment
from orderkeep.refusal import Refusal

# 2024-01-01T10:00:00Z, and half an hour later.
TEN = Instant(1_704_103_200_000_000)
HALF_PAST_TEN = Instant(1_704_105_000_000_000)

ORDER_NO = OrderNumber("0100000000000009")
IDENTITY = PaymentIdentity(pay_channel="alipay", trade_no="T1")

PENDING = Order(
    order_no=ORDER_NO,
    user_id="user123",
    status=Status.PENDING_PAYMENT,
    version=1,
    event_seq=3,
    lines=(),
    total_amount_minor=10_000,
    pay_amount_minor=10_000,
    currency="CNY",
    created_at=TEN,
    expires_at=HALF_PAST_TEN,
)
CLOSED = replace(PENDING, status=Status.CLOSED, version=2, closed_at=HALF_PAST_TEN)
PAYMENT = RecordedPayment(
    identity=IDENTITY,
    order_no=ORDER_NO,
    payment_no="P1",
    amount_minor=9_000,
    currency="CNY",
    paid_at=TEN,
    received_at=TEN,
    outcome=PaymentOutcome.CASE,
    message_id="m1",
)
CASE = PaymentCase(
    case_id=7,
    kind=CaseKind.AMOUNT_MISMATCH,
    order_no=ORDER_NO,
    identity=IDENTITY,
    payment_no="P1",
    amount_minor=9_000,
    currency="CNY",
    message_id="m1",
    detail="",
    opened_at=TEN,
)

# Kinds whose money is on record for the case alone.
OWN_KINDS = [kind for kind in CaseKind if kind is not CaseKind.TRADE_NO_CONFLICT]


def judged(
    action: CaseAction,
    *,
    case: PaymentCase = CASE,
    order: Order | None = PENDING,
    payment: RecordedPayment | None = PAYMENT,
) -> Verdict:
    return judge(case, action=action, order=order, payment=payment, now=HALF_PAST_TEN)


def refused(action: CaseAction, **given: object) -> str:
    with pytest.raises(Refusal) as refusal:
        judged(action, **given)  # type: ignore[arg-type]  # reason: the names of `judged`
    return refusal.value.code


@pytest.mark.parametrize("kind", OWN_KINDS)
@pytest.mark.parametrize(("order", "cause"), [(PENDING, Cause.OPERATOR), (CLOSED, Cause.REVIVAL)])
def test_accepting_pays_a_pending_order_and_revives_a_closed_one(
    kind: CaseKind, order: Order, cause: Cause
) -> None:
    verdict = judged(CaseAction.ACCEPT, case=replace(CASE, kind=kind), order=order)

    assert isinstance(verdict, PayOrder)
    transition = verdict.transition
    assert (transition.before, transition.cause) == (order, cause)
    assert transition.changed_at == HALF_PAST_TEN
    assert transition.after.status is Status.PAID
    assert transition.after.version == order.version + 1
    assert (transition.after.pay_channel, transition.after.trade_no) == ("alipay", "T1")
    assert transition.after.paid_at == TEN
    assert transition.after.pay_amount_minor == 10_000


def test_a_payment_without_channel_leaves_the_order_without_one() -> None:
    identity = PaymentIdentity(pay_channel="", trade_no="T1")
    verdict = judged(CaseAction.ACCEPT, payment=replace(PAYMENT, identity=identity))

    assert isinstance(verdict, PayOrder)
    assert verdict.transition.after.pay_channel is None


@pytest.mark.parametrize("status", [Status.PAID, Status.CANCELLED])
def test_an_order_that_has_ended_otherwise_takes_no_money(status: Status) -> None:
    order = replace(PENDING, status=status, version=2)

    assert refused(CaseAction.ACCEPT, order=order) == "order_not_pending"


def test_money_for_an_order_that_is_not_there_waits_for_it_or_goes_back() -> None:
    assert refused(CaseAction.ACCEPT, order=None) == "order_not_ready"
    assert judged(CaseAction.REFUND, order=None) == GiveBack(amount_minor=9_000, currency="CNY")


def test_a_conflict_is_never_accepted() -> None:
    case = replace(CASE, kind=CaseKind.TRADE_NO_CONFLICT)

    assert refused(CaseAction.ACCEPT, case=case) == "invalid_request"


@pytest.mark.parametrize("kind", CaseKind)
def test_refunding_gives_back_what_was_received(kind: CaseKind) -> None:
    verdict = judged(CaseAction.REFUND, case=replace(CASE, kind=kind))

    assert verdict == GiveBack(amount_minor=9_000, currency="CNY")


@pytest.mark.parametrize("amount_minor", [None, 0])
def test_what_names_no_amount_cannot_go_back(amount_minor: int | None) -> None:
    payment = replace(PAYMENT, amount_minor=amount_minor)

    assert refused(CaseAction.REFUND, payment=payment) == "invalid_request"


def test_a_currency_that_was_not_named_is_the_orders_and_without_an_order_none() -> None:
    payment = replace(PAYMENT, currency=None)

    assert judged(CaseAction.REFUND, payment=payment) == GiveBack(
        amount_minor=9_000, currency="CNY"
    )
    assert refused(CaseAction.REFUND, payment=payment, order=None) == "invalid_request"


@pytest.mark.parametrize("action", [CaseAction.ACCEPT, CaseAction.REFUND])
@pytest.mark.parametrize(
    "payment",
    [
        None,
        replace(PAYMENT, message_id="m0"),
        replace(PAYMENT, order_no=OrderNumber("0100000000000017")),
        replace(PAYMENT, outcome=PaymentOutcome.ACCEPTED),
        replace(PAYMENT, outcome=PaymentOutcome.REFUND),
    ],
)
def test_money_that_is_on_record_by_another_report_is_not_moved(
    action: CaseAction, payment: RecordedPayment | None
) -> None:
    assert refused(action, payment=payment) == "invalid_request"


@pytest.mark.parametrize("kind", CaseKind)
@pytest.mark.parametrize("order", [PENDING, CLOSED, None])
def test_every_case_can_be_dismissed(kind: CaseKind, order: Order | None) -> None:
    case = replace(CASE, kind=kind)

    assert judged(CaseAction.DISMISS, case=case, order=order, payment=None) == LeaveAsIs()


@pytest.mark.parametrize("action", CaseAction)
def test_what_is_resolved_stays_as_it_is(action: CaseAction) -> None:
    resolution = Resolution(
        action=CaseAction.DISMISS, resolved_by="olga", reason="", resolved_at=TEN
    )
    case = replace(CASE, resolution=resolution)

    assert CASE.state is CaseState.OPEN
    assert case.state is CaseState.RESOLVED
    assert refused(action, case=case) == "case_resolved"
