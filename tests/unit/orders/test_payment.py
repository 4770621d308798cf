"""Every row of the table of payments, in the table's order."""

import pytest
from msgspec.structs import replace

from orderkeep.contracts.refund_reason import RefundReason
from orderkeep.instant import Instant
from orderkeep.orders.order import (
    Cause,
    CloseReason,
    Order,
    OrderNumber,
    Status,
    Transition,
)
from orderkeep.orders.payment import (
    Accept,
    AlreadyRecorded,
    AwaitOrder,
    CaseKind,
    Decision,
    LatePaymentPolicy,
    OpenCase,
    Payment,
    PaymentIdentity,
    PaymentOutcome,
    RecordedPayment,
    RequestRefund,
    Revive,
    currency_of,
    decide,
    paid_at_of,
)

# 2024-01-01T10:00:00Z, five past, and half past.
TEN = Instant(1_704_103_200_000_000)
TEN_FIVE = Instant(1_704_103_500_000_000)
HALF_PAST_TEN = Instant(1_704_105_000_000_000)

ORDER_NO = OrderNumber("0100000000000009")
IDENTITY = PaymentIdentity(pay_channel="alipay", trade_no="T1")

PAYMENT = Payment(
    identity=IDENTITY,
    order_no=ORDER_NO,
    payment_no="P1",
    amount_minor=10_000,
    currency="CNY",
    paid_at=TEN_FIVE,
)
RECORDED = RecordedPayment(
    identity=IDENTITY,
    order_no=ORDER_NO,
    payment_no="P1",
    amount_minor=10_000,
    currency="CNY",
    paid_at=TEN_FIVE,
    received_at=TEN_FIVE,
    outcome=PaymentOutcome.ACCEPTED,
    message_id="m1",
)
PENDING = Order(
    order_no=ORDER_NO,
    user_id="user123",
    status=Status.PENDING_PAYMENT,
    version=1,
    event_seq=2,
    lines=(),
    total_amount_minor=10_000,
    pay_amount_minor=10_000,
    currency="CNY",
    created_at=TEN,
    expires_at=HALF_PAST_TEN,
)
PAID = replace(
    PENDING, status=Status.PAID, version=2, paid_at=TEN, pay_channel="wechat", trade_no="T0"
)
CANCELLED = replace(PENDING, status=Status.CANCELLED, version=2)
CLOSED = replace(PENDING, status=Status.CLOSED, version=2, close_reason=CloseReason.PAYMENT_TIMEOUT)

LATE_REFUND = RequestRefund(reason=RefundReason.LATE_PAYMENT, amount_minor=10_000, currency="CNY")


def decided(
    payment: Payment = PAYMENT,
    *,
    order: Order | None = PENDING,
    earlier: RecordedPayment | None = None,
    policy: LatePaymentPolicy = LatePaymentPolicy.REFUND,
    give_up_unknown_order: bool = False,
) -> Decision:
    return decide(
        payment,
        order=order,
        earlier=earlier,
        policy=policy,
        now=HALF_PAST_TEN,
        give_up_unknown_order=give_up_unknown_order,
    )


def case_kind(decision: Decision) -> CaseKind:
    assert isinstance(decision, OpenCase)
    return decision.kind


@pytest.mark.parametrize("order", [PENDING, PAID, CANCELLED, CLOSED, None])
@pytest.mark.parametrize("policy", LatePaymentPolicy)
def test_the_same_payment_again_has_no_effect_whatever_the_order_is_now(
    order: Order | None, policy: LatePaymentPolicy
) -> None:
    decision = decided(order=order, earlier=RECORDED, policy=policy, give_up_unknown_order=True)

    assert decision == AlreadyRecorded()


@pytest.mark.parametrize(
    ("payment", "earlier"),
    [
        (replace(PAYMENT, payment_no="P2", paid_at=None), RECORDED),
        (replace(PAYMENT, amount_minor=None), RECORDED),
        (replace(PAYMENT, currency=None), RECORDED),
        (PAYMENT, replace(RECORDED, currency=None)),
        (
            replace(PAYMENT, amount_minor=None, currency=None),
            replace(RECORDED, amount_minor=None, currency=None),
        ),
    ],
)
def test_a_repeat_that_says_less_or_names_another_time_is_the_same_payment(
    payment: Payment, earlier: RecordedPayment
) -> None:
    assert decided(payment, order=PAID, earlier=earlier) == AlreadyRecorded()


@pytest.mark.parametrize(
    ("payment", "earlier"),
    [
        (replace(PAYMENT, order_no=OrderNumber("0100000000000017")), RECORDED),
        (replace(PAYMENT, amount_minor=10_001), RECORDED),
        (replace(PAYMENT, currency="EUR"), RECORDED),
        (replace(PAYMENT, currency=None), replace(RECORDED, currency="EUR")),
        (PAYMENT, replace(RECORDED, amount_minor=None)),
    ],
)
@pytest.mark.parametrize("order", [PENDING, PAID, CANCELLED, CLOSED])
def test_the_same_payment_for_another_order_or_amount_is_a_case(
    order: Order, payment: Payment, earlier: RecordedPayment
) -> None:
    decision = decided(payment, order=order, earlier=earlier)

    assert case_kind(decision) is CaseKind.TRADE_NO_CONFLICT


