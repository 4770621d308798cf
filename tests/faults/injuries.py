"""What is done to the servers of a shop, and to the ways between its processes and them."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import pika

from tests.acceptance.fleet_verdict import seconds_until
from tests.faults.shop import Shop
from tests.servers.fault_proxy import COMMIT, PUBLISH

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

# More than any disk has.
_DISK_FREE_LIMIT = 10**15

WRITES = "PostgreSQL back until a write is accepted"
WRITES_WITHOUT_FRONT = "... where every process that serves was killed meanwhile, too"
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
    lives = shop.supervisor.lives_of("serve")
    shop.servers.postgresql.kill()
    _pause.wait(strength * _AWAY_S_MAX)
    shop.servers.postgresql.start()
    measure_writes(shop, lives)


def stop_postgresql(shop: Shop, strength: float) -> None:
    """Stop PostgreSQL as an operator does, at once or the fast way."""
    lives = shop.supervisor.lives_of("serve")
    shop.servers.postgresql.stop("immediate" if strength < 0.5 else "fast")
    shop.servers.postgresql.start()
    measure_writes(shop, lives)


def measure_writes(shop: Shop, lives: Mapping[str, int]) -> None:
    """Measure how long it takes until an order is accepted.

    It tells of the database only where one that serves lived all the time: the start of a process
    is no part of it.

    Args:
        lives: Of those that serve, before the database went away.
    """
    back_s = time.monotonic()

    def is_accepted() -> bool:
        return any(
            note.order_no is not None and (note.answered_at_s or 0.0) > back_s
            for note in shop.journal.orders[-300:]
        )

    seconds = seconds_until(is_accepted, "an order is accepted", within_s=_RECOVERY_S_MAX)
    has_lived = bool(lives.items() & shop.supervisor.lives_of("serve").items())
    shop.recoveries_s[WRITES if has_lived else WRITES_WITHOUT_FRONT].append(seconds)


def kill_rabbitmq(shop: Shop, strength: float) -> None:
    """Kill RabbitMQ, and measure how long events take to arrive again."""
    shop.servers.rabbitmq.kill()
    _pause.wait(strength * _AWAY_S_MAX)
    shop.servers.rabbitmq.start()
    _measure_events(shop)


def wipe_rabbitmq(shop: Shop, strength: float) -> None:
    """Kill RabbitMQ and start it with nothing of what it had."""
    shop.servers.rabbitmq.kill()
    shop.servers.rabbitmq.wipe()
    shop.books.was_wiped = True
    _pause.wait(strength * _AWAY_S_MAX)
    shop.servers.rabbitmq.start()
    _measure_events(shop)


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
    before_count = shop.database_way.cut_counts["answer"]
    shop.database_way.cut_answers_to(COMMIT, count=count)
    _wait_for(lambda: shop.database_way.cut_counts["answer"] >= before_count + count)
    shop.database_way.heal()


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
    before_count = shop.broker_way.cut_counts["answer"]
    shop.broker_way.cut_answers_to(PUBLISH, count=count)
    _wait_for(lambda: shop.broker_way.cut_counts["answer"] >= before_count + count)
    shop.broker_way.heal()


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
        shop.done_counts["fill_disk: not permitted here"] += 1
        return
    lives = shop.supervisor.lives_of("serve")
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


def _wait_for(condition: Callable[[], bool]) -> None:
    """Wait for something that may well not come about."""
    try:
        seconds_until(condition, "the answers are cut", within_s=_CUT_WAIT_S_MAX)
    except TimeoutError:
        return
