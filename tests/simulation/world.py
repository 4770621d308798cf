"""A world: four processes, a broker, a database, a bank, buyers, and a nemesis, for one seed.

It runs in three parts. In the first everything goes wrong that its seed draws, while the buyers do
what they have a mind to. Then everything is healed: what is dead is started, and nothing fails any
more. The world comes to rest, by itself, in a bounded time; then the invariants are looked at.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from orderkeep import failure_points
from orderkeep.messaging import dispatcher
from orderkeep.metrics import Metrics
from orderkeep.payments import desk as payment_desk
from orderkeep.settings import Settings
from orderkeep.wiring.parts import Role
from tests.simulation.bank import Bank
from tests.simulation.broker_server import BrokerServer
from tests.simulation.clients import Front
from tests.simulation.database_server import DatabaseServer
from tests.simulation.dice import EPOCH, stream
from tests.simulation.faults import Faults
from tests.simulation.nemesis import Killing, Nemesis, down_s_max
from tests.simulation.process import ORDER_POLL_INTERVAL_S, SHARE_INTERVAL_S, Process
from tests.simulation.shopper import CHANNELS, Shopper
from tests.simulation.trace import Trace
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.watch import Watch

_NAMES = {"api-1": Role.SERVE, "api-2": Role.SERVE, "work-1": Role.WORK, "work-2": Role.WORK}

_POLICIES = ("refund", "manual", "revive")

# The first SKU is what everybody wants and few get.
_PRICES_MINOR = (1_999, 500, 12_345, 1, 7_700, 250)

# One set for all worlds: nobody looks at what it shows.
_METRICS = Metrics()


class World:
    """One seed's world."""

    def __init__(self, seed: int, *, orders_count: int, is_traced: bool = False) -> None:
        self.seed = seed
        draws = stream(seed, "world")
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(lambda _loop, context: self._unhandled(context))
        self.trace = Trace(self.loop, is_shown=is_traced)
        self.metrics = _METRICS
        self.policy = draws.choice(_POLICIES)
        self.latency_s = draws.choice((0.002, 0.01, 0.03))
        self._clock_errors_s = {name: draws.uniform(-600.0, 600.0) for name in _NAMES}
        self.order_timeout_s = draws.choice((20.0, 30.0, 45.0))
        self._span_s = draws.choice((2.0, 8.0, 20.0))
        self.heal_at_s = self._span_s + self.order_timeout_s + draws.uniform(2.0, 15.0)
        self.settings = Settings.model_validate(
            {
                "database_url": "postgresql://simulated/orders",
                "broker_url": "amqp://simulated",
                "late_payment_policy": self.policy,
                "order_timeout_s": self.order_timeout_s,
                "payment_extension_s": draws.choice((0, 5)),
                "sweep_interval_s": 10,
                "sweep_grace_s": 5,
                "retry_max_s": 8,
                "unknown_order_retry_for_s": 60,
            }
        )
        self.faults = Faults.drawn(stream(seed, "faults"))
        self.prices_minor = {f"sku-{number}": price for number, price in enumerate(_PRICES_MINOR)}
        self.sku_ids = list(self.prices_minor)
        scarce_count = max(orders_count // draws.choice((4, 8, 40)), 1)
        stock = dict.fromkeys(self.sku_ids, 10 * orders_count) | {self.sku_ids[0]: scarce_count}
        self.watch = Watch(seed=seed, stock=stock)
        self.database = DatabaseServer(self.loop, faults=self.faults, watch=self.watch)
        self._fill_catalogue(stock)
        self.broker = BrokerServer(self.loop, faults=self.faults, watch=self.watch)
        self.bank = Bank(faults=self.faults)
        self.channels = dict.fromkeys(CHANNELS, self.bank)
        self.front = Front(self)
        self.processes: dict[str, Process] = {}
        self.shoppers = [Shopper(self, number=number) for number in range(orders_count)]
        self.points_fired: Counter[str] = Counter()
        self.planted: list[bytes] = []
        self.watch.planted = self.planted
        self.is_healed = False
        self._starts: Counter[str] = Counter()
        self._kept: dict[asyncio.Task[Any], None] = {}

    def clock_error_s(self, name: str) -> float:
        """Return by how much the process's own clock is wrong."""
        return self._clock_errors_s[name]

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Hold the task until it ends; what it raises is a fault of the simulation."""
        self._kept[task] = None
        task.add_done_callback(self._let_go)

    def start(self) -> list[asyncio.Task[None]]:
        """Start the processes, the buyers and the nemesis; return the buyers."""
        for name in _NAMES:
            self.start_process(name)
        draws = stream(self.seed, "arrivals")
        shopping = [
            self._begin(self._shop(shopper, at_s=draws.uniform(0.0, self._span_s)))
            for shopper in self.shoppers
        ]
        self._begin(Nemesis(self).strike())
        self._begin(self._keep_alive())
        return shopping

    def start_process(self, name: str) -> None:
        """Start the process, or start it again, with nothing in its memory."""
        self._starts[name] += 1
        process = Process(self, name=name, role=_NAMES[name], start_number=self._starts[name])
        self.processes[name] = process
        process.start()
        self.trace.note(name, "started", self._starts[name])

    def heal(self) -> None:
        """Let nothing fail any more."""
        self.faults.stop()
        self.is_healed = True
        failure_points.arm(None)
        self.trace.note("healed")

    async def _shop(self, shopper: Shopper, *, at_s: float) -> None:
        await asyncio.sleep(at_s)
        await shopper.shop()

    async def _keep_alive(self) -> None:
        """Start dead processes again, as a supervisor does."""
        draws = stream(self.seed, "supervisor")
        while True:
            await asyncio.sleep(0.5)
            for name, process in list(self.processes.items()):
                if process.is_dead:
                    if not self.is_healed:
                        await asyncio.sleep(draws.random() ** 3 * down_s_max())
                    self.start_process(name)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self.keep(task)
        return task

    def _let_go(self, task: asyncio.Task[Any]) -> None:
        del self._kept[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._unhandled({"message": "a part of the simulation failed", "exception": error})

    def _unhandled(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and "ProcessKilledError" in type(error).__name__:
            return
        self.watch.breach("I15", "world", f"{context['message']}: {error!r}")

    def _fill_catalogue(self, stock: dict[str, int]) -> None:
        connection = self.database.connection
        for sku_id, count in stock.items():
            connection.execute(
                "INSERT INTO skus VALUES (?, NULL, ?, ?, 'CNY', 1, ?)",
                (sku_id, f"title of {sku_id}", self.prices_minor[sku_id], EPOCH),
            )
            connection.execute("INSERT INTO stock VALUES (?, ?, 0, 0)", (sku_id, count))
            connection.execute(
                "INSERT INTO stock_movements (sku_id, kind, cause, quantity, moved_at)"
                " VALUES (?, 'adjust', 'opening', ?, ?)",
                (sku_id, count, EPOCH),
            )
        self.watch.rolled_back()

    def close(self) -> None:
        """End everything that is left of it."""
        for process in self.processes.values():
            process.kill("end of the world")
        for task in list(self._kept):
            task.cancel()
        self.loop.run_until_complete(_pass())
        self.database.close()
        self.loop.close()


@contextmanager
def deadly_points() -> Iterator[None]:
    """Let failure points end simulated processes, and no real one."""
    with (
        patch.object(failure_points, "os", Killing),
        patch.object(payment_desk, "_ORDER_POLL_INTERVAL_S", ORDER_POLL_INTERVAL_S),
        patch.object(dispatcher, "SHARE_INTERVAL_S", SHARE_INTERVAL_S),
    ):
        try:
            yield
        finally:
            failure_points.arm(None)


async def _pass() -> None:
    """Let everybody see that it is over."""
    for _ in range(20):
        await asyncio.sleep(0)