def test_a_conflict_tells_both_reports() -> None:
    decision = decided(
        replace(PAYMENT, order_no=OrderNumber("0100000000000017"), amount_minor=None),
        order=None,
        earlier=replace(RECORDED, currency=None),
    )

    assert decision == OpenCase(
        kind=CaseKind.TRADE_NO_CONFLICT,
        detail="trade T1 was reported first as 100.00 for order 0100000000000009,"
        " then as an amount not named CNY for order 0100000000000017",
    )


def test_an_unknown_order_is_waited_for() -> None:
    assert decided(order=None) == AwaitOrder()


def test_an_order_that_stays_unknown_is_a_case() -> None:
    assert decided(order=None, give_up_unknown_order=True) == OpenCase(
        kind=CaseKind.UNKNOWN_ORDER, detail="no order 0100000000000009 has become known"
    )


@pytest.mark.parametrize("policy", LatePaymentPolicy)
def test_a_second_payment_of_a_paid_order_goes_back(policy: LatePaymentPolicy) -> None:
    payment = replace(PAYMENT, amount_minor=700, currency="EUR")

    assert decided(payment, order=PAID, policy=policy) == RequestRefund(
        reason=RefundReason.DOUBLE_PAYMENT, amount_minor=700, currency="EUR"
    )


@pytest.mark.parametrize(("told", "paid_through"), [("", "alipay"), ("alipay", None), ("", None)])
def test_the_trade_that_paid_the_order_told_without_its_channel_does_not_go_back(
    told: str, paid_through: str | None
) -> None:
    payment = replace(PAYMENT, identity=PaymentIdentity(pay_channel=told, trade_no="T1"))
    order = replace(PAID, pay_channel=paid_through, trade_no="T1")

    assert case_kind(decided(payment, order=order)) is CaseKind.TRADE_NO_CONFLICT


def test_the_same_trade_number_of_two_channels_is_two_payments() -> None:
    order = replace(PAID, pay_channel="wechat", trade_no="T1")

    assert isinstance(decided(order=order), RequestRefund)


@pytest.mark.parametrize("policy", LatePaymentPolicy)
def test_a_payment_of_a_cancelled_order_goes_back(policy: LatePaymentPolicy) -> None:
    assert decided(order=CANCELLED, policy=policy) == LATE_REFUND


def test_a_payment_of_a_closed_order_goes_back_by_the_policy_refund() -> None:
    assert decided(order=CLOSED, policy=LatePaymentPolicy.REFUND) == LATE_REFUND


@pytest.mark.parametrize("amount_minor", [10_000, 5, None])
def test_a_payment_of_a_closed_order_is_a_case_by_the_policy_manual(
    amount_minor: int | None,
) -> None:
    payment = replace(PAYMENT, amount_minor=amount_minor)

    decision = decided(payment, order=CLOSED, policy=LatePaymentPolicy.MANUAL)

    assert case_kind(decision) is CaseKind.LATE_PAYMENT


def test_a_payment_that_fits_a_closed_order_revives_it_by_the_policy_revive() -> None:
    decision = decided(order=CLOSED, policy=LatePaymentPolicy.REVIVE)

    assert decision == Revive(
        transition=Transition(
            before=CLOSED,
            after=replace(
                CLOSED,
                status=Status.PAID,
                version=3,
                paid_at=TEN_FIVE,
                pay_channel="alipay",
                trade_no="T1",
                close_reason=None,
            ),
            cause=Cause.REVIVAL,
            changed_at=HALF_PAST_TEN,
        ),
        otherwise=LATE_REFUND,
    )


@pytest.mark.parametrize(
    ("payment", "amount_minor", "currency"),
    [
        (replace(PAYMENT, amount_minor=9_999), 9_999, "CNY"),
        (replace(PAYMENT, currency="EUR"), 10_000, "EUR"),
    ],
)
def test_a_payment_that_does_not_fit_a_closed_order_goes_back_by_the_policy_revive(
    payment: Payment, amount_minor: int, currency: str
) -> None:
    decision = decided(payment, order=CLOSED, policy=LatePaymentPolicy.REVIVE)

    assert decision == RequestRefund(
        reason=RefundReason.LATE_PAYMENT, amount_minor=amount_minor, currency=currency
    )


