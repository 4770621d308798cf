"""Live, ready, degraded, unavailable; and numbers that are fresh when they are read."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from orderkeep.database.transaction import StoreUnavailableError
from orderkeep.web.health import CheckFailedError, ReadinessCheck
from tests.unit.web.small_shop import Shop


async def fine() -> None:
    """Find nothing amiss."""


def failing(error: Exception) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        raise error

    return run


def check(name: str, run: Callable[[], Awaitable], *, is_required: bool) -> ReadinessCheck:
    return ReadinessCheck(name=name, is_required=is_required, run=run)


async def ready(shop: Shop) -> httpx.Response:
    async with shop.client() as client:
        return await client.get("/health/ready")


async def test_a_process_that_answers_lives(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health/live")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_all_in_order_is_ready(shop: Shop) -> None:
    shop.checks = [
        check("database", fine, is_required=True),
        check("broker", fine, is_required=False),
    ]

    answer = await ready(shop)

    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "checks": {"database": {"status": "ok"}, "broker": {"status": "ok"}},
    }


async def test_a_broker_that_is_away_is_degraded_and_served(shop: Shop) -> None:
    shop.checks = [
        check("database", fine, is_required=True),
        check("broker", failing(CheckFailedError("cannot be reached")), is_required=False),
    ]

    answer = await ready(shop)

    assert answer.status_code == 200
    assert answer.json() == {
        "status": "degraded",
        "checks": {
            "database": {"status": "ok"},
            "broker": {"status": "failed", "detail": "cannot be reached"},
        },
    }


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (CheckFailedError("the schema is older than this release"), "the schema is older"),
        (StoreUnavailableError("/secret/path"), "the database cannot serve now"),
        (RuntimeError("/secret/path"), "the check itself failed"),
    ],
)
async def test_without_what_is_required_nothing_is_served(
    shop: Shop, error: Exception, detail: str
) -> None:
    shop.checks = [check("database", failing(error), is_required=True)]

    answer = await ready(shop)

    assert answer.status_code == 503
    assert answer.json()["status"] == "unavailable"
    assert answer.json()["checks"]["database"]["detail"].startswith(detail)
    assert "secret" not in answer.text


async def test_a_check_that_does_not_answer_has_failed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orderkeep.web.health.CHECK_TIMEOUT_S", 0.01)
    shop.checks = [check("database", asyncio.Event().wait, is_required=True)]

    answer = await ready(shop)

    assert answer.status_code == 503
    assert answer.json()["checks"]["database"]["detail"] == "no answer in 0.01 s"


async def test_a_process_that_shuts_down_is_not_ready_and_lives(shop: Shop) -> None:
    async with shop.client() as client:
        shop.readiness.begin_shutdown()

        answers = [await client.get(path) for path in ("/health/ready", "/health/live")]

    assert [answer.status_code for answer in answers] == [503, 200]
    assert answers[0].json() == {
        "status": "unavailable",
        "checks": {"shutdown": {"status": "failed", "detail": "shutting down"}},
    }


async def test_numbers_are_brought_up_to_date_before_they_are_shown(shop: Shop) -> None:
    gauge = shop.gauge("orderkeep_overdue_orders")

    async def refresh() -> None:
        gauge.set(17)

    shop.refresh_metrics = refresh

    async with shop.client() as client:
        answer = await client.get("/metrics")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=1.0.0; charset=utf-8"
    assert "orderkeep_overdue_orders 17.0\n" in answer.text


async def test_numbers_are_shown_when_the_database_is_away(shop: Shop) -> None:
    shop.gauge("orderkeep_overdue_orders").set(3)
    shop.refresh_metrics = failing(StoreUnavailableError("away"))

    async with shop.client() as client:
        answer = await client.get("/metrics")

    assert answer.status_code == 200
    assert "orderkeep_overdue_orders 3.0\n" in answer.text


async def test_the_root_names_where_to_go_on(shop: Shop) -> None:
    async with shop.client() as client:
        answer = await client.get("/")
        paths = [answer.json()[name] for name in ("docs", "openapi", "health", "metrics")]
        statuses = [(await client.get(path)).status_code for path in paths]

    assert answer.status_code == 200
    assert answer.json()["service"] == "orderkeep"
    assert answer.json()["api"] == "/api/v1"
    assert statuses == [200] * 4
