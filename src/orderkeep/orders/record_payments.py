"""Record reported payments, each once, and do what the table of `payment.py` decides.

Invariant: a payment's record, what it does to its order, and the refund or case that follows from
it are written in one transaction. A payment is recorded once by its identity, whatever message
brings it; an order is paid by one payment; a payment is refunded once: each is a unique row.

A late payment revives its order only with all of its stock, taken under the locks that buyers take
it under. Whether there is enough shows only once the stock is locked, and payments come before
stock in the order of locks: so the batch is decided as if there were, the payments are recorded,
the stock is locked, and where it is short the batch is decided again without those revivals.

Locks: orders by number, then payments by identity, then stock by SKU. A crash before the commit
leaves nothing, and the message comes again; after it, the inbox knows the message.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeAlias

from msgspec import Struct

from orderkeep.database.transaction import Transaction
from orderkeep.failure_points import reach
from orderkeep.instant import Instant
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.case_resolution import PaymentCase
from orderkeep.orders.drafted_changes import DraftedChanges, skus_of
from orderkeep.orders.events import paid_events, refund_events
from orderkeep.orders.order import Order, OrderNumber, Transition
from orderkeep.orders.payment import (
    Accept,
    AlreadyRecorded,
    AwaitOrder,
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
from orderkeep.orders.refund import OrderRefund
from orderkeep.orders.stock import Short, admit, demand_of
from orderkeep.orders.store.orders import lock_orders
from orderkeep.orders.store.payment_cases import insert_cases
from orderkeep.orders.store.payments import (
    OutcomeChange,
    change_outcomes,
    find_payments,
    insert_payments,
    insert_refunds,
)
from orderkeep.orders.store.stock import lock_skus
from orderkeep.orders.write_changes import write_changes


class PaymentReport(Struct, frozen=True, kw_only=True):
    """A payment as a message reported it.

    Attributes:
        may_wait: The order, if it is unknown, may still become visible.
    """

    payment: Payment
    message_id: str
    may_wait: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """What a batch is decided by, beside its reports and what is on record."""

    policy: LatePaymentPolicy
    now: Instant
    draw_refund_no: Callable[[], str]


@dataclass(slots=True, kw_only=True)
class _Ledger:
    """What a batch comes to, payment by payment, before any of it is written.

    Attributes:
        drafts: What becomes of the orders.
        known: Payments on record, those of this batch among them.
        decisions: One for each report; a revival for want of stock is what it is otherwise.
    """

    drafts: DraftedChanges
    known: dict[PaymentIdentity, RecordedPayment]
    decisions: list[Decision] = field(default_factory=list)
    payments: list[RecordedPayment] = field(default_factory=list)
    cases: list[PaymentCase] = field(default_factory=list)
    refunds: list[OrderRefund] = field(default_factory=list)


Decisions: TypeAlias = list[Decision]


async def record_payments(
    transaction: Transaction,
    reports: Sequence[PaymentReport],
    *,
    policy: LatePaymentPolicy,
    outbox: Outbox,
    draw_refund_no: Callable[[], str],
) -> Decisions:
    """Record the payments and carry out what each decides.

    Args:
        policy: For payments of closed orders.
        draw_refund_no: Draws a number that no refund has.

    Returns:
        One decision for each report, in order; `AwaitOrder` had no effect, and `Revive` has found
        its stock.

    Raises:
        ConstraintViolatedError: another transaction recorded one of them meanwhile; run it again.
    """
    locked = await lock_orders(transaction, {report.payment.order_no for report in reports})
    known = await find_payments(transaction, {report.payment.identity for report in reports})
    now = await transaction.now()
    rules = _Rules(policy=policy, now=now, draw_refund_no=draw_refund_no)
    ledger = _decide_all(reports, locked=locked, known=known, rules=rules)
    await insert_payments(transaction, ledger.payments)
    short = await _find_short(transaction, ledger)
    if short:
        hoped = ledger
        ledger = _decide_all(reports, locked=locked, known=known, rules=rules, short=short)
        await change_outcomes(transaction, _outcome_changes(hoped, ledger))
    await insert_cases(transaction, ledger.cases)
    await insert_refunds(transaction, ledger.refunds)
    reach("record_payments.after_payments")
    await write_changes(transaction, ledger.drafts.changes(), outbox=outbox, now=now)
    reach("record_payments.after_changes")
    return ledger.decisions


def _decide_all(
    reports: Sequence[PaymentReport],
    *,
    locked: Mapping[OrderNumber, Order],
    known: Mapping[PaymentIdentity, RecordedPayment],
    rules: _Rules,
    short: AbstractSet[OrderNumber] = frozenset(),
) -> _Ledger:
    """Decide the reports in their order, each on what those before it have made of the orders.

    Args:
        short: Orders that cannot be revived, for want of stock.
    """
    ledger = _Ledger(drafts=DraftedChanges(locked=locked), known=dict(known))
    for report in reports:
        order_no = report.payment.order_no
        decision = decide(
            report.payment,
            order=ledger.drafts.orders.get(order_no),
            earlier=ledger.known.get(report.payment.identity),
            policy=rules.policy,
            now=rules.now,
            give_up_unknown_order=not report.may_wait,
        )
        if isinstance(decision, Revive) and order_no in short:
            decision = decision.otherwise
        _enter(ledger, report, decision=decision, rules=rules)
        ledger.decisions.append(decision)
    return ledger


async def _find_short(transaction: Transaction, ledger: _Ledger) -> set[OrderNumber]:
    """Return the orders to be revived whose stock is not there, in order of arrival.

    Where there is anything to revive, the stock of every order that is paid is locked here, all at
    once: who locks some of it now and more of it later may wait in a circle.
    """
    drafts = ledger.drafts
    revived = drafts.revived
    if not revived:
        return set()
    skus = await lock_skus(transaction, skus_of(drafts.locked[it] for it in drafts.history))
    admission = admit(
        [demand_of(drafts.locked[order_no]) for order_no in revived],
        available={sku_id: sku.available for sku_id, sku in skus.items()},
    )
    return {
        order_no
        for order_no, verdict in zip(revived, admission.verdicts, strict=True)
        if isinstance(verdict, Short)
    }


def _outcome_changes(hoped: _Ledger, decided: _Ledger) -> list[OutcomeChange]:
    return [
        OutcomeChange(identity=payment.identity, before=before.outcome, after=payment.outcome)
        for before, payment in zip(hoped.payments, decided.payments, strict=True)
        if before.outcome is not payment.outcome
    ]


def _enter(ledger: _Ledger, report: PaymentReport, *, decision: Decision, rules: _Rules) -> None:
    now = rules.now
    match decision:
        case AlreadyRecorded() | AwaitOrder():
            return
        case OpenCase():
            _enter_payment(ledger, report, outcome=PaymentOutcome.CASE, now=now)
            _enter_case(ledger, report, case=decision, now=now)
        case RequestRefund():
            refund_no = rules.draw_refund_no()
            _enter_payment(ledger, report, outcome=PaymentOutcome.REFUND, now=now)
            _enter_refund(ledger, report, wanted=decision, refund_no=refund_no, now=now)
        case Accept(transition=transition) | Revive(transition=transition):
            _enter_payment(ledger, report, outcome=PaymentOutcome.ACCEPTED, now=now)
            _enter_paid(ledger, report, transition=transition, now=now)


def _enter_payment(
    ledger: _Ledger, report: PaymentReport, *, outcome: PaymentOutcome, now: Instant
) -> None:
    payment = report.payment
    if payment.identity in ledger.known:
        return  # A conflict: its identity is on record already, by another report.
    recorded = RecordedPayment(
        identity=payment.identity,
        order_no=payment.order_no,
        payment_no=payment.payment_no,
        amount_minor=payment.amount_minor,
        currency=currency_of(payment, order=ledger.drafts.orders.get(payment.order_no)),
        paid_at=paid_at_of(payment, now=now),
        received_at=now,
        outcome=outcome,
        message_id=report.message_id,
    )
    ledger.payments.append(recorded)
    ledger.known[payment.identity] = recorded


def _enter_case(ledger: _Ledger, report: PaymentReport, *, case: OpenCase, now: Instant) -> None:
    payment = report.payment
    ledger.cases.append(
        PaymentCase(
            kind=case.kind,
            order_no=payment.order_no,
            identity=payment.identity,
            payment_no=payment.payment_no,
            amount_minor=payment.amount_minor,
            currency=currency_of(payment, order=ledger.drafts.orders.get(payment.order_no)),
            message_id=report.message_id,
            detail=case.detail,
            opened_at=now,
        )
    )


def _enter_refund(
    ledger: _Ledger,
    report: PaymentReport,
    *,
    wanted: RequestRefund,
    refund_no: str,
    now: Instant,
) -> None:
    payment = report.payment
    refund = OrderRefund(
        refund_no=refund_no,
        order_no=payment.order_no,
        identity=payment.identity,
        payment_no=payment.payment_no,
        amount_minor=wanted.amount_minor,
        currency=wanted.currency,
        reason=wanted.reason,
        status="requested",
        requested_at=now,
    )
    ledger.refunds.append(refund)
    order = ledger.drafts.orders[payment.order_no]
    events = refund_events([refund], user_id=order.user_id, sequence=order.event_seq + 1)
    ledger.drafts.tell(order, events)


def _enter_paid(
    ledger: _Ledger, report: PaymentReport, *, transition: Transition, now: Instant
) -> None:
    events = paid_events(transition.after, sequence=transition.before.event_seq + 1, now=now)
    ledger.drafts.pay(transition, actor=report.message_id, events=events)
