"""What a person does when the alarms ring: judges payment cases, and replays dead letters."""

import asyncio
from functools import partial

from orderkeep.database.audit import Act
from orderkeep.database.transaction import Transaction
from orderkeep.messaging.dead_letter import DeadLetterFilter, SettleResult
from orderkeep.messaging.letter_settlement import LetterSettlement
from orderkeep.orders.case_desk import CaseWithRefund
from orderkeep.orders.case_resolution import CaseAction, CaseState
from orderkeep.orders.resolve_cases import ResolveCase
from orderkeep.refusal import Refusal
from tests.simulation.clients import NotAskedError, UnknownOutcomeError
from tests.simulation.dice import stream
from tests.simulation.process import Process
from tests.simulation.world import World

_ACT = Act(actor="operator", reason="the money was looked up at the bank")

# Processes that died before the healing are back within a few seconds.
_ASKED_COUNT_MAX = 20


class Operator:
    """One operator of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._draws = stream(world.seed, "operator")

    async def settle_cases(self) -> None:
        """Decide every open case: money is taken for the order, or goes back."""

        async def read(process: Process) -> list[CaseWithRefund]:
            return list(
                await process.cases.list(state=CaseState.OPEN, before=None, limit_count=100)
            )

        try:
            found = await self._world.front.ask(read, draws=self._draws)
        except (NotAskedError, UnknownOutcomeError):
            return
        for each in found:
            wishes = [CaseAction.REFUND]
            if self._draws.random() < 0.4:
                wishes.insert(0, CaseAction.ACCEPT)
            for action in wishes:
                if await self._resolve(each.case.case_id, action):
                    break

    async def _resolve(self, case_id: int, action: CaseAction) -> bool:
        wish = ResolveCase(case_id=case_id, action=action, act=_ACT)
        try:
            await self._world.front.ask(
                lambda process: process.cases.resolve(wish), draws=self._draws
            )
        except (NotAskedError, UnknownOutcomeError):
            return True
        except Refusal:
            # An order that cannot take the money any more: it goes back.
            return False
        return True

    async def replay_dead_letters(self) -> None:
        """Send everything that is set aside to its queue again, for one service after the other."""

        async def replay(process: Process) -> None:
            for letters in process.settlements:
                await process.database.transact(partial(self._replay, letters))

        for _ in range(_ASKED_COUNT_MAX):
            try:
                await self._world.front.ask(replay, draws=self._draws)
            except (NotAskedError, UnknownOutcomeError):
                await asyncio.sleep(1.0)
            else:
                return

    async def _replay(self, letters: LetterSettlement, transaction: Transaction) -> None:
        """Replay what is open; only what is replayed may come after its successors."""
        now = await transaction.now()
        settled = await letters.replay(transaction, DeadLetterFilter(), now=now)
        replayed = [each.id for each in settled if each.result is SettleResult.REPLAYED]
        select = f"SELECT * FROM {letters._outbox.tables.dead_letters.name} WHERE id = ?"  # noqa: S608 (our own names)
        for letter_id in replayed:
            row = self._world.database.connection.execute(select, (letter_id,)).fetchone()
            self._world.broker.forget_sequence(route=row["queue"], order_key=row["aggregate_id"])
