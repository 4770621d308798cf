"""What arrives at RabbitMQ, seen by a program that is none of ours: another client, its own queue.

    with Observer.of_order_events(urls) as observer:
        ...
        assert observer.out_of_order() == []

Two are of use. One binds a queue of its own to `order.events`, as any foreign service may: it sees
what arrives there, and goes on after a restart of the broker, for its queue is durable. The other
reads the broker's own trace of a virtual host: it sees each message that is published there, to
whatever queue, in the order in which the broker took them.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

import pika
from pika.exceptions import AMQPError

from tests.acceptance.running import WAIT_S_MAX
from tests.servers.rabbitmq import RabbitServer
from tests.servers.rabbitmq_vhosts import ManagementVhosts

ORDER_EVENTS = "order.events"

# Where a timeout check is held until it is due; it is on its way to the queue of the second name.
_HELD = ("order.timeout.delayed", "order.timeout.queue")

_TRACE_EXCHANGE = "amq.rabbitmq.trace"

# Published to see whether it is returned, as it must be: it arrives nowhere.
_PROBE_ID = "orderkeep-probe"

# Of a message that the kernel sends back to its own queue for another try.
_ATTEMPT_HEADER = "x-orderkeep-attempt"

_PREFETCH = 1000
_LOOK_S = 0.02
_COME_BACK_S = 0.2

# Hearing nothing for so long, it takes the broker for dead and looks for another one.
_HEARTBEAT_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One message as it came.

    Attributes:
        route: The exchange or queue that it was published to.
        attempt: The number of the try, if it was sent back for another one; else 0.
        is_redelivered: The observer had it in hand before: its own connection was lost.
        at_s: When, on the clock `time.monotonic`.
    """

    route: str
    message_id: str
    aggregate_id: str
    sequence: int
    type: str
    attempt: int
    is_redelivered: bool
    at_s: float


# Properties and headers are as foreign programs write them.
Read = Callable[[Any, Any], Arrival]


class Observer:
    """Reads one queue of its own in a thread, and keeps all that came."""

    def __init__(
        self, urls: Sequence[str], *, exchange: str, routing_key: str, queue: str | None, read: Read
    ) -> None:
        """Connect to nothing yet.

        Args:
            urls: Tried in turn.
            exchange: What the queue is bound to.
            routing_key: Likewise.
            queue: Its name; quorum and durable, so that it outlives the death of a node. None is
                one that ends with the observer.
            read: Makes an arrival of a method and its properties.
        """
        self._parameters = [_parameters(url) for url in urls]
        self._exchange = exchange
        self._routing_key = routing_key
        self._queue = queue
        self._read = read
        self._arrivals: list[Arrival] = []
        self._is_connected = threading.Event()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"observer of {exchange}")
        self.reconnects_count = -1

    @classmethod
    def of_order_events(cls, urls: Sequence[str]) -> Self:
        """Return one that reads the events of all orders."""
        return cls(
            urls,
            exchange=ORDER_EVENTS,
            routing_key="order.#",
            queue="observer.order.events",
            read=_read_event,
        )

    @classmethod
    def of_trace(cls, urls: Sequence[str]) -> Self:
        """Return one that reads what is published in a virtual host that is `traced`."""
        return cls(
            urls,
            exchange=_TRACE_EXCHANGE,
            routing_key="publish.#",
            queue=None,
            read=_read_trace,
        )

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_connected.wait(WAIT_S_MAX), "the observer cannot reach the broker"
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def arrivals(self) -> list[Arrival]:
        """What came so far."""
        return self._arrivals[:]

    @property
    def last_at_s(self) -> float:
        """When the latest came, on the clock `time.monotonic`; 0.0 before the first."""
        return self._arrivals[-1].at_s if self._arrivals else 0.0

    def message_ids(self) -> set[str]:
        """Return the ids of what came so far."""
        return {arrival.message_id for arrival in self.arrivals}

    def order_nos(self, *, event_type: str) -> set[str]:
        """Return the orders of which an event of the type came."""
        return {it.aggregate_id for it in self.arrivals if it.type == event_type}

    def out_of_order(self) -> list[str]:
        """Return what came before something older of its order and route; late copies aside."""
        return out_of_order(self.arrivals)

    def doubles(self) -> list[str]:
        """Return what came more than once, and was published more than once."""
        return doubles(self.arrivals)

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                with pika.BlockingConnection(self._parameters) as connection:
                    self._consume(connection)
            except (AMQPError, OSError):
                self._is_over.wait(_COME_BACK_S)

    def _consume(self, connection: pika.BlockingConnection) -> None:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=_PREFETCH)
        if self._exchange == ORDER_EVENTS:
            channel.exchange_declare(self._exchange, "topic", durable=True)
        if self._queue is None:
            queue = channel.queue_declare("", exclusive=True).method.queue
        else:
            queue = self._queue
            channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_bind(queue, self._exchange, self._routing_key)
        last_tag = 0

        def take(_channel: Any, method: Any, properties: Any, _body: bytes) -> None:
            nonlocal last_tag
            self._arrivals.append(self._read(method, properties))
            last_tag = method.delivery_tag

        channel.basic_consume(queue, take)
        self.reconnects_count += 1
        self._is_connected.set()
        while not self._is_over.is_set():
            connection.process_data_events(time_limit=_LOOK_S)
            if last_tag:
                channel.basic_ack(last_tag, multiple=True)
                last_tag = 0


