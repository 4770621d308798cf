"""What operators see of messages and do about them, over two services with tables of their own."""

import base64

import httpx
import pytest

from tests.integration.web.message_stage import NOW, NOW_TEXT, Stage, change, ids_of
from tests.unit.web.small_shop import Shop


async def test_an_outbox_row_shows_all_but_its_body(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await stage.append("order", 1)

    answer = await client.get("/api/v1/admin/outbox?state=pending")

    assert answer.json() == {
        "items": [
            {
                "id": "order-1",
                "service": "order",
                "message_id": "order-message-1",
                "aggregate_id": "A1",
                "sequence": 1,
                "type": "order.paid",
                "route": "cart-sync",
                "state": "pending",
                "ordered": True,
                "attempts": 0,
                "not_before": NOW_TEXT,
                "created_at": NOW_TEXT,
            }
        ],
        "next_cursor": None,
    }


async def test_one_outbox_row_shows_its_contents_too(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await stage.append("order", 1)

    answer = await client.get("/api/v1/admin/outbox/order-1")

    shown = answer.json()
    assert answer.status_code == 200
    assert (shown["id"], shown["state"], shown["message_id"]) == (
        "order-1",
        "pending",
        "order-message-1",
    )
    assert base64.b64decode(shown["body_base64"]).decode() == shown["body"]
    assert shown["headers"]["x-aggregate-id"] == "A1"


@pytest.mark.parametrize("row_id", ["order-2", "nobody-1", "1"])
async def test_an_outbox_row_that_is_not_there_is_404(
    client: httpx.AsyncClient, stage: Stage, row_id: str
) -> None:
    await stage.append("order", 1)

    answer = await client.get(f"/api/v1/admin/outbox/{row_id}")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("filter_", "discarded"),
    [
        ({"all": True}, ["order-1"]),
        ({"service": "order"}, ["order-1"]),
        ({"state": "failed"}, ["order-1"]),
        ({"state": "pending"}, ["order-2", "cart-1"]),
        ({"service": "cart", "state": "pending"}, ["cart-1"]),
    ],
)
async def test_a_discard_by_a_filter_takes_parked_rows_unless_it_says_otherwise(
    client: httpx.AsyncClient, stage: Stage, filter_: dict, discarded: list[str]
) -> None:
    await stage.append("order", 2)
    await stage.append("cart", 1)
    await stage.fail("order", 1)

    results = await change(client, "outbox/discard", filter=filter_)

    assert results == dict.fromkeys(discarded, "discarded")


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 100])
async def test_pages_go_through_every_service_and_miss_nothing(
    client: httpx.AsyncClient, stage: Stage, limit: int
) -> None:
    await stage.append("order", 3)
    await stage.append("cart", 2)

    seen: list[str] = []
    cursor = ""
    while True:
        answer = await client.get(f"/api/v1/admin/outbox?limit={limit}{cursor}")
        page = answer.json()
        seen += [item["id"] for item in page["items"]]
        assert 0 < len(page["items"]) <= limit
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert seen == ["order-3", "order-2", "order-1", "cart-2", "cart-1"]


