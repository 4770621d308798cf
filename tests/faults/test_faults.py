"""A short run of everything: nothing is lost or doubled, and what is planted afterwards is found.

The long form is `make faults`. One shop of real processes on real servers of its own is killed, cut
and poisoned for half a minute. Its books are then clean; in copies of them orders, payments and
stock are removed, doubled and bent, and each time the same judge, or the watcher, must say so.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import asyncpg
import pytest

from tests.acceptance.fleet_books import FleetBooks
from tests.faults.run_part import run_part, told_of
from tests.faults.schedule import LifeSpan
from tests.faults.shop import Part, Servers, Shop, own_servers
from tests.faults.tally import Tally
from tests.faults.verdict import judge
from tests.faults.watcher import Seen, StockWatcher
from tests.servers.availability import postgresql_server, rabbitmq_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SEED = 20
SECONDS_MAX = 90.0

# So many die at some failure point; `test_failure_points.py` goes through all of them.
POINTS_COUNT = 3
KILLS_COUNT = 3

SAMPLE = Part(
    name="sample",
    minutes=0.5,
    says="a sample of everything",
    span=LifeSpan(
        is_armed=True,
        at_least_s=1.5,
        at_most_s=4.0,
        # What they leave is claimed by the dead for a while.
        without=frozenset({"refund.claimed", "refund.answered", "webhooks.after_send"}),
    ),
    lanes={
        "database": {"kill_postgresql": 1, "cut_commits": 1, "cut_database": 1},
        "broker": {"poison": 1, "cut_confirms": 1, "kill_rabbitmq": 1},
        "processes": {"stop_front": 1},
    },
    pauses={"database": 1.0, "broker": 1.0, "processes": 3.0},
    settings={"sweep_grace_s": 0},
    work_count=2,
    shoppers_count=10,
    has_webhooks=False,
)


@dataclass(frozen=True, slots=True)
class Run:
    """A short run that is over; its database is still there."""

    servers: Servers
    tally: Tally
    shop: Shop


def has_seen_enough(shop: Shop) -> bool:
    """Whether each kind of fault was made, processes were killed in both ways, and each kind of
    thing was acknowledged that is planted below.
    """
    kinds = {kind for lane in SAMPLE.lanes.values() for kind in lane}
    return (
        kinds <= shop.done_counts.keys()
        and any(shop.operators.restock_keys.values())
        and bool(shop.operators.resolved_ids)
        and shop.supervisor.fired_counts.total() >= POINTS_COUNT
        and shop.supervisor.killed_counts.total() >= KILLS_COUNT
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    # Where a server is missing, this says so and skips.
    postgresql_server()
    rabbitmq_server()
    folder = tmp_path_factory.mktemp("faults")
    with own_servers(folder) as servers:
        tally, shop = run_part(
            servers, SAMPLE, seed=SEED, seconds=SECONDS_MAX, has_seen_enough=has_seen_enough
        )
        yield Run(servers, tally, shop)


def test_a_shop_in_which_everything_fails_loses_and_doubles_nothing(
    run: Run, stands_beside_the_verdict: Callable[[str], None]
) -> None:
    tally = run.tally
    stands_beside_the_verdict(tally.table())

    assert tally.findings == []
    assert (tally.lost, tally.doubled, tally.oversold, tally.stuck, tally.unexpected) == (0,) * 5
    assert tally.is_clean
    assert tally.found == tally.acknowledged > 0


def test_every_kind_of_fault_was_made_and_seen_through(run: Run) -> None:
    tally = run.tally
    assert tally.points.total() >= POINTS_COUNT
    assert tally.kills["serve"] + tally.kills["work"] >= KILLS_COUNT
    assert tally.kills["postgresql"] >= 1
    assert tally.kills["rabbitmq"] >= 1
    assert tally.cuts["database: cut"] >= 1
    assert tally.snapshots > 0
    assert tally.snapshots_with_orders > 0
    assert tally.looks_during_faults > 0
    assert len(run.shop.planted) >= 4


@contextmanager
def copied(run: Run, *statements: str) -> Iterator[str]:
    """Give a copy of the run's database in which something was done."""
    server = run.servers.postgresql
    name = f"planted-{os.urandom(8).hex()}"
    server.create_database(name, template=run.shop.database)
    try:
        for statement in statements:
            server.query(statement, database=name)
        yield server.url(name)
    finally:
        server.drop_database(name)


