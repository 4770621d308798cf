"""What operators do to messages is put on record, with its effect or not at all."""

import httpx
import pytest

from orderkeep.database.audit import Act, AuditEntry, AuditFilter, append_audit, list_audit
from orderkeep.web import service_messages
from tests.integration.web.message_stage import Stage, change, ids_of
from tests.unit.web.small_shop import Shop


async def record_of(client: httpx.AsyncClient, query: str = "") -> list[dict]:
    answer = await client.get(f"/api/v1/admin/audit{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def write(stage: Stage, *entries: AuditEntry) -> None:
    async def work(transaction) -> None:
        await append_audit(transaction, entries, now=await transaction.now())

    await stage.database.transact(work)


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("outbox/retry", "outbox.retry"),
        ("outbox/discard", "outbox.discard"),
        ("dead-letters/replay", "dead_letters.replay"),
        ("dead-letters/discard", "dead_letters.discard"),
    ],
)
async def test_what_was_changed_is_on_record_with_who_and_why(
    client: httpx.AsyncClient, stage: Stage, path: str, action: str
) -> None:
    await stage.append("order", 1)
    await stage.fail("order", 1)
    await stage.set_aside("order", 1)

    await change(client, path, ids=["order-1", "order-99"], dry_run=True)
    await change(client, path, ids=["order-1", "order-99"], reason="the bank is back")
    await change(client, path, ids=["order-1", "order-99"], reason="once more")

    (entry,) = await record_of(client)
    assert entry.pop("at") > "2024"
    assert entry.pop("detail") is not None
    assert entry == {
        "id": 1,
        "actor": "user-1",
        "action": action,
        "subject": "order-1",
        "reason": "the bank is back",
    }


@pytest.mark.parametrize("path", ["outbox/retry", "outbox/discard"])
async def test_a_change_of_an_event_tells_which_it_was(
    client: httpx.AsyncClient, stage: Stage, path: str
) -> None:
    await stage.append("order", 1)
    await stage.fail("order", 1)

    await change(client, path, filter={"all": True})

    (entry,) = await record_of(client)
    assert entry["detail"] == {
        "message_id": "order-message-1",
        "aggregate_id": "A1",
        "type": "order.paid",
        "route": "cart-sync",
        "state": "failed",
    }


async def test_an_act_that_cannot_be_put_on_record_has_no_effect(
    client: httpx.AsyncClient, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.append("order", 1)
    await stage.fail("order", 1)

    async def fail(*_arguments: object, **_named: object) -> None:
        message = "the record cannot be written"
        raise LookupError(message)

    monkeypatch.setattr(service_messages, "append_audit", fail)
    answer = await client.post("/api/v1/admin/outbox/retry", json={"ids": ["order-1"]})

    assert answer.status_code == 500
    assert await ids_of(client, "outbox?state=failed") == ["order-1"]
    assert await record_of(client) == []


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_the_record_is_read_page_by_page_newest_first(
    client: httpx.AsyncClient, stage: Stage, limit: int
) -> None:
    act = Act(actor="olga")
    await write(
        stage, *(AuditEntry(act=act, action="orders.cancel", subject=f"{n}") for n in range(5))
    )

    seen: list[str] = []
    cursor = ""
    while True:
        page = (await client.get(f"/api/v1/admin/audit?limit={limit}{cursor}")).json()
        seen += [item["subject"] for item in page["items"]]
        assert len(page["items"]) <= limit
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert seen == ["4", "3", "2", "1", "0"]


async def test_the_record_is_filtered_by_who_what_and_upon_what(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    olga, otto = Act(actor="olga", reason="fraud"), Act(actor="cli:otto")
    await write(
        stage,
        AuditEntry(act=olga, action="orders.cancel", subject="01"),
        AuditEntry(act=otto, action="skus.put", subject="tea", detail={"after": {"title": "茶"}}),
        AuditEntry(act=otto, action="orders.cancel", subject="02"),
    )

    async def subjects(query: str) -> list[str]:
        return [entry["subject"] for entry in await record_of(client, query)]

    assert await subjects("") == ["02", "tea", "01"]
    assert await subjects("?actor=cli:otto") == ["02", "tea"]
    assert await subjects("?action=orders.cancel") == ["02", "01"]
    assert await subjects("?action=orders.cancel&actor=olga") == ["01"]
    assert await subjects("?subject=tea") == ["tea"]
    assert await subjects("?subject=nothing") == []
    (entry,) = await record_of(client, "?subject=tea")
    assert entry["detail"] == {"after": {"title": "茶"}}
    assert "reason" not in entry


@pytest.mark.parametrize("cursor", ["nonsense", "WyJhIl0"])
async def test_a_cursor_that_is_none_of_the_record_is_refused(
    client: httpx.AsyncClient, cursor: str
) -> None:
    answer = await client.get(f"/api/v1/admin/audit?cursor={cursor}")

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize(
    ("scopes", "status"), [(("operator:read",), 200), (("messages",), 403), ((), 403)]
)
async def test_operators_alone_read_the_record(
    shop: Shop, client: httpx.AsyncClient, scopes: tuple[str, ...], status: int
) -> None:
    answer = await client.get("/api/v1/admin/audit", headers=shop.headers(*scopes))

    assert answer.status_code == status


async def test_an_entry_goes_with_the_transaction_that_it_tells_of(stage: Stage) -> None:
    async def fail(transaction) -> None:
        entry = AuditEntry(act=Act(actor="olga"), action="orders.cancel", subject="01")
        await append_audit(transaction, [entry], now=await transaction.now())
        message = "the effect fails"
        raise LookupError(message)

    with pytest.raises(LookupError):
        await stage.database.transact(fail)

    found = await stage.database.read(
        lambda transaction: list_audit(transaction, AuditFilter(), before_id=None, limit_count=9)
    )
    assert found == []