async def test_lists_can_be_of_one_service_and_one_state(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await stage.append("order", 2)
    await stage.append("cart", 2)
    await stage.fail("cart", 2)

    assert await ids_of(client, "outbox?service=cart") == ["cart-1"]
    assert await ids_of(client, "outbox?state=failed") == ["cart-2"]
    assert await ids_of(client, "outbox?service=payment") == []


@pytest.mark.parametrize("cursor", ["nonsense", "WzFd", "WyJub2JvZHkiLDFd"])
async def test_a_cursor_of_another_list_is_refused(client: httpx.AsyncClient, cursor: str) -> None:
    answer = await client.get(f"/api/v1/admin/outbox?cursor={cursor}")

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


async def test_parked_rows_go_again_and_each_id_is_answered(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await stage.append("order", 2)
    await stage.append("cart", 1)
    await stage.fail("order", 1)
    await stage.fail("cart", 1)

    results = await change(
        client,
        "outbox/retry",
        ids=["cart-1", "order-2", "order-1", "order-1", "order-99", "nobody-1", "order-x", ""],
    )

    assert results == {
        "cart-1": "retried",
        "order-2": "not_changeable",
        "order-1": "retried",
        "order-99": "not_found",
        "nobody-1": "not_found",
        "order-x": "not_found",
        "": "not_found",
    }
    assert await ids_of(client, "outbox?state=failed") == []


async def test_a_filter_takes_what_it_finds_in_every_service(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await stage.append("order", 2)
    await stage.append("cart", 2)
    for row_id in (1, 2):
        await stage.fail("order", row_id)
        await stage.fail("cart", row_id)

    assert await change(client, "outbox/retry", filter={"aggregate_id": "A1"}) == {
        "order-1": "retried",
        "cart-1": "retried",
    }
    assert await change(client, "outbox/discard", filter={"service": "cart"}) == {
        "cart-2": "discarded"
    }
    assert await ids_of(client, "outbox?state=discarded") == ["cart-2"]


@pytest.mark.parametrize("action", ["outbox/retry", "outbox/discard"])
async def test_a_dry_run_tells_and_changes_nothing(
    client: httpx.AsyncClient, stage: Stage, action: str
) -> None:
    await stage.append("order", 1)
    await stage.fail("order", 1)

    results = await change(client, action, ids=["order-1"], dry_run=True)

    assert results in ({"order-1": "retried"}, {"order-1": "discarded"})
    assert await ids_of(client, "outbox?state=failed") == ["order-1"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"dry_run": True},
        {"ids": []},
        {"ids": None},
        {"ids": ["order-1"], "filter": {}},
        {"ids": ["order-1"] * 1001},
        {"ids": [1]},
        {"filter": {"unknown": "x"}},
        {"filter": {"service": "a b"}},
        {"filter": {}},
        {"filter": {"service": None}},
        {"filter": {"all": False}},
        {"filter": {"all": True, "service": "order"}},
        {"ids": ["order-1"], "dry_run": "yes"},
    ],
)
@pytest.mark.parametrize("path", ["outbox/retry", "dead-letters/replay", "outbox/replay"])
async def test_what_to_change_is_said_in_one_way(
    client: httpx.AsyncClient, path: str, body: dict
) -> None:
    answer = await client.post(f"/api/v1/admin/{path}", json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ('{"名": "订单"}'.encode(), '{"名": "订单"}'),
        (b"\x00 nul", "\x00 nul"),
        (b"\xff\xfe", None),
        (b"", ""),
    ],
)
async def test_a_dead_letter_shows_exactly_what_came(
    client: httpx.AsyncClient, stage: Stage, raw: bytes, text: str | None
) -> None:
    await stage.set_aside("cart", 1, body=raw, message_id=b"\xffid", first_received_at=NOW)

    answer = await client.get("/api/v1/admin/dead-letters/cart-1")

    assert answer.status_code == 200
    letter = answer.json()
    assert base64.b64decode(letter.pop("body_base64")) == raw
    assert letter == {
        "id": "cart-1",
        "service": "cart",
        "consumer": "cart-sync",
        "queue": "cart-sync",
        "message_id": "m1",
        "type": "any",
        "reason": "malformed_json",
        "detail": "the body is not JSON",
        "tries": 1,
        "state": "open",
        "settled_count": 0,
        "first_received_at": NOW_TEXT,
        "set_aside_at": NOW_TEXT,
        "body": text,
        "headers": {"x-from": "afar"},
        "sender_message_id": "\\xffid",
        "history": [
            {
                "at": NOW_TEXT,
                "event": "set_aside",
                "reason": "malformed_json",
                "detail": "the body is not JSON",
                "tries": 1,
            }
        ],
    }