PLANTED = {
    "an accepted order is gone": (
        "lost",
        "an accepted order that is lost",
        "delete from order_requests where order_no = (select min(order_no) from order_requests)",
    ),
    "a payment is gone": (
        "lost",
        "a payment that is lost",
        "update payments set status = 'failed' where status = 'succeeded'",
    ),
    "a cancelled order lives again": (
        "lost",
        "a cancelled order that is not",
        "update orders set status = 'closed' where status = 'cancelled'",
    ),
    "an accepted order holds more": (
        "lost",
        "an accepted order that holds something else",
        (
            "update order_lines set quantity = quantity + 1 where order_no ="
            " (select min(order_no) from order_lines) and line_no ="
            " (select min(line_no) from order_lines where order_no ="
            " (select min(order_no) from order_lines))"
        ),
    ),
    "an order was made beside the one with the key": (
        "doubled",
        "an order that no key stands for",
        "delete from order_requests where order_no = (select min(order_no) from order_requests)",
    ),
    "what was given back is on no record": (
        "lost",
        "a case that was resolved and nothing was given back",
        "delete from order_refunds where status = 'failed'",
    ),
    "stock that was put there is gone": (
        "lost",
        "stock that was put there and is not",
        "delete from stock_movements where kind = 'adjust' and cause like 'operator restock-%'",
    ),
    "an event never left": (
        "lost",
        "an event not sent",
        (
            "update order_outbox set state = 'failed' where id ="
            " (select min(id) from order_outbox where route = 'order.events')"
        ),
    ),
    "a consumer missed an event": (
        "lost",
        "an event that no consumer has received",
        (
            "delete from order_inbox where message_id = (select min(message_id) from order_outbox"
            " where route = 'order.events') and consumer = 'order.outbox'"
        ),
    ),
    "one order has two keys": (
        "doubled",
        "two keys for one order",
        (
            "insert into order_requests select user_id, kind, key || '-again', order_no, body_hash"
            " from order_requests order by order_no limit 1"
        ),
    ),
    "an order was made that nobody asked for": (
        "doubled",
        "an order that nobody asked for",
        (
            "update order_requests set key = 'nobody''s' where order_no ="
            " (select min(order_no) from order_requests)"
        ),
    ),
    "an event was written twice": (
        "doubled",
        "a change of state that was not told once",
        (
            "update order_outbox set type = 'order.created' where id = (select min(id) from"
            " order_outbox where route = 'order.events' and type != 'order.created')"
        ),
    ),
    "an order ended twice": (
        "unexpected",
        "two ends of one order",
        (
            "insert into order_history select order_no, version + 1, to_status, 'cancelled', cause,"
            " actor, note, changed_at from order_history where to_status = 'closed' limit 1"
        ),
    ),
    "an order was closed too early": (
        "unexpected",
        "an order closed before its deadline",
        "update orders set closed_at = expires_at - 1 where status = 'closed'",
    ),
    "a good message was set aside": (
        "unexpected",
        "a message set aside that can be read",
        "; ".join(
            f"update {service}_dead_letters set message_id = 'a good one ' || id"  # noqa: S608
            for service in ("order", "cart", "payment")
        ),
    ),
    "stock came from nowhere": (
        "unexpected",
        "stock that does not add up",
        "update stock set available = available + 1",
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_planted_in_the_books_is_found(run: Run, planted: str) -> None:
    kind, finding, statement = PLANTED[planted]
    shop = run.shop
    with copied(run, *statement.split("; ")) as url:
        books = FleetBooks(url)
        books.wiped_at = shop.books.wiped_at
        verdict = judge(books, shop.journal, told=told_of(shop), observer=shop.observer)
    assert finding in getattr(verdict, kind), verdict.lines


STOCK = {
    "more than there is": "update stock set available = available + 1",
    "reserved by nobody": "update stock set reserved = reserved + 1, available = available - 1",
    "sold to nobody": "update stock set sold = sold + 1, available = available - 1",
    "a paid order that was not sold": "update orders set status = 'paid' where order_no ="
    " (select max(order_no) from orders where status != 'paid')",
    "closed while its deadline is to come": "update orders set expires_at = expires_at +"
    " 86400000000 where order_no = (select min(order_no) from orders where status = 'closed')",
    "below zero": "alter table stock drop constraint ck_stock_sold; update stock set sold = -1",
}


@pytest.mark.parametrize("planted", ["nothing", *STOCK])
def test_the_watcher_sees_stock_that_does_not_add_up(run: Run, planted: str) -> None:
    statements = STOCK[planted].split("; ") if planted in STOCK else ()
    with copied(run, *statements) as url:
        seen = asyncio.run(_look_once(url))
    assert seen.snapshots_count == 1
    is_early = planted.startswith("closed")
    assert bool(seen.early_nos) == is_early, seen
    assert (seen.breaches_count > 0) == (planted in STOCK and not is_early), seen


async def _look_once(url: str) -> Seen:
    watcher = StockWatcher(url)
    connection = await asyncpg.connect(url)
    try:
        await watcher.look(connection)
    finally:
        await connection.close()
    return watcher.seen
