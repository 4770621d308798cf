"""Whatever is delivered again, in whatever order, and replayed twice, the state stays as it is."""

import hashlib
import random  # noqa: TID251 (a seed of its own)
import re
from collections import Counter
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

SERVICES = ("order", "cart", "payment")

COPIES_LEFT = (
    "select count(*) from {service}_outbox where retry_key like 'replay %' and state = 'sent'"
)
OPEN_LETTERS = " union all ".join(
    f"select message_id from {service}_dead_letters where state = 'open'"  # noqa: S608
    for service in SERVICES
)

_SETTLED = re.compile(
    r'^orderkeep_messages_total\{outcome="(\w+)",queue="([^"]+)"\} (\S+)$', re.MULTILINE
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


def arrivals(path: EveryPath) -> dict[tuple[str, str], int]:
    """Return how many messages were settled since the shop's start, by queue and outcome."""
    with path.shop.client() as client:
        metrics = client.get(str(client.base_url).removesuffix("/api/v1/") + "/metrics").text
    return {
        (queue, outcome): round(float(count)) for outcome, queue, count in _SETTLED.findall(metrics)
    }


def copies_awaited(rows_sent: Counter[str]) -> Counter[str]:
    """Return by queue how many copies arrive if every row that was sent is sent again."""
    routes = {"order.events": ("order.outbox", "payment.order.events")}
    awaited: Counter[str] = Counter()
    for route, count in rows_sent.items():
        for queue in routes.get(route, (route,)):
            awaited[queue] += TIMES * count
    return awaited


def replay_sent(path: EveryPath) -> Counter[str]:
    """Send every event again and again, in any order; return the routes of those sent before."""
    database = path.shop.database_path
    sent = [
        (f"{service}-{id_}", route)
        for service in SERVICES
        for id_, route in rows(
            database,
            f"select id, route from {service}_outbox where state = 'sent'",  # noqa: S608
        )
    ]
    draws = random.Random(SEED)  # noqa: S311 (a seed of its own)
    for turn in range(TIMES):
        # One by one: those of one call would leave in their own order.
        for id_, _route in draws.sample(sent, len(sent)):
            # By force: among them are copies, of which nobody can say how old the message is.
            (answer,) = post(path, "outbox/replay", ids=[id_], key=f"turn-{turn}", force=True)
            assert answer["result"] == "replayed"
    rest(path)
    return Counter(route for _id, route in sent)


def replay_letters(path: EveryPath) -> None:
    """Replay all dead letters, and wait until each of them is set aside again."""
    letters = post(path, "dead-letters/replay", filter={"all": True})
    assert [letter["result"] for letter in letters] == ["replayed"] * len(path.set_aside)
    path.until(
        lambda: len(rows(path.shop.database_path, OPEN_LETTERS)) == len(path.set_aside),
        "they are set aside again",
    )


def test_every_message_again_and_again_and_all_dead_letters_twice_change_nothing(
    path: EveryPath,
) -> None:
    database = path.shop.database_path
    path.contradict_refund()
    before = canonical(database)
    arrived_before = arrivals(path)

    routes = replay_sent(path)
    arrived = arrivals(path)
    for _ in range(2):
        replay_letters(path)
    rest(path)

    assert sum(routes.values()) > 30
    assert set(routes) >= {"order.events", "order.timeout.queue", "payment.success.notify"}
    # Each copy travelled: it left, and its consumer knew it, or set it aside once more.
    left = sum(rows(database, COPIES_LEFT.format(service=each))[0][0] for each in SERVICES)
    assert left == TIMES * sum(routes.values())
    come: Counter[str] = Counter()
    for (queue, outcome), count in arrived.items():
        news = count - arrived_before.get((queue, outcome), 0)
        assert not news or outcome in {"duplicate", "set_aside"}, (queue, outcome, news)
        come[queue] += news
    assert come == copies_awaited(routes)
    assert canonical(database) == before
    path.check()
    for service in ("cart", "order"):
        told = rows(database, f"select event from {service}_dead_letter_history order by id")  # noqa: S608
        assert [event for (event,) in told] == ["set_aside", "replayed"] * 2 + ["set_aside"]
