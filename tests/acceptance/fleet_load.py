"""Clients of a fleet: shoppers who race each other, and the shoppers of `orderkeep demo`.

Both run in a thread, until told to stop, so that a test may meanwhile stop, kill and start what it
wants. What the racing ones do is drawn from a seed; what comes of it depends on who is quicker.
"""

import asyncio
import random  # noqa: TID251 (what shoppers do is drawn from a seed that is printed)
import threading
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx

from orderkeep.demo import DemoOptions, DemoSummary, run_demo
from orderkeep.demo.visits import AcknowledgedOrder
from tests.acceptance.crowd import Crowd
from tests.acceptance.fleet_journal import UNREACHED, FleetJournal, OrderNote, code_of
from tests.acceptance.running import RunningShop

# Few, so that everybody wants the same ones.
SKU_IDS = tuple(f"race-{number}" for number in range(8))
STOCK = 10_000_000

# There is little of it, where it is sold at all: who wants it may be refused.
SCARCE_SKU_ID = "race-scarce"
SCARCE_STOCK = 8
_SCARCE_SHARE = 0.15

# What everything costs.
PRICE_MINOR = 1000

_LINES_MAX = 4
_QUANTITY_MAX = 3

# Longer than any wait of the service: what takes longer hangs.
_REQUEST_S_MAX = 30.0

# A server closes a connection that was idle for five seconds, maybe just as a request comes.
_KEEPALIVE_S = 2.0

# What two sides of the deadline are.
_DEADLINE_SPREAD_S = 0.25

# After "not now", or no answer.
_COME_BACK_S = 0.3

# Payments may not have heard of the order; each request waits two seconds for that by itself.
_OPEN_TRIES_MAX = 3

# The demo's clock jumps so far at its end; see `DemoLoad`.
_LONG_S = 10.0**9

# Who waits longer for an answer has nobody who answers.
_PATIENCE_S = 180.0


class Fate(StrEnum):
    """What becomes of an order, as far as its buyer is concerned."""

    PAY = "pay"
    PAY_AT_DEADLINE = "pay_at_deadline"
    CANCEL = "cancel"
    CANCEL_AT_DEADLINE = "cancel_at_deadline"
    PAY_AND_CANCEL = "pay_and_cancel"
    PAY_AND_CANCEL_AT_DEADLINE = "pay_and_cancel_at_deadline"
    FORGET = "forget"


_WEIGHTS = {
    Fate.PAY: 30,
    Fate.PAY_AT_DEADLINE: 14,
    Fate.CANCEL: 12,
    Fate.CANCEL_AT_DEADLINE: 8,
    Fate.PAY_AND_CANCEL: 10,
    Fate.PAY_AND_CANCEL_AT_DEADLINE: 8,
    Fate.FORGET: 18,
}


