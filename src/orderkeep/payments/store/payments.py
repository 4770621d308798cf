"""Payments, and every report of money that came in for one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import bindparam, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.statement import RowStatement, Statement, is_any_of, row_value
from orderkeep.database.transaction import ReadTransaction, Row, Transaction, Value
from orderkeep.instant import Instant
from orderkeep.payments.payment import Payment, PaymentStatus
from orderkeep.payments.tables import PAYMENT_RECEIPTS, PAYMENTS


class ReceiptIdentity(NamedTuple):
    """What makes two reports of money one: said again it is the same, said differently another."""

    pay_channel: str
    trade_no: str
    payment_no: str
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Money that a channel reported for a payment."""

    pay_channel: str
    trade_no: str
    payment_no: str
    amount_minor: int
    currency: str
    paid_at: Instant

    @property
    def identity(self) -> ReceiptIdentity:
        """Everything but the time."""
        return ReceiptIdentity(
            pay_channel=self.pay_channel,
            trade_no=self.trade_no,
            payment_no=self.payment_no,
            amount_minor=self.amount_minor,
            currency=self.currency,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentChange:
    """A payment as it was read, under its lock, and as it becomes."""

    before: Payment
    after: Payment


# Far above any batch, which is a prefetch of messages: an order has an open payment on each channel
# at most, and a trade one receipt, or a few where a channel erred.
_PAYMENTS_MAX = 10_000
_RECEIPTS_MAX = 10_000

_MUTABLE = ("status", "trade_no", "paid_at", "ended_at", "reason")

_FIND_PAYMENT = Statement(
    select(PAYMENTS).where(PAYMENTS.c.payment_no == bindparam("payment_no")).limit(1)
)
_by_numbers = (
    select(PAYMENTS)
    .where(is_any_of(PAYMENTS.c.payment_no, "payment_nos"))
    .order_by(PAYMENTS.c.payment_no)
    .limit(_PAYMENTS_MAX)
)
_FIND_PAYMENTS = Statement(_by_numbers)
_LOCK_PAYMENTS = Statement(_by_numbers.with_for_update(key_share=True))
_LOCK_OPEN_OF_ORDERS = Statement(
    select(PAYMENTS)
    .where(
        is_any_of(PAYMENTS.c.order_no, "order_nos"),
        # A literal: an engine chooses a partial index only by what the statement itself says.
        PAYMENTS.c.status == literal_column("'open'"),
    )
    .order_by(PAYMENTS.c.payment_no)
    .limit(_PAYMENTS_MAX)
    .with_for_update(key_share=True)
)
_INSERT_PAYMENT = RowStatement(
    insert(PAYMENTS).values(
        {column.name: row_value(column.name, column.type) for column in PAYMENTS.c}
    )
)
_CHANGE_PAYMENT = RowStatement(
    update(PAYMENTS)
    .where(
        PAYMENTS.c.payment_no == row_value("the_payment_no", PAYMENTS.c.payment_no.type),
        PAYMENTS.c.status == row_value("old_status", PAYMENTS.c.status.type),
    )
    .values({name: row_value(f"new_{name}", PAYMENTS.c[name].type) for name in _MUTABLE})
    .returning(PAYMENTS.c.payment_no)
)

_IDENTITY_COLUMNS = [PAYMENT_RECEIPTS.c[name] for name in ReceiptIdentity._fields]
_RECORD_RECEIPT = RowStatement(
    insert(PAYMENT_RECEIPTS)
    .values({column.name: row_value(column.name, column.type) for column in PAYMENT_RECEIPTS.c})
    .on_conflict_do_nothing(index_elements=list(ReceiptIdentity._fields))
    .returning(*_IDENTITY_COLUMNS)
)
_RECEIPTS_OF_TRADES = Statement(
    select(PAYMENT_RECEIPTS)
    .where(is_any_of(PAYMENT_RECEIPTS.c.trade_no, "trade_nos"))
    .order_by(*_IDENTITY_COLUMNS)
    .limit(_RECEIPTS_MAX)
)


async def find_payment(transaction: ReadTransaction, payment_no: str) -> Payment | None:
    """Return the payment."""
    row = await transaction.fetch_one(_FIND_PAYMENT, payment_no=payment_no)
    return None if row is None else _payment(row)


async def find_payments(transaction: Transaction, payment_nos: Iterable[str]) -> dict[str, Payment]:
    """Return those of the payments that exist, without a lock: only what never changes holds."""
    return await _payments(transaction, _FIND_PAYMENTS, payment_nos)


async def lock_payments(transaction: Transaction, payment_nos: Iterable[str]) -> dict[str, Payment]:
    """Lock the payments and return them as they are."""
    return await _payments(transaction, _LOCK_PAYMENTS, payment_nos)


async def lock_open_payments(transaction: Transaction, order_nos: Iterable[str]) -> list[Payment]:
    """Lock the open payments of the orders and return them, sorted by number."""
    rows = await transaction.fetch_all(_LOCK_OPEN_OF_ORDERS, order_nos=sorted(set(order_nos)))
    return [_payment(row) for row in rows]


async def insert_payments(transaction: Transaction, payments: Sequence[Payment]) -> None:
    """Insert new payments; their orders are locked, and have no open one on the same channel."""
    rows: list[dict[str, Value]] = [
        {
            "payment_no": payment.payment_no,
            "order_no": payment.order_no,
            "user_id": payment.user_id,
            "pay_channel": payment.pay_channel,
            "amount_minor": payment.amount_minor,
            "currency": payment.currency,
            "status": payment.status.value,
            "trade_no": payment.trade_no,
            "opened_at": payment.opened_at,
            "paid_at": payment.paid_at,
            "ended_at": payment.ended_at,
            "reason": payment.reason,
        }
        for payment in sorted(payments, key=lambda payment: payment.payment_no)
    ]
    await transaction.execute_rows(_INSERT_PAYMENT, rows)


async def change_payments(transaction: Transaction, changes: Sequence[PaymentChange]) -> None:
    """Write payments that changed; each was read under its lock.

    Raises:
        RuntimeError: a payment was no longer as it was read: it was not locked. Nothing may be
            committed.
    """
    rows: list[dict[str, Value]] = [
        {
            "the_payment_no": change.before.payment_no,
            "old_status": change.before.status.value,
            "new_status": change.after.status.value,
            "new_trade_no": change.after.trade_no,
            "new_paid_at": change.after.paid_at,
            "new_ended_at": change.after.ended_at,
            "new_reason": change.after.reason,
        }
        for change in sorted(changes, key=lambda change: change.before.payment_no)
    ]
    changed = await transaction.fetch_rows(_CHANGE_PAYMENT, rows)
    if len(changed) != len(rows):
        missed = {row["the_payment_no"] for row in rows} - {row["payment_no"] for row in changed}
        message = f"payments {sorted(map(str, missed))} changed while they were locked"
        raise RuntimeError(message)


async def record_receipts(
    transaction: Transaction, receipts: Iterable[Receipt], *, now: Instant
) -> set[ReceiptIdentity]:
    """Record reports of money and return the identities of those that are new.

    No two receipts have one identity.
    """
    rows: list[dict[str, Value]] = [
        {
            "pay_channel": receipt.pay_channel,
            "trade_no": receipt.trade_no,
            "payment_no": receipt.payment_no,
            "amount_minor": receipt.amount_minor,
            "currency": receipt.currency,
            "paid_at": receipt.paid_at,
            "received_at": now,
        }
        for receipt in sorted(receipts, key=lambda receipt: receipt.identity)
    ]
    recorded = await transaction.fetch_rows(_RECORD_RECEIPT, rows)
    return {_receipt_identity(row) for row in recorded}


async def receipts_of_trades(transaction: Transaction, trade_nos: Iterable[str]) -> list[Receipt]:
    """Return what was received under the trade numbers, on whatever channel."""
    rows = await transaction.fetch_all(_RECEIPTS_OF_TRADES, trade_nos=sorted(set(trade_nos)))
    return [_receipt(row) for row in rows]


async def _payments(
    transaction: Transaction, statement: Statement, payment_nos: Iterable[str]
) -> dict[str, Payment]:
    rows = await transaction.fetch_all(statement, payment_nos=sorted(set(payment_nos)))
    payments = [_payment(row) for row in rows]
    return {payment.payment_no: payment for payment in payments}


def _payment(row: Row) -> Payment:
    return Payment(
        payment_no=row["payment_no"],
        order_no=row["order_no"],
        user_id=row["user_id"],
        pay_channel=row["pay_channel"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        status=PaymentStatus(row["status"]),
        trade_no=row["trade_no"],
        opened_at=Instant(row["opened_at"]),
        paid_at=row["paid_at"],
        ended_at=row["ended_at"],
        reason=row["reason"],
    )


def _receipt_identity(row: Row) -> ReceiptIdentity:
    return ReceiptIdentity(
        pay_channel=row["pay_channel"],
        trade_no=row["trade_no"],
        payment_no=row["payment_no"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
    )


def _receipt(row: Row) -> Receipt:
    return Receipt(
        pay_channel=row["pay_channel"],
        trade_no=row["trade_no"],
        payment_no=row["payment_no"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        paid_at=Instant(row["paid_at"]),
    )
