"""The sandbox: a channel without money, that pays or fails when it is told to.

For trying out and for tests; off in production. It keeps no state: its numbers follow from the
payment's and the refund's, so whatever is asked again is answered the same.
"""

from orderkeep.payments.channels.channel import Notification, RefundOrder, RefundSucceeded
from orderkeep.refusal import Refusal

SANDBOX = "sandbox"


def trade_no_of(payment_no: str) -> str:
    """Return the number of the one trade that pays a payment in the sandbox."""
    return f"SBX-{payment_no}"


class SandboxChannel:
    """The sandbox."""

    def verify(self, _notification: Notification) -> None:
        """Refuse: what the sandbox does is asked of this service itself, by the payer.

        Raises:
            Refusal: `not_found`, always.
        """
        raise Refusal("not_found", "The sandbox sends no notifications.")

    async def refund(self, order: RefundOrder) -> RefundSucceeded:
        """Give back at once."""
        return RefundSucceeded(channel_refund_no=f"SBX-{order.refund_no}")
