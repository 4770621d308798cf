"""The simulated broker: queues that keep what they confirmed, and all that a broker may do.

A confirmed message is in every queue that was bound to its route, until it is acknowledged; what a
consumer had in hand when its connection ended comes back, marked `redelivered`, before what waits.
What no broker promises happens as well, when the nemesis says so: a queue is emptied, a binding
goes, a message that is held until its time is forgotten.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orderkeep.instant import Instant
from orderkeep.messaging.broker import Binding, Topology
from orderkeep.messaging.message import SEQUENCE_HEADER, Headers, Message
from orderkeep.messaging.routing import Routes
from tests.simulation.dice import virtual_s
from tests.simulation.faults import Faults
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.watch import Watch

if TYPE_CHECKING:
    from tests.simulation.broker_client import SimulatedConsumption

# A client of ours declares what is missing, a binding as well, at least this often.
_REBOUND_AFTER_S = 15.0


@dataclass(slots=True)
class Entry:
    """A message in a queue."""

    message_id: bytes | None
    type: str
    body: bytes
    headers: Headers
    redelivered: bool = False


class BrokerServer:
    """The broker of one world."""

    def __init__(self, loop: VirtualLoop, *, faults: Faults, watch: Watch) -> None:
        self.loop = loop
        self.faults = faults
        self.down_until_s = 0.0
        self.queues: dict[str, deque[Entry]] = {}
        # By queue, then by number.
        self.consumptions: defaultdict[str, dict[int, SimulatedConsumption]] = defaultdict(dict)
        self.clients: dict[int, Callable[[], None]] = {}
        self.held_count = 0
        # What was ever put into a queue, for those that look afterwards.
        self.log: list[tuple[str, Entry]] = []
        self.keeps_log = False
        self._watch = watch
        self._accepted: set[bytes] = set()
        watch.accepted = self._accepted
        self._sequences: dict[tuple[str, str], int] = {}
        self._topology = Topology(queues=(), exchanges=(), bindings=())
        self._unbound: list[Binding] = []
        self._routes = Routes(self._topology)
        self._number = 0

    @property
    def is_down(self) -> bool:
        return self.loop.now_s < self.down_until_s

    def number(self) -> int:
        """Return a number that nothing here has."""
        self._number += 1
        return self._number

    def declare(self, topology: Topology) -> None:
        """Make what is missing."""
        for queue in topology.queues:
            self.queues.setdefault(queue.name, deque())
        if self._topology is not topology or self._unbound:
            self._topology = topology
            self._unbound = []
            self._routes = Routes(topology)

    def accept(self, message: Message, *, now: Instant) -> bool:
        """Put the message where it belongs; return whether there is such a place."""
        queues = [
            name
            for name in self._routes.queues_for(message.route, message_type=message.type)
            if name in self.queues
        ]
        if not queues:
            return False
        self._check_sequence(message)
        self._accepted.add(message.message_id.encode())
        for name in queues:
            entry = Entry(
                message_id=message.message_id.encode(),
                type=message.type,
                body=message.body,
                headers=message.headers,
            )
            if message.deliver_at is not None and message.deliver_at > now:
                self._hold(name, entry, until=message.deliver_at)
                continue
            self._put(name, entry)
            if self.faults.happens("message-doubled"):
                self._put(name, Entry(entry.message_id, entry.type, entry.body, entry.headers))
        return True

    def put_foreign(self, queue: str, body: bytes) -> None:
        """Put something in a queue that no program of ours has sent."""
        if queue in self.queues:
            self._put(queue, Entry(message_id=None, type="", body=body, headers={}))

    def put_again(self, queue: str, entry: Entry) -> None:
        """Put a copy of a message in its queue."""
        copy = Entry(entry.message_id, entry.type, entry.body, entry.headers)
        self.queues[queue].append(copy)
        self.wake(queue)

    def bring_back(self, queue: str, entries: list[Entry]) -> None:
        """Put what was in hand before what waits, if the queue is still there."""
        waiting = self.queues.get(queue)
        if waiting is None:
            return
        for entry in reversed(entries):
            entry.redelivered = True
            waiting.appendleft(entry)
        if entries:
            self.wake(queue)

    def wake(self, queue: str) -> None:
        for consumption in self.consumptions[queue].values():
            consumption.arrived.set()

    # What happens to a broker.

    def restart(self, *, for_s: float) -> None:
        """End every connection and refuse new ones for so long; queues keep what they hold."""
        self.down_until_s = max(self.down_until_s, self.loop.now_s + for_s)
        for drop in list(self.clients.values()):
            drop()

    def wipe(self, *, for_s: float) -> int:
        """Lose every queue with all that is in it, as when a disk is replaced; return how much."""
        lost_count = sum(len(entries) for entries in self.queues.values())
        self.restart(for_s=for_s)
        self.queues = {}
        return lost_count

    def empty(self, queue: str) -> int:
        """Lose what waits in one queue; return how much that was."""
        entries = self.queues.get(queue, deque())
        lost_count = len(entries)
        entries.clear()
        return lost_count

    def unbind(self, binding: Binding) -> None:
        """Take a binding away, until some client declares it again."""
        self._unbound.append(binding)
        left = tuple(each for each in self._topology.bindings if each not in self._unbound)
        self._routes = Routes(
            Topology(
                queues=self._topology.queues,
                exchanges=self._topology.exchanges,
                bindings=left,
            )
        )
        self.loop.call_later(_REBOUND_AFTER_S, self._bind_again)

    @property
    def bindings(self) -> tuple[Binding, ...]:
        return self._topology.bindings

    def _bind_again(self) -> None:
        if self._unbound:
            self.declare(self._topology)

    def _put(self, queue: str, entry: Entry) -> None:
        entries = self.queues.get(queue)
        if entries is None:
            return
        entries.append(entry)
        if self.keeps_log:
            self.log.append((queue, entry))
        self.wake(queue)

    def _hold(self, queue: str, entry: Entry, *, until: Instant) -> None:
        if self.faults.happens("delayed-message-forgotten"):
            return
        self.held_count += 1

        def release() -> None:
            self.held_count -= 1
            self._put(queue, entry)

        self.loop.call_at(virtual_s(until), release)

    def forget_sequence(self, *, route: str, order_key: str | None) -> None:
        """Let the events of one aggregate begin anew: an operator replays an older one of them."""
        if order_key is not None:
            self._sequences.pop((route, order_key), None)

    def _check_sequence(self, message: Message) -> None:
        """Look whether the events of one aggregate leave in their order."""
        if message.order_key is None:
            return
        sequence = message.headers.get(SEQUENCE_HEADER)
        assert isinstance(sequence, int)
        key = (message.route, message.order_key)
        last = self._sequences.get(key, 0)
        if sequence < last:
            self._watch.breach(
                "I9",
                f"order {message.order_key}",
                f"event {sequence} reached {message.route} after event {last}",
            )
        else:
            self._sequences[key] = sequence
