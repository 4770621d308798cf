"""What the order service knows of money: payments seen, and refunds."""

from collections.abc import Collection, Sequence

from msgspec import Struct
from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.statement import RowStatement, Statement, is_any_of, row_value
from orderkeep.database.transaction import ReadTransaction, Row, Transaction
from orderkeep.instant import Instant
from orderkeep.orders.order import OrderNumber
from orderkeep.orders.payment import PaymentIdentity, PaymentOutcome, RecordedPayment
from orderkeep.orders.refund import OrderRefund
from orderkeep.orders.tables import OPENED_PAYMENTS, ORDER_PAYMENTS, ORDER_REFUNDS


class OpenedPayment(Struct, frozen=True, kw_only=True):
    """A payment that the payment service opened for an order.

    Attributes:
        opened_at: By the clock of the payment service.
        received_at: When we heard of it.
    """

    payment_no: str
    order_no: OrderNumber
    pay_channel: str | None
    opened_at: Instant
    received_at: Instant


class OutcomeChange(Struct, frozen=True, kw_only=True):
    """What was to become of a recorded payment, and what becomes of it."""

    identity: PaymentIdentity
    before: PaymentOutcome
    after: PaymentOutcome


class StalePaymentError(Exception):
    """A payment's outcome changed meanwhile: nothing was locked for it. A bug, never a refusal."""


class StaleRefundError(Exception):
    """A refund was ended a second time: its lock was not held. A bug, never a refusal."""


_PAYMENTS_PER_ORDER_MAX = 1000

# A bound for look-ups by a list of numbers; lists come from batches, which are far smaller.
_LOCKED_REFUNDS_MAX = 200_000

_FIND_PAYMENT = RowStatement(
    select(ORDER_PAYMENTS).where(
        ORDER_PAYMENTS.c.pay_channel
        == row_value("the_pay_channel", ORDER_PAYMENTS.c.pay_channel.type),
        ORDER_PAYMENTS.c.trade_no == row_value("the_trade_no", ORDER_PAYMENTS.c.trade_no.type),
    )
)
_INSERT_PAYMENT = RowStatement(
    insert(ORDER_PAYMENTS).values(
        {column.name: row_value(column.name, column.type) for column in ORDER_PAYMENTS.c}
    )
)
_CHANGE_OUTCOME = RowStatement(
    update(ORDER_PAYMENTS)
    .where(
        ORDER_PAYMENTS.c.pay_channel
        == row_value("the_pay_channel", ORDER_PAYMENTS.c.pay_channel.type),
        ORDER_PAYMENTS.c.trade_no == row_value("the_trade_no", ORDER_PAYMENTS.c.trade_no.type),
        ORDER_PAYMENTS.c.outcome == row_value("old_outcome", ORDER_PAYMENTS.c.outcome.type),
    )
    .values(outcome=row_value("new_outcome", ORDER_PAYMENTS.c.outcome.type))
    .returning(ORDER_PAYMENTS.c.pay_channel, ORDER_PAYMENTS.c.trade_no)
)
_INSERT_REFUND = RowStatement(
    insert(ORDER_REFUNDS).values(
        {column.name: row_value(column.name, column.type) for column in ORDER_REFUNDS.c}
    )
)
_FINISH_REFUND = RowStatement(
    update(ORDER_REFUNDS)
    .where(
        ORDER_REFUNDS.c.refund_no == row_value("the_refund_no", ORDER_REFUNDS.c.refund_no.type),
        ORDER_REFUNDS.c.status == "requested",
    )
    .values(
        {
            name: row_value(f"new_{name}", ORDER_REFUNDS.c[name].type)
            for name in ("status", "channel_refund_no", "failure_reason", "finished_at")
        }
    )
    .returning(ORDER_REFUNDS.c.refund_no)
)
_LOCK_REFUNDS = Statement(
    select(ORDER_REFUNDS)
    .where(is_any_of(ORDER_REFUNDS.c.refund_no, "refund_nos"))
    .order_by(ORDER_REFUNDS.c.refund_no)
    .limit(_LOCKED_REFUNDS_MAX)
    .with_for_update(key_share=True)
)
_INSERT_OPENED = RowStatement(
    insert(OPENED_PAYMENTS)
    .values({column.name: row_value(column.name, column.type) for column in OPENED_PAYMENTS.c})
    .on_conflict_do_nothing(index_elements=["payment_no"])
    .returning(OPENED_PAYMENTS.c.payment_no)
)
_PAYMENTS_OF_ORDER = Statement(
    select(ORDER_PAYMENTS)
    .where(ORDER_PAYMENTS.c.order_no == bindparam("order_no"))
    .order_by(ORDER_PAYMENTS.c.received_at)
    .limit(_PAYMENTS_PER_ORDER_MAX)
)
_REFUNDS_OF_ORDER = Statement(
    select(ORDER_REFUNDS)
    .where(ORDER_REFUNDS.c.order_no == bindparam("order_no"))
    .order_by(ORDER_REFUNDS.c.requested_at)
    .limit(_PAYMENTS_PER_ORDER_MAX)
)
_REFUNDS_OF_ORDERS = Statement(
    select(ORDER_REFUNDS)
    .where(is_any_of(ORDER_REFUNDS.c.order_no, "order_nos"))
    .order_by(ORDER_REFUNDS.c.requested_at)
    .limit(_LOCKED_REFUNDS_MAX)
)
_OPENED_OF_ORDER = Statement(
    select(OPENED_PAYMENTS)
    .where(OPENED_PAYMENTS.c.order_no == bindparam("order_no"))
    .order_by(OPENED_PAYMENTS.c.received_at)
    .limit(_PAYMENTS_PER_ORDER_MAX)
)


