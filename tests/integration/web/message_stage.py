"""Two services with messages of their own in one database, and how an operator calls about them."""

import time
from itertools import count as numbers_from
from types import MappingProxyType

import httpx
from sqlalchemy import bindparam, update

from orderkeep.carts.tables import KERNEL as CART
from orderkeep.contracts.readers import READERS
from orderkeep.contracts.topology import TOPOLOGY
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import Database, Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.dead_letter import Failure
from orderkeep.messaging.dead_letters import DeadLetters
from orderkeep.messaging.letter_settlement import LetterSettlement
from orderkeep.messaging.message import Delivery, Event, Headers
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.outbox_rows import OutboxRows
from orderkeep.messaging.sent_replay import SentReplay
from orderkeep.orders.tables import KERNEL as ORDER
from orderkeep.status import OutboxStatus, Status
from orderkeep.web.operations import OperationsDesk
from orderkeep.web.replays import ReplayDesk
from orderkeep.web.service_messages import ServiceMessages

NOW = Instant(1_704_103_200_000_000)
# What is older than the memory of consumers is not replayed unasked.
LATELY = Instant(time.time_ns() // 1000 - 60_000_000)  # noqa: TID251 (databases compare it with their clock)
NOW_TEXT = "2024-01-01T10:00:00Z"
TABLES = {"order": ORDER, "cart": CART}
FAIL = {
    name: Statement(
        update(tables.outbox)
        .where(tables.outbox.c.id == bindparam("row_id"))
        .values(state="failed", attempts=5, last_error="refused")
    )
    for name, tables in TABLES.items()
}


class Stage:
    """Two services in one database, with messages put there by hand."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.outboxes = {
            name: Outbox(tables, new_message_id=lambda: "drawn") for name, tables in TABLES.items()
        }

    def messages(self) -> list[ServiceMessages]:
        return [
            ServiceMessages(
                service=name,
                database=self.database,
                outbox_rows=OutboxRows(outbox),
                dead_letters=DeadLetters(outbox),
                letter_settlement=LetterSettlement(outbox),
                sent_replay=SentReplay(outbox, topology=TOPOLOGY),
            )
            for name, outbox in self.outboxes.items()
        ]

    def desk(self) -> OperationsDesk:
        return OperationsDesk(self.messages())

    def replay_desk(self) -> ReplayDesk:
        numbers = numbers_from(1)
        return ReplayDesk(
            self.messages(), readers=READERS, new_message_id=lambda: f"edited-{next(numbers)}"
        )

    async def append(self, service: str, count: int, *, route: str = "cart-sync") -> None:
        events = [
            Event(
                aggregate_id=f"A{number}",
                sequence=number,
                type="order.paid",
                route=route,
                body=b"{}",
                message_id=f"{service}-message-{number}",
            )
            for number in range(1, count + 1)
        ]

        async def work(transaction: Transaction) -> None:
            await self.outboxes[service].append(transaction, events, now=NOW)

        await self.database.transact(work)

    async def fail(self, service: str, row_id: int) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.execute(FAIL[service], row_id=row_id)

        await self.database.transact(work)

    async def set_aside(
        self,
        service: str,
        count: int,
        *,
        body: bytes = b"{}",
        queue: str = "cart-sync",
        message_id: bytes | None = None,
        first_received_at: Instant = LATELY,
        headers: Headers = MappingProxyType({"x-from": "afar"}),
    ) -> None:
        failures = [
            Failure(
                consumer=queue,
                message_id=f"m{number}",
                delivery=Delivery(
                    queue=queue,
                    tag=number,
                    body=body,
                    message_id=message_id,
                    type="any",
                    headers=dict(headers),
                    redelivered=False,
                ),
                reason="malformed_json",
                detail="the body is not JSON",
                traceback=None,
                tries=1,
                first_received_at=first_received_at,
            )
            for number in range(1, count + 1)
        ]

        async def work(transaction: Transaction) -> None:
            await DeadLetters(self.outboxes[service]).write(transaction, failures, now=NOW)

        await self.database.transact(work)


async def read_status() -> Status:
    return Status(
        at=NOW_TEXT,
        orders={"paid": 3},
        overdue_orders=0,
        payment_cases_open=1,
        refunds_open=2,
        refunds_failed=3,
        outboxes=(OutboxStatus(outbox="order", pending=4, failed=0, oldest_pending_s=0.5),),
        dead_letters={"cart-sync": 1},
        queues={"order.timeout.queue": 9},
    )


async def ids_of(client: httpx.AsyncClient, path: str) -> list[str]:
    answer = await client.get(f"/api/v1/admin/{path}")
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def change(client: httpx.AsyncClient, path: str, **body: object) -> dict[str, str]:
    answer = await client.post(f"/api/v1/admin/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return {one["id"]: one["result"] for one in answer.json()["results"]}
