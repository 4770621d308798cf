"""Settle payments: money came, or will not come. Use cases over an open transaction; no commit.

Invariant: every distinct report of money is recorded and told to the order service exactly once, in
the same transaction. Nothing is held back for being late, double, or of another amount: what came
is money, and orders decide what becomes of it. A repeat of a report changes nothing.

A trade that is said to pay two payments brought its money once. The first payment it was reported
for has succeeded by it; the second stays as it is, and orders are told, for they make a case of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from orderkeep.contracts import payment_success_notify
from orderkeep.contracts.payment_success_notify import PaymentSucceeded
from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.outbox import Outbox
from orderkeep.payments.announce import Announcement, announce
from orderkeep.payments.payment import Payment, fits, with_money, without_money
from orderkeep.payments.store import known_orders
from orderkeep.payments.store import payments as payment_store
from orderkeep.payments.store.payments import PaymentChange, Receipt, ReceiptIdentity
from orderkeep.refusal import Refusal

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyReport:
    """A channel's word that money came for a payment.

    Attributes:
        currency: None is the payment's.
        paid_at: None is now.
    """

    payment_no: str
    trade_no: str
    amount_minor: int
    currency: str | None = None
    paid_at: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReport:
    """A channel's word that no money will come for a payment.

    Attributes:
        reason: Why, in the channel's words, if it gave any.
    """

    payment_no: str
    reason: str | None = None


async def settle_successes(
    transaction: Transaction, reports: Sequence[MoneyReport], *, outbox: Outbox, now: Instant
) -> list[Payment | Refusal]:
    """Take in what came for payments.

    Returns:
        For each report, in order, its payment as it now is, or `not_found`.
    """
    found = await payment_store.find_payments(
        transaction, {report.payment_no for report in reports}
    )
    order_nos = {payment.order_no for payment in found.values()}
    await known_orders.lock_orders(transaction, order_nos, now=now)
    before = await payment_store.lock_payments(transaction, found)
    receipts: dict[ReceiptIdentity, Receipt] = {}
    for report in reports:
        if report.payment_no in before:
            receipt = _receipt(report, before[report.payment_no], now=now)
            receipts.setdefault(receipt.identity, receipt)
    payers = await _payers(transaction, receipts.values())
    new = await payment_store.record_receipts(transaction, receipts.values(), now=now)
    news = [receipt for identity, receipt in receipts.items() if identity in new]
    after = dict(before)
    for receipt in news:
        payer = payers.setdefault((receipt.pay_channel, receipt.trade_no), receipt.payment_no)
        if payer == receipt.payment_no:
            after[payer] = with_money(
                after[payer], trade_no=receipt.trade_no, paid_at=receipt.paid_at, now=now
            )
    await payment_store.change_payments(transaction, _changes(before, after))
    announcements = [_announcement(receipt, before[receipt.payment_no]) for receipt in news]
    await announce(transaction, announcements, outbox=outbox, now=now)
    transaction.after_commit(partial(_log_money, news, before))
    return [_answer(after, report.payment_no) for report in reports]


async def settle_failures(
    transaction: Transaction, reports: Sequence[FailureReport], *, now: Instant
) -> list[Payment | Refusal]:
    """Take in that payments failed; one that has its money, or has ended, stays as it is.

    Returns:
        For each report, in order, its payment as it now is, or `not_found`.
    """
    before = await payment_store.lock_payments(
        transaction, {report.payment_no for report in reports}
    )
    after = dict(before)
    for report in reports:
        if report.payment_no in after:
            after[report.payment_no] = without_money(
                after[report.payment_no], reason=report.reason, now=now
            )
    changes = _changes(before, after)
    await payment_store.change_payments(transaction, changes)
    transaction.after_commit(partial(_log_failures, changes))
    return [_answer(after, report.payment_no) for report in reports]


def unknown_payment(payment_no: str) -> Refusal:
    """Return the refusal for a payment that does not exist, or not for whoever asks."""
    return Refusal("not_found", f"There is no payment {payment_no}.")


async def _payers(
    transaction: Transaction, receipts: Iterable[Receipt]
) -> dict[tuple[str, str], str]:
    """Return, for each trade that was reported before, the payment it was reported for.

    Two reports that name one trade for two payments at the same instant meet at the unique index:
    one transaction fails as a whole, and its channel reports again.
    """
    trade_nos = {receipt.trade_no for receipt in receipts}
    recorded = await payment_store.receipts_of_trades(transaction, trade_nos)
    return {(receipt.pay_channel, receipt.trade_no): receipt.payment_no for receipt in recorded}


def _answer(payments: dict[str, Payment], payment_no: str) -> Payment | Refusal:
    return payments.get(payment_no) or unknown_payment(payment_no)


def _receipt(report: MoneyReport, payment: Payment, *, now: Instant) -> Receipt:
    return Receipt(
        pay_channel=payment.pay_channel,
        trade_no=report.trade_no,
        payment_no=payment.payment_no,
        amount_minor=report.amount_minor,
        currency=report.currency or payment.currency,
        paid_at=now if report.paid_at is None else report.paid_at,
    )


def _changes(before: dict[str, Payment], after: dict[str, Payment]) -> list[PaymentChange]:
    return [
        PaymentChange(before=before[payment_no], after=payment)
        for payment_no, payment in after.items()
        if payment is not before[payment_no]
    ]


def _announcement(receipt: Receipt, payment: Payment) -> Announcement:
    body = PaymentSucceeded(
        payment_no=receipt.payment_no,
        order_no=payment.order_no,
        user_id=payment.user_id,
        amount_minor=receipt.amount_minor,
        currency=receipt.currency,
        trade_no=receipt.trade_no,
        paid_at=receipt.paid_at,
        pay_channel=receipt.pay_channel,
    )
    return Announcement(
        order_no=payment.order_no,
        type=payment_success_notify.TYPE,
        route=payment_success_notify.ROUTE,
        body=payment_success_notify.encode(body),
    )


def _log_money(news: Sequence[Receipt], payments: dict[str, Payment]) -> None:
    for receipt in news:
        payment = payments[receipt.payment_no]
        log.info(
            "payment_money_received",
            order_no=payment.order_no,
            payment_no=payment.payment_no,
            pay_channel=receipt.pay_channel,
            trade_no=receipt.trade_no,
            was_status=payment.status.value,
            amount_fits=fits(payment, amount_minor=receipt.amount_minor, currency=receipt.currency),
        )


def _log_failures(changes: Sequence[PaymentChange]) -> None:
    for change in changes:
        log.info(
            "payment_failed",
            order_no=change.after.order_no,
            payment_no=change.after.payment_no,
            pay_channel=change.after.pay_channel,
            reason=change.after.reason,
        )
