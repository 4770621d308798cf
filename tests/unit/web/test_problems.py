"""Every error is a problem document with its code, its status and nothing of our insides."""

import json

import httpx
import pytest
from structlog.testing import capture_logs

from orderkeep.database.transaction import (
    ConstraintViolatedError,
    StoreOverloadedError,
    StoreUnavailableError,
)
from orderkeep.refusal import Refusal
from orderkeep.web.problems import KINDS
from tests.unit.web.small_shop import Shop

# As the contract has it.
STATUS_BY_CODE = {
    "malformed_json": 400,
    "invalid_cursor": 400,
    "idempotency_key_missing": 400,
    "idempotency_key_ambiguous": 400,
    "idempotency_key_invalid": 400,
    "unauthenticated": 401,
    "insufficient_scope": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "out_of_stock": 409,
    "token_expired": 409,
    "in_progress": 409,
    "order_not_pending": 409,
    "price_changed": 409,
    "order_not_ready": 409,
    "stock_exists": 409,
    "case_resolved": 409,
    # Of replays, about which the contract is silent.
    "dead_letter_not_open": 409,
    "dead_letter_unreadable": 409,
    "message_not_remembered": 409,
    "message_took_effect": 409,
    "version_mismatch": 412,
    "invalid_request": 422,
    "unknown_sku": 422,
    "idempotency_key_reused": 422,
    "mixed_currencies": 422,
    "unsupported_currency": 422,
    "amount_too_large": 422,
    "unknown_channel": 422,
    "too_many_requests": 429,
    "internal": 500,
    "overloaded": 503,
    "database_unavailable": 503,
}
WITH_RETRY_AFTER = {
    "in_progress",
    "order_not_ready",
    "too_many_requests",
    "overloaded",
    "database_unavailable",
}


def test_the_table_has_every_code_of_the_contract_and_no_other() -> None:
    assert {code: kind.status for code, kind in KINDS.items()} == STATUS_BY_CODE


@pytest.mark.parametrize("code", sorted(STATUS_BY_CODE))
async def test_a_refusal_is_answered_by_its_code(shop: Shop, code: str) -> None:
    shop.desk.error = Refusal(code, "The words for it.", members={"extra": [1], "status": "mine"})

    async with shop.client() as client:
        answer = await client.get("/api/v1/public")

    document = answer.json()
    assert answer.status_code == STATUS_BY_CODE[code]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert document.pop("title")
    assert document == {
        "type": f"urn:orderkeep:problem:{code}",
        "status": STATUS_BY_CODE[code],
        "detail": "The words for it.",
        "code": code,
        "request_id": "drawn-id",
        "extra": [1],
    }
    assert ("Retry-After" in answer.headers) == (code in WITH_RETRY_AFTER)
    assert ("WWW-Authenticate" in answer.headers) == (code == "unauthenticated")


async def test_a_request_in_progress_may_come_again_in_a_second(shop: Shop) -> None:
    shop.desk.error = Refusal("in_progress", "It is being worked on.")

    async with shop.client() as client:
        answer = await client.get("/api/v1/public")

    assert answer.headers["Retry-After"] == "1"


async def test_a_database_whose_connections_are_all_in_use_is_overloaded(shop: Shop) -> None:
    shop.desk.error = StoreOverloadedError("all 8 connections to PostgreSQL are in use")

    async with shop.client() as client:
        answer = await client.get("/api/v1/public")

    assert answer.status_code == 503
    assert answer.json()["code"] == "overloaded"
    assert answer.headers["Retry-After"] == "1"
    assert "PostgreSQL" not in answer.text


async def test_a_database_that_is_away_is_503(shop: Shop) -> None:
    shop.desk.error = StoreUnavailableError("/var/lib/secret.db: disk I/O error")

    async with shop.client() as client:
        answer = await client.get("/api/v1/public")

    assert answer.status_code == 503
    assert answer.json()["code"] == "database_unavailable"
    assert answer.headers["Retry-After"] == "2"
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("secret words"),
        ConstraintViolatedError("secret words"),
        KeyError("secret words"),
        Refusal("code_nobody_knows", "secret words"),
    ],
)
async def test_what_nobody_foresaw_is_logged_and_shows_nothing(shop: Shop, error) -> None:
    shop.desk.error = error

    with capture_logs() as lines:
        async with shop.client() as client:
            answer = await client.get("/api/v1/public")

    assert answer.status_code == 500
    assert answer.json() == {
        "type": "urn:orderkeep:problem:internal",
        "title": "The request failed",
        "status": 500,
        "detail": "The request failed for a reason of ours; the request id finds it in the logs.",
        "code": "internal",
        "request_id": "drawn-id",
    }
    assert [line["request_id"] for line in lines if line["log_level"] == "error"] == ["drawn-id"]


