"""A worker that is gone, and what others make of it: when its locks end, and what flows then."""

import asyncio
import random  # noqa: TID251 (names that nobody else has)
import time
from dataclasses import dataclass

from tests.acceptance.fleet import Fleet, Member
from tests.acceptance.fleet_books import FleetBooks
from tests.acceptance.fleet_load import fleet_client
from tests.acceptance.fleet_observer import Observer
from tests.acceptance.fleet_verdict import seconds_until

# What is asked for, counted from the end of the connection that held the partitions.
TAKEOVER_S_MAX = 5.0

# Over 16 partitions: that a worker's share of five has none of them is one in ten million.
_ORDERS_COUNT = 48

# The server ends an idle session after ten seconds.
_SESSION_END_S_MAX = 60.0

_PARTITION_HOLDERS = """
    select distinct locks.pid from pg_locks as locks
    join pg_stat_activity as activity on activity.pid = locks.pid
    where locks.locktype = 'advisory' and activity.client_port = any($1)"""

_HOLDING = """
    select 1 from pg_stat_activity
    where pid = any($1) or (client_port = any($2) and xact_start is not null)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What a worker holds at the database's server.

    Attributes:
        pids: The server's processes that hold partitions for it.
        ports: From where all its connections come.
    """

    pids: list[int]
    ports: list[int]


def find_hold(worker: Member, books: FleetBooks, *, postgresql_port: int) -> Hold:
    """Return what the worker holds now."""
    ports = worker.ports_to(postgresql_port)
    return Hold(pids=[row[0] for row in books.rows(_PARTITION_HOLDERS, ports)], ports=ports)


def wait_for_end(hold: Hold, books: FleetBooks) -> float:
    """Wait until the server has ended what holds partitions or rows; return how long that took."""
    return seconds_until(
        lambda: not books.rows(_HOLDING, hold.pids, hold.ports),
        "the server ends the sessions of a worker that is gone",
        within_s=_SESSION_END_S_MAX,
    )


def measure_takeover(fleet: Fleet, observer: Observer, sku_id: str, *, within_s: float) -> float:
    """Order on all partitions and return when the last of the orders was told of, from now.

    Raises:
        TimeoutError: it took longer than it may.
    """
    started_s = time.monotonic()
    order_nos = set(asyncio.run(_order_many(fleet, sku_id)))
    left_s = within_s - (time.monotonic() - started_s)
    seconds_until(
        lambda: order_nos <= observer.order_nos(event_type="order.created"),
        f"the events of {len(order_nos)} new orders arrive",
        within_s=left_s,
    )
    return time.monotonic() - started_s


async def _order_many(fleet: Fleet, sku_id: str) -> list[str]:
    front = fleet.front
    user_id = f"takeover-{random.getrandbits(64):x}"
    authorization = {"Authorization": f"Bearer {front.token(user_id)}"}
    body = {"items": [{"sku_id": sku_id, "quantity": 1}]}
    async with fleet_client(front) as client:

        async def order(number: int) -> str:
            headers = {**authorization, "Idempotency-Key": f"{user_id}-{number}"}
            answer = await client.post("/orders", json=body, headers=headers)
            while answer.status_code == 503:
                answer = await client.post("/orders", json=body, headers=headers)
            assert answer.status_code == 201, answer.text
            return str(answer.json()["order_no"])

        return await asyncio.gather(*(order(number) for number in range(_ORDERS_COUNT)))
