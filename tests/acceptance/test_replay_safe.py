"""Whatever is delivered again, in whatever order, and replayed twice, the state stays as it is."""

import hashlib
import random  # noqa: TID251 (a seed of its own)
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.books import open_work, rows
from tests.acceptance.every_path import EveryPath, settings_for
from tests.acceptance.forked_run import ForkedShop, origin_of_runs
from tests.acceptance.webhook_receiver import listening

pytestmark = pytest.mark.slow

# All that orders, stock, carts, payments and refunds are; how messages travelled is not among it.
STATE = (
    "orders",
    "order_lines",
    "order_history",
    "order_requests",
    "order_payments",
    "order_opened_payments",
    "order_refunds",
    "payment_cases",
    "timed_out_orders",
    "stock",
    "stock_movements",
    "skus",
    "cart_items",
    "payments",
    "payment_orders",
    "payment_receipts",
    "refunds",
    "webhook_deliveries",
)

TIMES = 3
SEED = 20_240_101


def canonical(path: Path) -> dict[str, str]:
    """Return a hash of each table, whatever the order of its rows."""
    return {
        table: hashlib.sha256(
            "\n".join(sorted(repr(row) for row in rows(path, f"select * from {table}"))).encode()  # noqa: S608 (our own names)
        ).hexdigest()
        for table in STATE
    }


@pytest.fixture
def path(tmp_path: Path) -> Iterator[EveryPath]:
    """A shop in which everything has happened that can happen to orders."""
    with origin_of_runs() as origin, listening() as receiver:
        shop = ForkedShop(tmp_path, settings_for(receiver), origin=origin)
        with EveryPath(shop, receiver) as path:
            try:
                path.start()
                path.go()
                yield path
            finally:
                shop.stop()


def post(path: EveryPath, call: str, **body: object) -> Any:
    with path.shop.operator() as operator:
        answer = operator.post(f"/admin/{call}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def rest(path: EveryPath) -> None:
    path.until(lambda: not open_work(path.shop.database_path), "nothing is under way")


def test_every_message_again_and_again_and_all_dead_letters_twice_change_nothing(
    path: EveryPath,
) -> None:
    database = path.shop.database_path
    before = canonical(database)
    sent = [
        f"{service}-{id_}"
        for service in ("order", "cart", "payment")
        for (id_,) in rows(database, f"select id from {service}_outbox where state = 'sent'")  # noqa: S608
    ]
    draws = random.Random(SEED)  # noqa: S311 (a seed of its own)

    for turn in range(TIMES):
        shuffled = draws.sample(sent, len(sent))
        # One by one: those of one call would leave in their own order.
        for id_ in shuffled:
            (answer,) = post(path, "outbox/replay", ids=[id_], key=f"turn-{turn}")
            assert answer["result"] == "replayed"
    rest(path)
    for _ in range(2):
        (letter,) = post(path, "dead-letters/replay", filter={"all": True})
        assert letter["result"] == "replayed"
        path.until(
            lambda: rows(database, "select 1 from cart_dead_letters where state = 'open'"),
            "the poison is set aside again",
        )
    rest(path)

    assert len(sent) > 30
    assert canonical(database) == before
    path.check()
    told = rows(database, "select event from cart_dead_letter_history order by id")
    assert [event for (event,) in told] == ["set_aside", "replayed"] * 2 + ["set_aside"]
