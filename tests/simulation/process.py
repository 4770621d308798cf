"""One simulated process: the product's parts and loops, that can be killed at any await.

Killing it ends every task, drops its memory and its connections, and leaves what it had under way
where it was: in the database or the broker, done or not done.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

import httpx

from orderkeep.carts.desk import CartDesk
from orderkeep.instant import Instant
from orderkeep.messaging import reconciliation
from orderkeep.messaging.kept_loop import keep_running
from orderkeep.messaging.reconciliation import ReconciliationPolicy
from orderkeep.messaging.signal import Signal
from orderkeep.orders.case_desk import CaseDesk
from orderkeep.orders.desk import OrderDesk
from orderkeep.payments.desk import PaymentDesk
from orderkeep.wiring import payment_parts
from orderkeep.wiring.cart_parts import build_cart_parts
from orderkeep.wiring.loops import messaging_loops
from orderkeep.wiring.order_parts import build_order_parts
from orderkeep.wiring.parts import Role, Run, ServiceParts
from orderkeep.wiring.payment_parts import build_payment_parts
from orderkeep.wiring.storage import Brokers, build_outboxes
from tests.simulation.broker_client import SimulatedBroker
from tests.simulation.database_client import SimulatedDatabase, SimulatedSession
from tests.simulation.dice import Clock, ProcessChance, drawn_by, stream
from tests.simulation.expected_errors import is_expected
from tests.simulation.kept_statements import kept_statements, settlement_of

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")

# Whose code is running.
RUNNING: ContextVar["Process | None"] = ContextVar("process", default=None)

_WAKE_UP_S = 0.005

# What the product does all the time for want of anything better takes most of a small world's
# time: it does so less often here, and nothing else differs.
_RECONCILED_SELDOM = partial(ReconciliationPolicy, interval_s=20.0)
ORDER_POLL_INTERVAL_S = 1.0
SHARE_INTERVAL_S = 4.0


class ProcessKilledError(BaseException):
    """The process whose code is running is no more; nothing that it still does has an effect."""


class Process:
    """A process of the world, from one start to its end."""

    def __init__(self, world: "World", *, name: str, role: Role, start_number: int) -> None:
        self.world = world
        self.name = name
        self.role = role
        self.is_dead = False
        self.is_stopping = False
        self.frozen_until_s = 0.0
        self.draws = stream(world.seed, "process", name, start_number)
        self.sessions: dict[int, SimulatedSession] = {}
        self.brokers: list[SimulatedBroker] = []
        self.wakes: dict[str, Callable[[], None]] = {}
        self.world_latency_s = world.latency_s
        self._stop = asyncio.Event()
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._unheard: list[Callable[[], None]] = []
        self._context = copy_context()
        self._context.run(RUNNING.set, self)
        self.chance = ProcessChance(
            stream(world.seed, "chance", name, start_number),
            now_s=Clock(world.loop),
            clock_error_s=world.clock_error_s(name),
        )
        with (
            drawn_by(self.chance),
            kept_statements(),
            patch.object(payment_parts, "known_channels", lambda **_settings: dict(world.channels)),
            patch.object(reconciliation, "ReconciliationPolicy", _RECONCILED_SELDOM),
        ):
            self._loops = self._build()

    def _build(self) -> dict[str, Run]:
        world = self.world
        self.database = SimulatedDatabase(world.database, process=self)
        outboxes = build_outboxes(world.settings)
        for outbox in outboxes.values():
            self._relay(outbox.tables.outbox.name, outbox.appended)
        services = [
            build_order_parts(
                world.settings,
                database=self.database,
                outbox=outboxes["orders"],
                metrics=world.metrics,
                token_secret="0" * 32,
                client=httpx.AsyncClient.__new__(httpx.AsyncClient),
                relay=self._relay,
            ),
            build_payment_parts(
                world.settings,
                database=self.database,
                outbox=outboxes["payments"],
                relay=self._relay,
            ),
            build_cart_parts(database=self.database, outbox=outboxes["carts"]),
        ]
        parts = {name: part for service in services for name, part in service.dependencies.items()}
        self.orders: OrderDesk = _part(parts, OrderDesk)
        self.payments: PaymentDesk = _part(parts, PaymentDesk)
        self.cases: CaseDesk = _part(parts, CaseDesk)
        self.carts: CartDesk = _part(parts, CartDesk)
        self.settlements = [settlement_of(outbox) for outbox in outboxes.values()]
        if self.role is Role.SERVE:
            return {name: run for each in services for name, run in each.serving_loops.items()}
        return self._working_loops(services)

    def _working_loops(self, services: list[ServiceParts]) -> dict[str, Run]:
        world = self.world
        brokers = Brokers(
            publishing={
                each.outbox.tables.service: SimulatedBroker(world.broker, process=self)
                for each in services
            },
            consuming=SimulatedBroker(world.broker, process=self),
            connect=None,
            database_queue=None,
        )
        loops: dict[str, Run] = {}
        for each in services:
            loops.update(each.working_loops)
            loops.update(
                messaging_loops(
                    world.settings,
                    each,
                    database=self.database,
                    brokers=brokers,
                    metrics=world.metrics,
                )
            )
        # What it removes is days old, and no world lives for a day.
        return {name: run for name, run in loops.items() if not name.endswith("-retention")}

    def start(self) -> None:
        """Run every loop, as the service does."""
        for name, run in self._loops.items():
            self.spawn(
                keep_running(run, name=name, stop=self._stop, draw_jitter=self.chance.draw_jitter)
            )

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something as a part of this process."""
        task = self.world.loop.create_task(work, context=self._context.copy())
        self._tasks[task] = None
        task.add_done_callback(self._done)
        return task

    def kill(self, why: str) -> None:
        """End at once, without a word."""
        if self.is_dead:
            return
        self.note("killed", why)
        self.is_dead = True
        for session in list(self.sessions.values()):
            session.forget()
        for broker in self.brokers:
            broker.forget()
        for task in list(self._tasks):
            task.cancel()

    async def stop(self, *, within_s: float) -> None:
        """End as told: finish what is in hand, then go."""
        self.note("stopping")
        self.is_stopping = True
        self._stop.set()
        loops = [task for task in self._tasks if not task.done()]
        if loops:
            await asyncio.wait(loops, timeout=within_s)
        self.kill("stopped")

    def freeze(self, *, for_s: float) -> None:
        """Do nothing for so long; whoever is connected to it takes it for dead."""
        self.note("frozen", f"{for_s:.3f}")
        self.frozen_until_s = max(self.frozen_until_s, self.world.loop.now_s + for_s)
        for session in list(self.sessions.values()):
            session.lose()
        for broker in self.brokers:
            broker.drop()

    async def pause(self, seconds: float) -> None:
        """Wait; a frozen process waits until it is thawed, a dead one does nothing any more.

        Raises:
            ProcessKilledError: this process is dead.
        """
        if self.is_dead:
            raise ProcessKilledError
        loop = self.world.loop
        # What `asyncio.sleep` does, in fewer steps: half of all that happens here is waiting.
        waiting = loop.create_future()
        timer = loop.call_at(loop.now_s + seconds, _wake, waiting)
        try:
            await waiting
        finally:
            timer.cancel()
        while loop.now_s < self.frozen_until_s:
            await asyncio.sleep(self.frozen_until_s - loop.now_s)
        if self.is_dead:
            raise ProcessKilledError

    def hear(self, what: Callable[[], None]) -> None:
        """Call what the process is told, as soon as it runs."""
        if not self.is_dead:
            at_s = max(self.frozen_until_s, self.world.loop.now_s)
            self.world.loop.call_at(at_s, self._call, what)

    def _call(self, what: Callable[[], None]) -> None:
        if not self.is_dead:
            what()

    def note(self, *words: object) -> None:
        self.world.trace.note(self.name, *words)

    def database_now(self) -> Instant:
        return self.world.database.now()

    def _relay(self, name: str, signal: Signal) -> None:
        """Let the signal be heard in the other processes, as a rule."""
        self.wakes[name] = signal.wake

        def tell_others() -> None:
            for other in self.world.processes.values():
                if other is self or name not in other.wakes:
                    continue
                if not self.world.faults.happens("wake-up-lost"):
                    self.world.loop.call_later(_WAKE_UP_S, other.hear, other.wakes[name])

        signal.relay_to(tell_others)

    def _done(self, task: asyncio.Task[Any]) -> None:
        del self._tasks[task]
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, ProcessKilledError):
            # At a failure point; the rest of the process goes with it.
            self.kill("at a failure point")
        elif error is not None and not is_expected(error):
            self.note_failure("work for a client", error)

    def note_failure(self, what: str, error: object) -> None:
        """Note that the product failed in a way that no fault explains (I19)."""
        if not self.is_dead:
            self.world.watch.breach("I19", self.name, f"{what.strip()}: {error!r}")


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _part(parts: dict[str, object], kind: type[T]) -> T:
    [part] = [part for part in parts.values() if isinstance(part, kind)]
    return part


Work = Callable[[Process], Awaitable[T]]
