"""Resolve payment cases by an operator's verdict; a use case over an open transaction.

Invariant: a case is resolved once, by a statement guarded on its being open, in the transaction of
everything that follows: the order that is paid, the refund that is asked for, the entry in the
record of what operators did. Of two operators who decide at once, the second is told who was first.

Locks: orders by number, then cases by id, then stock by SKU. What is written besides, a payment's
outcome and its one refund, lies under the locks of its order and its case: nobody waits for it.
A crash before the commit leaves nothing, and the case is open.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from orderkeep.contracts.refund_reason import RefundReason
from orderkeep.database.audit import CASE_RESOLVED, Act, AuditEntry, append_audit
from orderkeep.database.transaction import Transaction
from orderkeep.failure_points import reach
from orderkeep.instant import Instant
from orderkeep.messaging.message import Event
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.case_resolution import (
    CaseAction,
    GiveBack,
    PaymentCase,
    PayOrder,
    Resolution,
    Verdict,
    judge,
)
from orderkeep.orders.drafted_changes import DraftedChanges, skus_of
from orderkeep.orders.events import paid_events, refund_events
from orderkeep.orders.order import Status
from orderkeep.orders.payment import PaymentIdentity, PaymentOutcome, RecordedPayment
from orderkeep.orders.refund import OrderRefund
from orderkeep.orders.stock import Short, admit, demand_of, out_of_stock
from orderkeep.orders.store.orders import lock_orders
from orderkeep.orders.store.payment_cases import find_cases, lock_cases, save_resolutions
from orderkeep.orders.store.payments import (
    OutcomeChange,
    change_outcomes,
    find_payments,
    insert_refunds,
)
from orderkeep.orders.store.stock import lock_skus
from orderkeep.orders.write_changes import write_changes
from orderkeep.refusal import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveCase:
    """An operator's verdict on a case."""

    case_id: int
    action: CaseAction
    act: Act


@dataclass(slots=True, kw_only=True)
class _Docket:
    """What the verdicts come to, case by case, before any of it is written.

    Attributes:
        available: What is left of each SKU that an order may take again.
        loose_events: Events about orders that are not here.
    """

    drafts: DraftedChanges
    cases: dict[int, PaymentCase]
    payments: dict[PaymentIdentity, RecordedPayment]
    available: Mapping[str, int]
    now: Instant
    draw_refund_no: Callable[[], str]
    resolved: list[PaymentCase] = field(default_factory=list)
    outcomes: list[OutcomeChange] = field(default_factory=list)
    refunds: list[OrderRefund] = field(default_factory=list)
    loose_events: list[Event] = field(default_factory=list)
    entries: list[AuditEntry] = field(default_factory=list)


async def resolve_cases(
    transaction: Transaction,
    wishes: Sequence[ResolveCase],
    *,
    outbox: Outbox,
    draw_refund_no: Callable[[], str],
) -> list[PaymentCase | Refusal]:
    """Resolve each case that can be; return it for each wish as it is then, or a refusal.

    Refusals: `not_found`, `out_of_stock` (of a closed order that shall be paid), and those of
    `judge`.

    Args:
        draw_refund_no: Draws a number that no refund has.
    """
    case_ids = {wish.case_id for wish in wishes}
    found = await find_cases(transaction, case_ids)
    locked = await lock_orders(transaction, {case.order_no for case in found.values()})
    cases = await lock_cases(transaction, case_ids)
    payments = await find_payments(transaction, {case.identity for case in cases.values()})
    # Of every order that may be paid, all at once: what is paid moves its stock as well.
    may_be_paid = {
        found[wish.case_id].order_no
        for wish in wishes
        if wish.action is CaseAction.ACCEPT and wish.case_id in found
    }
    skus = await lock_skus(
        transaction, skus_of(order for order in locked.values() if order.order_no in may_be_paid)
    )
    docket = _Docket(
        drafts=DraftedChanges(locked=locked),
        cases=cases,
        payments=payments,
        available={sku_id: sku.available for sku_id, sku in skus.items()},
        now=await transaction.now(),
        draw_refund_no=draw_refund_no,
    )
    answers = [_resolve(docket, wish) for wish in wishes]
    await save_resolutions(transaction, docket.resolved)
    reach("resolve_cases.after_resolutions")
    await change_outcomes(transaction, docket.outcomes)
    await insert_refunds(transaction, docket.refunds)
    await write_changes(transaction, docket.drafts.changes(), outbox=outbox, now=docket.now)
    await outbox.append(transaction, docket.loose_events, now=docket.now)
    await append_audit(transaction, docket.entries, now=docket.now)
    return answers


