"""The order service without HTTP, queues and broker: what its tests act on and look at.

What happened is read back by plain SQL on a connection of its own, never by the stores under test.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, TypeVar

from orderkeep.contracts.payment_success_notify import PaymentSucceeded
from orderkeep.database.audit import Act
from orderkeep.database.transaction import Database, ReadTransaction, Session, Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.consumer import Consumer, Outcome, Received
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.cancel_order import CancelOrder
from orderkeep.orders.case_desk import CaseDesk
from orderkeep.orders.catalogue_desk import CatalogueDesk, SkuEntry
from orderkeep.orders.close_orders import Closings, close_orders
from orderkeep.orders.consumers.payment_success_notify import payment_success_consumer
from orderkeep.orders.desk import OrderDesk, OrderRequest
from orderkeep.orders.idempotency_key import KeyKind
from orderkeep.orders.order import Cause, Order
from orderkeep.orders.payment import LatePaymentPolicy
from orderkeep.orders.placing import PlacingRules
from orderkeep.orders.pricing import WantedLine
from orderkeep.orders.stock import Sku
from orderkeep.orders.tables import KERNEL
from orderkeep.orders.verify import Finding, find_breaches
from tests.plain_sql import PlainSql, plain_sql_of

T = TypeVar("T")

# What `Shop.fill` sells: price in minor units.
PRICES = {"tea": 2_599, "pot": 10_000, "mug": 500}

# Long past every limit of the service, by whatever clock.
LONG_AGO = Instant(1_704_103_200_000_000)

# How long a test waits for what must happen; far more than it ever takes.
PATIENCE_S = 10.0


class CountingDatabase:
    """A database that counts its transactions, and refuses those it is told to."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.transactions_count = 0
        # Raised by the coming transactions, one each: None lets one pass; the last stays.
        self.errors: list[Exception | None] = []
        # Set while transactions may begin; cleared, they wait.
        self.may_begin = asyncio.Event()
        self.may_begin.set()

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Count the transaction, then run or refuse it."""
        self.transactions_count += 1
        error = self.errors.pop(0) if self.errors else None
        await self.may_begin.wait()
        if error is not None:
            raise error
        return await self._database.transact(work)

    async def read(self, work: Callable[[ReadTransaction], Awaitable[T]]) -> T:
        """Run the work on a snapshot."""
        return await self._database.read(work)

    async def open_session(self, *, on_lost: Callable[[], None]) -> Session:
        """Open a session, which is not counted."""
        return await self._database.open_session(on_lost=on_lost)

    async def close(self) -> None:
        """Leave the closing to whoever opened it."""


class Shop:
    """One order service on one database."""

    def __init__(
        self,
        database: Database,
        *,
        served: Database | None = None,
        payment_timeout_s: float = 1_800.0,
        token_ttl_s: float = 300.0,
        batch_size_max: int = 64,
        waiting_count_max: int = 1_000,
    ) -> None:
        """Serve orders.

        Args:
            served: What the service itself uses of the database; None is all of it.
        """
        self._numbers = count(1)
        self._refund_numbers = count(1)
        self._message_ids = count(1)
        self._received = count(1)
        self.sql: PlainSql = plain_sql_of(database)
        self.database: Database = served or database
        self.outbox = Outbox(KERNEL, new_message_id=lambda: f"m{next(self._message_ids)}")
        self.rules = PlacingRules(payment_timeout_s=payment_timeout_s, token_ttl_s=token_ttl_s)
        self.desk = OrderDesk(
            database=self.database,
            outbox=self.outbox,
            rules=self.rules,
            token_secret=b"a secret of the shop",
            draw_nonce=lambda: f"n{next(self._numbers)}",
            draw_number=lambda: next(self._numbers),
            batch_size_max=batch_size_max,
            waiting_count_max=waiting_count_max,
            # As the service on a server.
            batches_under_way_max=2,
        )
        self.catalogue = CatalogueDesk(database=self.database)
        self.cases = CaseDesk(
            database=self.database,
            outbox=self.outbox,
            draw_refund_no=lambda: f"R{next(self._refund_numbers)}",
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Shop"]:
        """Run the intake as long as the context lasts."""
        stop = asyncio.Event()
        intake = asyncio.create_task(self.desk.intake.run(stop))
        await until(lambda: not self.desk.intake._is_closed)
        try:
            yield self
        finally:
            stop.set()
            await intake

    # What the catalogue holds.

    async def fill(self, **quantities: int) -> None:
        """Put SKUs of `PRICES` up for sale, so many of each."""
        for sku_id, quantity in quantities.items():
            await self.put_sku(sku_id, stock=quantity)

    async def put_sku(
        self,
        sku_id: str,
        *,
        unit_price_minor: int | None = None,
        currency: str = "CNY",
        stock: int | None = None,
        is_active: bool = True,
    ) -> Sku:
        """Write one SKU, titled by its capitalised id."""
        sku, _ = await self.catalogue.put(
            SkuEntry(
                sku_id=sku_id,
                product_id=None,
                title=sku_id.capitalize(),
                unit_price_minor=PRICES[sku_id] if unit_price_minor is None else unit_price_minor,
                currency=currency,
                is_active=is_active,
                stock=stock,
            ),
            act=Act(actor="olga"),
        )
        return sku

    def stock_of(self, sku_id: str) -> tuple[int, int, int]:
        """Return what is available, reserved and sold."""
        (row,) = self.rows(
            "SELECT available, reserved, sold FROM stock WHERE sku_id = :sku_id", sku_id=sku_id
        )
        return row["available"], row["reserved"], row["sold"]

    # What buyers and operators do.

    async def order(self, user_id: str = "ann", *, key: str | None = None, **wanted: int) -> Order:
        """Place an order of some SKUs under a key that nobody had before."""
        placed = await self.desk.place(
            request(*wanted.items(), user_id=user_id, key=key or f"key-{next(self._numbers)}")
        )
        return placed.order

    async def cancel(self, order: Order, *, by: Cause = Cause.BUYER) -> Order:
        """Cancel the order for its buyer, or as the operator Olga."""
        is_buyer = by is Cause.BUYER
        return await self.desk.cancel(
            CancelOrder(
                order_no=order.order_no,
                user_id=order.user_id if is_buyer else None,
                by=by,
                actor=order.user_id if is_buyer else "olga",
            )
        )

    def make_due(self, order: Order, *, since_s: float = 1.0) -> None:
        """Let the order's deadline have been so many seconds ago."""
        self.write(
            f"UPDATE orders SET expires_at = {self.sql.now} - :since WHERE order_no = :order_no",  # noqa: S608 (the engine's own clock)
            since=round(since_s * 1_000_000),
            order_no=order.order_no,
        )

    async def close(self, *orders: Order, actor: str = "check") -> Closings:
        """Close the orders, as their messages would."""

        async def work(transaction: Transaction) -> Closings:
            return await close_orders(
                transaction, {order.order_no: actor for order in orders}, outbox=self.outbox
            )

        return await self.database.transact(work)

    async def expire(self, *orders: Order) -> None:
        """Let the deadlines of the orders pass, and close them."""
        for order in orders:
            self.make_due(order)
        closings = await self.close(*orders)
        assert len(closings.closed) == len(orders)

    async def pay(
        self,
        *payments: PaymentSucceeded,
        policy: LatePaymentPolicy = LatePaymentPolicy.REFUND,
        first_received_at: Instant | None = None,
    ) -> Sequence[Outcome]:
        """Let the service hear of payments, in one batch; refunds are numbered R1, R2, ..."""
        consumer = payment_success_consumer(
            outbox=self.outbox,
            policy=policy,
            unknown_order_retry_for_s=3_600.0,
            draw_refund_no=lambda: f"R{next(self._refund_numbers)}",
        )
        return await self.receive(consumer, *payments, first_received_at=first_received_at)

    async def receive(
        self,
        consumer: Consumer[Any],
        *bodies: Any,
        message_ids: Sequence[str] | None = None,
        first_received_at: Instant | None = None,
    ) -> Sequence[Outcome]:
        """Hand a consumer a batch, in one transaction.

        Args:
            message_ids: None numbers every message of the shop: in-1, in-2, ...
            first_received_at: None is just now.
        """
        ids = message_ids or [f"in-{next(self._received)}" for _ in bodies]

        async def work(transaction: Transaction) -> Sequence[Outcome]:
            now = await transaction.now()
            return await consumer.handle(
                transaction,
                [
                    Received(
                        message_id=message_id,
                        body=body,
                        attempt=1,
                        first_received_at=first_received_at or now,
                    )
                    for message_id, body in zip(ids, bodies, strict=True)
                ],
            )

        return await self.database.transact(work)

    async def tick(self) -> None:
        """Let the database's clock move on, so that what follows has a moment of its own."""

        async def now(transaction: ReadTransaction) -> Instant:
            return await transaction.now()

        began_at = await self.database.read(now)
        while await self.database.read(now) == began_at:
            pass

    # What is in the database.

    def rows(self, sql: str, **parameters: object) -> list[dict[str, Any]]:
        """Return what a query yields."""
        return self.sql.rows(sql, **parameters)

    def row(self, sql: str, **parameters: object) -> dict[str, Any]:
        """Return the one row that a query yields."""
        (row,) = self.rows(sql, **parameters)
        return row

    def write(self, sql: str, **parameters: object) -> None:
        """Change rows by hand, past every rule of the service and of the schema's CHECKs."""
        self.sql.write(sql, **parameters)

    def count_rows(self, table: str) -> int:
        """Return how many rows a table has."""
        count_: int = self.row(f"SELECT count(*) AS n FROM {table}")["n"]  # noqa: S608 (a test's own table names)
        return count_

    def dump(self) -> dict[str, list[tuple[object, ...]]]:
        """Return every row of every table."""
        return {
            name: [tuple(row.values()) for row in self.rows(f"SELECT * FROM {name}")]  # noqa: S608 (names from the schema)
            for name in self.sql.table_names()
        }

    def order_row(self, order_no: str) -> dict[str, Any]:
        """Return the order's row."""
        return self.row("SELECT * FROM orders WHERE order_no = :order_no", order_no=order_no)

    def history(self, order_no: str) -> list[tuple[int, str | None, str, str, str]]:
        """Return the order's history: version, from, to, cause, actor."""
        rows = self.rows(
            "SELECT * FROM order_history WHERE order_no = :order_no ORDER BY version",
            order_no=order_no,
        )
        return [
            (row["version"], row["from_status"], row["to_status"], row["cause"], row["actor"])
            for row in rows
        ]

    def movements(self, cause: str) -> list[tuple[str, str, int]]:
        """Return what moved for a cause: SKU, kind, quantity."""
        rows = self.rows(
            "SELECT * FROM stock_movements WHERE cause = :cause ORDER BY id", cause=cause
        )
        return [(row["sku_id"], row["kind"], row["quantity"]) for row in rows]

    def sent(self, order_no: str) -> list[tuple[int, str]]:
        """Return what the outbox holds of an order: sequence and type."""
        rows = self.rows(
            "SELECT * FROM order_outbox WHERE aggregate_id = :order_no ORDER BY id",
            order_no=order_no,
        )
        return [(row["sequence"], row["type"]) for row in rows]

    def bodies(self, type_: str) -> list[dict[str, Any]]:
        """Return the bodies of one type in the outbox, the first appended first."""
        rows = self.rows("SELECT body FROM order_outbox WHERE type = :type ORDER BY id", type=type_)
        return [json.loads(row["body"]) for row in rows]

    async def breaches(self) -> list[Finding]:
        """Return what `verify` finds wrong."""
        return await self.database.read(find_breaches)