@pytest.mark.parametrize("letter_id", ["cart-2", "nobody-1", "cart-0", "cart", "17"])
async def test_a_dead_letter_that_is_not_there_is_404(
    client: httpx.AsyncClient, stage: Stage, letter_id: str
) -> None:
    await stage.set_aside("cart", 1)

    answer = await client.get(f"/api/v1/admin/dead-letters/{letter_id}")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_dead_letters_are_listed_by_queue_reason_and_state(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await stage.set_aside("order", 1, queue="payment.success.notify")
    await stage.set_aside("cart", 2)

    assert await ids_of(client, "dead-letters") == ["order-1", "cart-2", "cart-1"]
    assert await ids_of(client, "dead-letters?queue=cart-sync") == ["cart-2", "cart-1"]
    assert await ids_of(client, "dead-letters?reason=other") == []
    assert await ids_of(client, "dead-letters?state=replayed") == []


async def test_a_dead_letter_is_replayed_once(client: httpx.AsyncClient, stage: Stage) -> None:
    await stage.set_aside("cart", 2, body=b"\xff")

    preview = await change(client, "dead-letters/replay", ids=["cart-1"], dry_run=True)
    first = await change(client, "dead-letters/replay", ids=["cart-1"])
    second = await change(client, "dead-letters/replay", ids=["cart-1", "cart-9"])

    assert preview == {"cart-1": "replayed"}
    assert first == {"cart-1": "replayed"}
    assert second == {"cart-1": "not_open", "cart-9": "not_found"}
    assert await ids_of(client, "dead-letters?state=replayed") == ["cart-1"]
    assert await ids_of(client, "dead-letters") == ["cart-2"]
    assert await ids_of(client, "outbox?service=cart") == ["cart-1"]


async def test_dead_letters_are_discarded_by_a_filter(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await stage.set_aside("order", 1, queue="payment.success.notify")
    await stage.set_aside("cart", 2)

    preview = await change(
        client, "dead-letters/discard", filter={"queue": "cart-sync"}, dry_run=True
    )
    results = await change(client, "dead-letters/discard", filter={"queue": "cart-sync"})

    assert preview == results == {"cart-1": "discarded", "cart-2": "discarded"}
    assert await ids_of(client, "dead-letters") == ["order-1"]


async def test_the_status_tells_what_is_going_on(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/admin/status")

    assert answer.json() == {
        "status": "ok",
        "checks": {},
        "at": NOW_TEXT,
        "orders": {"paid": 3},
        "overdue_orders": 0,
        "payment_cases_open": 1,
        "refunds_open": 2,
        "refunds_failed": 3,
        "outboxes": [
            {"outbox": "order", "pending": 4, "failed": 0, "oldest_pending_s": 0.5},
        ],
        "dead_letters": {"cart-sync": 1},
        "queues": {"order.timeout.queue": 9},
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "outbox/retry"),
        ("POST", "outbox/discard"),
        ("POST", "dead-letters/replay"),
        ("POST", "dead-letters/discard"),
    ],
)
async def test_who_may_only_read_changes_nothing(
    shop: Shop, client: httpx.AsyncClient, method: str, path: str
) -> None:
    headers = shop.headers("operator:read")

    answer = await client.request(
        method, f"/api/v1/admin/{path}", json={"filter": {}}, headers=headers
    )
    listed = await client.get("/api/v1/admin/outbox", headers=headers)

    assert answer.status_code == 403
    assert listed.status_code == 200


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("outbox?service=ordr", "query/service"),
        ("dead-letters?service=ordr", "query/service"),
        ("dead-letters?queue=cart-sink", "query/queue"),
        ("dead-letters?queu=cart-sync", "query/queu"),
        ("audit?action=outbox.rplay", "query/action"),
    ],
)
async def test_a_misspelt_filter_of_a_list_is_refused(
    client: httpx.AsyncClient, path: str, pointer: str
) -> None:
    answer = await client.get(f"/api/v1/admin/{path}")

    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert "is not known; did you mean" in error["detail"]


@pytest.mark.parametrize(
    ("path", "which", "pointer"),
    [
        ("outbox/retry", {"route": "order.evnts"}, "/filter/route"),
        ("outbox/discard", {"service": "ordr"}, "/filter/service"),
        ("outbox/replay", {"route": "order.evnts"}, "/filter/route"),
        ("dead-letters/replay", {"queue": "cart-sink"}, "/filter/queue"),
        ("dead-letters/discard", {"queue": "cart-sink"}, "/filter/queue"),
    ],
)
async def test_a_misspelt_filter_of_a_change_is_refused(
    client: httpx.AsyncClient, path: str, which: dict[str, str], pointer: str
) -> None:
    answer = await client.post(f"/api/v1/admin/{path}", json={"filter": which})

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