@pytest.mark.parametrize(
    ("order", "policy"),
    [
        (PAID, LatePaymentPolicy.REFUND),
        (CANCELLED, LatePaymentPolicy.REFUND),
        (CLOSED, LatePaymentPolicy.REFUND),
        (CLOSED, LatePaymentPolicy.REVIVE),
    ],
)
@pytest.mark.parametrize("amount_minor", [None, 0])
def test_what_ought_to_go_back_without_an_amount_is_a_case(
    order: Order, policy: LatePaymentPolicy, amount_minor: int | None
) -> None:
    decision = decided(replace(PAYMENT, amount_minor=amount_minor), order=order, policy=policy)

    assert case_kind(decision) is CaseKind.AMOUNT_MISSING


@pytest.mark.parametrize("order", [PAID, CANCELLED, CLOSED])
def test_what_goes_back_without_a_currency_goes_back_in_that_of_the_order(order: Order) -> None:
    decision = decided(replace(PAYMENT, currency=None), order=replace(order, currency="USD"))

    assert isinstance(decision, RequestRefund)
    assert decision.currency == "USD"


@pytest.mark.parametrize(
    ("payment", "kind", "detail"),
    [
        (
            replace(PAYMENT, amount_minor=9_999),
            CaseKind.AMOUNT_MISMATCH,
            "order 0100000000000009 owes 100.00 CNY, 99.99 was received",
        ),
        (
            replace(PAYMENT, amount_minor=10_001),
            CaseKind.AMOUNT_MISMATCH,
            "order 0100000000000009 owes 100.00 CNY, 100.01 was received",
        ),
        (
            replace(PAYMENT, amount_minor=0),
            CaseKind.AMOUNT_MISMATCH,
            "order 0100000000000009 owes 100.00 CNY, 0.00 was received",
        ),
        (
            replace(PAYMENT, currency="EUR"),
            CaseKind.CURRENCY_MISMATCH,
            "order 0100000000000009 is in CNY, paid in EUR",
        ),
        (
            replace(PAYMENT, amount_minor=1, currency="EUR"),
            CaseKind.CURRENCY_MISMATCH,
            "order 0100000000000009 is in CNY, paid in EUR",
        ),
        (
            replace(PAYMENT, amount_minor=None),
            CaseKind.AMOUNT_MISSING,
            "trade T1 for order 0100000000000009, which is pending_payment, names no amount",
        ),
        (
            replace(PAYMENT, amount_minor=None, currency="EUR"),
            CaseKind.AMOUNT_MISSING,
            "trade T1 for order 0100000000000009, which is pending_payment, names no amount",
        ),
    ],
)
def test_a_payment_that_does_not_fit_a_pending_order_is_a_case_and_never_pays(
    payment: Payment, kind: CaseKind, detail: str
) -> None:
    assert decided(payment) == OpenCase(kind=kind, detail=detail)


@pytest.mark.parametrize("currency", ["CNY", None])
def test_a_payment_that_fits_pays(currency: str | None) -> None:
    assert decided(replace(PAYMENT, currency=currency)) == Accept(
        transition=Transition(
            before=PENDING,
            after=replace(
                PENDING,
                status=Status.PAID,
                version=2,
                paid_at=TEN_FIVE,
                pay_channel="alipay",
                trade_no="T1",
            ),
            cause=Cause.PAYMENT,
            changed_at=HALF_PAST_TEN,
        )
    )


def test_a_payment_without_a_time_was_paid_when_it_was_received() -> None:
    decision = decided(replace(PAYMENT, paid_at=None))

    assert isinstance(decision, Accept)
    assert decision.transition.after.paid_at == HALF_PAST_TEN


def test_a_payment_without_a_channel_leaves_the_order_without_one() -> None:
    identity = PaymentIdentity(pay_channel="", trade_no="T1")

    decision = decided(replace(PAYMENT, identity=identity))

    assert isinstance(decision, Accept)
    assert decision.transition.after.pay_channel is None


def test_an_order_that_costs_nothing_is_paid_with_nothing() -> None:
    order = replace(PENDING, total_amount_minor=0, pay_amount_minor=0)

    assert isinstance(decided(replace(PAYMENT, amount_minor=0), order=order), Accept)


def test_what_a_payment_leaves_out_is_filled_in_for_the_record() -> None:
    silent = replace(PAYMENT, currency=None, paid_at=None)

    assert paid_at_of(PAYMENT, now=HALF_PAST_TEN) == TEN_FIVE
    assert paid_at_of(silent, now=HALF_PAST_TEN) == HALF_PAST_TEN
    assert currency_of(PAYMENT, order=replace(PENDING, currency="EUR")) == "CNY"
    assert currency_of(silent, order=PENDING) == "CNY"
    assert currency_of(silent, order=None) is None


def test_identities_can_be_sorted_for_the_order_of_locks() -> None:
    second = PaymentIdentity(pay_channel="alipay", trade_no="T2")
    unnamed = PaymentIdentity(pay_channel="", trade_no="T9")

    assert sorted([second, IDENTITY, unnamed]) == [unnamed, IDENTITY, second]