async def find_payments(
    transaction: Transaction, identities: Collection[PaymentIdentity]
) -> dict[PaymentIdentity, RecordedPayment]:
    """Return the payments that were seen before."""
    rows = await transaction.fetch_rows(
        _FIND_PAYMENT,
        [
            {"the_pay_channel": identity.pay_channel, "the_trade_no": identity.trade_no}
            for identity in sorted(identities)
        ],
    )
    payments = [_payment(row) for row in rows]
    return {payment.identity: payment for payment in payments}


async def insert_payments(transaction: Transaction, payments: Sequence[RecordedPayment]) -> None:
    """Record payments.

    Raises:
        ConstraintViolatedError: one was recorded before, or its order is paid by another.
    """
    await transaction.execute_rows(
        _INSERT_PAYMENT,
        [
            {
                "pay_channel": payment.identity.pay_channel,
                "trade_no": payment.identity.trade_no,
                "order_no": payment.order_no,
                "payment_no": payment.payment_no,
                "amount_minor": payment.amount_minor,
                "currency": payment.currency,
                "paid_at": payment.paid_at,
                "received_at": payment.received_at,
                "outcome": payment.outcome,
                "message_id": payment.message_id,
            }
            for payment in sorted(payments, key=lambda payment: payment.identity)
        ],
    )


async def change_outcomes(transaction: Transaction, changes: Sequence[OutcomeChange]) -> None:
    """Write what became of recorded payments, whose orders or cases this transaction has locked.

    Raises:
        StalePaymentError: the outcome of one is no longer as it was.
    """
    rows = await transaction.fetch_rows(
        _CHANGE_OUTCOME,
        [
            {
                "the_pay_channel": change.identity.pay_channel,
                "the_trade_no": change.identity.trade_no,
                "old_outcome": change.before,
                "new_outcome": change.after,
            }
            for change in sorted(changes, key=lambda change: change.identity)
        ],
    )
    missed = {change.identity for change in changes} - {_identity(row) for row in rows}
    if missed:
        message = f"payments changed under their lock: {sorted(missed)}"
        raise StalePaymentError(message)


async def insert_refunds(transaction: Transaction, refunds: Sequence[OrderRefund]) -> None:
    """Record refunds that are being asked for.

    Raises:
        ConstraintViolatedError: a payment's refund was asked for before.
    """
    await transaction.execute_rows(
        _INSERT_REFUND,
        [
            {
                "refund_no": refund.refund_no,
                "order_no": refund.order_no,
                "pay_channel": refund.identity.pay_channel,
                "trade_no": refund.identity.trade_no,
                "payment_no": refund.payment_no,
                "amount_minor": refund.amount_minor,
                "currency": refund.currency,
                "reason": refund.reason,
                "status": refund.status,
                "channel_refund_no": refund.channel_refund_no,
                "failure_reason": refund.failure_reason,
                "requested_at": refund.requested_at,
                "finished_at": refund.finished_at,
            }
            for refund in sorted(refunds, key=lambda refund: refund.refund_no)
        ],
    )


