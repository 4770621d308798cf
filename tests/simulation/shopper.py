"""A buyer with a mind made up: orders, asks again under the same key, pays, cancels, or forgets."""

import asyncio
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from orderkeep.orders.cancel_order import CancelOrder
from orderkeep.orders.desk import OrderRequest
from orderkeep.orders.idempotency_key import KeyKind
from orderkeep.orders.order import Cause, Order
from orderkeep.orders.placing import PlacedOrder
from orderkeep.orders.pricing import WantedLine
from orderkeep.payments.channels.channel import Notification
from orderkeep.payments.open_payment import OpenedPayment
from orderkeep.refusal import Refusal
from tests.simulation.clients import NotAskedError, UnknownOutcomeError
from tests.simulation.dice import Stream, stream, virtual_s

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

CHANNELS = ("bank", "purse")

# A buyer who hears nothing asks again so often; a channel until it is heard.
_ASKED_COUNT_MAX = 6
_NOTIFIED_COUNT_MAX = 200

_NOBODY_KNOWS = (NotAskedError, UnknownOutcomeError)


class Fate(StrEnum):
    """What becomes of an order, as far as its buyer is concerned."""

    PAY = "pay"
    FORGET = "forget"
    CANCEL = "cancel"
    PAY_AGAINST_CLOSE = "pay against close"
    PAY_AGAINST_CANCEL = "pay against cancel"
    PAY_LATE = "pay late"
    PAY_WRONG = "pay wrong"
    PAY_TWICE = "pay twice"


_WEIGHTS = {
    Fate.PAY: 38,
    Fate.FORGET: 12,
    Fate.CANCEL: 10,
    Fate.PAY_AGAINST_CLOSE: 12,
    Fate.PAY_AGAINST_CANCEL: 12,
    Fate.PAY_LATE: 6,
    Fate.PAY_WRONG: 4,
    Fate.PAY_TWICE: 6,
}


@dataclass(slots=True)
class Journal:
    """What one buyer did and was told, written outside the system.

    Attributes:
        is_attempted: Before the first request was sent.
        answered: The order of each answer that said there is one.
        is_doubtful: A request for it had no answer: it may be under way still.
        is_refused: The last answer said there is none.
        cancelled: The orders that the buyer was told are cancelled.
        seen: Each status in which the order was shown, in order.
        notified: The trades that the payment service has answered for.
    """

    user_id: str
    is_attempted: bool = False
    is_doubtful: bool = False
    answered: list[str] = field(default_factory=list)
    is_refused: bool = False
    cancelled: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    notified: list[str] = field(default_factory=list)