def out_of_order(arrivals: Sequence[Arrival]) -> list[str]:
    """Return what came before something older of its order and route; late copies aside.

    What is sent back for another try is younger than its neighbours, and a timeout check comes when
    it is due: neither has a place in the order.
    """
    last: dict[tuple[str, str], int] = {}
    seen: set[tuple[str, str]] = set()
    found: list[str] = []
    for arrival in arrivals:
        line = (arrival.route, arrival.aggregate_id)
        if arrival.attempt or arrival.route in _HELD or (line[0], arrival.message_id) in seen:
            continue
        seen.add((line[0], arrival.message_id))
        if arrival.sequence <= last.get(line, 0):
            found.append(f"{line}: {arrival.sequence} after {last[line]}")
        last[line] = arrival.sequence
    return found


def doubles(arrivals: Sequence[Arrival]) -> list[str]:
    """Return what was published more than once."""
    counts = Counter(
        (it.route, it.message_id, it.attempt)
        for it in arrivals
        if not it.is_redelivered and it.message_id != _PROBE_ID
    )
    return [f"{what}: {count} times" for what, count in counts.items() if count > 1]


def sequences_by_route(arrivals: Sequence[Arrival]) -> Mapping[str, int]:
    """Return how many orders told of themselves on each route, for a report."""
    orders: dict[str, set[str]] = defaultdict(set)
    for arrival in arrivals:
        orders[arrival.route].add(arrival.aggregate_id)
    return {route: len(found) for route, found in sorted(orders.items())}


@contextmanager
def traced(server: RabbitServer, url: str) -> Iterator[None]:
    """Let the broker trace the virtual host of the URL as long as the context lasts.

    Each message is then published twice by the broker: nothing is measured under this.
    """
    vhost = unquote(urlsplit(url).path[1:])
    _trace(server, vhost, word="start")
    try:
        yield
    finally:
        _trace(server, vhost, word="stop")


def _trace(server: RabbitServer, vhost: str, *, word: str) -> None:
    vhosts = server._vhosts
    if isinstance(vhosts, ManagementVhosts):
        vhosts._request("PUT", f"vhosts/{quote(vhost)}", body={"tracing": word == "start"})
    else:
        server.evaluate(f'rabbit_trace:{word}(<<"{vhost}">>).')


def _read_event(method: Any, properties: Any) -> Arrival:
    headers = properties.headers
    return Arrival(
        route=method.exchange,
        message_id=properties.message_id,
        aggregate_id=headers["x-aggregate-id"],
        sequence=headers["x-sequence"],
        type=properties.type,
        attempt=headers.get(_ATTEMPT_HEADER, 0),
        is_redelivered=method.redelivered,
        at_s=time.monotonic(),
    )


def _read_trace(method: Any, properties: Any) -> Arrival:
    traced_headers = properties.headers
    published = traced_headers["properties"]
    headers = published.get("headers", {})
    exchange, route = traced_headers["exchange_name"], traced_headers["routing_keys"][0]
    if exchange:
        route = _HELD[1] if exchange == _HELD[0] else exchange
    return Arrival(
        route=route,
        message_id=published.get("message_id", ""),
        aggregate_id=headers.get("x-aggregate-id", ""),
        sequence=headers.get("x-sequence", 0),
        type=published.get("type", ""),
        attempt=headers.get(_ATTEMPT_HEADER, 0),
        is_redelivered=method.redelivered,
        at_s=time.monotonic(),
    )


def _parameters(url: str) -> pika.URLParameters:
    parameters = pika.URLParameters(url)
    parameters.heartbeat = _HEARTBEAT_S
    parameters.socket_timeout = parameters.stack_timeout = 5.0
    parameters.blocked_connection_timeout = WAIT_S_MAX
    return parameters
