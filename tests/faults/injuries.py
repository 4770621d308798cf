"""What is done to the servers of a shop, and to the ways between its processes and them."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pika

from tests.acceptance.fleet_books import NO_ANSWER
from tests.acceptance.fleet_verdict import seconds_until
from tests.faults.shop import NotMadeError, Shop
from tests.servers.fault_proxy import COMMIT, PUBLISH, ProxyThread

# What a recovery may take before it is given up; what is asked for is much less.
_RECOVERY_S_MAX = 120.0

_AWAY_S_MAX = 1.0
_SWALLOW_S = (1.0, 8.0)
_DELAY_S = (0.02, 0.2)
_DELAYED_S = (2.0, 5.0)
_ALARM_S = (2.0, 8.0)
_FULL_S = (2.0, 6.0)
_ANSWERS_MAX = 4
_CUT_WAIT_S_MAX = 5.0

# So many of the orders that were asked for last are looked at: of all others the answer is known.
_LOOKED_BACK_COUNT = 300

# More than any disk has.
_DISK_FREE_LIMIT = 10**15

WRITES = "PostgreSQL back until writes are accepted"
WRITES_OF_NEW_FRONT = "... where every process that serves was killed or stopped meanwhile, too"
EVENTS = "RabbitMQ back until an event arrives"

_QUEUES = ("order.timeout.queue", "payment.success.notify", "cart-sync", "payment.refund.request")

POISONS: Mapping[str, tuple[bytes, Mapping[str, int]]] = {
    "broken": (b'{"order_no": "01', {}),
    "unknown version": (b'{"version": 2, "what": {}}', {"x-schema-version": 99}),
    "100,000 deep": (b'{"a":' * 100_000, {}),
    "16 MB": (b'{"order_no": "' + b"x" * 16_000_000 + b'"}', {}),
}

_pause = threading.Event()


def between(bounds: tuple[float, float], strength: float) -> float:
    """Return what of a range a strength stands for."""
    return bounds[0] + (bounds[1] - bounds[0]) * strength


def kill_postgresql(shop: Shop, strength: float) -> None:
    """Kill all of PostgreSQL, and measure how long writes take to be accepted again."""
    lives = shop.supervisor.ready_lives("serve")
    shop.servers.postgresql.kill()
    _pause.wait(strength * _AWAY_S_MAX)
    shop.servers.postgresql.start()
    measure_writes(shop, lives)


def stop_postgresql(shop: Shop, strength: float) -> None:
    """Stop PostgreSQL as an operator does, at once or the fast way."""
    lives = shop.supervisor.ready_lives("serve")
    shop.servers.postgresql.stop("immediate" if strength < 0.5 else "fast")
    shop.servers.postgresql.start()
    measure_writes(shop, lives)


def measure_writes(shop: Shop, lives: set[tuple[int, int, int]]) -> None:
    """Measure how long it takes until everybody who serves and lived all the time accepts orders.

    Where nobody did, what is measured is the start of a process as well: until anybody does.

    Args:
        lives: Of those that serve, before the database went away.
    """
    back_s = time.monotonic()

    def have_accepted() -> bool:
        accepting = {
            note.front_no
            for note in shop.journal.orders[-_LOOKED_BACK_COUNT:]
            if note.order_no is not None and (note.answered_at_s or 0.0) > back_s
        }
        survivors = {number for number, _, _ in lives & shop.supervisor.lives("serve")}
        return survivors <= accepting and bool(accepting)

    seconds = seconds_until(have_accepted, "orders are accepted", within_s=_RECOVERY_S_MAX)
    has_lived = bool(lives & shop.supervisor.lives("serve"))
    shop.recoveries_s[WRITES if has_lived else WRITES_OF_NEW_FRONT].append(seconds)


def kill_rabbitmq(shop: Shop, strength: float) -> None:
    """Kill RabbitMQ, and measure how long events take to arrive again."""
    shop.servers.rabbitmq.kill()
    _pause.wait(strength * _AWAY_S_MAX)
    shop.servers.rabbitmq.start()
    _measure_events(shop)


def wipe_rabbitmq(shop: Shop, strength: float) -> None:
    """Kill RabbitMQ and start it with nothing of what it had.

    What it may have lost is what was sent before an event arrives again at the observer, whose
    queue is then back, and what lay there that nobody can read.
    """
    shop.servers.rabbitmq.kill()
    shop.servers.rabbitmq.wipe()
    shop.wiped_ids |= shop.planted.keys()
    _pause.wait(strength * _AWAY_S_MAX)
    shop.servers.rabbitmq.start()
    _measure_events(shop)
    shop.books.wiped_at = _patiently(shop.books.now)


def _measure_events(shop: Shop) -> None:
    back_s = time.monotonic()
    shop.recoveries_s[EVENTS].append(
        seconds_until(
            lambda: shop.observer.last_at_s > back_s,
            "an event arrives",
            within_s=_RECOVERY_S_MAX,
        )
    )


def cut_database(shop: Shop, _strength: float) -> None:
    """Cut every connection to PostgreSQL."""
    shop.database_way.cut()


def cut_commits(shop: Shop, strength: float) -> None:
    """Cut connections to PostgreSQL when a COMMIT was sent and its answer has not come."""
    count = 1 + int(strength * _ANSWERS_MAX)
    _cut_answers(shop.database_way, COMMIT, count=count)


def swallow_database(shop: Shop, strength: float) -> None:
    """Let nothing through to PostgreSQL or back, without a word; then reset what lost something."""
    shop.database_way.swallow()
    _pause.wait(between(_SWALLOW_S, strength))
    shop.database_way.heal()


def delay_database(shop: Shop, strength: float) -> None:
    """Let everything between the processes and PostgreSQL take longer."""
    shop.database_way.delay(between(_DELAY_S, strength))
    _pause.wait(between(_DELAYED_S, 1.0 - strength))
    shop.database_way.heal()


def cut_broker(shop: Shop, _strength: float) -> None:
    """Cut every connection to RabbitMQ."""
    shop.broker_way.cut()


def cut_confirms(shop: Shop, strength: float) -> None:
    """Cut connections to RabbitMQ when something was published and its confirm has not come."""
    count = 1 + int(strength * _ANSWERS_MAX)
    _cut_answers(shop.broker_way, PUBLISH, count=count)


def swallow_broker(shop: Shop, strength: float) -> None:
    """Let nothing through to RabbitMQ or back, without a word; then reset what lost something."""
    shop.broker_way.swallow()
    _pause.wait(between(_SWALLOW_S, strength))
    shop.broker_way.heal()


def delay_broker(shop: Shop, strength: float) -> None:
    """Let everything between the processes and RabbitMQ take longer."""
    shop.broker_way.delay(between(_DELAY_S, strength))
    _pause.wait(between(_DELAYED_S, 1.0 - strength))
    shop.broker_way.heal()


def alarm_memory(shop: Shop, strength: float) -> None:
    """Let RabbitMQ believe that it has no memory left, so that it stops publishers."""
    rabbitmq = shop.servers.rabbitmq
    rabbitmq.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.00001).")
    _pause.wait(between(_ALARM_S, strength))
    rabbitmq.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.4).")
    _measure_events(shop)


def alarm_disk(shop: Shop, strength: float) -> None:
    """Let RabbitMQ believe that its disk is full."""
    rabbitmq = shop.servers.rabbitmq
    rabbitmq.evaluate(f"rabbit_disk_monitor:set_disk_free_limit({_DISK_FREE_LIMIT}).")
    _pause.wait(between(_ALARM_S, strength))
    rabbitmq.evaluate("rabbit_disk_monitor:set_disk_free_limit(1000000).")
    _measure_events(shop)


def fill_disk(shop: Shop, strength: float) -> None:
    """Fill the disk of PostgreSQL, and make room again."""
    disk = shop.servers.disk
    if disk is None:
        message = "not permitted here"
        raise NotMadeError(message)
    lives = shop.supervisor.ready_lives("serve")
    ballast = disk / "ballast"
    _fill(ballast)
    _pause.wait(between(_FULL_S, strength))
    ballast.unlink()
    if not shop.servers.postgresql.is_alive:
        shop.done_counts["fill_disk: PostgreSQL ended"] += 1
        shop.servers.postgresql.start()
    measure_writes(shop, lives)


def _fill(path: Path) -> None:
    block = bytes(1 << 20)
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(block)
        except OSError:
            return


def poison(shop: Shop, strength: float) -> None:
    """Put messages that nobody can read into a queue, one of each kind."""
    queue = _QUEUES[int(strength * len(_QUEUES)) % len(_QUEUES)]
    parameters = pika.URLParameters(shop.servers.rabbitmq.url())
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for name, (body, headers) in POISONS.items():
            message_id = str(uuid.UUID(bytes=os.urandom(16), version=4))
            properties = pika.BasicProperties(
                message_id=message_id, headers=dict(headers), delivery_mode=2
            )
            channel.basic_publish("", queue, body, properties, mandatory=True)
            shop.planted[message_id] = f"{name} in {queue}"


def _cut_answers(way: ProxyThread, kind: bytes, *, count: int) -> None:
    """Cut so many connections at that moment, or as many as come to it within some seconds."""
    before_count = way.cut_counts["answer"]
    way.cut_answers_to(kind, count=count)
    try:
        seconds_until(
            lambda: way.cut_counts["answer"] >= before_count + count,
            "the answers are cut",
            within_s=_CUT_WAIT_S_MAX,
        )
    except TimeoutError:
        if way.cut_counts["answer"] == before_count:
            message = "nobody came by"
            raise NotMadeError(message) from None
    finally:
        way.heal()


def _patiently(ask: Callable[[], int]) -> int:
    """Ask the database, which may be away as well, until it answers."""
    answers: list[int] = []

    def has_answered() -> bool:
        with suppress(*NO_ANSWER):
            answers.append(ask())
        return bool(answers)

    seconds_until(has_answered, "the database answers", within_s=_RECOVERY_S_MAX)
    return answers[-1]