class RacingLoad(Crowd):
    """Shoppers who order the same few SKUs, and pay, cancel and forget around the deadline.

    Attributes:
        journal: What they asked for and were told.
    """

    def __init__(
        self,
        fronts: Sequence[RunningShop],
        *,
        seed: int,
        order_timeout_s: float,
        shoppers_count: int = 40,
        think_s_max: float = 0.6,
        journal: FleetJournal | None = None,
        extension_s: float = 0.0,
        cancel_delay_s_max: float = 0.0,
        wants_scarce: bool = False,
    ) -> None:
        """Let nobody in yet.

        Args:
            fronts: Each request goes to one of them.
            seed: Draws what they do.
            order_timeout_s: The deadline that the service gives.
            shoppers_count: How many there are at once.
            think_s_max: How long one waits before the next order.
            journal: None begins one.
            extension_s: How far behind its opening a payment moves the deadline.
            cancel_delay_s_max: Who pays and cancels does the latter up to so much later: a payment
                takes a way that a cancellation does not.
            wants_scarce: Some want what there is little of, too.
        """
        super().__init__("racing shoppers")
        self._fronts = fronts
        self._draw = random.Random(seed)  # noqa: S311 (a test draws for variety)
        self._name = f"{seed}-{self._draw.getrandbits(32):08x}"
        self._order_timeout_s = order_timeout_s
        self._shoppers_count = shoppers_count
        self._think_s_max = think_s_max
        self._extension_s = extension_s
        self._cancel_delay_s_max = cancel_delay_s_max
        self._scarce_share = _SCARCE_SHARE if wants_scarce else 0.0
        self.journal = journal if journal is not None else FleetJournal()
        self._over = threading.Event()
        self._home: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def _end(self) -> None:
        self._over.set()
        loop, home = self._loop, self._home
        if loop is not None and home is not None and not loop.is_closed():
            loop.call_soon_threadsafe(home.set)

    async def _live(self) -> None:
        self._home = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._over.is_set():
            return
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(fleet_client(front)) for front in self._fronts
            ]
            async with asyncio.TaskGroup() as group:
                for number in range(self._shoppers_count):
                    group.create_task(self._shop(clients, user_id=f"race-{self._name}-{number}"))

    async def _shop(self, clients: Sequence[httpx.AsyncClient], *, user_id: str) -> None:
        authorization = {
            "Authorization": f"Bearer {self._fronts[0].token(user_id)}",
        }
        shopper = _Shopper(
            user_id=user_id, authorization=authorization, clients=clients, journal=self.journal
        )
        visits_count = 0
        while not self._over.is_set():
            await self._wait(self._draw.uniform(0.0, self._think_s_max))
            visits_count += 1
            note = self._plan(user_id, key=f"{user_id}-{visits_count}")
            fate = self._draw.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
            if await shopper.order(note):
                await self._live_through(shopper, note, fate)
            else:
                await self._wait(_COME_BACK_S)

    def _plan(self, user_id: str, *, key: str) -> OrderNote:
        # Drawn in any order: the service has to sort them before it locks.
        sku_ids = self._draw.sample(SKU_IDS, self._draw.randint(1, _LINES_MAX))
        if self._draw.random() < self._scarce_share:
            sku_ids.insert(self._draw.randint(0, len(sku_ids)), SCARCE_SKU_ID)
        return OrderNote(
            user_id=user_id,
            key=key,
            items=[
                {"sku_id": sku_id, "quantity": self._draw.randint(1, _QUANTITY_MAX)}
                for sku_id in sku_ids
            ],
            front_no=self._draw.randrange(len(self._fronts)),
            sent_at_s=0.0,
        )

    async def _live_through(self, shopper: "_Shopper", note: OrderNote, fate: Fate) -> None:
        assert note.order_no is not None
        assert note.answered_at_s is not None
        deadline_s = note.answered_at_s + self._order_timeout_s
        payment_no = None
        if fate not in {Fate.CANCEL, Fate.CANCEL_AT_DEADLINE, Fate.FORGET}:
            payment_no = await shopper.open_payment(note.order_no)
            if self._extension_s:
                deadline_s = max(deadline_s, time.monotonic() + self._extension_s)
        if fate.endswith("at_deadline"):
            spread_s = self._draw.uniform(-_DEADLINE_SPREAD_S, _DEADLINE_SPREAD_S)
            await self._wait(deadline_s + spread_s - time.monotonic())
        acts: dict[str, Coroutine[None, None, bool]] = {}
        if payment_no is not None:
            acts["pay"] = shopper.settle(payment_no)
        if "cancel" in fate:
            delay_s = self._draw.uniform(0.0, self._cancel_delay_s_max)
            acts["cancel"] = self._cancel(shopper, note.order_no, delay_s=delay_s)
        answered = dict(zip(acts, await asyncio.gather(*acts.values()), strict=True))
        if not answered.get("pay"):
            return
        if answered.get("cancel"):
            self.journal.raced_nos["cancel"].add(note.order_no)
        if fate.endswith("at_deadline"):
            self.journal.raced_nos["close"].add(note.order_no)

    async def _cancel(self, shopper: "_Shopper", order_no: str, *, delay_s: float) -> bool:
        if delay_s:
            await self._wait(delay_s)
        return await shopper.cancel(order_no)

    async def _wait(self, seconds: float) -> None:
        assert self._home is not None
        try:
            await asyncio.wait_for(self._home.wait(), max(seconds, 0.0))
        except TimeoutError:
            return


