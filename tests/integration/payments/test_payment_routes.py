"""Payments over HTTP, to the letter of the contract."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from httpx import AsyncClient, Response
from standardwebhooks import Webhook

from orderkeep.contracts.order_status import Status
from orderkeep.contracts.payment_refund_request import RefundRequest
from orderkeep.database.transaction import Database
from orderkeep.payments.channels.known_channels import known_channels
from orderkeep.payments.routes import ROUTE_HANDLERS
from tests.integration.payments.stage import ORDER, Stage, order_event
from tests.integration.web_client import as_user, web_client

ANN = as_user("ann")
BOB = as_user("bob")
OPERATOR = as_user("olga", scopes=["operator"])
AUDITOR = as_user("otto", scopes=["operator:read"])

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
OPEN_BANK = {"order_no": ORDER, "pay_channel": "bank"}
OPEN_SANDBOX = {"order_no": ORDER, "pay_channel": "sandbox"}


@pytest.fixture
def stage(database: Database) -> Stage:
    channels = known_channels(sandbox_is_on=True, secrets_by_channel={"bank": [SECRET]})
    return Stage(database, channels=channels)


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[AsyncClient]:
    async with web_client(ROUTE_HANDLERS, dependencies={"payment_desk": stage.desk}) as client:
        yield client


async def _notify(
    client: AsyncClient,
    body: dict[str, object] | bytes,
    *,
    channel: str = "bank",
    sent: bytes | None = None,
    headers: list[tuple[str, str]] | None = None,
) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    # The library checks the wall clock, so the signature is of now.
    moment = datetime.now(UTC)  # noqa: TID251
    signed = [
        ("webhook-id", "n1"),
        ("webhook-timestamp", str(int(moment.timestamp()))),
        ("webhook-signature", Webhook(SECRET).sign("n1", moment, raw.decode())),
    ]
    return await client.post(
        f"/payments/notifications/{channel}",
        content=raw if sent is None else sent,
        headers=[*signed, *(headers or [])],
    )


def _report(**changed: object) -> dict[str, object]:
    report: dict[str, object] = {
        "payment_no": "P1",
        "trade_no": "T1",
        "amount": "100.00",
        "currency": "CNY",
        "paid_at": "2024-01-01T10:05:00Z",
        "result": "succeeded",
    }
    return {**report, **changed}


async def test_a_payment_is_opened_and_then_answered_again(client: AsyncClient, stage: Stage):
    await stage.hear(order_event())

    first = await client.post("/payments", json=OPEN_SANDBOX, headers=ANN)
    second = await client.post("/payments", json=OPEN_SANDBOX, headers=ANN)

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    body = first.json()
    assert body.pop("opened_at").endswith("Z")
    assert body == {
        "payment_no": "P1",
        "order_no": ORDER,
        "pay_channel": "sandbox",
        "amount": "100.00",
        "currency": "CNY",
        "status": "open",
    }


async def test_20_requests_at_once_open_one_payment(client: AsyncClient, stage: Stage):
    await stage.hear(order_event())

    answers = await asyncio.gather(
        *(client.post("/payments", json=OPEN_SANDBOX, headers=ANN) for _ in range(20))
    )

    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["payment_no"] for answer in answers}) == 1


@pytest.mark.parametrize("order_no", ["my-order", "0200000000000009", "01" + "0" * 31, "01x"])
async def test_what_is_no_order_number_is_refused(client: AsyncClient, order_no: str):
    answer = await client.post("/payments", json={**OPEN_BANK, "order_no": order_no}, headers=ANN)

    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_request"
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/order_no"]


async def test_an_order_not_known_yet_is_to_be_asked_for_again(client: AsyncClient):
    answer = await client.post("/payments", json=OPEN_SANDBOX, headers=ANN)

    assert answer.status_code == 409
    assert answer.json()["code"] == "order_not_ready"
    assert int(answer.headers["Retry-After"]) >= 1


async def test_an_order_that_has_ended_is_refused_with_its_state(client: AsyncClient, stage: Stage):
    await stage.hear(order_event(status=Status.CLOSED, version=2))

    answer = await client.post("/payments", json=OPEN_SANDBOX, headers=ANN)

    assert answer.status_code == 409
    assert answer.json()["code"] == "order_not_pending"
    assert answer.json()["order_status"] == "closed"


async def test_another_users_order_is_not_found(client: AsyncClient, stage: Stage):
    await stage.hear(order_event())

    answer = await client.post("/payments", json=OPEN_SANDBOX, headers=BOB)

    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"order_no": ORDER, "pay_channel": "shells"}, "unknown_channel"),
        ({"order_no": ORDER, "pay_channel": ""}, "invalid_request"),
        ({"order_no": ORDER}, "invalid_request"),
        ({"order_no": 1, "pay_channel": "sandbox"}, "invalid_request"),
        ({"order_no": ORDER, "pay_channel": "sandbox", "amount": "0.01"}, "invalid_request"),
    ],
)
async def test_a_wrong_request_opens_nothing(
    client: AsyncClient, stage: Stage, body: dict[str, object], code: str
):
    await stage.hear(order_event())

    answer = await client.post("/payments", json=body, headers=ANN)

    assert answer.status_code == 422
    assert answer.json()["code"] == code
    assert await stage.payment_rows() == []


async def test_a_sandbox_payment_succeeds_and_is_shown(client: AsyncClient, stage: Stage):
    await stage.hear(order_event())
    await client.post("/payments", json=OPEN_SANDBOX, headers=ANN)

    first = await client.post("/payments/P1/sandbox", json={"result": "succeeded"}, headers=ANN)
    second = await client.post(
        "/payments/P1/sandbox", json={"result": "succeeded"}, headers=OPERATOR
    )
    shown = await client.get("/payments/P1", headers=ANN)

    assert (first.status_code, second.status_code) == (202, 202)
    assert shown.status_code == 200
    body = shown.json()
    assert [body.pop(name)[-1] for name in ("opened_at", "paid_at", "ended_at")] == ["Z"] * 3
    assert body == {
        "payment_no": "P1",
        "order_no": ORDER,
        "pay_channel": "sandbox",
        "amount": "100.00",
        "currency": "CNY",
        "status": "succeeded",
        "trade_no": "SBX-P1",
        "refunds": [],
    }
    assert len(await stage.sent("payment.succeeded")) == 1


async def test_a_sandbox_payment_fails_on_demand(client: AsyncClient, stage: Stage):
    await stage.hear(order_event())
    await client.post("/payments", json=OPEN_SANDBOX, headers=ANN)

    answer = await client.post("/payments/P1/sandbox", json={"result": "failed"}, headers=ANN)

    assert answer.status_code == 202
    shown = (await client.get("/payments/P1", headers=ANN)).json()
    assert (shown["status"], shown["reason"]) == ("failed", "as asked of the sandbox")


async def test_a_sandbox_that_is_off_is_not_found(stage: Stage):
    await stage.hear(order_event())
    await stage.desk.open(order_no=ORDER, pay_channel="sandbox", user_id="ann")
    stage.channels = known_channels(sandbox_is_on=False, secrets_by_channel={"bank": [SECRET]})

    async with web_client(ROUTE_HANDLERS, dependencies={"payment_desk": stage.desk}) as client:
        answer = await client.post(
            "/payments/P1/sandbox", json={"result": "succeeded"}, headers=ANN
        )
        opened = await client.post("/payments", json=OPEN_SANDBOX, headers=ANN)

    assert answer.status_code == 404
    assert opened.json()["code"] == "unknown_channel"


async def test_a_payment_is_shown_to_its_payer_and_operators_only(
    client: AsyncClient, stage: Stage
):
    await stage.hear(order_event())
    await client.post("/payments", json=OPEN_SANDBOX, headers=ANN)

    answers = [
        await client.get("/payments/P1", headers=headers)
        for headers in (ANN, OPERATOR, AUDITOR, BOB)
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 404]


async def test_a_reader_among_operators_settles_nothing(client: AsyncClient, stage: Stage):
    await stage.hear(order_event())
    await client.post("/payments", json=OPEN_SANDBOX, headers=ANN)

    answer = await client.post(
        "/payments/P1/sandbox", json={"result": "succeeded"}, headers=AUDITOR
    )

    assert answer.status_code == 404


async def test_a_payment_is_shown_with_its_refunds(client: AsyncClient, stage: Stage):
    await stage.hear(order_event())
    await stage.pay_in_sandbox()
    await stage.ask_refund(
        RefundRequest(
            refund_no="R1",
            order_no=ORDER,
            trade_no="SBX-P1",
            amount_minor=10_000,
            currency="CNY",
            reason="late_payment",
        )
    )
    await stage.refund_worker().run_once()

    shown = (await client.get("/payments/P1", headers=ANN)).json()

    [refund] = shown["refunds"]
    assert [refund.pop(name)[-1] for name in ("requested_at", "finished_at")] == ["Z", "Z"]
    assert refund == {
        "refund_no": "R1",
        "amount": "100.00",
        "currency": "CNY",
        "status": "succeeded",
        "reason": "late_payment",
        "channel_refund_no": "SBX-R1",
    }


async def test_a_signed_notification_settles_without_a_token_and_may_repeat(
    client: AsyncClient, stage: Stage
):
    await stage.hear(order_event())
    await client.post("/payments", json=OPEN_BANK, headers=ANN)

    answers = [await _notify(client, _report()), await _notify(client, _report())]

    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {}), (200, {})]
    assert len(await stage.sent("payment.succeeded")) == 1
    shown = (await client.get("/payments/P1", headers=ANN)).json()
    assert (shown["status"], shown["paid_at"]) == ("succeeded", "2024-01-01T10:05:00Z")


async def test_an_amount_may_come_as_a_number(client: AsyncClient, stage: Stage):
    await stage.hear(order_event())
    await client.post("/payments", json=OPEN_BANK, headers=ANN)

    answer = await _notify(client, json.dumps(_report(amount=100.0)).encode())

    assert answer.status_code == 200
    [body] = await stage.sent("payment.succeeded")
    assert body["amount"] == 100.0


async def test_one_changed_byte_makes_it_somebody_elses(client: AsyncClient, stage: Stage):
    await stage.hear(order_event())
    await client.post("/payments", json=OPEN_BANK, headers=ANN)
    raw = json.dumps(_report()).encode()

    answers = [
        await _notify(client, raw, sent=raw.replace(b"100.00", b"900.00")),
        await _notify(client, raw, sent=json.dumps(_report(), indent=1).encode()),
        await _notify(client, raw, headers=[("webhook-signature", "v1,abcd")]),
    ]

    for answer in answers:
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthenticated"
        assert "WWW-Authenticate" in answer.headers
    assert await stage.receipt_rows() == []


async def test_a_signature_is_checked_before_anything_is_read(client: AsyncClient):
    answer = await client.post("/payments/notifications/bank", content=b"{")

    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"{", 400, "malformed_json"),
        (b'{"amount": NaN}', 400, "malformed_json"),
        (b"[" * 20_000, 400, "malformed_json"),
        (json.dumps(_report(amount="-1.00")).encode(), 422, "invalid_request"),
        (json.dumps(_report(paid_at="soon")).encode(), 422, "invalid_request"),
        (json.dumps(_report(surprise=1)).encode(), 422, "invalid_request"),
        (json.dumps(_report(payment_no="P404")).encode(), 404, "not_found"),
    ],
)
async def test_signed_nonsense_is_refused(
    client: AsyncClient, stage: Stage, raw: bytes, status: int, code: str
):
    await stage.hear(order_event())
    await client.post("/payments", json=OPEN_BANK, headers=ANN)

    answer = await _notify(client, raw)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert [row["status"] for row in await stage.payment_rows()] == ["open"]


@pytest.mark.parametrize("channel", ["sandbox", "shells"])
async def test_only_outside_channels_have_notifications(client: AsyncClient, channel: str):
    answer = await _notify(client, _report(), channel=channel)

    assert answer.status_code == 404


async def test_everything_but_notifications_needs_a_token(client: AsyncClient):
    answers = [
        await client.post("/payments", json=OPEN_SANDBOX),
        await client.get("/payments/P1"),
        await client.post("/payments/P1/sandbox", json={"result": "succeeded"}),
    ]

    assert [answer.status_code for answer in answers] == [401, 401, 401]
