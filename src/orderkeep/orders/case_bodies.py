"""What operators send and are answered about payment cases."""

from typing import Annotated

import msgspec

from orderkeep.contracts.amount import text_of_minor
from orderkeep.contracts.page import decode_cursor, encode_cursor
from orderkeep.instant import rfc3339
from orderkeep.orders.bodies import AnswerBody, RequestBody
from orderkeep.orders.case_desk import CaseDesk, CaseWithRefund, unknown_case
from orderkeep.orders.case_resolution import CaseAction, CaseState
from orderkeep.orders.refund import OrderRefund

REASON_LENGTH_MAX = 500

# As many digits as fit the column.
_CASE_ID_DIGITS_MAX = 18


class ResolveCaseBody(RequestBody, frozen=True):
    """An operator's verdict, and why."""

    action: CaseAction
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_LENGTH_MAX)]


class CaseRefundAnswer(AnswerBody, frozen=True):
    """The refund of a case's money."""

    refund_no: str
    amount: str
    currency: str
    status: str
    requested_at: str
    finished_at: str | None = None
    channel_refund_no: str | None = None
    failure_reason: str | None = None


class PaymentCaseAnswer(AnswerBody, frozen=True):
    """Money that waits for an operator, or has waited; `reason` is what the operator gave."""

    id: int
    kind: str
    state: str
    order_no: str
    trade_no: str
    message_id: str
    detail: str
    opened_at: str
    pay_channel: str | None = None
    payment_no: str | None = None
    amount: str | None = None
    currency: str | None = None
    action: str | None = None
    reason: str | None = None
    resolved_by: str | None = None
    resolved_at: str | None = None
    refund: CaseRefundAnswer | None = None


class PaymentCasePage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of cases."""

    items: tuple[PaymentCaseAnswer, ...]
    next_cursor: str | None


async def page_of_cases(
    case_desk: CaseDesk,
    *,
    state: CaseState | None,
    order_no: str | None,
    trade_no: str | None,
    cursor: str | None,
    limit: int,
) -> PaymentCasePage:
    """Return one page of cases, newest first.

    Args:
        case_desk: Where they are read.
        state: None is any if an order or a trade number is given, else those that are open.
        order_no: None is any.
        trade_no: None is any.
        cursor: Where the page before ended.
        limit: How many at most.

    Raises:
        Refusal: `invalid_cursor`.
    """
    if (state, order_no, trade_no) == (None, None, None):
        state = CaseState.OPEN
    before = None if cursor is None else decode_cursor(cursor, int)[0]
    # One more than is shown tells whether there is a next page.
    found = await case_desk.list(
        state=state,
        order_no=order_no,
        trade_no=trade_no,
        before=before,
        limit_count=limit + 1,
    )
    shown = found[:limit]
    return PaymentCasePage(
        items=tuple(payment_case_answer(one) for one in shown),
        next_cursor=encode_cursor(shown[-1].case.case_id) if len(found) > limit else None,
    )


def read_case_id(text: str) -> int:
    """Return the number of a case.

    Raises:
        Refusal: `not_found`: no case has such a number.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= _CASE_ID_DIGITS_MAX):
        raise unknown_case(text)
    return int(text)


def payment_case_answer(one: CaseWithRefund) -> PaymentCaseAnswer:
    """Return a case as operators see it."""
    case, resolution = one.case, one.case.resolution
    return PaymentCaseAnswer(
        id=case.case_id,
        kind=case.kind.value,
        state=case.state.value,
        order_no=case.order_no,
        pay_channel=case.identity.pay_channel or None,
        trade_no=case.identity.trade_no,
        payment_no=case.payment_no,
        amount=None if case.amount_minor is None else text_of_minor(case.amount_minor),
        currency=case.currency,
        message_id=case.message_id,
        detail=case.detail,
        opened_at=rfc3339(case.opened_at),
        action=None if resolution is None else resolution.action.value,
        reason=None if resolution is None else resolution.reason,
        resolved_by=None if resolution is None else resolution.resolved_by,
        resolved_at=None if resolution is None else rfc3339(resolution.resolved_at),
        refund=None if one.refund is None else _refund_answer(one.refund),
    )


def _refund_answer(refund: OrderRefund) -> CaseRefundAnswer:
    return CaseRefundAnswer(
        refund_no=refund.refund_no,
        amount=text_of_minor(refund.amount_minor),
        currency=refund.currency,
        status=refund.status,
        requested_at=rfc3339(refund.requested_at),
        finished_at=None if refund.finished_at is None else rfc3339(refund.finished_at),
        channel_refund_no=refund.channel_refund_no,
        failure_reason=refund.failure_reason,
    )
