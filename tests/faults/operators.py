"""Operators and a careless bank: money in a wrong amount, the cases it opens, and more of what is
scarce.

The bank is none of the channels: what is to go back to it, an operator must carry there, and so the
service ends each such refund as failed. What they were told is kept as the buyers' is: what was
acknowledged must be there at the end.
"""

import asyncio
import random  # noqa: TID251 (drawn from a seed that is printed)
from collections.abc import Mapping, Sequence

import httpx

from tests.acceptance.crowd import Crowd
from tests.acceptance.fleet_journal import FleetJournal
from tests.acceptance.fleet_load import SCARCE_SKU_ID, fleet_client
from tests.acceptance.running import RunningShop

_PAUSE_S_MAX = 0.6

# Of the orders that were made last: the bank pays what is open.
_RECENT_COUNT = 20

# So much of what is scarce comes in every so-manieth turn.
_RESTOCK_QUANTITY = 1
_RESTOCK_EVERY = 4

# Asked so often under the same key, it comes once.
_RESTOCK_TRIES_MAX = 2


class Operators(Crowd):
    """They pay wrong amounts, give back what came of it, and put in stock what is scarce.

    Attributes:
        trade_nos: The wrong payments that were acknowledged.
        resolved_ids: The cases of which they were told that they are resolved.
        restock_keys: The keys of what they asked to be put in stock, and whether they were told
            that it is.
        wrong: What they should not have been told.
    """

    def __init__(self, fronts: Sequence[RunningShop], journal: FleetJournal, *, seed: int) -> None:
        super().__init__("operators")
        self._fronts = fronts
        self._journal = journal
        self._draw = random.Random(seed)  # noqa: S311 (a test draws for variety)
        self._is_over = False
        self.trade_nos: list[str] = []
        self.resolved_ids: set[int] = set()
        self.restock_keys: dict[str, bool] = {}
        self.wrong: list[str] = []

    def _end(self) -> None:
        self._is_over = True

    async def _live(self) -> None:
        front = self._fronts[0]
        token = front.token("operator", ["operator", "messages"])
        number = 0
        while not self._is_over:
            number += 1
            client_front = self._fronts[number % len(self._fronts)]
            async with fleet_client(client_front) as client:
                client.headers["Authorization"] = f"Bearer {token}"
                await self._pay_wrongly(client, trade_no=f"wrong-{number}")
                await self._resolve(client)
                if number % _RESTOCK_EVERY == 0:
                    await self._restock(client, key=f"restock-{number}")
            await asyncio.sleep(self._draw.uniform(0.0, _PAUSE_S_MAX))

    async def _pay_wrongly(self, client: httpx.AsyncClient, *, trade_no: str) -> None:
        recent = [note for note in self._journal.orders[-_RECENT_COUNT:] if note.order_no]
        if not recent:
            return
        body = {
            "order_no": self._draw.choice(recent).order_no,
            "trade_no": trade_no,
            "amount": 0.01,
            "currency": "CNY",
            "pay_channel": "sandbox",
        }
        answer = await self._ask(client, "POST", "/queues/payment.success.notify/messages", body)
        if answer is not None and answer.status_code == 202:
            self.trade_nos.append(trade_no)

    async def _resolve(self, client: httpx.AsyncClient) -> None:
        answer = await self._ask(client, "GET", "/admin/payment-cases?state=open&limit=20")
        if answer is None or answer.status_code != 200:
            return
        for case in answer.json()["items"]:
            body = {"action": "refund", "reason": "not what was owed"}
            path = f"/admin/payment-cases/{case['id']}/resolve"
            resolved = await self._ask(client, "POST", path, body)
            if resolved is not None and resolved.status_code == 200:
                self.resolved_ids.add(case["id"])

    async def _restock(self, client: httpx.AsyncClient, *, key: str) -> None:
        self.restock_keys[key] = False
        body = {"quantity": _RESTOCK_QUANTITY, "reason": "it is scarce"}
        path = f"/admin/skus/{SCARCE_SKU_ID}/stock-movements"
        for _ in range(_RESTOCK_TRIES_MAX):
            answer = await self._ask(client, "POST", path, body, headers={"Idempotency-Key": key})
            if answer is not None and answer.status_code == 201:
                self.restock_keys[key] = True

    async def _ask(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response | None:
        try:
            answer = await client.request(method, path, json=body, headers=headers)
        except httpx.TransportError as error:
            self._journal.note_silence("operate", error)
            return None
        self._journal.note_answer("operate", answer)
        # A case that was resolved without our hearing of it is resolved.
        if answer.status_code not in {200, 201, 202, 409, 503}:
            self.wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer
