"""Picks the database and the broker that the settings name."""

from collections.abc import Mapping
from pathlib import Path

from orderkeep.carts.tables import KERNEL as CART_TABLES
from orderkeep.contracts.order_events import EXCHANGE as ORDER_EVENTS
from orderkeep.contracts.topology import TOPOLOGY
from orderkeep.database.schema_version import URL, sqlite_url
from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.database.transaction import Database
from orderkeep.messaging.broker import Topology
from orderkeep.messaging.database_queue import DatabaseQueue
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.tables import KERNEL as ORDER_TABLES
from orderkeep.payments.tables import KERNEL as PAYMENT_TABLES
from orderkeep.settings import Settings
from orderkeep.wiring import chance

# By service name, as ORDERKEEP_SERVICES has it.
KERNEL_TABLES = {"orders": ORDER_TABLES, "carts": CART_TABLES, "payments": PAYMENT_TABLES}
SERVICE_OF_SETTING = {"orders": "orders", "cart": "carts", "payment": "payments"}


class NotInThisReleaseError(Exception):
    """The settings name an engine that this release does not have; the message says which."""


def open_database(settings: Settings) -> Database:
    """Return the database, ready for its first transaction.

    Raises:
        NotInThisReleaseError: it is not a SQLite file.
    """
    return SqliteDatabase(_sqlite_path(settings))


def schema_url(settings: Settings) -> URL:
    """Return where migrations find the database.

    Raises:
        NotInThisReleaseError: it is not a SQLite file.
    """
    return sqlite_url(_sqlite_path(settings))


def open_database_queue(settings: Settings, database: Database) -> DatabaseQueue:
    """Return the broker on the database.

    Raises:
        NotInThisReleaseError: the settings name a broker across the network.
    """
    if not settings.has_database_queues:
        message = (
            "ORDERKEEP_BROKER_URL names an AMQP broker, which this release does not have yet:"
            " unset it, or give database://"
        )
        raise NotInThisReleaseError(message)
    return DatabaseQueue(
        database,
        new_token=chance.new_uuid,
        poll_interval_s=settings.outbox_poll_interval_s,
    )


def used_topology(settings: Settings) -> Topology:
    """Return the topology without the queues that nobody reads."""
    unused = set(settings.unused_queues)
    return Topology(
        queues=tuple(queue for queue in TOPOLOGY.queues if queue.name not in unused),
        exchanges=TOPOLOGY.exchanges,
        bindings=tuple(binding for binding in TOPOLOGY.bindings if binding.queue not in unused),
    )


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


def _sqlite_path(settings: Settings) -> Path:
    path = settings.sqlite_path
    if path is None:
        message = (
            "ORDERKEEP_DATABASE_URL names PostgreSQL, which this release does not have yet:"
            " unset it, or give sqlite:///PATH"
        )
        raise NotInThisReleaseError(message)
    return path
