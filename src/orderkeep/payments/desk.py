"""The edge of the payment service: opens each transaction, commits it once, answers afterwards."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from orderkeep.contracts.caller import Caller
from orderkeep.contracts.text import is_order_number
from orderkeep.database.transaction import Database, ReadTransaction, Transaction
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.signal import Signal
from orderkeep.payments.channels.channel import Channel, Notification
from orderkeep.payments.channels.sandbox import SANDBOX, trade_no_of
from orderkeep.payments.notification import read_notification
from orderkeep.payments.open_payment import (
    OpenedPayment,
    OpenRequest,
    open_payments,
    payable_order,
)
from orderkeep.payments.payment import Payment, Refund
from orderkeep.payments.settle_payment import (
    FailureReport,
    MoneyReport,
    settle_failures,
    settle_successes,
    unknown_payment,
)
from orderkeep.payments.store import known_orders
from orderkeep.payments.store import payments as payment_store
from orderkeep.payments.store import refunds as refund_store
from orderkeep.payments.store.known_orders import KnownOrder
from orderkeep.refusal import Refusal

T = TypeVar("T")

# Contract: an order that was placed a moment ago may not be known here yet.
ORDER_WAIT_S = 2.0

# The event that brings the order wakes this process; an event that another process consumed is
# found by looking again.
_ORDER_POLL_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentWithRefunds:
    """A payment, and what was given back of it."""

    payment: Payment
    refunds: tuple[Refund, ...]


class PaymentDesk:
    """What payers, operators and channels ask of payments."""

    def __init__(
        self,
        database: Database,
        *,
        outbox: Outbox,
        channels: Mapping[str, Channel],
        order_heard: Signal,
        new_payment_no: Callable[[], str],
        order_wait_s: float = ORDER_WAIT_S,
    ) -> None:
        """Serve payments from the database.

        Args:
            database: Where they are.
            outbox: Where what happens to them leaves.
            channels: Those on which a payment can be opened, by name.
            order_heard: Set when an order event took effect in this process.
            new_payment_no: Draws "P" and digits or letters that number no payment yet.
            order_wait_s: How long to wait for an order that is not known here yet.
        """
        self._database = database
        self._outbox = outbox
        self._channels = channels
        self._order_heard = order_heard
        self._new_payment_no = new_payment_no
        self._order_wait_s = order_wait_s

    async def open(self, *, order_no: str, pay_channel: str, user_id: str) -> OpenedPayment:
        """Open a payment for an order, or find the one that is open on the same channel.

        Raises:
            Refusal: `unknown_channel`; `order_not_ready` after the wait; `invalid_request`: there
                will never be an order of such a number; `not_found`: the order is another user's;
                `order_not_pending`.
        """
        if pay_channel not in self._channels:
            raise self._unknown_channel(pay_channel)
        order = await self._wait_for_order(order_no)
        if order is None and not is_order_number(order_no):
            raise _no_order_number()
        # Most refusals are decided on the snapshot, and take no turn on the writer.
        _granted(payable_order(order, order_no=order_no, user_id=user_id))
        request = OpenRequest(
            payment_no=self._new_payment_no(),
            order_no=order_no,
            user_id=user_id,
            pay_channel=pay_channel,
        )

        async def work(transaction: Transaction) -> OpenedPayment | Refusal:
            now = await transaction.now()
            [answer] = await open_payments(transaction, [request], outbox=self._outbox, now=now)
            return answer

        return _granted(await self._database.transact(work))

    async def get(self, payment_no: str, *, caller: Caller) -> PaymentWithRefunds:
        """Return a payment and its refunds to its payer or an operator.

        Raises:
            Refusal: `not_found`: there is no such payment, or it is another user's.
        """

        async def work(transaction: ReadTransaction) -> PaymentWithRefunds:
            payment = await payment_store.find_payment(transaction, payment_no)
            if payment is None or not (
                caller.is_operator_reader or payment.user_id == caller.user_id
            ):
                raise unknown_payment(payment_no)
            refunds = await refund_store.refunds_of_payment(transaction, payment_no)
            return PaymentWithRefunds(payment=payment, refunds=tuple(refunds))

        return await self._database.read(work)

    async def succeed_in_sandbox(self, payment_no: str, *, caller: Caller) -> Payment:
        """Let a payment on the sandbox channel succeed, with all of its money.

        Raises:
            Refusal: `not_found`: the sandbox is off, or there is no such payment for this caller.
        """

        async def work(transaction: Transaction) -> Payment | Refusal:
            payment = await self._sandbox_payment(transaction, payment_no, caller=caller)
            now = await transaction.now()
            report = MoneyReport(
                payment_no=payment_no,
                trade_no=trade_no_of(payment_no),
                amount_minor=payment.amount_minor,
            )
            [answer] = await settle_successes(transaction, [report], outbox=self._outbox, now=now)
            return answer

        return _granted(await self._database.transact(work))

    async def fail_in_sandbox(self, payment_no: str, *, caller: Caller) -> Payment:
        """Let a payment on the sandbox channel fail.

        Raises:
            Refusal: `not_found`: the sandbox is off, or there is no such payment for this caller.
        """

        async def work(transaction: Transaction) -> Payment | Refusal:
            await self._sandbox_payment(transaction, payment_no, caller=caller)
            now = await transaction.now()
            report = FailureReport(payment_no=payment_no, reason="as asked of the sandbox")
            [answer] = await settle_failures(transaction, [report], now=now)
            return answer

        return _granted(await self._database.transact(work))

    async def take_notification(self, channel_name: str, notification: Notification) -> None:
        """Take in what a channel reports of one of its payments; a repeat changes nothing.

        Raises:
            Refusal: `not_found`: there is no such channel, or it has no such payment;
                `unauthenticated`: the channel did not sign this; `malformed_json` or
                `invalid_request`: it signed something else than a report.
        """
        channel = self._channels.get(channel_name)
        if channel is None:
            raise Refusal("not_found", "There is no such channel.")
        channel.verify(notification)
        report = read_notification(notification.body)

        async def work(transaction: Transaction) -> Payment | Refusal:
            payment = await payment_store.find_payment(transaction, report.payment_no)
            # A channel speaks for its own payments only.
            if payment is None or payment.pay_channel != channel_name:
                return unknown_payment(report.payment_no)
            now = await transaction.now()
            if isinstance(report, MoneyReport):
                [answer] = await settle_successes(
                    transaction, [report], outbox=self._outbox, now=now
                )
            else:
                [answer] = await settle_failures(transaction, [report], now=now)
            return answer

        _granted(await self._database.transact(work))

    def _unknown_channel(self, pay_channel: str) -> Refusal:
        names = sorted(self._channels)
        return Refusal(
            "unknown_channel",
            f"There is no channel {pay_channel}; there are: {', '.join(names) or 'none'}.",
            members={"channels": names},
        )

    async def _sandbox_payment(
        self, transaction: ReadTransaction, payment_no: str, *, caller: Caller
    ) -> Payment:
        payment = await payment_store.find_payment(transaction, payment_no)
        if (
            SANDBOX not in self._channels
            or payment is None
            # Else a payer could settle a payment of a real channel without money.
            or payment.pay_channel != SANDBOX
            or not (caller.is_operator or payment.user_id == caller.user_id)
        ):
            raise unknown_payment(payment_no)
        return payment

    async def _wait_for_order(self, order_no: str) -> KnownOrder | None:
        async def work(transaction: ReadTransaction) -> KnownOrder | None:
            return await known_orders.find_order(transaction, order_no)

        clock = asyncio.get_running_loop()
        wait_until = clock.time() + self._order_wait_s
        while True:
            # Many may wait at once, and one may clear what another has not seen yet: that one finds
            # its order when it looks again by itself.
            self._order_heard.clear()
            order = await self._database.read(work)
            left_s = wait_until - clock.time()
            if order is not None or left_s <= 0 or not is_order_number(order_no):
                return order
            await self._order_heard.wait(timeout_s=min(left_s, _ORDER_POLL_INTERVAL_S))


def _granted(answer: T | Refusal) -> T:
    if isinstance(answer, Refusal):
        raise answer
    return answer


def _no_order_number() -> Refusal:
    detail = "is no order number: those begin with 01 and have at most 32 digits"
    errors = [{"pointer": "/order_no", "detail": detail}]
    return Refusal("invalid_request", f"/order_no: {detail}", members={"errors": errors})
