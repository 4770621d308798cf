"""A small service of its own on the kernel: its tables, its queues, and a handler with an effect.

The children that crash tests start use it as well, so it imports nothing of pytest.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from orderkeep.database.schema import METADATA
from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.database.statement import RowStatement, Statement, row_value
from orderkeep.database.transaction import Database, Row, Transaction
from orderkeep.messaging import (
    HANDLED,
    BadMessageError,
    Binding,
    Broker,
    Consumer,
    DeadLetters,
    Delay,
    DeliveryPolicy,
    Dispatcher,
    DispatchPolicy,
    DispatchRound,
    Event,
    Exchange,
    ExchangeType,
    LetterSettlement,
    MessageOutcome,
    Outbox,
    OutboxRows,
    Outcome,
    Queue,
    Received,
    RetryPolicy,
    SentReplay,
    Subscription,
    Topology,
    service_tables,
)
from orderkeep.messaging.database_queue import DatabaseQueue
from orderkeep.messaging.queue_messages import QUEUE_MESSAGES

SHOP_METADATA = MetaData(naming_convention=METADATA.naming_convention)
SHOP = service_tables(SHOP_METADATA, service="shop")

# One row for each effect; nothing but the inbox keeps a second one of the same message out.
EFFECTS = Table(
    "effects",
    SHOP_METADATA,
    Column("id", Integer, primary_key=True),
    Column("message_id", Text, nullable=False),
    Column("body", Text, nullable=False),
)

TOPOLOGY = Topology(
    queues=(Queue(name="parcels"), Queue(name="copies"), Queue(name="letters")),
    exchanges=(Exchange(name="parcel.events", type=ExchangeType.TOPIC),),
    bindings=(
        Binding(exchange="parcel.events", queue="parcels", routing_key="parcel.#"),
        Binding(exchange="parcel.events", queue="copies", routing_key="parcel.packed"),
    ),
    delays=(Delay(queue="parcels", exchange="parcels.delayed", hold_queue_prefix="parcels.hold."),),
)

DEADLINE_S = 20.0

_RECORD_EFFECT = RowStatement(
    insert(EFFECTS).values(
        message_id=row_value("message_id", EFFECTS.c.message_id.type),
        body=row_value("body", EFFECTS.c.body.type),
    )
)


def tables_sql(dialect: Dialect) -> list[str]:
    """Return the statements that make the tables of the shop and the queues."""
    tables = [*SHOP_METADATA.sorted_tables, QUEUE_MESSAGES]
    clauses: list[CreateTable | CreateIndex] = [CreateTable(table) for table in tables]
    clauses += [CreateIndex(index) for table in tables for index in table.indexes]
    return [str(clause.compile(dialect=dialect)) for clause in clauses]


async def create_tables(database: SqliteDatabase) -> None:
    """Make the tables of the shop and the queues in a file."""

    async def create(transaction: Transaction) -> None:
        for sql in tables_sql(sqlite.dialect()):
            await transaction.execute(Statement(text(sql)))

    await database.transact(create)


def decode(raw: bytes) -> str:
    """Return the body as text."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        reason = "malformed_text"
        raise BadMessageError(reason, "the body is not UTF-8") from error


async def record_effects(
    transaction: Transaction, batch: Sequence[Received[str]]
) -> Sequence[Outcome]:
    """Take effect for every message: one row each."""
    await transaction.execute_rows(
        _RECORD_EFFECT,
        [{"message_id": message.message_id, "body": message.body} for message in batch],
    )
    return [HANDLED] * len(batch)


Handle = Callable[[Transaction, Sequence[Received[str]]], Awaitable[Sequence[Outcome]]]


def consumer_of(handle: Handle, *, queue: str = "parcels") -> Consumer[str]:
    """Return a consumer of the queue with the given handler."""
    return Consumer(
        name=queue, queue=queue, decode=decode, business_key=lambda _body: None, handle=handle
    )