@dataclass(slots=True, kw_only=True)
class _Shopper:
    """One user, who asks another process each time."""

    user_id: str
    authorization: dict[str, str]
    clients: Sequence[httpx.AsyncClient]
    journal: FleetJournal
    asked_count: int = 0
    was_unreached: bool = False

    async def order(self, note: OrderNote) -> bool:
        """Order, and return whether it was accepted."""
        note.sent_at_s = time.monotonic()
        self.journal.orders.append(note)
        response = await self._ask(
            "order",
            "/orders",
            {"items": note.items},
            client=self.clients[note.front_no],
            headers={"Idempotency-Key": note.key},
        )
        if response is None:
            if self.was_unreached:
                note.code = UNREACHED
            return False
        take_answer(note, response)
        return note.order_no is not None

    async def open_payment(self, order_no: str) -> str | None:
        """Open a payment and return its number, or None where the order is beyond that."""
        for _ in range(_OPEN_TRIES_MAX):
            response = await self._ask(
                "open payment", "/payments", {"order_no": order_no, "pay_channel": "sandbox"}
            )
            if response is not None and response.status_code in {200, 201}:
                return str(response.json()["payment_no"])
            if response is not None and code_of(response) != "order_not_ready":
                return None
        return None

    async def settle(self, payment_no: str) -> bool:
        """Pay, and return whether that was acknowledged."""
        response = await self._ask(
            "pay", f"/payments/{payment_no}/sandbox", {"result": "succeeded"}
        )
        if response is not None and response.status_code == 202:
            answer = response.json()
            if answer["status"] == "succeeded":
                self.journal.paid_nos.add(answer["payment_no"])
                return True
        return False

    async def cancel(self, order_no: str) -> bool:
        """Cancel, and return whether it was said what came of it."""
        response = await self._ask("cancel", f"/orders/{order_no}/cancel", {"reason": "a race"})
        if response is not None and response.status_code == 200:
            self.journal.cancelled_nos.add(order_no)
        return response is not None and response.status_code in {200, 409}

    async def _ask(
        self,
        step: str,
        path: str,
        body: dict[str, object],
        *,
        client: httpx.AsyncClient | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response | None:
        self.asked_count += 1
        asked = client or self.clients[self.asked_count % len(self.clients)]
        try:
            response = await asked.post(
                path, json=body, headers={**self.authorization, **(headers or {})}
            )
        except httpx.TransportError as error:
            self.was_unreached = isinstance(error, httpx.ConnectError)
            self.journal.note_silence(step, error)
            return None
        self.journal.note_answer(step, response)
        return response


class DemoLoad(Crowd):
    """The shoppers of `orderkeep demo`, a crowd of them at each front.

    Attributes:
        acknowledged: Each order that a shopper was told exists, and when.
        summaries: What they saw, once they went home.
    """

    def __init__(
        self, fronts: Sequence[RunningShop], *, seed: int, shoppers_count: int = 10
    ) -> None:
        super().__init__("demo shoppers")
        self._fronts = fronts
        self._seed = seed
        self._shoppers_count = shoppers_count
        self._is_over = False
        self.acknowledged: list[tuple[str, float]] = []
        self.summaries: list[DemoSummary] = []

    @property
    def surprises(self) -> list[str]:
        """What no shopper should see."""
        return [text for summary in self.summaries for text in summary.surprises]

    def order_nos(self, *, since_s: float = 0.0, until_s: float | None = None) -> list[str]:
        """Return the orders that were acknowledged in the time."""
        return [
            order_no
            for order_no, at_s in list(self.acknowledged)
            if since_s <= at_s and (until_s is None or at_s <= until_s)
        ]

    def _end(self) -> None:
        self._is_over = True

    def _clock(self) -> float:
        # It jumps to the end of the day, when everybody goes home.
        return time.monotonic() + (_LONG_S if self._is_over else 0.0)

    async def _live(self) -> None:
        self.summaries += await asyncio.gather(
            *(
                run_demo(
                    DemoOptions(
                        url=front.url,
                        shopper_count=self._shoppers_count,
                        duration_s=_LONG_S / 10,
                        is_resilient=True,
                        patience_s=_PATIENCE_S,
                        on_acknowledged=self._note,
                    ),
                    tokens=front.token,
                    # Each draws its own: two never draw the same names.
                    draw=random.Random(self._seed + number),  # noqa: S311 (as above)
                    clock=self._clock,
                )
                for number, front in enumerate(self._fronts)
            )
        )

    def _note(self, order: AcknowledgedOrder) -> None:
        self.acknowledged.append((order.order_no, time.monotonic()))


def fleet_client(front: RunningShop) -> httpx.AsyncClient:
    """Return a client of a front, for many users and any number of requests at once."""
    return httpx.AsyncClient(
        base_url=f"{front.url}/api/v1",
        timeout=_REQUEST_S_MAX,
        limits=httpx.Limits(max_connections=None, keepalive_expiry=_KEEPALIVE_S),
        trust_env=False,
        verify=False,  # noqa: S501 (it speaks plain HTTP: no certificates need be loaded)
    )


def take_answer(note: OrderNote, response: httpx.Response) -> None:
    """Write down what came of an order."""
    note.answered_at_s = time.monotonic()
    note.status = response.status_code
    note.code = code_of(response)
    if response.status_code == 201:
        answer: Any = response.json()
        note.order_no = answer["order_no"]


def put_skus(front: RunningShop) -> None:
    """Put on sale what racing shoppers want."""
    for sku_id in SKU_IDS:
        front.put_sku(sku_id, stock=STOCK)
    front.put_sku(SCARCE_SKU_ID, stock=SCARCE_STOCK)
