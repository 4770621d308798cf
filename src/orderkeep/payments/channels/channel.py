"""What a payment channel is to this service: someone who reports money and gives it back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """What came over HTTP in a channel's name; nothing in it is true before it is verified.

    Attributes:
        headers: By lower-case name, each sent exactly once.
        body: The bytes as they came, for the signature is over them.
    """

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundOrder:
    """What a channel is asked to give back. The same `refund_no` is the same refund, always."""

    refund_no: str
    trade_no: str
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundSucceeded:
    """The money is on its way back, under the channel's own number."""

    channel_refund_no: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundFailed:
    """The channel will not give the money back, and asking again changes nothing."""

    reason: str


RefundAnswer: TypeAlias = RefundSucceeded | RefundFailed


class ChannelUnavailableError(Exception):
    """The channel gave no verdict; the refund may have happened, so it is asked for again."""


class Channel(Protocol):
    """A payment channel."""

    def verify(self, notification: Notification) -> None:
        """Pass if the channel itself sent the notification, lately.

        Raises:
            Refusal: `unauthenticated`, or `not_found` where the channel sends no notifications.
        """

    async def refund(self, order: RefundOrder) -> RefundAnswer:
        """Give money back, once for each `refund_no` however often it is asked.

        Raises:
            ChannelUnavailableError: nothing is known of what the channel did.
        """
