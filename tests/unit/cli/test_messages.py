"""What `outbox` and `dead-letters` list, show and change."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.dead_letter import Failure
from orderkeep.messaging.dead_letters import DeadLetters
from orderkeep.messaging.message import Delivery, Event
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.tables import KERNEL as ORDER_TABLES
from tests.unit.cli.conftest import Invoke

# 2024-01-01T10:00:00Z
AT = Instant(1_704_103_200_000_000)
# What is older than the memory of consumers is not replayed unasked.
LATELY = Instant(time.time_ns() // 1000 - 60_000_000)  # noqa: TID251 (the database compares it with its clock)
POISON = b"\x00\xff{\xc3(\n\x1b[31m\xed\xa0\x80"

PARK_ALL = Statement(text("update order_outbox set state = 'failed'"))

Plant = Callable[[Callable[[Transaction], Awaitable[None]]], None]


@pytest.fixture
def outbox() -> Outbox:
    numbers = iter(range(1, 10_000))
    return Outbox(ORDER_TABLES, new_message_id=lambda: f"message-{next(numbers)}")


@pytest.fixture
def plant(invoke: Invoke, tmp_path: Path) -> Plant:
    """Return what writes into the database, as the service would have."""
    assert invoke("migrate").exit_code == 0

    async def write(work: Callable[[Transaction], Awaitable[None]]) -> None:
        database = SqliteDatabase(tmp_path / "data" / "orderkeep.db")
        try:
            await database.transact(work)
        finally:
            await database.close()

    return lambda work: asyncio.run(write(work))


@pytest.fixture
def events(plant: Plant, outbox: Outbox) -> None:
    """Three events wait: order-1 and order-2 for one queue, order-3 for another."""
    routes = ["cart-sync", "cart-sync", "order.events"]

    async def append(transaction: Transaction) -> None:
        events = [
            Event(aggregate_id="01", sequence=number, type="told", route=route, body=b"{}")
            for number, route in enumerate(routes, start=1)
        ]
        await outbox.append(transaction, events, now=AT)

    plant(append)


@pytest.fixture
def letters(plant: Plant, outbox: Outbox) -> None:
    """Two dead letters: order-1 unreadable from one queue, order-2 out of tries from another."""

    async def write(transaction: Transaction) -> None:
        for failure in (
            failed("payment.success.notify", POISON, "malformed_json"),
            failed("order.outbox", '{"title": "茶"}'.encode(), "out_of_tries"),
        ):
            await DeadLetters(outbox).write(transaction, [failure], now=AT)

    plant(write)


def failed(queue: str, body: bytes, reason: str) -> Failure:
    return Failure(
        consumer=queue,
        message_id=f"{queue}-1",
        delivery=Delivery(
            queue=queue,
            tag=1,
            body=body,
            message_id=b"\xfftheirs",
            type="their.type",
            headers={"x-colour": "red\x1b[0m"},
            redelivered=False,
        ),
        reason=reason,
        detail="what went wrong",
        traceback="Traceback:\n  somewhere",
        tries=3,
        first_received_at=LATELY,
    )


def results(printed: str) -> dict[str, str]:
    return {each["id"]: each["result"] for each in json.loads(printed)["results"]}


def ids(printed: str) -> list[str]:
    return [item["id"] for item in json.loads(printed)["items"]]


# outbox ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("events")
def test_events_are_listed_newest_first_page_by_page(invoke: Invoke) -> None:
    first = json.loads(invoke("outbox", "list", "--limit", "2", "--json").stdout)
    second = invoke("outbox", "list", "--cursor", first["next_cursor"], "--json")
    whole = invoke("outbox", "list", "--all", "--json")
    none = invoke("outbox", "list", "--state", "failed", "--service", "order")
    told = invoke("outbox", "list", "--service", "order")

    assert [item["id"] for item in first["items"]] == ["order-3", "order-2"]
    assert first["items"][0]["created_at"] == "2024-01-01T10:00:00Z"
    assert ids(second.stdout) == ["order-1"]
    assert ids(whole.stdout) == ["order-3", "order-2", "order-1"]
    assert (none.stdout, none.stderr) == ("", "There are none.\n")
    assert [line.split()[:3] for line in told.stdout.splitlines()] == [
        ["id", "type", "route"],
        ["order-3", "told", "order.events"],
        ["order-2", "told", "cart-sync"],
        ["order-1", "told", "cart-sync"],
    ]


@pytest.mark.usefixtures("events")
def test_events_are_given_up_by_filter_only_when_that_is_confirmed(invoke: Invoke) -> None:
    waiting = ("outbox", "discard", "--route", "cart-sync", "--state", "pending")
    parked = invoke("outbox", "discard", "--route", "cart-sync", "--yes")
    every = invoke("outbox", "discard", "--all", "--yes")
    tried = invoke(*waiting, "--dry-run", "--json")
    denied = invoke(*waiting, stdin="n\n")
    unasked = invoke(*waiting)
    before = invoke("outbox", "list", "--json")
    confirmed = invoke(*waiting, "--json", stdin="y\n")
    after = invoke("outbox", "list", "--json")

    assert (parked.exit_code, parked.stderr) == (0, "There are none.\n")
    assert (every.exit_code, every.stderr) == (0, "There are none.\n")
    assert results(tried.stdout) == {"order-1": "discarded", "order-2": "discarded"}
    assert json.loads(tried.stdout)["is_dry_run"] is True
    assert (denied.exit_code, denied.stdout) == (1, "")
    assert denied.stderr == (
        "A received message that waits for its next try is given up, too."
        " Give up 2 events still waiting to leave? [y/N] Nothing was changed.\n"
    )
    assert (unasked.exit_code, unasked.stdout) == (2, "")
    assert "--yes" in unasked.stderr
    assert ids(before.stdout) == ["order-3", "order-2", "order-1"]
    assert results(confirmed.stdout) == {"order-1": "discarded", "order-2": "discarded"}
    assert ids(after.stdout) == ["order-3"]


@pytest.mark.usefixtures("events")
def test_each_id_is_answered_and_one_that_cannot_be_changed_exits_with_1(invoke: Invoke) -> None:
    result = invoke("outbox", "retry", "order-1", "order-99", "nonsense", "--json")
    told = invoke("outbox", "discard", "order-1", "--yes")

    assert result.exit_code == 1
    assert results(result.stdout) == {
        "order-1": "not_changeable",
        "order-99": "not_found",
        "nonsense": "not_found",
    }
    assert told.exit_code == 0
    assert [line.split() for line in told.stdout.splitlines()] == [
        ["id", "is"],
        ["order-1", "discarded"],
    ]


@pytest.mark.usefixtures("events")
def test_parked_events_are_retried(invoke: Invoke, plant: Plant) -> None:
    async def park(transaction: Transaction) -> None:
        await transaction.execute(PARK_ALL)

    plant(park)

    retried = invoke("outbox", "retry", "--all", "--json")
    nothing = invoke("outbox", "retry", "--all")
    pending = invoke("outbox", "list", "--json")

    assert results(retried.stdout) == {
        "order-1": "retried",
        "order-2": "retried",
        "order-3": "retried",
    }
    assert (nothing.exit_code, nothing.stderr) == (0, "There are none.\n")
    assert ids(pending.stdout) == ["order-3", "order-2", "order-1"]


# dead-letters ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["order-2", "order-1"]),
        (["--queue", "order.outbox"], ["order-2"]),
        (["--reason", "malformed_json"], ["order-1"]),
        (["--service", "cart"], []),
        (["--state", "discarded"], []),
    ],
)
def test_dead_letters_are_listed_by_what_is_asked(
    invoke: Invoke, options: list[str], expected: list[str]
) -> None:
    assert ids(invoke("dead-letters", "list", *options, "--json").stdout) == expected


@pytest.mark.usefixtures("letters")
def test_a_dead_letter_is_shown_whole(invoke: Invoke) -> None:
    document = json.loads(invoke("dead-letters", "show", "order-1", "--json").stdout)
    raw = invoke("dead-letters", "show", "order-1", "--raw")

    assert document["body"] is None
    assert document["body_base64"] == "AP97wygKG1szMW3toIA="
    assert document["headers"] == {"x-colour": "red\x1b[0m"}
    assert document["traceback"] == "Traceback:\n  somewhere"
    assert raw.stdout_bytes == POISON


@pytest.mark.usefixtures("letters")
def test_a_person_sees_bytes_that_are_no_text_as_a_dump(invoke: Invoke) -> None:
    shown = invoke("dead-letters", "show", "order-1").stdout

    assert "00 ff 7b c3 28 0a 1b 5b 33 31 6d ed a0 80" in shown
    assert "body, 14 bytes" in shown
    assert r"\xfftheirs" in shown
    assert "  somewhere" in shown
    assert "\x1b" not in shown


@pytest.mark.usefixtures("letters")
def test_a_person_reads_a_body_that_is_text(invoke: Invoke) -> None:
    shown = invoke("dead-letters", "show", "order-2").stdout

    assert '  {"title": "茶"}\n' in shown


@pytest.mark.usefixtures("letters")
def test_dead_letters_are_replayed_and_closed(invoke: Invoke) -> None:
    tried = invoke("dead-letters", "replay", "order-1", "--dry-run")
    replayed = invoke("dead-letters", "replay", "order-1", "--json")
    again = invoke("dead-letters", "replay", "order-1", "--json")
    waiting = json.loads(invoke("outbox", "list", "--json").stdout)["items"]
    closed = invoke("dead-letters", "discard", "--all", "--yes", "--json")
    open_ones = invoke("dead-letters", "list", "--json")

    assert tried.stdout.split() == ["id", "would", "be", "order-1", "replayed"]
    assert tried.stderr == "Nothing was changed: this was a dry run.\n"
    assert results(replayed.stdout) == {"order-1": "replayed"}
    assert again.exit_code == 1
    assert results(again.stdout) == {"order-1": "not_open"}
    assert [row["route"] for row in waiting] == ["payment.success.notify"]
    assert results(closed.stdout) == {"order-2": "discarded"}
    assert ids(open_ones.stdout) == []
