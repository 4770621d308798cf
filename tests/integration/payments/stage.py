"""A payment service without HTTP and without a broker: what tests of it act on and look at."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from sqlalchemy import select

from orderkeep.contracts.caller import Caller
from orderkeep.contracts.order_events import OrderEvent, OrderEventItem, OrderEventType
from orderkeep.contracts.order_status import Status
from orderkeep.contracts.payment_refund_request import RefundRequest
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import Database, ReadTransaction, Row, Transaction
from orderkeep.instant import Instant, after
from orderkeep.messaging.consumer import Outcome, Received
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.signal import Signal
from orderkeep.payments.carry_out_refunds import RefundRetry, RefundWorker
from orderkeep.payments.channels.channel import (
    Channel,
    Notification,
    RefundAnswer,
    RefundOrder,
    RefundSucceeded,
)
from orderkeep.payments.channels.sandbox import SandboxChannel
from orderkeep.payments.consumers.payment_order_events import payment_order_events_consumer
from orderkeep.payments.consumers.payment_refund_request import payment_refund_request_consumer
from orderkeep.payments.desk import PaymentDesk
from orderkeep.payments.tables import KERNEL, PAYMENT_RECEIPTS, PAYMENTS, REFUNDS

# 2024-01-01T10:00:00Z and 10:30:00Z.
TEN = Instant(1_704_103_200_000_000)
HALF_PAST_TEN = Instant(1_704_105_000_000_000)

ANN = Caller(user_id="ann")
BOB = Caller(user_id="bob")
OPERATOR = Caller(user_id="olga", scopes=frozenset({"operator"}))
AUDITOR = Caller(user_id="otto", scopes=frozenset({"operator:read"}))

ORDER = "0100000000000009"

_EVENT_TYPES = {
    Status.PENDING_PAYMENT: OrderEventType.CREATED,
    Status.PAID: OrderEventType.PAID,
    Status.CANCELLED: OrderEventType.CANCELLED,
    Status.CLOSED: OrderEventType.CLOSED,
}

_OUTBOX_ROWS = Statement(select(KERNEL.outbox).order_by(KERNEL.outbox.c.id).limit(1000))
_PAYMENT_ROWS = Statement(select(PAYMENTS).order_by(PAYMENTS.c.payment_no).limit(1000))
_RECEIPT_ROWS = Statement(
    select(PAYMENT_RECEIPTS).order_by(PAYMENT_RECEIPTS.c.trade_no).limit(1000)
)
_REFUND_ROWS = Statement(select(REFUNDS).order_by(REFUNDS.c.refund_no).limit(1000))


def order_event(
    order_no: str = ORDER,
    *,
    user_id: str = "ann",
    status: Status = Status.PENDING_PAYMENT,
    version: int = 1,
    amount_minor: int = 10_000,
    expires_at: Instant = HALF_PAST_TEN,
) -> OrderEvent:
    """Return an event of an order as orders would send it."""
    line = OrderEventItem(
        sku_id="tea",
        title="Tea",
        unit_price_minor=amount_minor,
        quantity=1,
        subtotal_minor=amount_minor,
    )
    return OrderEvent(
        event_type=_EVENT_TYPES[status],
        order_no=order_no,
        user_id=user_id,
        status=status,
        version=version,
        pay_amount_minor=amount_minor,
        currency="CNY",
        items=(line,),
        created_at=TEN,
        expires_at=expires_at,
        occurred_at=TEN,
    )


@dataclass
class TradeBank:
    """A channel that notes what it was asked for, and answers or raises what it was told to."""

    answers: list[RefundAnswer | Exception] = field(default_factory=list)
    asked: list[RefundOrder] = field(default_factory=list)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)
    is_silent: bool = False

    def verify(self, notification: Notification) -> None:
        """Believe everything."""

    async def refund(self, order: RefundOrder) -> RefundAnswer:
        """Answer what is next, and success when nothing is; while it is silent, never."""
        self.asked.append(order)
        self.was_asked.set()
        if self.is_silent:
            await asyncio.get_running_loop().create_future()
        answer = self.answers.pop(0) if self.answers else RefundSucceeded(channel_refund_no="BR1")
        if isinstance(answer, Exception):
            raise answer
        return answer


class Stage:
    """The service on one database, with a sandbox and a channel named `bank`."""

    def __init__(
        self, database: Database, *, channels: Mapping[str, Channel] | None = None
    ) -> None:
        message_ids = count(1)
        payment_nos = count(1)
        self.database = database
        self.bank = TradeBank()
        self.channels = channels or {"sandbox": SandboxChannel(), "bank": self.bank}
        self.outbox = Outbox(KERNEL, new_message_id=lambda: f"m{next(message_ids)}")
        self.order_heard = Signal()
        self.refund_requested = Signal()
        self.order_wait_s = 0.0
        self.new_payment_no = lambda: f"P{next(payment_nos)}"
        self.order_events = payment_order_events_consumer(order_heard=self.order_heard)
        self.refund_requests = payment_refund_request_consumer(
            outbox=self.outbox, refund_requested=self.refund_requested
        )

    @property
    def desk(self) -> PaymentDesk:
        """The desk, with the wait for orders that is set now."""
        return PaymentDesk(
            self.database,
            outbox=self.outbox,
            channels=self.channels,
            order_heard=self.order_heard,
            new_payment_no=self.new_payment_no,
            order_wait_s=self.order_wait_s,
        )

    def refund_worker(self, *, for_s: float = 3600.0, base_s: float = 60.0) -> RefundWorker:
        """Return a worker whose pauses are exactly as long as their mean."""
        return RefundWorker(
            self.database,
            outbox=self.outbox,
            channels=self.channels,
            retry=RefundRetry(for_s=for_s, base_s=base_s, max_s=3600.0),
            draw_jitter=lambda: 0.5,
            requested=self.refund_requested,
        )

    async def hear(self, *events: OrderEvent) -> Sequence[Outcome]:
        """Let the service consume order events, in one batch."""

        async def work(transaction: Transaction) -> Sequence[Outcome]:
            return await self.order_events.handle(transaction, _received(events))

        return await self.database.transact(work)

    async def ask_refund(self, *requests: RefundRequest) -> Sequence[Outcome]:
        """Let the service consume requests for refunds, in one batch."""

        async def work(transaction: Transaction) -> Sequence[Outcome]:
            return await self.refund_requests.handle(transaction, _received(requests))

        return await self.database.transact(work)

    async def pay_in_sandbox(self, order_no: str = ORDER) -> str:
        """Open a payment of Ann's, let it succeed, and return its number."""
        opened = await self.desk.open(order_no=order_no, pay_channel="sandbox", user_id="ann")
        await self.desk.succeed_in_sandbox(opened.payment.payment_no, caller=ANN)
        return opened.payment.payment_no

    async def notify(self, **members: object) -> None:
        """Let `bank` report on one of its payments."""
        body = json.dumps(members).encode()
        await self.desk.take_notification("bank", Notification(headers={}, body=body))

    async def sent(self, type_: str) -> list[dict[str, object]]:
        """Return the bodies of one type in the outbox, the first appended first."""
        return [json.loads(row["body"]) for row in await self.outbox_rows() if row["type"] == type_]

    async def outbox_rows(self) -> list[Row]:
        """Return everything in the outbox."""
        return await self._rows(_OUTBOX_ROWS)

    async def payment_rows(self) -> list[Row]:
        """Return every payment."""
        return await self._rows(_PAYMENT_ROWS)

    async def receipt_rows(self) -> list[Row]:
        """Return every report of money."""
        return await self._rows(_RECEIPT_ROWS)

    async def refund_rows(self) -> list[Row]:
        """Return every refund."""
        return await self._rows(_REFUND_ROWS)

    async def _rows(self, statement: Statement) -> list[Row]:
        async def work(transaction: ReadTransaction) -> list[Row]:
            return await transaction.fetch_all(statement)

        return await self.database.read(work)


def later(*, seconds: float) -> Instant:
    """Return a deadline later than the usual one."""
    return after(HALF_PAST_TEN, seconds=seconds)


def _received(bodies):
    return [
        Received(message_id=f"in-{number}", body=body, attempt=1, first_received_at=TEN)
        for number, body in enumerate(bodies)
    ]
