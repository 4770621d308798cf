"""What befalls a world: a schedule of blows, drawn from its seed before it begins."""

import asyncio
import re
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from orderkeep import failure_points
from orderkeep.failure_points import ArmedPoint
from tests.simulation.dice import stream
from tests.simulation.process import RUNNING, ProcessKilledError

if TYPE_CHECKING:
    from tests.simulation.world import World

# How many blows a world takes, at most; some take none.
_BLOWS_COUNT_MAX = 20

# The process is back after so long, at most.
_DOWN_S_MAX = 4.0

POISON = (b"", b"{", b"\xff\xfe", b"[" * 2000, b'{"order_no": 7}')

_POINT = re.compile(r"""\breach\(["']([a-z_.]+)["']\)""")


@lru_cache(1)
def failure_point_names() -> tuple[str, ...]:
    """Return every failure point that a world can reach: it sends no webhooks."""
    names: set[str] = set()
    folders = [files("orderkeep")]
    while folders:
        for each in folders.pop().iterdir():
            if each.is_dir():
                folders.append(each)
            elif each.name.endswith(".py") and each.name != "failure_points.py":
                names.update(_POINT.findall(each.read_text()))
    return tuple(sorted(name for name in names if not name.startswith("webhooks.")))


class Killing:
    """Stands where a failure point finds the operating system: ends the process that runs."""

    @staticmethod
    def getpid() -> int:
        return 0

    @staticmethod
    def kill(_process_id: int, _signal: int) -> None:
        point = failure_points._Armed.point
        assert point is not None
        failure_points.arm(None)
        process = RUNNING.get()
        if process is None:
            return
        process.world.faults.note("kill-at-point")
        process.world.points_fired[point.name] += 1
        process.kill(f"at {point.name}")
        raise ProcessKilledError


class Nemesis:
    """Strikes one world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._draws = stream(world.seed, "nemesis")
        self._blows = {
            "kill": self._kill,
            "kill-at-point": self._arm,
            "restart": self._restart,
            "freeze": self._freeze,
            "database-outage": self._database_outage,
            "sessions-lost": self._sessions_lost,
            "broker-outage": self._broker_outage,
            "connection-dropped": self._connection_dropped,
            "broker-wiped": self._broker_wiped,
            "queue-emptied": self._queue_emptied,
            "unbound": self._unbound,
            "poison": self._poison,
        }
        draws = self._draws
        known = [name for name in self._blows if draws.random() < 0.6]
        # Deaths are what everything here is about.
        kinds = [*known, "kill", *["kill-at-point"] * 5]
        self._schedule = sorted(
            (draws.uniform(0.5, world.heal_at_s - 1.0), draws.choice(kinds))
            for _ in range(draws.randrange(_BLOWS_COUNT_MAX + 1))
        )

    async def strike(self) -> None:
        """Strike each blow at its time."""
        for at_s, name in self._schedule:
            await asyncio.sleep(max(at_s - self._world.loop.now_s, 0.0))
            if name != "kill-at-point":
                self._world.faults.note(name)
            self._world.trace.note("nemesis", name)
            self._blows[name]()

    def _some_process(self):
        alive = [each for each in self._world.processes.values() if not each.is_dead]
        return self._draws.choice(alive) if alive else None

    def _kill(self) -> None:
        process = self._some_process()
        if process is not None:
            process.kill("by the nemesis")

    def _arm(self) -> None:
        name = self._draws.choice(failure_point_names())
        on_reach = self._draws.choice((1, 1, 2, 3, 5, 10))
        failure_points.arm(ArmedPoint(name=name, on_reach=on_reach))

    def _restart(self) -> None:
        process = self._some_process()
        if process is not None and not process.is_stopping:
            stopping = self._world.loop.create_task(
                process.stop(within_s=self._draws.uniform(0.1, 5.0))
            )
            self._world.keep(stopping)

    def _freeze(self) -> None:
        process = self._some_process()
        if process is not None:
            process.freeze(for_s=self._draws.choice((0.5, 3.0, 10.0, 30.0)))

    def _database_outage(self) -> None:
        self._world.database.go_down(for_s=self._draws.choice((0.05, 0.5, 3.0, 10.0)))

    def _sessions_lost(self) -> None:
        for lose in list(self._world.database.sessions.values()):
            lose()

    def _broker_outage(self) -> None:
        self._world.broker.restart(for_s=self._draws.choice((0.05, 0.5, 3.0, 10.0)))

    def _connection_dropped(self) -> None:
        drops = list(self._world.broker.clients.values())
        if drops:
            self._draws.choice(drops)()

    def _broker_wiped(self) -> None:
        self._world.broker.wipe(for_s=self._draws.choice((0.05, 3.0)))

    def _queue_emptied(self) -> None:
        names = list(self._world.broker.queues)
        if names:
            self._world.broker.empty(self._draws.choice(names))

    def _unbound(self) -> None:
        bindings = self._world.broker.bindings
        for binding in bindings:
            if self._draws.random() < 0.7:
                self._world.broker.unbind(binding)

    def _poison(self) -> None:
        names = list(self._world.broker.queues)
        if names:
            body = self._draws.choice(POISON)
            self._world.planted.append(body)
            self._world.broker.put_foreign(self._draws.choice(names), body)


def down_s_max() -> float:
    """Return after how long a process is back, at most."""
    return _DOWN_S_MAX
