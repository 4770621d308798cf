"""What operators ask for over HTTP about replays: which, how fast, edited, and what is answered."""

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from orderkeep.carts.tables import KERNEL as CART
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import Row, Transaction
from orderkeep.messaging.inbox import Inbox
from tests.integration.web.message_stage import LATELY, NOW, Stage, change, ids_of

BODY = '{"event_type": "cart.item.removed", "user_id": "ann", "item_id": "c1"}'
LETTERS = "/api/v1/admin/dead-letters"


async def rows(stage: Stage, sql: str) -> list[Row]:
    """Return what a query yields."""
    return await stage.database.read(
        lambda transaction: transaction.fetch_all(Statement(text(sql)))
    )


async def execute(stage: Stage, sql: str) -> None:
    """Change rows behind the service's back."""

    async def work(transaction: Transaction) -> None:
        await transaction.execute(Statement(text(sql)))

    await stage.database.transact(work)


async def post(client: httpx.AsyncClient, path: str, **body: object) -> Any:
    """Return what is answered, which is a success."""
    answer = await client.post(f"/api/v1/admin/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def acts(client: httpx.AsyncClient) -> list[tuple[str, str, Any]]:
    """Return what is on record: action, subject and detail, the oldest first."""
    items = (await client.get("/api/v1/admin/audit")).json()["items"]
    return [(item["action"], item["subject"], item["detail"]) for item in reversed(items)]


async def send(stage: Stage, service: str, count: int, **named: str) -> None:
    """Append events that count as sent."""
    await stage.append(service, count, **named)
    await execute(
        stage,
        f"UPDATE {service}_outbox SET state = 'sent', sent_at = id, created_at = {LATELY}",  # noqa: S608 (our own names)
    )


async def test_a_filter_is_replayed_piece_by_piece(client: httpx.AsyncClient, stage: Stage) -> None:
    await stage.set_aside("order", 4)
    await stage.set_aside("cart", 9)

    pieces: list[list[str]] = []
    cursor: dict[str, str] = {}
    while True:
        # So slow that a call takes six, of both services together.
        answer = await post(client, "dead-letters/replay", filter={"all": True}, rate=0.1, **cursor)
        assert {one["result"] for one in answer["results"]} <= {"replayed"}
        pieces.append([one["id"] for one in answer["results"]])
        if answer["next_cursor"] is None:
            break
        cursor = {"cursor": answer["next_cursor"]}

    assert [len(piece) for piece in pieces] == [6, 6, 1]
    assert sorted(id_ for piece in pieces for id_ in piece) == sorted(
        [f"order-{n}" for n in range(1, 5)] + [f"cart-{n}" for n in range(1, 10)]
    )
    assert await ids_of(client, "dead-letters") == []
    assert len(await acts(client)) == 13


async def test_more_ids_than_leave_in_a_minute_are_refused(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await stage.set_aside("order", 7)
    ids = [f"order-{number}" for number in range(1, 8)]

    refused = await client.post(f"{LETTERS}/replay", json={"ids": ids, "rate": 0.1})
    before = await ids_of(client, "dead-letters")
    taken = await post(client, "dead-letters/replay", ids=ids[:6], rate=0.1)

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/rate"]
    assert len(before) == 7
    assert len(taken["results"]) == 6


async def test_each_call_tells_how_long_what_it_let_go_takes(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await stage.set_aside("order", 7)
    all_of_it = {"filter": {"all": True}, "rate": 0.1}

    tried = await post(client, "dead-letters/replay", **all_of_it, dry_run=True)
    first = await post(client, "dead-letters/replay", **all_of_it)
    last = await post(client, "dead-letters/replay", **all_of_it, cursor=first["next_cursor"])

    assert [answer["wait_s"] for answer in (tried, first, last)] == [0, 60, 10]


async def test_services_share_the_rate(client: httpx.AsyncClient, stage: Stage) -> None:
    await stage.set_aside("order", 2)
    await stage.set_aside("cart", 2)

    await post(client, "dead-letters/replay", filter={"all": True}, rate=10)

    waits = [
        row["wait"]
        for service in ("order", "cart")
        for row in await rows(
            stage,
            f"SELECT not_before - created_at AS wait FROM {service}_outbox ORDER BY id",  # noqa: S608 (our own names)
        )
    ]
    assert waits == [0, 100_000, 200_000, 300_000]


@pytest.mark.parametrize("path", ["dead-letters/replay", "outbox/replay"])
@pytest.mark.parametrize(
    "body",
    [
        {"rate": 0},
        {"rate": -1},
        {"rate": 0.09},
        {"rate": 1001},
        {"rate": "fast"},
        {"filter": {}, "ids": None},
        {"filter": {"all": False}, "ids": None},
        {"filter": {"all": True, "service": "cart"}, "ids": None},
    ],
)
async def test_no_rate_and_an_empty_filter_are_refused(
    client: httpx.AsyncClient, stage: Stage, path: str, body: dict
) -> None:
    await stage.set_aside("cart", 1)

    asked = {"ids": ["cart-1"], **body}
    answer = await client.post(
        f"/api/v1/admin/{path}",
        json={name: value for name, value in asked.items() if value is not None},
    )

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert await ids_of(client, "dead-letters") == ["cart-1"]


@pytest.mark.parametrize(
    ("path", "filter_"),
    [
        ("dead-letters/replay", {"set_aside_from": "yesterday"}),
        ("dead-letters/discard", {"set_aside_to": "2024-01-01"}),
        ("outbox/replay", {"sent_from": "12"}),
    ],
)
async def test_a_time_that_is_none_is_refused_with_where_it_stands(
    client: httpx.AsyncClient, path: str, filter_: dict
) -> None:
    answer = await client.post(f"/api/v1/admin/{path}", json={"filter": filter_})

    (name,) = filter_
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["pointer"] == f"/filter/{name}"


@pytest.mark.parametrize("cursor", ["nonsense", "WyJhIl0", "WyJub2JvZHkiLDFd"])
@pytest.mark.parametrize("path", ["dead-letters/replay", "outbox/replay"])
async def test_a_cursor_of_no_replay_is_refused(
    client: httpx.AsyncClient, path: str, cursor: str
) -> None:
    answer = await client.post(
        f"/api/v1/admin/{path}", json={"filter": {"all": True}, "cursor": cursor}
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


async def test_dead_letters_are_listed_and_replayed_by_time_and_by_what_they_are_about(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await stage.set_aside("cart", 2)
    await execute(
        stage,
        "UPDATE cart_dead_letters SET aggregate_id = 'ann', set_aside_at = 1735689600000000"
        " WHERE id = 2",
    )

    assert await ids_of(client, "dead-letters?aggregate_id=ann") == ["cart-2"]
    assert await ids_of(client, "dead-letters?set_aside_from=2025-01-01T00:00:00Z") == ["cart-2"]
    assert await ids_of(client, "dead-letters?set_aside_to=2025-01-01T00:00:00Z") == ["cart-1"]
    assert (await client.get(f"{LETTERS}?set_aside_to=soon")).status_code == 422
    which = {"set_aside_to": "2025-01-01T00:00:00Z"}
    assert await change(client, "dead-letters/replay", filter=which) == {"cart-1": "replayed"}
    assert await change(client, "dead-letters/discard", filter={"aggregate_id": "ann"}) == {
        "cart-2": "discarded"
    }


async def test_what_a_consumer_may_have_forgotten_is_replayed_by_force_and_that_is_on_record(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await stage.set_aside("cart", 1, first_received_at=NOW)

    refused = await change(client, "dead-letters/replay", ids=["cart-1"])
    edit = {"body": BODY}
    refused_edit = await client.post(f"{LETTERS}/cart-1/replay", json=edit)
    forced = await change(client, "dead-letters/replay", ids=["cart-1"], force=True)

    assert refused == {"cart-1": "not_remembered"}
    assert (refused_edit.status_code, refused_edit.json()["code"]) == (
        409,
        "message_not_remembered",
    )
    assert forced == {"cart-1": "replayed"}
    assert await acts(client) == [("dead_letters.replay", "cart-1", {"forced": True})]


async def test_an_edited_message_goes_in_the_place_of_the_old_one(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await stage.set_aside("cart", 1, body=b"{")

    tried = await post(client, "dead-letters/cart-1/replay", body=BODY, dry_run=True)
    before = await ids_of(client, "outbox?service=cart")
    settled = await post(
        client, "dead-letters/cart-1/replay", body=BODY, reason="the item was missing"
    )
    again = await client.post(f"{LETTERS}/cart-1/replay", json={"body": BODY})
    letter = (await client.get(f"{LETTERS}/cart-1")).json()

    assert tried == {"id": "cart-1", "result": "replayed", "message_id": None}
    assert before == []
    assert settled == {"id": "cart-1", "result": "replayed", "message_id": "edited-1"}
    assert (again.status_code, again.json()["code"]) == (409, "dead_letter_not_open")
    assert (letter["state"], letter["body"]) == ("replayed", "{")
    entry = letter["history"][1]
    assert entry.pop("at")
    assert entry == {
        "event": "edited",
        "actor": "user-1",
        "reason": "the item was missing",
        "message_id": "edited-1",
    }
    (sent,) = await rows(stage, "SELECT message_id, body, headers FROM cart_outbox")
    assert (sent["message_id"], sent["body"]) == ("edited-1", BODY.encode())
    assert json.loads(sent["headers"])["x-orderkeep-edited-from"] == "m1"
    assert await acts(client) == [("dead_letters.edit", "cart-1", {"message_id": "edited-1"})]


async def test_the_letter_of_an_edited_message_names_the_old_one(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await stage.set_aside("cart", 1, headers={"x-orderkeep-edited-from": "m0"})

    letter = (await client.get(f"{LETTERS}/cart-1")).json()

    assert letter["edited_from"] == "m0"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"body": "{"}, "/body"),
        ({"body": "null"}, "/body"),
        ({"body": ""}, "/body"),
        ({"body": '{"event_type": "cart.item.removed", "user_id": "ann"}'}, "/body"),
        ({"body_base64": base64.b64encode(b"\xff").decode()}, "/body"),
        ({"body_base64": "no base64"}, "/body_base64"),
        ({"body_base64": "é"}, "/body_base64"),
        ({"body": BODY, "body_base64": "e30="}, ""),
        ({}, ""),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
async def test_an_edit_that_its_queue_could_not_take_is_refused(
    client: httpx.AsyncClient, stage: Stage, *, body: dict, pointer: str, dry_run: bool
) -> None:
    await stage.set_aside("cart", 1)

    answer = await client.post(f"{LETTERS}/cart-1/replay", json={**body, "dry_run": dry_run})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert await ids_of(client, "dead-letters") == ["cart-1"]
    assert await ids_of(client, "outbox?service=cart") == []


async def test_an_edit_of_what_took_effect_is_refused_unless_it_is_forced(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await stage.set_aside("cart", 1)

    async def record(transaction: Transaction) -> None:
        now = await transaction.now()
        await Inbox(CART).record(transaction, consumer="cart-sync", message_ids=["m1"], now=now)

    await stage.database.transact(record)

    refusals = [
        await client.post(f"{LETTERS}/cart-1/replay", json={"body": BODY, "dry_run": dry_run})
        for dry_run in (True, False)
    ]
    forced = await post(client, "dead-letters/cart-1/replay", body=BODY, force=True)

    assert [(one.status_code, one.json()["code"]) for one in refusals] == (
        [(409, "message_took_effect")] * 2
    )
    assert forced["result"] == "replayed"
    assert await acts(client) == [
        ("dead_letters.edit", "cart-1", {"message_id": forced["message_id"], "forced": True})
    ]


@pytest.mark.parametrize("letter_id", ["cart-2", "nobody-1", "cart"])
async def test_an_edit_of_no_letter_is_404(client: httpx.AsyncClient, letter_id: str) -> None:
    answer = await client.post(f"{LETTERS}/{letter_id}/replay", json={"body": BODY})

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_sent_events_go_again_to_all_or_to_one_queue(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await send(stage, "order", 2, route="order.events")

    tried = await change(client, "outbox/replay", ids=["order-1", "order-9"], dry_run=True)
    to_all = await change(client, "outbox/replay", ids=["order-1", "order-9"])
    again = await change(client, "outbox/replay", filter={"aggregate_id": "A1"})
    to_one = await change(
        client, "outbox/replay", filter={"route": "order.events"}, queue="order.outbox"
    )
    elsewhere = await change(client, "outbox/replay", ids=["order-1"], queue="cart-sync")
    none = await change(client, "outbox/replay", filter={"all": True}, queue="cart-sync")
    anew = await change(client, "outbox/replay", ids=["order-1"], key="july")

    assert tried == to_all == {"order-1": "replayed", "order-9": "not_found"}
    assert again == {"order-1": "not_again"}
    assert to_one == {"order-1": "replayed", "order-2": "replayed"}
    assert elsewhere == {"order-1": "not_for_queue"}
    assert none == {}
    assert anew == {"order-1": "replayed"}
    copies = await rows(
        stage, "SELECT route, message_id FROM order_outbox WHERE state = 'pending' ORDER BY id"
    )
    assert [(row["route"], row["message_id"]) for row in copies] == [
        ("order.events", "order-message-1"),
        ("order.outbox", "order-message-1"),
        ("order.outbox", "order-message-2"),
        ("order.events", "order-message-1"),
    ]
    assert await acts(client) == [
        ("outbox.replay", "order-1", {}),
        ("outbox.replay", "order-1", {"queue": "order.outbox"}),
        ("outbox.replay", "order-2", {"queue": "order.outbox"}),
        ("outbox.replay", "order-1", {"key": "july"}),
    ]


async def test_a_replay_to_no_queue_is_refused(client: httpx.AsyncClient, stage: Stage) -> None:
    await send(stage, "order", 1)

    answer = await client.post(
        "/api/v1/admin/outbox/replay", json={"ids": ["order-1"], "queue": "nowhere"}
    )

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/queue")


async def test_of_two_operators_who_replay_all_at_once_each_letter_has_one(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await stage.set_aside("cart", 20)

    answers = await asyncio.gather(
        *[post(client, "dead-letters/replay", filter={"all": True}) for _ in range(2)],
        post(client, "dead-letters/discard", filter={"all": True}),
    )

    done = [one for answer in answers for one in answer["results"]]
    settled = [one["id"] for one in done if not one["result"].startswith("not_")]
    replayed = [one for one in done if one["result"] == "replayed"]
    assert sorted(settled) == sorted(f"cart-{n}" for n in range(1, 21))
    assert len(await ids_of(client, "outbox?service=cart&limit=100")) == len(replayed)
    assert len(await acts(client)) == 20