async def finish_refunds(transaction: Transaction, finished: Sequence[OrderRefund]) -> None:
    """Give refunds that this transaction has locked, and found `requested`, their end.

    Raises:
        StaleRefundError: one of them has an end already.
    """
    rows = await transaction.fetch_rows(
        _FINISH_REFUND,
        [
            {
                "the_refund_no": refund.refund_no,
                "new_status": refund.status,
                "new_channel_refund_no": refund.channel_refund_no,
                "new_failure_reason": refund.failure_reason,
                "new_finished_at": refund.finished_at,
            }
            for refund in sorted(finished, key=lambda refund: refund.refund_no)
        ],
    )
    missed = {refund.refund_no for refund in finished} - {row["refund_no"] for row in rows}
    if missed:
        message = f"refunds ended under their lock: {sorted(missed)}"
        raise StaleRefundError(message)


async def lock_refunds(
    transaction: Transaction, refund_nos: Collection[str]
) -> dict[str, OrderRefund]:
    """Lock the refunds, in the order of their numbers, and return those that were asked for."""
    rows = await transaction.fetch_all(_LOCK_REFUNDS, refund_nos=sorted(refund_nos))
    return {row["refund_no"]: _refund(row) for row in rows}


async def insert_opened_payments(
    transaction: Transaction, opened: Sequence[OpenedPayment]
) -> set[str]:
    """Record that payments were opened, and return the numbers of those that are new.

    One that is known already is left as it is; no two have one number.
    """
    rows = await transaction.fetch_rows(
        _INSERT_OPENED,
        [
            {
                "payment_no": payment.payment_no,
                "order_no": payment.order_no,
                "pay_channel": payment.pay_channel,
                "opened_at": payment.opened_at,
                "received_at": payment.received_at,
            }
            for payment in sorted(opened, key=lambda payment: payment.payment_no)
        ],
    )
    return {row["payment_no"] for row in rows}


async def list_payments(transaction: ReadTransaction, order_no: str) -> list[RecordedPayment]:
    """Return every payment seen for the order, the earliest first."""
    return [
        _payment(row) for row in await transaction.fetch_all(_PAYMENTS_OF_ORDER, order_no=order_no)
    ]


async def list_refunds(transaction: ReadTransaction, order_no: str) -> list[OrderRefund]:
    """Return every refund of the order, the earliest first."""
    return [
        _refund(row) for row in await transaction.fetch_all(_REFUNDS_OF_ORDER, order_no=order_no)
    ]


async def list_refunds_of_orders(
    transaction: ReadTransaction, order_nos: Collection[str]
) -> list[OrderRefund]:
    """Return every refund of the orders, the earliest first."""
    rows = await transaction.fetch_all(_REFUNDS_OF_ORDERS, order_nos=sorted(order_nos))
    return [_refund(row) for row in rows]


async def list_opened_payments(transaction: ReadTransaction, order_no: str) -> list[OpenedPayment]:
    """Return every payment that was opened for the order, the earliest first."""
    rows = await transaction.fetch_all(_OPENED_OF_ORDER, order_no=order_no)
    return [
        OpenedPayment(
            payment_no=row["payment_no"],
            order_no=OrderNumber(row["order_no"]),
            pay_channel=row["pay_channel"],
            opened_at=Instant(row["opened_at"]),
            received_at=Instant(row["received_at"]),
        )
        for row in rows
    ]


def _identity(row: Row) -> PaymentIdentity:
    return PaymentIdentity(pay_channel=row["pay_channel"], trade_no=row["trade_no"])


def _payment(row: Row) -> RecordedPayment:
    return RecordedPayment(
        identity=_identity(row),
        order_no=OrderNumber(row["order_no"]),
        payment_no=row["payment_no"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        paid_at=Instant(row["paid_at"]),
        received_at=Instant(row["received_at"]),
        outcome=PaymentOutcome(row["outcome"]),
        message_id=row["message_id"],
    )


def _refund(row: Row) -> OrderRefund:
    return OrderRefund(
        refund_no=row["refund_no"],
        order_no=OrderNumber(row["order_no"]),
        identity=_identity(row),
        payment_no=row["payment_no"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        reason=row["reason"],
        status=row["status"],
        requested_at=Instant(row["requested_at"]),
        finished_at=row["finished_at"],
        channel_refund_no=row["channel_refund_no"],
        failure_reason=row["failure_reason"],
    )