async def test_an_unknown_path_is_a_problem_document(client: httpx.AsyncClient) -> None:
    answers = [
        await client.get(path)
        for path in ("/nothing/at/all", "/nothing", "/api/v1", "/api/v1/nothing")
    ]

    assert [answer.status_code for answer in answers] == [404, 404, 404, 404]
    assert {answer.json()["code"] for answer in answers} == {"not_found"}
    assert {answer.headers["Content-Type"] for answer in answers} == {"application/problem+json"}


async def test_another_method_is_told_which_are_allowed(client: httpx.AsyncClient) -> None:
    answer = await client.delete("/api/v1/orders")

    assert answer.status_code == 405
    assert answer.json()["code"] == "method_not_allowed"
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"


async def test_options_tells_the_methods_to_anybody(client: httpx.AsyncClient) -> None:
    answer = await client.options("/api/v1/orders")

    assert answer.status_code == 204
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "query/limit"),
        ("limit=101", "query/limit"),
        ("limit=-1", "query/limit"),
        ("limit=ten", "query/limit"),
        ("limit=", "query/limit"),
        ("limit=1.5", "query/limit"),
        ("limit=1&limit=2", "query/limit"),
        ("user_id=a%20b", "query/user_id"),
        ("user_id=", "query/user_id"),
        ("other=%00", "query/"),
        ("limt=1", "query/limt"),
        ("tag=blue", "query/tag"),
        ("desk=x", "query/desk"),
        ("limit=1&queu=", "query/queu"),
    ],
)
async def test_a_parameter_outside_its_limits_is_named(
    shop: Shop, query: str, pointer: str
) -> None:
    async with shop.client() as client:
        answer = await client.get(f"/api/v1/orders?{query}", headers=shop.headers())

    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_request"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert shop.desk.calls == []


async def test_a_parameter_that_is_not_known_is_told_with_the_one_that_is_near(shop: Shop) -> None:
    async with shop.client() as client:
        near = await client.get("/api/v1/orders?limt=1", headers=shop.headers())
        none = await client.get("/api/v1/public?x=1&x=2")

    assert near.json()["errors"] == [
        {"pointer": "query/limt", "detail": "is not known; did you mean limit?"}
    ]
    assert none.status_code == 422
    assert none.json()["errors"] == [{"pointer": "query/x", "detail": "is not known"}]


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics", "/"])
async def test_probes_and_scrapers_may_add_to_an_address_what_they_like(
    shop: Shop, path: str
) -> None:
    async with shop.client() as client:
        answer = await client.get(f"{path}?at=1")

    assert answer.status_code == 200


async def test_every_wrong_parameter_is_named(shop: Shop) -> None:
    async with shop.client() as client:
        answer = await client.get(
            "/api/v1/orders?limit=0&user_id=%25", headers={**shop.headers(), "X-Tag": "a b"}
        )

    assert [error["pointer"] for error in answer.json()["errors"]] == [
        "query/limit",
        "query/user_id",
        "header/X-Tag",
    ]


async def test_parameters_within_their_limits_pass(shop: Shop) -> None:
    async with shop.client() as client:
        answer = await client.get(
            "/api/v1/orders?limit=100&user_id=ann",
            headers={**shop.headers(), "X-Tag": "blue"},
        )

    assert answer.status_code == 200
    assert shop.desk.calls == [(100, "ann", "blue")]


@pytest.mark.parametrize("name", ["a%00b", "a%20b", "%F0%9F%98%80", "x" * 65, "a%0Ab"])
async def test_a_path_that_names_nothing_possible_is_404(shop: Shop, name: str) -> None:
    async with shop.client() as client:
        answer = await client.get(f"/api/v1/orders/{name}", headers=shop.headers())

    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"
    assert shop.desk.calls == []


async def test_a_host_that_is_none_is_refused_as_a_request(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/public", headers={"Host": "a b"})

    assert json.loads(answer.content)["code"] == "invalid_request"
