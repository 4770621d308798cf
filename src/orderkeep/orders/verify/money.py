"""Money: each paid order by one payment, each payment accounted for, each key one order."""

from sqlalchemy import ColumnElement, and_, case, exists, func, select

from orderkeep.orders.case_resolution import CaseAction, CaseState
from orderkeep.orders.order import Status
from orderkeep.orders.payment import PaymentOutcome
from orderkeep.orders.tables import (
    ORDER_LINES,
    ORDER_PAYMENTS,
    ORDER_REFUNDS,
    ORDER_REQUESTS,
    ORDERS,
    PAYMENT_CASES,
)
from orderkeep.orders.verify.check import Check, breaches, group_breaches

_ACCEPTED = ORDER_PAYMENTS.c.outcome == PaymentOutcome.ACCEPTED.value
_ACCEPTED_COUNT = (
    select(func.count())
    .where(ORDER_PAYMENTS.c.order_no == ORDERS.c.order_no, _ACCEPTED)
    .correlate(ORDERS)
    .scalar_subquery()
)

# An operator may take what came for what was owed.
_BY_VERDICT = exists().where(
    PAYMENT_CASES.c.pay_channel == ORDER_PAYMENTS.c.pay_channel,
    PAYMENT_CASES.c.trade_no == ORDER_PAYMENTS.c.trade_no,
    PAYMENT_CASES.c.order_no == ORDER_PAYMENTS.c.order_no,
    PAYMENT_CASES.c.resolution == CaseAction.ACCEPT.value,
)


def _went(outcome: PaymentOutcome) -> ColumnElement[bool]:
    """Return the condition that the payment of a case went one way."""
    return exists().where(
        ORDER_PAYMENTS.c.pay_channel == PAYMENT_CASES.c.pay_channel,
        ORDER_PAYMENTS.c.trade_no == PAYMENT_CASES.c.trade_no,
        ORDER_PAYMENTS.c.order_no == PAYMENT_CASES.c.order_no,
        ORDER_PAYMENTS.c.message_id == PAYMENT_CASES.c.message_id,
        ORDER_PAYMENTS.c.outcome == outcome.value,
    )


_PAYMENT_CHECKS = (
    Check(
        invariant="paid-by-one-payment",
        says="each paid order has exactly one accepted payment, and no other order has one",
        breaches=breaches(
            select(ORDERS.c.order_no.label("subject")),
            wrong=[case((ORDERS.c.status == Status.PAID.value, 1), else_=0) != _ACCEPTED_COUNT],
        ),
        remedy="compare the order's payments with the channel's own list",
    ),
    Check(
        invariant="payment-equals-order",
        says=(
            "an accepted payment is the one its order names, of the amount that the order owes"
            " unless an operator accepted it"
        ),
        breaches=breaches(
            select(ORDER_PAYMENTS.c.order_no.label("subject")).select_from(
                ORDER_PAYMENTS.outerjoin(ORDERS, ORDERS.c.order_no == ORDER_PAYMENTS.c.order_no)
            ),
            wrong=[
                and_(_ACCEPTED, ORDERS.c.order_no.is_(None)),
                and_(
                    _ACCEPTED,
                    ORDER_PAYMENTS.c.amount_minor.is_distinct_from(ORDERS.c.pay_amount_minor),
                    ~_BY_VERDICT,
                ),
                and_(
                    _ACCEPTED,
                    ORDER_PAYMENTS.c.currency.is_distinct_from(ORDERS.c.currency),
                    ~_BY_VERDICT,
                ),
                and_(_ACCEPTED, ORDER_PAYMENTS.c.trade_no.is_distinct_from(ORDERS.c.trade_no)),
                and_(
                    _ACCEPTED,
                    ORDER_PAYMENTS.c.pay_channel != func.coalesce(ORDERS.c.pay_channel, ""),
                ),
            ],
        ),
        remedy="refund or collect the difference, and report this as a bug",
    ),
    Check(
        invariant="refunded-once",
        says="only what was received and not kept goes back, once, in full at most",
        breaches=breaches(
            select(ORDER_REFUNDS.c.refund_no.label("subject")).select_from(
                ORDER_REFUNDS.outerjoin(
                    ORDER_PAYMENTS,
                    and_(
                        ORDER_PAYMENTS.c.pay_channel == ORDER_REFUNDS.c.pay_channel,
                        ORDER_PAYMENTS.c.trade_no == ORDER_REFUNDS.c.trade_no,
                    ),
                )
            ),
            wrong=[
                ORDER_PAYMENTS.c.trade_no.is_(None),
                ORDER_PAYMENTS.c.outcome != PaymentOutcome.REFUND.value,
                ORDER_PAYMENTS.c.order_no != ORDER_REFUNDS.c.order_no,
                ORDER_PAYMENTS.c.amount_minor.is_(None),
                ORDER_REFUNDS.c.amount_minor > ORDER_PAYMENTS.c.amount_minor,
                # A payment may name none, and its order, which may come later, does.
                ORDER_REFUNDS.c.currency != ORDER_PAYMENTS.c.currency,
            ],
        ),
        remedy="stop the refund at the channel, and compare it with the payment",
    ),
    Check(
        invariant="refund-for-each-refunded-payment",
        says="each payment that is to go back has its refund",
        breaches=breaches(
            select(ORDER_PAYMENTS.c.trade_no.label("subject")),
            wrong=[
                and_(
                    ORDER_PAYMENTS.c.outcome == PaymentOutcome.REFUND.value,
                    ~exists().where(
                        ORDER_REFUNDS.c.pay_channel == ORDER_PAYMENTS.c.pay_channel,
                        ORDER_REFUNDS.c.trade_no == ORDER_PAYMENTS.c.trade_no,
                    ),
                )
            ],
        ),
        remedy="refund the payment at the channel by hand, and report this as a bug",
    ),
    Check(
        invariant="case-for-each-payment-in-doubt",
        says="each payment that waits for an operator has its case",
        breaches=breaches(
            select(ORDER_PAYMENTS.c.trade_no.label("subject")),
            wrong=[
                and_(
                    ORDER_PAYMENTS.c.outcome == PaymentOutcome.CASE.value,
                    ~exists().where(
                        PAYMENT_CASES.c.order_no == ORDER_PAYMENTS.c.order_no,
                        PAYMENT_CASES.c.pay_channel == ORDER_PAYMENTS.c.pay_channel,
                        PAYMENT_CASES.c.trade_no == ORDER_PAYMENTS.c.trade_no,
                    ),
                )
            ],
        ),
        remedy="settle the payment with its buyer by hand, and report this as a bug",
    ),
    Check(
        invariant="case-went-as-resolved",
        says="a case that was resolved says by whom, and its payment went the way that was said",
        breaches=breaches(
            select(PAYMENT_CASES.c.trade_no.label("subject")),
            wrong=[
                and_(
                    PAYMENT_CASES.c.state == CaseState.OPEN.value,
                    PAYMENT_CASES.c.resolution.is_not(None),
                ),
                and_(
                    PAYMENT_CASES.c.resolution.is_not(None),
                    PAYMENT_CASES.c.resolved_by.is_(None),
                ),
                and_(
                    PAYMENT_CASES.c.resolution == CaseAction.ACCEPT.value,
                    ~_went(PaymentOutcome.ACCEPTED),
                ),
                and_(
                    PAYMENT_CASES.c.resolution == CaseAction.REFUND.value,
                    ~_went(PaymentOutcome.REFUND),
                ),
            ],
        ),
        remedy="compare the case, its payment and its order, and report this as a bug",
    ),
)