def _resolve(docket: _Docket, wish: ResolveCase) -> PaymentCase | Refusal:
    case = docket.cases.get(wish.case_id)
    if case is None:
        return Refusal("not_found", f"There is no payment case {wish.case_id}.")
    try:
        verdict = judge(
            case,
            action=wish.action,
            order=docket.drafts.orders.get(case.order_no),
            payment=docket.payments.get(case.identity),
            now=docket.now,
        )
        if isinstance(verdict, PayOrder):
            _take_stock(docket, verdict)
    except Refusal as refusal:
        return refusal
    return _enter(docket, wish, case=case, verdict=verdict)


def _take_stock(docket: _Docket, verdict: PayOrder) -> None:
    """Take the stock of an order that was closed; one that is pending holds its own.

    Raises:
        Refusal: `out_of_stock`.
    """
    order = verdict.transition.before
    if order.status is not Status.CLOSED:
        return
    admission = admit([demand_of(order)], available=docket.available)
    (admitted,) = admission.verdicts
    if isinstance(admitted, Short):
        raise out_of_stock(admitted.shortages)
    docket.available = admission.remaining


def _enter(
    docket: _Docket, wish: ResolveCase, *, case: PaymentCase, verdict: Verdict
) -> PaymentCase:
    refund_no = None
    if isinstance(verdict, PayOrder):
        _enter_paid(docket, verdict, case=case, actor=wish.act.actor)
    elif isinstance(verdict, GiveBack):
        refund_no = docket.draw_refund_no()
        _enter_refund(docket, verdict, case=case, refund_no=refund_no)
    resolved = replace(
        case,
        resolution=Resolution(
            action=wish.action,
            resolved_by=wish.act.actor,
            reason=wish.act.reason or "",
            resolved_at=docket.now,
        ),
    )
    # A second wish for the same case in this batch finds it resolved.
    docket.cases[case.case_id] = resolved
    docket.resolved.append(resolved)
    docket.entries.append(_audit_entry(wish, case=case, refund_no=refund_no))
    return resolved


def _enter_paid(docket: _Docket, verdict: PayOrder, *, case: PaymentCase, actor: str) -> None:
    transition = verdict.transition
    events = paid_events(transition.after, sequence=transition.before.event_seq + 1, now=docket.now)
    docket.drafts.pay(transition, actor=actor, events=events)
    _enter_outcome(docket, case, after=PaymentOutcome.ACCEPTED)


def _enter_refund(docket: _Docket, verdict: GiveBack, *, case: PaymentCase, refund_no: str) -> None:
    refund = OrderRefund(
        refund_no=refund_no,
        order_no=case.order_no,
        identity=case.identity,
        payment_no=case.payment_no,
        amount_minor=verdict.amount_minor,
        currency=verdict.currency,
        reason=RefundReason.OPERATOR,
        status="requested",
        requested_at=docket.now,
    )
    docket.refunds.append(refund)
    order = docket.drafts.orders.get(case.order_no)
    if order is None:
        # There is no row whose count could order it; it is the one event that such an order has.
        (event,) = refund_events([refund], user_id=None, sequence=0)
        docket.loose_events.append(replace(event, ordered=False))
    else:
        events = refund_events([refund], user_id=order.user_id, sequence=order.event_seq + 1)
        docket.drafts.tell(order, events)
    _enter_outcome(docket, case, after=PaymentOutcome.REFUND)


def _enter_outcome(docket: _Docket, case: PaymentCase, *, after: PaymentOutcome) -> None:
    payment = docket.payments[case.identity]
    docket.payments[case.identity] = replace(payment, outcome=after)
    docket.outcomes.append(
        OutcomeChange(identity=case.identity, before=payment.outcome, after=after)
    )


def _audit_entry(wish: ResolveCase, *, case: PaymentCase, refund_no: str | None) -> AuditEntry:
    detail: dict[str, object] = {
        "action": wish.action.value,
        "kind": case.kind.value,
        "order_no": case.order_no,
        "trade_no": case.identity.trade_no,
    }
    if refund_no is not None:
        detail["refund_no"] = refund_no
    return AuditEntry(
        act=wish.act,
        action=CASE_RESOLVED,
        subject=str(case.case_id),
        detail=detail,
    )
