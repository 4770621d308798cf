"""A crowd wants what somebody holds: it is told to come again, and nobody else suffers."""

import asyncio
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import asyncpg
import httpx
import pytest

from bench.open_load import OpenJob, can_be_compiled, run_open_load
from tests.acceptance.buyer import Buyer
from tests.acceptance.fleet import Fleet, Member, fleet_settings
from tests.acceptance.running import RunningShop
from tests.servers.availability import (
    fresh_vhost,
    new_database,
    postgresql_server,
    rabbitmq_server,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CROWD_COUNT = 12


@contextmanager
def held_stock(url: str, sku_id: str) -> Iterator[None]:
    """Hold the SKU's row of stock in a transaction of our own, as a hung process would."""
    with asyncio.Runner() as runner:

        async def hold() -> asyncpg.Connection:
            connection = await asyncpg.connect(url)
            await connection.execute("BEGIN")
            await connection.fetch("SELECT * FROM stock WHERE sku_id = $1 FOR UPDATE", sku_id)
            return connection

        connection = runner.run(hold())
        try:
            yield
        finally:
            runner.run(connection.close())


class Crowd:
    """Buyers who ask for one SKU again and again, until the context ends.

    Attributes:
        answers: How often each status and code was answered.
        retry_after: What refusals as `overloaded` said of when to come again.
    """

    def __init__(self, shop: RunningShop, sku_id: str) -> None:
        self.answers: Counter[tuple[int, str]] = Counter()
        self.retry_after: set[str | None] = set()
        self._shop = shop
        self._sku_id = sku_id
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(f"crowd-{number}",))
            for number in range(CROWD_COUNT)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, user_id: str) -> None:
        body = {"items": [{"sku_id": self._sku_id, "quantity": 1}]}
        with self._shop.client(user_id) as client:
            while not self._stop.is_set():
                key = {"Idempotency-Key": f"{user_id}-one-order"}
                self._note(client.post("/orders", json=body, headers=key))

    def _note(self, answer: httpx.Response) -> None:
        code = answer.json().get("code", "")
        self.answers[answer.status_code, code] += 1
        if code == "overloaded":
            self.retry_after.add(answer.headers.get("Retry-After"))


def test_cancels_and_payments_go_on_while_new_orders_are_refused_and_then_all_is_as_before(
    tmp_path: Path,
) -> None:
    with (
        new_database(postgresql_server()) as database_url,
        fresh_vhost(rabbitmq_server()) as broker_url,
    ):
        settings = fleet_settings(
            database_url=database_url,
            broker_urls=[broker_url],
            intake_batch_size=2,
            intake_queue_size=2,
        )
        with Fleet(tmp_path, settings) as fleet:
            shop = fleet.start_serve()
            fleet.start_work()
            shop.put_sku("tea", stock=100)
            shop.put_sku("pot", stock=100)
            with Buyer(shop, "ann") as ann:
                paid, cancelled = (ann.order({"pot": 1})["order_no"] for _ in range(2))
                with held_stock(database_url, "tea"), Crowd(shop, "tea") as crowd:
                    shop.wait_until(
                        lambda: crowd.answers[503, "overloaded"] >= 20, "orders are refused"
                    )
                    assert ann.cancel(cancelled)["status"] == "cancelled"
                    ann.settle(ann.open_payment(paid)["payment_no"])
                    ann.wait_for(paid, "paid")
                    assert {status for status, _ in crowd.answers} == {503}
                with Crowd(shop, "tea") as later:
                    shop.wait_until(
                        lambda: later.answers[201, ""] >= 3 * CROWD_COUNT, "orders are placed"
                    )
            verified = shop.command("verify")

    assert crowd.retry_after == {"1"}
    assert verified.returncode == 0, verified.stdout


ORDERS_IN_HAND_MAX = 512

IN_HAND = re.compile(r"^orderkeep_http_requests_in_hand (\d+)", re.MULTILINE)
REFUSED = re.compile(r'^orderkeep_http_answers_total\{status="503"\} (\d+)', re.MULTILINE)


def flood_of(shop: RunningShop, *, sku_id: str) -> OpenJob:
    """Return a few seconds of orders at a rate that heeds no answer, from strangers."""
    return {
        "host": "127.0.0.1",
        "port": shop.port,
        "requests_per_s": 400.0,
        "duration_s": 4.0,
        "connection_count_max": 1500,
        "key_prefix": "flood",
        "tokens": [shop.token(f"stranger-{number}") for number in range(16)],
        "bodies": [json.dumps({"items": [{"sku_id": sku_id, "quantity": 1}]})],
    }


def number_in(shop: Member, pattern: re.Pattern[str]) -> int:
    """Return a number that the process shows, 0 if it shows none."""
    found = pattern.search(shop.metrics())
    return int(found[1]) if found else 0


def test_a_flood_is_refused_beyond_a_bound_and_those_who_came_before_are_served(
    tmp_path: Path,
) -> None:
    if not can_be_compiled():
        pytest.skip("the generator of the flood is not compiled here: no C compiler, or no Linux")
    with (
        new_database(postgresql_server()) as database_url,
        fresh_vhost(rabbitmq_server()) as broker_url,
        Fleet(
            tmp_path, fleet_settings(database_url=database_url, broker_urls=[broker_url])
        ) as fleet,
        ThreadPoolExecutor(1) as background,
    ):
        shop = fleet.start_serve()
        fleet.start_work()
        shop.put_sku("tea", stock=100_000)
        shop.put_sku("pot", stock=100)
        with Buyer(shop, "ann") as ann:
            paid, cancelled = (ann.order({"pot": 1})["order_no"] for _ in range(2))
            payment_no = ann.open_payment(paid)["payment_no"]
            with held_stock(database_url, "tea"):
                flood = background.submit(run_open_load, flood_of(shop, sku_id="tea"))
                shop.wait_until(lambda: number_in(shop, REFUSED) >= 50, "many are refused")
                in_hand_counts = [number_in(shop, IN_HAND)]
                assert ann.cancel(cancelled)["status"] == "cancelled"
                ann.settle(payment_no)
                ann.wait_for(paid, "paid")
                in_hand_counts.append(number_in(shop, IN_HAND))
            seconds = flood.result()
            later = ann.order({"tea": 1})
            assert ann.see(later["order_no"])["status"] == "pending_payment"
        verified = shop.command("verify")

    answers = Counter[str]()
    for second in seconds:
        answers.update(second["answers"])
    # A scrape, and one of the buyer's own requests, may be in hand as well.
    assert max(in_hand_counts) <= ORDERS_IN_HAND_MAX + 2
    assert answers.keys() <= {"201", "503"}
    assert answers["503"] >= 50
    assert sum(second["without_retry_after"] for second in seconds) == 0
    assert verified.returncode == 0, verified.stdout
