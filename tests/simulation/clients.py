"""What a client of a world gets: an answer, a refusal, or nothing that it could know."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from orderkeep.refusal import Refusal
from orderkeep.wiring.parts import Role
from tests.simulation.dice import Stream
from tests.simulation.process import Process, ProcessKilledError

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")

# As long as a patient client waits for an answer.
_PATIENCE_S = 20.0

# Over the network and back, at most.
_NETWORK_S = 0.02


class UnknownOutcomeError(Exception):
    """It was done, or not, or will be: nobody said."""


class NotAskedError(Exception):
    """Nobody was there to ask; nothing was done."""


class Front:
    """Asks the processes that serve, as a load balancer would, and keeps count of the outcomes."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.outcomes: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()

    async def ask(self, work: Callable[[Process], Awaitable[T]], *, draws: Stream) -> T:
        """Let one of the serving processes do the work, and return its answer.

        Raises:
            NotAskedError: none was there.
            UnknownOutcomeError: no answer came, or one that says nothing.
            Refusal: the answer was no.
        """
        world = self._world
        await asyncio.sleep(_NETWORK_S * draws.random())
        serving = [
            process
            for process in world.processes.values()
            if process.role is Role.SERVE and not process.is_dead and not process.is_stopping
        ]
        if not serving:
            self.outcomes["fail"] += 1
            raise NotAskedError
        process = draws.choice(serving)
        task = process.spawn(_run(work, process))
        done, _ = await asyncio.wait([task], timeout=_PATIENCE_S)
        await asyncio.sleep(_NETWORK_S * draws.random())
        if not done or process.is_dead or world.faults.happens("answer-lost"):
            self.outcomes["unknown"] += 1
            raise UnknownOutcomeError
        try:
            answer = task.result()
        except Refusal as refusal:
            self.outcomes["fail"] += 1
            self.refusals[refusal.code] += 1
            raise
        except (asyncio.CancelledError, ProcessKilledError, Exception):  # noqa: BLE001 (it is noted)
            # What no fault explains was noted by the process; its client knows as little.
            self.outcomes["unknown"] += 1
            raise UnknownOutcomeError from None
        self.outcomes["ok"] += 1
        return answer


async def _run(work: Callable[[Process], Awaitable[T]], process: Process) -> T:
    return await work(process)