_REQUEST_CHECKS = (
    Check(
        invariant="key-names-an-order",
        says="each idempotency key stands for an order of its user",
        breaches=breaches(
            select(ORDER_REQUESTS.c.order_no.label("subject")),
            wrong=[
                ~exists().where(
                    ORDERS.c.order_no == ORDER_REQUESTS.c.order_no,
                    ORDERS.c.user_id == ORDER_REQUESTS.c.user_id,
                )
            ],
        ),
        remedy="an order was lost: restore it from a backup, and report this as a bug",
    ),
    Check(
        invariant="order-has-one-key",
        says="each order was made by exactly one idempotency key",
        breaches=group_breaches(
            select(ORDERS.c.order_no.label("subject"))
            .select_from(
                ORDERS.outerjoin(ORDER_REQUESTS, ORDER_REQUESTS.c.order_no == ORDERS.c.order_no)
            )
            .group_by(ORDERS.c.order_no),
            wrong=[func.count(ORDER_REQUESTS.c.key) != 1],
        ),
        remedy="an order was made twice, or without its key: report this as a bug",
    ),
    Check(
        invariant="amount-equals-lines",
        says="each order's total is the sum of its lines, of which it has at least one",
        breaches=group_breaches(
            select(ORDERS.c.order_no.label("subject"))
            .select_from(ORDERS.outerjoin(ORDER_LINES, ORDER_LINES.c.order_no == ORDERS.c.order_no))
            .group_by(ORDERS.c.order_no, ORDERS.c.total_amount_minor),
            wrong=[
                func.count(ORDER_LINES.c.line_no) == 0,
                func.sum(ORDER_LINES.c.subtotal_minor) != ORDERS.c.total_amount_minor,
            ],
        ),
        remedy="the order's lines were changed by hand: restore them",
    ),
    Check(
        invariant="line-equals-price-times-quantity",
        says="each line of an order costs its price times its quantity",
        breaches=breaches(
            select(ORDER_LINES.c.order_no.label("subject")),
            wrong=[
                ORDER_LINES.c.subtotal_minor
                != ORDER_LINES.c.unit_price_minor * ORDER_LINES.c.quantity
            ],
        ),
        remedy="the order's lines were changed by hand: restore them",
    ),
)

MONEY_CHECKS = (*_PAYMENT_CHECKS, *_REQUEST_CHECKS)
