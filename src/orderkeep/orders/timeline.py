"""The story of one order: every change, message, payment, case, refund and webhook, in order."""

from collections.abc import Sequence
from dataclasses import dataclass

from orderkeep.contracts.amount import text_of_minor
from orderkeep.database.transaction import ReadTransaction
from orderkeep.instant import Instant, rfc3339
from orderkeep.messaging.outbox_rows import OutboxRow, OutboxRows
from orderkeep.orders.case_resolution import CaseState, PaymentCase, Resolution
from orderkeep.orders.payment import RecordedPayment
from orderkeep.orders.refund import OrderRefund
from orderkeep.orders.store import orders as order_store
from orderkeep.orders.store import payments as payment_store
from orderkeep.orders.store import webhooks as webhook_store
from orderkeep.orders.store.payment_cases import list_cases_of_order

Item = dict[str, object]

_FOR_OPERATORS = frozenset({"detail", "last_error"})

# Of a case that is resolved: who did it, and what operators tell each other.
_CASE_FOR_OPERATORS = frozenset({"resolved_by", "reason"})


@dataclass(frozen=True, slots=True)
class _Moment:
    at: Instant
    item: Item


async def read_timeline(
    transaction: ReadTransaction, order_no: str, *, outbox_rows: OutboxRows
) -> list[Item]:
    """Return what happened to the order, the earliest first, as plain JSON objects.

    Each has `at` and `kind`: "state", "message", "payment_opened", "payment", "case", "refund" or
    "webhook".
    """
    history = await order_store.list_history(transaction, order_no)
    messages = await outbox_rows.of_aggregate(transaction, order_no)
    opened = await payment_store.list_opened_payments(transaction, order_no)
    payments = await payment_store.list_payments(transaction, order_no)
    cases = await list_cases_of_order(transaction, order_no)
    refunds = await payment_store.list_refunds(transaction, order_no)
    webhooks = await webhook_store.list_webhooks(transaction, order_no)
    # What is of one moment stays in this order: what happened, what followed, who was told.
    moments = [
        *map(_state_changed, history),
        *map(_payment_opened, opened),
        *map(_payment, payments),
        *map(_case_opened, cases),
        *(_case_resolved(case, case.resolution) for case in cases if case.resolution is not None),
        *map(_refund_requested, refunds),
        *map(_message, messages),
        *(
            _refund_finished(refund, refund.finished_at)
            for refund in refunds
            if refund.finished_at is not None
        ),
        *map(_webhook, webhooks),
    ]
    return [moment.item for moment in _in_order(moments)]


def for_buyer(items: Sequence[Item]) -> list[Item]:
    """Return what of a timeline is a buyer's business.

    Whom else the shop tells, and what went wrong with a message, may name addresses and secrets;
    what is wrong with a payment may name another buyer's order.
    """
    return [
        {name: value for name, value in item.items() if not _is_for_operators(name, item)}
        for item in items
        if item["kind"] != "webhook"
    ]


def _is_for_operators(name: str, item: Item) -> bool:
    return name in _FOR_OPERATORS or (item["kind"] == "case" and name in _CASE_FOR_OPERATORS)


def _in_order(moments: Sequence[_Moment]) -> list[_Moment]:
    # Sorting is stable: what is of one moment stays in the order it was read.
    return sorted(moments, key=lambda moment: moment.at)


def _moment(at: Instant, kind: str, **members: object) -> _Moment:
    present = {name: value for name, value in members.items() if value is not None}
    return _Moment(at, {"at": rfc3339(at), "kind": kind, **present})


def _state_changed(entry: order_store.HistoryEntry) -> _Moment:
    return _moment(
        entry.changed_at,
        "state",
        version=entry.version,
        from_status=entry.from_status,
        to_status=entry.to_status,
        cause=entry.cause,
        actor=entry.actor,
        note=entry.note,
    )


def _message(message: OutboxRow) -> _Moment:
    return _moment(
        message.created_at,
        "message",
        message_id=message.message_id,
        type=message.type,
        route=message.route,
        state=message.state.value,
        deliver_at=None if message.deliver_at is None else rfc3339(message.deliver_at),
        sent_at=None if message.sent_at is None else rfc3339(message.sent_at),
        last_error=message.last_error,
    )


def _payment_opened(opened: payment_store.OpenedPayment) -> _Moment:
    # Placed by our own clock: one of another program may be behind.
    return _moment(
        opened.received_at,
        "payment_opened",
        payment_no=opened.payment_no,
        pay_channel=opened.pay_channel,
        opened_at=rfc3339(opened.opened_at),
    )


def _payment(payment: RecordedPayment) -> _Moment:
    return _moment(
        payment.received_at,
        "payment",
        outcome=payment.outcome.value,
        payment_no=payment.payment_no,
        pay_channel=payment.identity.pay_channel or None,
        trade_no=payment.identity.trade_no,
        amount=_amount(payment.amount_minor),
        currency=payment.currency,
        paid_at=rfc3339(payment.paid_at),
        message_id=payment.message_id,
    )


def _case_opened(case: PaymentCase) -> _Moment:
    return _moment(
        case.opened_at,
        "case",
        case_id=case.case_id,
        case_kind=case.kind.value,
        state=CaseState.OPEN.value,
        trade_no=case.identity.trade_no,
        amount=_amount(case.amount_minor),
        currency=case.currency,
        detail=case.detail,
        message_id=case.message_id,
    )


def _case_resolved(case: PaymentCase, resolution: Resolution) -> _Moment:
    return _moment(
        resolution.resolved_at,
        "case",
        case_id=case.case_id,
        case_kind=case.kind.value,
        state=CaseState.RESOLVED.value,
        action=resolution.action.value,
        trade_no=case.identity.trade_no,
        resolved_by=resolution.resolved_by,
        reason=resolution.reason,
    )


def _refund_requested(refund: OrderRefund) -> _Moment:
    return _moment(refund.requested_at, "refund", status="requested", **_told_of(refund))


def _refund_finished(refund: OrderRefund, finished_at: Instant) -> _Moment:
    return _moment(
        # By the clock of whoever refunded, which may be behind ours: it ended after it began.
        max(refund.requested_at, finished_at),
        "refund",
        status=refund.status,
        finished_at=rfc3339(finished_at),
        channel_refund_no=refund.channel_refund_no,
        failure_reason=refund.failure_reason,
        **_told_of(refund),
    )


def _told_of(refund: OrderRefund) -> Item:
    return {
        "refund_no": refund.refund_no,
        "trade_no": refund.identity.trade_no,
        "amount": _amount(refund.amount_minor),
        "currency": refund.currency,
        "reason": refund.reason,
    }


def _webhook(webhook: webhook_store.WebhookState) -> _Moment:
    return _moment(
        webhook.created_at,
        "webhook",
        receiver=webhook.receiver,
        message_id=webhook.message_id,
        type=webhook.type,
        state=webhook.state,
        attempts=webhook.attempts,
        last_error=webhook.last_error,
        sent_at=None if webhook.sent_at is None else rfc3339(webhook.sent_at),
    )


def _amount(amount_minor: int | None) -> str | None:
    return None if amount_minor is None else text_of_minor(amount_minor)