@dataclass
class Shop:
    """The shop's parts, wired for a test; pauses are short."""

    database: Database
    broker: Broker
    outbox: Outbox = field(init=False)
    outbox_rows: OutboxRows = field(init=False)
    dead_letters: DeadLetters = field(init=False)
    settlement: LetterSettlement = field(init=False)
    sent_replay: SentReplay = field(init=False)
    outcomes: list[tuple[str, MessageOutcome]] = field(default_factory=list)
    dispatch_policy: DispatchPolicy = field(
        default_factory=lambda: DispatchPolicy(
            poll_interval_s=0.05,
            retry_base_s=0.01,
            retry_max_s=0.02,
            route_pause_base_s=0.01,
            route_pause_max_s=0.02,
        )
    )
    delivery_policy: DeliveryPolicy = field(
        default_factory=lambda: DeliveryPolicy(
            retry=RetryPolicy(tries_max=3, base_s=0.01, max_s=0.02),
            outage_pause_base_s=0.01,
            outage_pause_max_s=0.02,
        )
    )

    def __post_init__(self) -> None:
        self.outbox = Outbox(SHOP, new_message_id=lambda: str(uuid.uuid4()))
        self.outbox_rows = OutboxRows(self.outbox)
        self.dead_letters = DeadLetters(self.outbox)
        self.settlement = LetterSettlement(self.outbox)
        self.sent_replay = SentReplay(self.outbox, topology=TOPOLOGY)

    def dispatcher(self) -> Dispatcher:
        return Dispatcher(
            self.outbox,
            database=self.database,
            broker=self.broker,
            topology=TOPOLOGY,
            draw_jitter=lambda: 0.5,
            policy=self.dispatch_policy,
        )

    async def dispatch_once(self) -> DispatchRound:
        """Let a dispatcher of its own do one round, and leave nothing to it."""
        dispatcher = self.dispatcher()
        try:
            return await dispatcher.run_once()
        finally:
            await dispatcher.close()

    def subscription(self, handle: Handle, *, queue: str = "parcels") -> Subscription[str]:
        return Subscription(
            consumer_of(handle, queue=queue),
            database=self.database,
            broker=self.broker,
            topology=TOPOLOGY,
            outbox=self.outbox,
            draw_jitter=lambda: 0.5,
            policy=self.delivery_policy,
            count_outcome=self._count,
        )

    def _count(self, queue: str, outcome: MessageOutcome, count: int) -> None:
        self.outcomes.extend([(queue, outcome)] * count)

    async def append(self, *events: Event) -> None:
        async def work(transaction: Transaction) -> None:
            await self.outbox.append(transaction, events, now=await transaction.now())

        await self.database.transact(work)

    async def rows(self, sql: str) -> list[Row]:
        """Return what a query yields."""
        return await self.database.read(lambda transaction: transaction.fetch_all(sql_of(sql)))

    async def execute(self, sql: str, **parameters: str | int) -> None:
        """Change rows behind the kernel's back."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute(sql_of(sql), **parameters)

        await self.database.transact(work)

    async def is_drained(self) -> bool:
        """Return whether nothing is on its way any more."""
        # One snapshot: a message that fails goes from the queue to the outbox and back again.
        left = await self.rows(
            "SELECT 1 FROM shop_outbox WHERE state = 'pending'"
            " UNION ALL SELECT 1 FROM queue_messages WHERE queue = 'parcels' LIMIT 1"
        )
        return not left

    async def work_until(
        self,
        is_done: Callable[[], Awaitable[bool]],
        *loops: Callable[[asyncio.Event], Awaitable[None]],
    ) -> None:
        """Run the loops until the condition holds; then stop them and wait for their end."""
        stop = asyncio.Event()
        tasks = [asyncio.ensure_future(loop(stop)) for loop in loops]
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not await is_done():
                    # A loop that fell over fails the test here and not at the deadline.
                    done, _ = await asyncio.wait(
                        tasks, timeout=0.005, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in done:
                        task.result()
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def work_until_drained(self, handle: Handle = record_effects) -> None:
        """Dispatch and consume until nothing is on its way."""
        await self.work_until(self.is_drained, self.dispatcher().run, self.subscription(handle).run)


def sql_of(sql: str) -> Statement:
    """Return a statement written as text."""
    return Statement(text(sql))


def open_shop(path: Path) -> Shop:
    """Return the shop on the file, with its queues in the same database."""
    return shop_on(SqliteDatabase(path))


def shop_on(database: Database) -> Shop:
    """Return the shop on the database, with its queues in the same."""
    broker = DatabaseQueue(
        database, new_token=lambda: str(uuid.uuid4()), poll_interval_s=0.05, lease_s=60.0
    )
    return Shop(database=database, broker=broker)


def parcel(number: int, *, sequence: int = 1, route: str = "parcels", body: str = "") -> Event:
    """Return an event about a parcel."""
    return Event(
        aggregate_id=f"P{number}",
        sequence=sequence,
        type="parcel.packed",
        route=route,
        body=(body or f"P{number}/{sequence}").encode(),
        message_id=f"P{number}-{sequence}-{route}",
    )