def request(
    *wanted: tuple[str, int],
    user_id: str = "ann",
    key: str = "k",
    key_kind: KeyKind = KeyKind.HEADER,
    body: str = "",
    expected_pay_amount_minor: int | None = None,
) -> OrderRequest:
    """Return a request for some SKUs.

    Args:
        body: What else its body holds: two requests are the same if this and their lines are.
    """
    return OrderRequest(
        user_id=user_id,
        key_kind=key_kind,
        key=key,
        body_hash=f"{wanted} {body}",
        wanted=tuple(WantedLine(sku_id=sku_id, quantity=quantity) for sku_id, quantity in wanted),
        receiver=None,
        buyer_remark=None,
        expected_pay_amount_minor=expected_pay_amount_minor,
    )


def payment(order: Order, trade_no: str = "T1", **members: Any) -> PaymentSucceeded:
    """Return a payment that fits the order, but for the members that are given."""
    fitting: dict[str, Any] = {
        "order_no": order.order_no,
        "trade_no": trade_no,
        "payment_no": f"P-{trade_no}",
        "amount_minor": order.pay_amount_minor,
        "currency": order.currency,
        "pay_channel": "alipay",
    }
    return PaymentSucceeded(**{**fitting, **members})


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)


def only(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return some columns of a row."""
    return {name: row[name] for name in names}
