"""What `dead-letters replay` and `outbox replay` ask, send and print."""

import json
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from orderkeep.carts.tables import KERNEL as CART
from orderkeep.cli import replays
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.dead_letter import Failure
from orderkeep.messaging.dead_letters import DeadLetters
from orderkeep.messaging.message import Delivery, Event
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.tables import KERNEL as ORDER
from orderkeep.web import replays as served
from tests.unit.cli.conftest import Invoke
from tests.unit.cli.test_messages import Plant, ids, plant, results

__all__ = ["plant"]

BODY = '{"event_type": "cart.item.removed", "user_id": "ann", "item_id": "c1"}'
LONG_AGO = Instant(1_704_103_200_000_000)
LATELY = Instant(time.time_ns() // 1000 - 60_000_000)  # noqa: TID251 (the database compares it with its clock)


@pytest.fixture
def letters(plant: Plant) -> None:
    """Three dead letters of a cart, the third so old that nobody remembers it."""

    async def write(transaction: Transaction) -> None:
        for number, received_at in ((1, LATELY), (2, LATELY), (3, LONG_AGO)):
            failure = Failure(
                consumer="cart-sync",
                message_id=f"m{number}",
                delivery=Delivery(
                    queue="cart-sync",
                    tag=number,
                    body=b"{",
                    message_id=None,
                    type="any",
                    headers={"x-aggregate-id": f"A{number}"},
                    redelivered=False,
                ),
                reason="malformed_json",
                detail="the body is not JSON",
                traceback=None,
                tries=1,
                first_received_at=received_at,
            )
            await DeadLetters(Outbox(CART, new_message_id=str)).write(
                transaction, [failure], now=await transaction.now()
            )

    plant(write)


@pytest.fixture
def sent(plant: Plant) -> None:
    """Three events about an order, sent."""

    async def write(transaction: Transaction) -> None:
        events = [
            Event(
                aggregate_id="01",
                sequence=number,
                type="order.paid",
                route="order.events",
                body=b"{}",
                message_id=f"e{number}",
            )
            for number in (1, 2, 3)
        ]
        now = await transaction.now()
        await Outbox(ORDER, new_message_id=str).append(transaction, events, now=now)
        await transaction.execute(
            Statement(text("UPDATE order_outbox SET state = 'sent', sent_at = created_at"))
        )

    plant(write)


def waiting(invoke: Invoke, service: str) -> list[str]:
    """Return the message ids of what is on its way."""
    listed = invoke("outbox", "list", "--service", service, "--json")
    return sorted(item["message_id"] for item in json.loads(listed.stdout)["items"])


@pytest.mark.usefixtures("letters")
def test_many_are_replayed_only_when_that_is_confirmed(invoke: Invoke) -> None:
    denied = invoke("dead-letters", "replay", "--queue", "cart-sync", stdin="n\n")
    unasked = invoke("dead-letters", "replay", "cart-1", "cart-2")
    before = waiting(invoke, "cart")
    confirmed = invoke("dead-letters", "replay", "--all", "--json", stdin="y\n")

    assert denied.stderr == "Replay 2 dead letters? [y/N] Nothing was changed.\n"
    assert (denied.exit_code, unasked.exit_code, before) == (1, 2, [])
    assert "--yes" in unasked.stderr
    assert confirmed.exit_code == 0
    assert results(confirmed.stdout) == {
        "cart-1": "replayed",
        "cart-2": "replayed",
        "cart-3": "not_remembered",
    }
    assert "--force" in confirmed.stderr
    assert waiting(invoke, "cart") == ["m1", "m2"]


@pytest.mark.usefixtures("letters")
def test_one_that_is_named_is_replayed_at_once(invoke: Invoke) -> None:
    replayed = invoke("dead-letters", "replay", "cart-1", "--json")

    assert results(replayed.stdout) == {"cart-1": "replayed"}
    assert waiting(invoke, "cart") == ["m1"]


@pytest.mark.usefixtures("letters")
def test_what_is_not_remembered_is_forced(invoke: Invoke) -> None:
    refused = invoke("dead-letters", "replay", "cart-3", "--json")
    forced = invoke("dead-letters", "replay", "cart-3", "--force", "--json")

    assert (refused.exit_code, results(refused.stdout)) == (1, {"cart-3": "not_remembered"})
    assert (forced.exit_code, results(forced.stdout)) == (0, {"cart-3": "replayed"})


@pytest.mark.usefixtures("letters")
def test_letters_are_found_by_order_and_time(invoke: Invoke) -> None:
    by_order = invoke("dead-letters", "list", "--order", "A2", "--json")
    before = invoke("dead-letters", "list", "--to", "2020-01-01T00:00:00Z", "--json")
    since = invoke("dead-letters", "list", "--from", "2020-01-01T00:00:00Z", "--json")
    wrong = invoke("dead-letters", "replay", "--from", "yesterday", "--yes")

    assert ids(by_order.stdout) == ["cart-2"]
    assert ids(before.stdout) == []
    assert ids(since.stdout) == ["cart-3", "cart-2", "cart-1"]
    assert (wrong.exit_code, waiting(invoke, "cart")) == (2, [])
    assert "--from 'yesterday'" in wrong.stderr


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize("rate", ["0", "-1", "1001", "fast", "nan", "inf"])
def test_a_rate_that_is_none_is_wrong_usage(invoke: Invoke, rate: str) -> None:
    answer = invoke("dead-letters", "replay", "--all", "--yes", "--rate", rate)

    assert (answer.exit_code, waiting(invoke, "cart")) == (2, [])


@pytest.mark.usefixtures("letters")
def test_an_edited_body_takes_the_place_of_the_old_one(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "body.json"
    file.write_text(BODY)
    replay = ("dead-letters", "replay", "cart-1", "--body", str(file))

    tried = invoke(*replay, "--dry-run")
    before = waiting(invoke, "cart")
    done = invoke(*replay, "--why", "it was cut off")
    again = invoke(*replay)
    shown = invoke("dead-letters", "show", "cart-1")

    (message_id,) = waiting(invoke, "cart")
    assert tried.stdout == "The edited message would go in the place of cart-1.\n"
    assert before == []
    assert done.stdout == f"cart-1 is replayed, edited, as the message {message_id}.\n"
    assert (again.exit_code, again.stdout) == (1, "")
    assert "was replayed or discarded before" in again.stderr
    assert f"as={message_id} reason=it was cut off" in shown.stdout


@pytest.mark.usefixtures("letters")
def test_what_cannot_take_a_place_is_wrong_usage(invoke: Invoke, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    wrong = [
        invoke("dead-letters", "replay", "cart-1", "--body", str(broken)),
        invoke("dead-letters", "replay", "cart-1", "--body", str(tmp_path / "missing")),
        invoke("dead-letters", "replay", "cart-1", "cart-2", "--body", str(broken)),
        invoke("dead-letters", "replay", "--all", "--body", str(broken)),
    ]

    assert [answer.exit_code for answer in wrong] == [2] * 4
    assert [answer.stdout for answer in wrong] == [""] * 4
    assert waiting(invoke, "cart") == []


@pytest.mark.usefixtures("sent")
def test_sent_events_go_again_once_under_one_key(invoke: Invoke) -> None:
    replay = ("outbox", "replay", "--order", "01", "--queue", "order.outbox")

    tried = invoke(*replay, "--dry-run", "--json")
    asked = invoke(*replay, stdin="n\n")
    done = invoke(*replay, "--yes", "--json")
    again = invoke(*replay, "--yes", "--json")
    anew = invoke(*replay, "--yes", "--json", "--key", "july")

    everyone = [f"order-{n}" for n in (1, 2, 3)]
    assert results(tried.stdout) == dict.fromkeys(everyone, "replayed")
    assert asked.stderr.startswith("Send 3 events again to order.outbox? [y/N] ")
    assert results(done.stdout) == dict.fromkeys(everyone, "replayed")
    assert results(again.stdout) == dict.fromkeys(everyone, "not_again")
    assert results(anew.stdout) == dict.fromkeys(everyone, "replayed")
    assert len(waiting(invoke, "order")) == 6


@pytest.mark.usefixtures("sent")
@pytest.mark.parametrize(
    "arguments", [["--queue", "nowhere"], ["--key", "two words"], ["--from", "soon"]]
)
def test_where_to_and_when_must_be_right(invoke: Invoke, arguments: list[str]) -> None:
    answer = invoke("outbox", "replay", "--all", "--yes", *arguments)

    assert (answer.exit_code, answer.stdout, waiting(invoke, "order")) == (2, "", [])


@pytest.mark.usefixtures("sent")
def test_all_pieces_are_replayed_and_each_waits_for_the_one_before(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(replays, "PIECE_S", 0.02)
    monkeypatch.setattr("asyncio.sleep", sleep)

    done = invoke("outbox", "replay", "--all", "--yes", "--rate", "100", "--json")

    assert len(results(done.stdout)) == 3
    # Two, then one.
    assert [wait for wait in slept if wait] == [0.02]


def test_the_command_line_has_the_limits_of_the_service() -> None:
    limits = ("RATE_DEFAULT", "RATE_MIN", "RATE_MAX", "PIECE_COUNT_MAX")

    assert [getattr(replays, name) for name in limits] == [getattr(served, name) for name in limits]


@pytest.mark.usefixtures("letters")
def test_many_ids_are_replayed_piece_by_piece_and_answered_as_they_were_given(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "PIECE_COUNT_MAX", 1)

    replayed = invoke(
        *("dead-letters", "replay", "cart-2", "cart-9", "cart-1", "cart-2"),
        *("--yes", "--json", "--rate", "1000"),
    )

    assert list(results(replayed.stdout).items()) == [
        ("cart-2", "replayed"),
        ("cart-9", "not_found"),
        ("cart-1", "replayed"),
    ]
    assert waiting(invoke, "cart") == ["m1", "m2"]


def test_more_ids_than_one_call_may_let_go_are_no_hindrance(invoke: Invoke, plant: Plant) -> None:
    async def nothing(_transaction: Transaction) -> None:
        pass

    plant(nothing)
    named = [f"cart-{number}" for number in range(1, 9)]

    tried = invoke("dead-letters", "replay", *named, "--rate", "0.1", "--dry-run", "--json")

    assert results(tried.stdout) == dict.fromkeys(named, "not_found")
