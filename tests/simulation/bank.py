"""The simulated payment channel: money that was captured, money that went back."""

from collections import Counter

from orderkeep.payments.channels.channel import (
    ChannelUnavailableError,
    Notification,
    RefundOrder,
    RefundSucceeded,
)
from tests.simulation.faults import Faults


class Bank:
    """Where all money of one world is; what it says cannot be wrong."""

    def __init__(self, *, faults: Faults) -> None:
        self._faults = faults
        self.order_of_trade: dict[str, str] = {}
        self.captured_minor: dict[str, int] = {}
        self.given_back_minor: dict[str, int] = {}
        self.trade_of_refund: dict[str, str] = {}
        self.asked_counts: Counter[str] = Counter()

    def capture(self, *, trade_no: str, order_no: str, amount_minor: int) -> None:
        """Take money from a payer."""
        self.order_of_trade[trade_no] = order_no
        self.captured_minor[trade_no] = amount_minor

    def held_minor(self) -> Counter[str]:
        """Return by order what was captured and did not go back."""
        held: Counter[str] = Counter()
        for trade_no, amount_minor in self.captured_minor.items():
            held[self.order_of_trade[trade_no]] += amount_minor
        for refund_no, amount_minor in self.given_back_minor.items():
            held[self.order_of_trade[self.trade_of_refund[refund_no]]] -= amount_minor
        return held

    def refunds_counts(self) -> Counter[str]:
        """Return by trade how often money went back."""
        return Counter(self.trade_of_refund.values())

    # The port.

    def verify(self, _notification: Notification) -> None:
        """Believe it: signatures have tests of their own."""

    async def refund(self, order: RefundOrder) -> RefundSucceeded:
        """Give money back, once for each `refund_no`, as a channel promises."""
        self.asked_counts[order.refund_no] += 1
        if self._faults.happens("channel-unavailable"):
            message = "the channel does not answer"
            raise ChannelUnavailableError(message)
        self.given_back_minor.setdefault(order.refund_no, order.amount_minor)
        self.trade_of_refund.setdefault(order.refund_no, order.trade_no)
        if self._faults.happens("channel-answer-lost"):
            message = "the answer did not come"
            raise ChannelUnavailableError(message)
        return RefundSucceeded(channel_refund_no=f"B{order.refund_no}")
