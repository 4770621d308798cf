"""What is told of a refund that ended."""

from orderkeep.contracts import payment_refund_result
from orderkeep.contracts.payment_refund_result import RefundOutcome, RefundResult
from orderkeep.payments.announce import Announcement
from orderkeep.payments.payment import Refund


def refund_announcement(refund: Refund) -> Announcement:
    """Return the answer to whoever asked for the refund.

    Raises:
        ValueError: the refund has not ended.
    """
    body = RefundResult(
        refund_no=refund.refund_no,
        order_no=refund.order_no,
        status=RefundOutcome(refund.status.value),
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        channel_refund_no=refund.channel_refund_no,
        reason=refund.failure_reason,
        finished_at=refund.finished_at,
    )
    return Announcement(
        order_no=refund.order_no,
        type=payment_refund_result.TYPE,
        route=payment_refund_result.ROUTE,
        body=payment_refund_result.encode(body),
    )
