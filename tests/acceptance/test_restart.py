"""What waited while nobody served is done right after the next start; nothing in hand is lost."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from tests.acceptance.books import contradictions, open_work, rows
from tests.acceptance.buyer import Buyer
from tests.acceptance.running import RunningShop, start_shop

pytestmark = pytest.mark.slow

# What a service that is about to leave may answer: ask again.
ASK_AGAIN = 503


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[RunningShop]:
    # A sweep as slow as a test's patience: what is closed here was closed by its message.
    with start_shop(tmp_path, order_timeout_s=2, sweep_interval_s=600, sweep_grace_s=600) as shop:
        shop.put_sku("tea", stock=10_000)
        yield shop


def wait_until_due(*deadlines: str) -> None:
    """Wait for the latest of the deadlines, while nobody serves."""
    latest = max(datetime.fromisoformat(deadline).timestamp() for deadline in deadlines)
    give_up_at = time.monotonic() + 60
    while time.time() <= latest:  # noqa: TID251 (the clock that SQLite reads, too)
        assert time.monotonic() < give_up_at
        threading.Event().wait(0.02)


@pytest.mark.parametrize("ends_by", ["kill", "stop"])
def test_orders_that_fell_due_while_nobody_served_are_closed_at_the_next_start(
    shop: RunningShop, ends_by: str
) -> None:
    with Buyer(shop, "ann") as ann:
        orders = [ann.order({"tea": 1}) for _ in range(5)]
    getattr(shop, ends_by)()
    wait_until_due(*(order["expires_at"] for order in orders))

    shop.restart()

    with Buyer(shop, "ann") as ann:
        later = ann.order({"tea": 1})
        closed = [ann.wait_for(order["order_no"], "closed") for order in orders]
        ann.wait_for(later["order_no"], "closed")
    causes = rows(
        shop.database_path,
        "select distinct cause, actor = 'sweep' from order_history where to_status = 'closed'",
    )
    assert causes == [("payment_timeout", 0)]
    assert all(order["expires_at"] < order["closed_at"] < later["expires_at"] for order in closed)
    assert {order["close_reason"] for order in closed} == {"payment_timeout"}
    shop.wait_until(lambda: not open_work(shop.database_path), "the shop rests")
    assert contradictions(shop.database_path) == {}
    assert shop.command("verify", "--quiesced").returncode == 0


async def test_a_shop_that_is_told_to_stop_under_load_finishes_what_it_has_begun(
    shop: RunningShop,
) -> None:
    answers: list[httpx.Response] = []
    tokens = [shop.token(f"buyer-{number}") for number in range(20)]

    async def buy(client: httpx.AsyncClient, number: int) -> None:
        """Order until nobody answers any more."""
        for count in range(10_000):
            try:
                answer = await client.post(
                    "/orders",
                    json={"items": [{"sku_id": "tea", "quantity": 1}]},
                    headers={
                        "Authorization": f"Bearer {tokens[number]}",
                        "Idempotency-Key": f"{number}-{count}",
                    },
                )
            except httpx.TransportError:
                return
            answers.append(answer)

    async with httpx.AsyncClient(
        base_url=f"{shop.url}/api/v1", timeout=60.0, trust_env=False
    ) as client:
        buyers = [asyncio.create_task(buy(client, number)) for number in range(20)]
        await asyncio.to_thread(shop.wait_until, lambda: len(answers) >= 100, "orders are made")
        started_s = time.monotonic()
        exit_code = await asyncio.to_thread(shop.stop)
        took_s = time.monotonic() - started_s
        await asyncio.gather(*buyers)

    assert exit_code == 0
    assert took_s < 25  # ORDERKEEP_SHUTDOWN_S
    refused = [answer for answer in answers if answer.status_code != 201]
    assert {answer.status_code for answer in refused} <= {ASK_AGAIN}
    assert all("Retry-After" in answer.headers for answer in refused)
    acknowledged = {answer.json()["order_no"] for answer in answers if answer.status_code == 201}
    shop.restart()
    made = {row[0] for row in rows(shop.database_path, "select order_no from orders")}
    # A connection may be closed between two requests, just as the next one leaves; but what was
    # begun was answered.
    assert made == acknowledged
    shop.wait_until(lambda: not open_work(shop.database_path), "the shop rests", within_s=60)
    assert contradictions(shop.database_path) == {}
    assert shop.command("verify", "--quiesced").returncode == 0
