"""A replay that is killed midway and run again: nothing both lost and left, nothing twice."""

import asyncio
import multiprocessing
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from orderkeep.carts.tables import KERNEL as CART
from orderkeep.database.schema_version import sqlite_url, upgrade_schema
from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.dead_letter import Failure
from orderkeep.messaging.dead_letters import DeadLetters
from orderkeep.messaging.message import Delivery, Event
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.tables import KERNEL as ORDER
from tests.integration import replay_child

pytestmark = pytest.mark.slow

LETTERS_COUNT = 12
QUEUE = "cart-sync"

# Where, and for the how-manieth time there; a piece has five messages.
POINTS = [
    ("letters", "replay_letters.after_append:1"),
    ("letters", "replay_letters.after_append:3"),
    ("letters", "replay_letters.after_settle:2"),
    ("letters", "replay.after_piece:2"),
    ("letters", "database.before_commit:2"),
    ("letters", "database.after_commit:3"),
    ("sent", "replay_sent.after_append:2"),
    ("sent", "replay.after_piece:1"),
    ("sent", "database.before_commit:2"),
    ("sent", "database.after_commit:2"),
    ("edited", "replay_edited.after_append:1"),
]


@pytest.fixture(scope="module")
def children() -> ForkServerContext:
    """Where children come from: a process that has imported what they need, and runs nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", replay_child.__name__])
    return context


async def plant(folder: Path) -> None:
    """Set messages of a cart aside, one by one, and send events about an order."""
    path = folder / "orderkeep.db"
    await asyncio.to_thread(upgrade_schema, sqlite_url(path))
    database = SqliteDatabase(path)
    letters = DeadLetters(Outbox(CART, new_message_id=str))
    outbox = Outbox(ORDER, new_message_id=str)

    async def write(transaction: Transaction) -> None:
        now = await transaction.now()
        for number in range(1, LETTERS_COUNT + 1):
            await letters.write(transaction, [_failure(number, now=now)], now=now)
        await outbox.append(
            transaction,
            [
                Event(
                    aggregate_id="0100000000000009",
                    sequence=number,
                    type="order.paid",
                    route="order.events",
                    body=b"{}",
                    message_id=f"e{number}",
                )
                for number in range(1, LETTERS_COUNT + 1)
            ],
            now=now,
        )

    await database.transact(write)
    await database.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update order_outbox set state = 'sent', sent_at = created_at")


def _failure(number: int, *, now: Instant) -> Failure:
    return Failure(
        consumer=QUEUE,
        message_id=f"m{number}",
        delivery=Delivery(
            queue=QUEUE,
            tag=number,
            body=b"{",
            message_id=f"m{number}".encode(),
            type="cart.item.removed",
            headers={},
            redelivered=False,
        ),
        reason="malformed_json",
        detail="the body is not JSON",
        traceback=None,
        tries=1,
        first_received_at=now,
    )


def rows(folder: Path, statement: str) -> list[Any]:
    """Return what a query yields."""
    with closing(sqlite3.connect(folder / "orderkeep.db")) as connection:
        return connection.execute(statement).fetchall()


def check_nothing_is_half_done(folder: Path) -> None:
    """See that each letter is open, or settled, on record and on its way: nothing between."""
    settled = {
        f"m{id_}"
        for (id_,) in rows(folder, "select id from cart_dead_letters where state != 'open'")
    }
    on_record = {
        subject.replace("cart-", "m")
        for (subject,) in rows(
            folder, "select subject from admin_audit where action like 'dead_letters.%'"
        )
    }
    told = {
        f"m{id_}"
        for (id_,) in rows(
            folder, "select letter_id from cart_dead_letter_history where event != 'set_aside'"
        )
    }
    on_its_way = Counter(id_ for (id_,) in rows(folder, "select message_id from cart_outbox"))
    edited = rows(folder, "select message_id from cart_dead_letter_history where event = 'edited'")
    assert settled == on_record == told
    assert len(settled) == on_its_way.total()
    assert set(on_its_way.values()) <= {1}
    if not edited:
        assert set(on_its_way) == settled


@pytest.mark.parametrize(("what", "point"), POINTS)
async def test_a_replay_killed_midway_and_run_again_is_complete_and_nothing_goes_twice(
    tmp_path: Path, children: ForkServerContext, what: str, point: str
) -> None:
    await plant(tmp_path)
    child = children.Process(target=replay_child.main, args=(str(tmp_path), what, point))
    child.start()
    await asyncio.to_thread(child.join, timeout=60)
    ended_with = child.exitcode
    check_nothing_is_half_done(tmp_path)
    left_count = len(rows(tmp_path, "select 1 from cart_dead_letters where state = 'open'"))

    again = Counter(one.result for one in await replay_child.carry_out(tmp_path, what))

    assert ended_with == -signal.SIGKILL
    check_nothing_is_half_done(tmp_path)
    if what == "letters":
        assert again == {"replayed": left_count}
        assert rows(tmp_path, "select count(*) from cart_outbox") == [(LETTERS_COUNT,)]
    elif what == "edited":
        assert again == {"replayed": 1}
        assert rows(tmp_path, "select count(*) from cart_outbox") == [(1,)]
    else:
        assert again.total() == LETTERS_COUNT
        copies = rows(
            tmp_path,
            "select message_id, count(*) from order_outbox where state = 'pending'"
            " group by message_id",
        )
        assert sorted(copies) == sorted((f"e{n}", 1) for n in range(1, LETTERS_COUNT + 1))


def test_a_replay_that_was_not_killed_leaves_nothing(tmp_path: Path) -> None:
    asyncio.run(plant(tmp_path))

    done = asyncio.run(replay_child.carry_out(tmp_path, "letters"))
    none = asyncio.run(replay_child.carry_out(tmp_path, "letters"))

    assert [one.result for one in done] == ["replayed"] * LETTERS_COUNT
    assert none == []
