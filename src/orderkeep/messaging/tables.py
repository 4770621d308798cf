"""The tables that the kernel keeps for one service, under the prefix that the service gives."""

from dataclasses import dataclass

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from orderkeep.database.schema import INSTANT, ROW_NUMBER


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTables:
    """What one service needs to send and receive."""

    service: str
    outbox: Table
    inbox: Table
    dead_letters: Table
    dead_letter_history: Table
    delivery_attempts: Table
    reconciled: Table


def service_tables(metadata: MetaData, *, service: str) -> ServiceTables:
    """Return the kernel's tables for a service, named `SERVICE_outbox` and so on."""
    return ServiceTables(
        service=service,
        outbox=_outbox(metadata, f"{service}_outbox"),
        inbox=_inbox(metadata, f"{service}_inbox"),
        dead_letters=_dead_letters(metadata, f"{service}_dead_letters"),
        dead_letter_history=_dead_letter_history(metadata, f"{service}_dead_letter_history"),
        delivery_attempts=_delivery_attempts(metadata, f"{service}_delivery_attempts"),
        reconciled=_reconciled(metadata, f"{service}_reconciled"),
    )


def _outbox(metadata: MetaData, name: str) -> Table:
    table = Table(
        name,
        metadata,
        Column("id", ROW_NUMBER, primary_key=True, autoincrement=True),
        Column("message_id", Text, nullable=False),
        # crc32(aggregate_id) % 16: what a dispatcher owns when several share the table.
        Column("partition", Integer, nullable=False),
        Column("aggregate_id", Text, nullable=False),
        Column("sequence", ROW_NUMBER, nullable=False),
        Column("type", Text, nullable=False),
        Column("route", Text, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("headers", LargeBinary, nullable=False),
        Column("state", Text, nullable=False),
        Column("ordered", Boolean(create_constraint=False), nullable=False),
        Column("not_before", INSTANT, nullable=False),
        Column("deliver_at", INSTANT),
        Column("retry_key", Text),
        Column("attempts", Integer, nullable=False),
        Column("last_error", Text),
        Column("created_at", INSTANT, nullable=False),
        Column("sent_at", INSTANT),
        Column("discarded_at", INSTANT),
        CheckConstraint("state IN ('pending', 'sent', 'failed', 'discarded')", name="state"),
        UniqueConstraint("retry_key"),
    )
    _index_outbox(table)
    return table


def _index_outbox(table: Table) -> None:
    name = table.name
    # The dispatcher reads what may go now, oldest first; with route and partition in the index, the
    # rows of a route that is paused, and those of another dispatcher, are passed over unread.
    Index(
        f"ix_{name}_pending",
        table.c.not_before,
        table.c.id,
        table.c.route,
        table.c.partition,
        sqlite_where=table.c.state == "pending",
        postgresql_where=table.c.state == "pending",
    )
    # The dispatcher asks whether an earlier event of the same aggregate and route is still open.
    Index(
        f"ix_{name}_open",
        table.c.aggregate_id,
        table.c.route,
        table.c.sequence,
        table.c.id,
        sqlite_where=table.c.ordered & table.c.state.in_(("pending", "failed")),
        postgresql_where=table.c.ordered & table.c.state.in_(("pending", "failed")),
    )
    # Operators list and count what is parked; there is little of it among much that was sent.
    Index(
        f"ix_{name}_failed",
        table.c.id,
        sqlite_where=table.c.state == "failed",
        postgresql_where=table.c.state == "failed",
    )
    # Retention reads the oldest sent rows.
    Index(
        f"ix_{name}_sent",
        table.c.sent_at,
        sqlite_where=table.c.state == "sent",
        postgresql_where=table.c.state == "sent",
    )
    # Retention reads the rows that were discarded longest ago; operators list them.
    Index(
        f"ix_{name}_discarded",
        table.c.discarded_at,
        sqlite_where=table.c.state == "discarded",
        postgresql_where=table.c.state == "discarded",
    )
    # The timeline shows the messages of one order.
    Index(f"ix_{name}_aggregate", table.c.aggregate_id, table.c.id)


def _inbox(metadata: MetaData, name: str) -> Table:
    table = Table(
        name,
        metadata,
        Column("consumer", Text, primary_key=True),
        Column("message_id", Text, primary_key=True),
        Column("received_at", INSTANT, nullable=False),
    )
    # Retention reads the oldest rows.
    Index(f"ix_{name}_received_at", table.c.received_at)
    return table


def _dead_letters(metadata: MetaData, name: str) -> Table:
    # What came from outside is kept as bytes: a NUL or a lone surrogate must not keep poison from
    # being set aside.
    table = Table(
        name,
        metadata,
        Column("id", ROW_NUMBER, primary_key=True, autoincrement=True),
        Column("consumer", Text, nullable=False),
        Column("queue", Text, nullable=False),
        Column("message_id", Text, nullable=False),
        Column("sender_message_id", LargeBinary),
        Column("type", LargeBinary, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("headers", LargeBinary, nullable=False),
        Column("reason", Text, nullable=False),
        Column("detail", Text, nullable=False),
        Column("traceback", Text),
        Column("tries", Integer, nullable=False),
        Column("state", Text, nullable=False),
        Column("first_received_at", INSTANT, nullable=False),
        Column("set_aside_at", INSTANT, nullable=False),
        Column("settled_at", INSTANT),
        # How often an operator has replayed or discarded it: it numbers the chains of retries, so
        # that a chain that starts anew is not taken for a copy of an older one.
        Column("settled_count", Integer, nullable=False),
        # What it is about and its place there, as its headers told; None and 0 where they did not.
        Column("aggregate_id", Text),
        Column("sequence", ROW_NUMBER, nullable=False, server_default="0"),
        CheckConstraint("state IN ('open', 'replayed', 'discarded')", name="state"),
        UniqueConstraint("consumer", "message_id"),
    )
    # Operators page through one state, newest first.
    Index(f"ix_{name}_state", table.c.state, table.c.id)
    # The gauge counts what is open, by queue.
    Index(f"ix_{name}_queue", table.c.state, table.c.queue)
    # A replay goes through what is open in the order in which it came.
    Index(
        f"ix_{name}_arrival",
        table.c.state,
        table.c.first_received_at,
        table.c.sequence,
        table.c.id,
    )
    return table


def _dead_letter_history(metadata: MetaData, name: str) -> Table:
    # What became of each letter, entry by entry. A letter is set aside and settled in turns, which
    # `settled_count` numbers: one entry of a kind for each turn, however often a copy comes.
    return Table(
        name,
        metadata,
        Column("id", ROW_NUMBER, primary_key=True, autoincrement=True),
        Column("letter_id", ROW_NUMBER, nullable=False),
        Column("settled_count", Integer, nullable=False),
        Column("event", Text, nullable=False),
        Column("at", INSTANT, nullable=False),
        Column("reason", Text),
        Column("detail", Text),
        Column("tries", Integer),
        Column("actor", Text),
        # Under which id an edited body went on.
        Column("message_id", Text),
        CheckConstraint("event IN ('set_aside', 'replayed', 'edited', 'discarded')", name="event"),
        UniqueConstraint("letter_id", "settled_count", "event"),
    )


def _delivery_attempts(metadata: MetaData, name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("consumer", Text, primary_key=True),
        Column("message_id", Text, primary_key=True),
        Column("attempts", Integer, nullable=False),
        Column("last_at", INSTANT, nullable=False),
    )


def _reconciled(metadata: MetaData, name: str) -> Table:
    # Up to which of the service's sent rows each consumer, of whatever service, is known to have
    # what is for it.
    return Table(
        name,
        metadata,
        Column("consumer", Text, primary_key=True),
        Column("sent_at", INSTANT, nullable=False),
        Column("row_id", ROW_NUMBER, nullable=False),
    )
