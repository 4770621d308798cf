"""Picks the database and the broker that the settings name."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from orderkeep.carts.tables import KERNEL as CART_TABLES
from orderkeep.contracts.order_events import EXCHANGE as ORDER_EVENTS
from orderkeep.contracts.topology import READER_BY_QUEUE, TOPOLOGY
from orderkeep.database.postgresql import PostgresDatabase
from orderkeep.database.postgresql_connection import PostgresLimits
from orderkeep.database.postgresql_wake_ups import PostgresWakeUps
from orderkeep.database.schema_version import URL, postgresql_url, sqlite_url
from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.database.transaction import Database
from orderkeep.messaging.broker import Broker, Topology
from orderkeep.messaging.database_queue import LEASE_S, DatabaseQueue
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.rabbitmq import DelayBackend, QueueArguments, RabbitBroker, RabbitOptions
from orderkeep.messaging.sent_events import Receiver
from orderkeep.messaging.signal import Signal
from orderkeep.orders.tables import KERNEL as ORDER_TABLES
from orderkeep.payments.tables import KERNEL as PAYMENT_TABLES
from orderkeep.settings import Settings
from orderkeep.wiring import chance

# By service name, as ORDERKEEP_SERVICES has it.
KERNEL_TABLES = {"orders": ORDER_TABLES, "carts": CART_TABLES, "payments": PAYMENT_TABLES}
SERVICE_OF_SETTING = {"orders": "orders", "cart": "carts", "payment": "payments"}

# Where several processes read the queues in a database, nobody can tell that another has died but
# by its leases: so long its messages wait. A batch is settled in well under a second; one by one,
# each with a count before it, in a few.
_SHARED_LEASE_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Brokers:
    """The ways to the broker.

    Attributes:
        publishing: One way out for each service, by the name that its tables begin with: a
            dispatcher that must let go of its rows closes its own, and nobody else's.
        consuming: The way in, for all consumers.
        connect: Raises `BrokerUnavailableError` if the broker cannot be reached; None where the
            broker is the database.
        database_queue: The queues, where they are in the database.
    """

    publishing: Mapping[str, Broker]
    consuming: Broker
    connect: Callable[[], Awaitable[None]] | None
    database_queue: DatabaseQueue | None

    async def close(self) -> None:
        """Close every connection."""
        # Where the queues are in the database, all of them are one.
        ways = {id(broker): broker for broker in (*self.publishing.values(), self.consuming)}
        for broker in ways.values():
            await broker.close()


def open_database(settings: Settings, *, limits: PostgresLimits | None = None) -> Database:
    """Return the database, ready for its first transaction.

    Args:
        settings: Which one.
        limits: How long anything may take on PostgreSQL; None takes the defaults.
    """
    path = settings.sqlite_path
    if path is not None:
        return SqliteDatabase(path)
    return PostgresDatabase(
        settings.effective_database_url,
        direct_url=settings.effective_database_direct_url,
        pool_size=settings.database_pool_size,
        limits=limits,
        draw_jitter=chance.draw_jitter,
    )


def schema_url(settings: Settings) -> URL:
    """Return where migrations find the database."""
    path = settings.sqlite_path
    if path is not None:
        return sqlite_url(path)
    return postgresql_url(settings.effective_database_direct_url)


def open_wake_ups(settings: Settings) -> PostgresWakeUps | None:
    """Return what wakes the loops of other processes; None where there are none."""
    if settings.is_embedded:
        return None
    return PostgresWakeUps(settings.effective_database_direct_url, draw_jitter=chance.draw_jitter)


def relay_of(wake_ups: PostgresWakeUps | None) -> Callable[[str, Signal], None]:
    """Return what lets a signal be heard in other processes, by name."""

    def relay(name: str, signal: Signal) -> None:
        if wake_ups is not None:
            signal.relay_to(wake_ups.relay(name, signal.wake))

    return relay


def open_brokers(
    settings: Settings, database: Database, *, wake_ups: PostgresWakeUps | None = None
) -> Brokers:
    """Return the broker that the settings name; nothing is connected yet."""
    names = [tables.service for tables in KERNEL_TABLES.values()]
    if settings.has_database_queues:
        queue = _open_database_queue(settings, database, wake_ups=wake_ups)
        return Brokers(
            publishing=dict.fromkeys(names, queue),
            consuming=queue,
            connect=None,
            database_queue=queue,
        )
    consuming = open_rabbit_broker(settings, name="orderkeep consumers")
    return Brokers(
        publishing={
            name: open_rabbit_broker(settings, name=f"orderkeep {name} dispatcher")
            for name in names
        },
        consuming=consuming,
        connect=consuming.connect,
        database_queue=None,
    )


def open_rabbit_broker(settings: Settings, *, name: str) -> RabbitBroker:
    """Return a connection of its own to RabbitMQ, not yet made.

    Args:
        name: What the broker's operator sees.
    """
    return RabbitBroker(
        settings.broker_url,
        options=rabbit_options(settings, name=name),
        draw_jitter=chance.draw_jitter,
    )


def rabbit_options(settings: Settings, *, name: str) -> RabbitOptions:
    """Return how RabbitMQ is used.

    Args:
        settings: Say how.
        name: What the broker's operator sees.
    """
    return RabbitOptions(
        arguments=QueueArguments(settings.queue_arguments),
        delay=DelayBackend(settings.delay_backend),
        hold_s=settings.order_timeout_s,
        connection_name=name,
    )


def used_topology(settings: Settings) -> Topology:
    """Return the topology without the queues that nobody reads."""
    unused = set(settings.unused_queues)
    return Topology(
        queues=tuple(queue for queue in TOPOLOGY.queues if queue.name not in unused),
        exchanges=TOPOLOGY.exchanges,
        bindings=tuple(binding for binding in TOPOLOGY.bindings if binding.queue not in unused),
        delays=tuple(delay for delay in TOPOLOGY.delays if delay.queue not in unused),
    )


def receivers_of(settings: Settings) -> list[Receiver]:
    """Return every consumer of the services that run here."""
    services = {SERVICE_OF_SETTING[name] for name in settings.services}
    return [
        Receiver(consumer=queue, queue=queue, tables=KERNEL_TABLES[service])
        for queue, service in READER_BY_QUEUE.items()
        if service in services and queue not in settings.unused_queues
    ]


def unused_routes(settings: Settings) -> frozenset[str]:
    """Return the routes that lead nowhere: events for them are recorded, not published."""
    unused = frozenset(settings.unused_queues)
    bound = {binding.queue for binding in TOPOLOGY.bindings if binding.exchange == ORDER_EVENTS}
    return unused | {ORDER_EVENTS} if bound <= unused else unused


def build_outboxes(settings: Settings) -> Mapping[str, Outbox]:
    """Return the outbox of each service, by the service's name."""
    routes = unused_routes(settings)
    return {
        name: Outbox(tables, new_message_id=chance.new_uuid, unused_routes=routes)
        for name, tables in KERNEL_TABLES.items()
    }


def _open_database_queue(
    settings: Settings, database: Database, *, wake_ups: PostgresWakeUps | None
) -> DatabaseQueue:
    tell: dict[str, Callable[[], None]] = {}

    def tell_others(queue: str) -> None:
        if queue in tell:
            tell[queue]()

    database_queue = DatabaseQueue(
        database,
        new_token=chance.new_uuid,
        poll_interval_s=settings.outbox_poll_interval_s,
        lease_s=LEASE_S if settings.is_embedded else _SHARED_LEASE_S,
        tell_others=tell_others,
    )
    if wake_ups is not None:
        for queue in TOPOLOGY.queues:
            wake = partial(database_queue.wake, [queue.name])
            tell[queue.name] = wake_ups.relay(f"queue {queue.name}", wake)
    return database_queue