class Shopper:
    """One buyer of one order."""

    def __init__(self, world: "World", *, number: int) -> None:
        self.world = world
        self.journal = Journal(user_id=f"u{number}")
        self._draws: Stream = stream(world.seed, "shopper", number)
        draws = self._draws
        self.fate = draws.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()))[0]
        skus = draws.sample(world.sku_ids, k=draws.choice((1, 1, 1, 2, 3)))
        self.wanted = tuple(
            WantedLine(
                sku_id=sku_id,
                quantity=draws.choice((1, 1, 1, 2)),
                cart_item_id=f"c{number}" if draws.random() < 0.1 else None,
            )
            for sku_id in skus
        )
        self.wanted_minor = sum(
            line.quantity * world.prices_minor[line.sku_id] for line in self.wanted
        )
        self._number = number
        self._key = f"key-{number}"
        self._kind = KeyKind.HEADER
        self.order: Order | None = None

    async def shop(self) -> None:
        """Do it all."""
        order = await self._place()
        if order is None:
            return
        self.order = order
        if self._draws.random() < 0.15:
            await self._place_again()
        await self._follow(order)
        if self._draws.random() < 0.3:
            await self._look(order.order_no)

    async def _follow(self, order: Order) -> None:
        draws = self._draws
        deadline_s = virtual_s(order.expires_at)
        match self.fate:
            case Fate.FORGET:
                await self._until(deadline_s + draws.random())
            case Fate.CANCEL:
                await self._until(self._some_time(deadline_s))
                await self._cancel(order.order_no)
            case Fate.PAY:
                await self._until(self._some_time(deadline_s))
                await self._pay(order)
            case Fate.PAY_AGAINST_CLOSE:
                await self._pay_at(order, at_s=deadline_s + draws.uniform(-0.6, 0.5))
            case Fate.PAY_AGAINST_CANCEL:
                at_s = self._some_time(deadline_s)
                await asyncio.gather(
                    self._pay_at(order, at_s=at_s),
                    self._cancel_at(order.order_no, at_s=at_s + draws.uniform(0.0, 0.6)),
                )
            case Fate.PAY_LATE:
                await self._pay_at(order, at_s=deadline_s + draws.uniform(3.0, 30.0))
            case Fate.PAY_WRONG:
                await self._until(self._some_time(deadline_s))
                await self._pay(order, wrong_by_minor=draws.choice((1, 100)))
            case Fate.PAY_TWICE:
                await self._until(self._some_time(deadline_s))
                await asyncio.gather(*(self._pay(order, channel=name) for name in CHANNELS))

    # Orders.

    async def _place(self) -> Order | None:
        draws = self._draws
        if draws.random() < 0.3:
            token = await self._token()
            if token is None:
                return None
            self._kind, self._key = KeyKind.TOKEN, token
        self.journal.is_attempted = True
        for tries_count in range(_ASKED_COUNT_MAX):
            try:
                return await self._ask_for_order(wanted=self.wanted)
            except _NOBODY_KNOWS as error:
                self.journal.is_doubtful |= isinstance(error, UnknownOutcomeError)
                await asyncio.sleep((0.2 + draws.random()) * 2**tries_count)
            except Refusal as refusal:
                if refusal.code == "in_progress":
                    await asyncio.sleep(draws.random())
                    continue
                self.journal.is_refused = True
                return None
        return None

    async def _place_again(self) -> None:
        """Ask again with the same key: the same order; with another body: no order."""
        try:
            await self._ask_for_order(wanted=self.wanted)
            other = WantedLine(sku_id=self.world.sku_ids[0], quantity=7)
            await self._ask_for_order(wanted=(other,))
        except _NOBODY_KNOWS:
            return
        except Refusal as refusal:
            if refusal.code == "idempotency_key_reused":
                return
            self._breach("I3", f"the same key was refused as {refusal.code}")
        else:
            self._breach("I3", "the key of an order took another body")

    async def _ask_for_order(self, *, wanted: tuple[WantedLine, ...]) -> Order:
        request = OrderRequest(
            user_id=self.journal.user_id,
            key_kind=self._kind,
            key=self._key,
            body_hash=repr([(line.sku_id, line.quantity) for line in wanted]),
            wanted=wanted,
            receiver=None,
            buyer_remark=None,
            expected_pay_amount_minor=None,
        )

        async def work(process: "Process") -> PlacedOrder:
            return await process.orders.place(request)

        placed = await self.world.front.ask(work, draws=self._draws)
        order_no = placed.order.order_no
        if self.journal.answered and self.journal.answered[0] != order_no:
            self._breach("I3", f"one key made {self.journal.answered[0]} and {order_no}")
        self.journal.answered.append(order_no)
        self._compare(placed.order)
        return placed.order

    def _compare(self, order: Order) -> None:
        """Look whether the order in the answer is the one that was asked for."""
        lines = sorted((line.sku_id, line.quantity) for line in order.lines)
        if lines != self.wanted_lines or order.pay_amount_minor != self.wanted_minor:
            self._breach(
                "I2",
                f"was asked for {self.wanted_lines} at {self.wanted_minor},"
                f" and the answer has {lines} at {order.pay_amount_minor}",
            )

    @property
    def wanted_lines(self) -> list[tuple[str, int]]:
        """What each order of this buyer holds, by SKU."""
        return sorted((line.sku_id, line.quantity) for line in self.wanted)

    async def _token(self) -> str | None:
        for _ in range(_ASKED_COUNT_MAX):
            try:
                return await self.world.front.ask(
                    lambda process: process.orders.issue_token(self.journal.user_id),
                    draws=self._draws,
                )
            except _NOBODY_KNOWS:
                await asyncio.sleep(self._draws.random())
        return None

    async def _cancel_at(self, order_no: str, *, at_s: float) -> None:
        await self._until(at_s)
        await self._cancel(order_no)

    async def _cancel(self, order_no: str) -> None:
        wish = CancelOrder(
            order_no=order_no,
            user_id=self.journal.user_id,
            by=Cause.BUYER,
            actor=self.journal.user_id,
        )
        for _ in range(_ASKED_COUNT_MAX):
            try:
                order = await self.world.front.ask(
                    lambda process: process.orders.cancel(wish), draws=self._draws
                )
            except _NOBODY_KNOWS:
                await asyncio.sleep(self._draws.random())
            except Refusal:
                return
            else:
                self.journal.cancelled.append(order.order_no)
                return

    async def _look(self, order_no: str) -> None:
        for _ in range(3):
            try:
                order = await self.world.front.ask(
                    lambda process: process.orders.get(order_no, user_id=self.journal.user_id),
                    draws=self._draws,
                )
            except (*_NOBODY_KNOWS, Refusal):
                continue
            before = self.journal.seen[-1] if self.journal.seen else "pending_payment"
            status = order.status.value
            if before not in ("pending_payment", status) and (before, status) != ("closed", "paid"):
                self._breach("I16", f"was shown as {before}, then as {status}")
            self.journal.seen.append(status)
            await asyncio.sleep(self._draws.random())

    # Payments.

    async def _pay_at(self, order: Order, *, at_s: float) -> None:
        """Open the payment a little before, so that the money comes at that time."""
        await self._until(min(at_s, virtual_s(order.expires_at)) - self._draws.uniform(0.3, 4.0))
        await self._pay(order, money_at_s=at_s)

    async def _pay(
        self,
        order: Order,
        *,
        channel: str = CHANNELS[0],
        wrong_by_minor: int = 0,
        money_at_s: float = 0.0,
    ) -> None:
        payment_no = await self._open(order.order_no, channel=channel)
        if payment_no is None:
            return
        await self._until(money_at_s)
        trade_no = f"{channel}-{self._number}"
        amount_minor = order.pay_amount_minor + wrong_by_minor
        self.world.bank.capture(
            trade_no=trade_no, order_no=order.order_no, amount_minor=amount_minor
        )
        body = {
            "payment_no": payment_no,
            "trade_no": trade_no,
            "amount": f"{amount_minor // 100}.{amount_minor % 100:02d}",
            "result": "succeeded",
        }
        await self._notify(channel, trade_no=trade_no, body=json.dumps(body).encode())
        if self._draws.random() < 0.2:
            await self._notify(channel, trade_no=trade_no, body=json.dumps(body).encode())

    async def _open(self, order_no: str, *, channel: str) -> str | None:
        async def work(process: "Process") -> OpenedPayment:
            return await process.payments.open(
                order_no=order_no, pay_channel=channel, user_id=self.journal.user_id
            )

        for _ in range(2 * _ASKED_COUNT_MAX):
            try:
                opened = await self.world.front.ask(work, draws=self._draws)
            except _NOBODY_KNOWS:
                await asyncio.sleep(self._draws.random())
            except Refusal as refusal:
                if refusal.code != "order_not_ready":
                    return None
                await asyncio.sleep(1 + self._draws.random())
            else:
                return opened.payment.payment_no
        return None

    async def _notify(self, channel: str, *, trade_no: str, body: bytes) -> None:
        """Report the money until the service says that it has heard."""
        notification = Notification(headers={}, body=body)
        for tries_count in range(_NOTIFIED_COUNT_MAX):
            try:
                await self.world.front.ask(
                    lambda process: process.payments.take_notification(channel, notification),
                    draws=self._draws,
                )
            except _NOBODY_KNOWS:
                await asyncio.sleep(min(0.2 * 2**tries_count, 5.0))
            except Refusal as refusal:
                self._breach("I5", f"money of trade {trade_no} was refused: {refusal.code}")
                return
            else:
                self.journal.notified.append(trade_no)
                return
        self._breach("I15", f"nobody took the report of trade {trade_no}")

    def _some_time(self, deadline_s: float) -> float:
        now_s = self.world.loop.now_s
        return now_s + self._draws.random() ** 2 * max(deadline_s - now_s - 2.0, 0.0)

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(at_s - self.world.loop.now_s, 0.0))

    def _breach(self, invariant: str, detail: str) -> None:
        order_no = self.order.order_no if self.order else self.journal.answered or "none"
        subject = f"user {self.journal.user_id}, order {order_no}"
        self.world.watch.breach(invariant, subject, detail)
