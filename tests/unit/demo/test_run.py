"""Shoppers in a shop made of paper: what they do, count, repeat and find suspicious."""

import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from rich.console import Console

from orderkeep.demo.catalogue import CatalogueError
from orderkeep.demo.report import DemoProgressBar, summary_json, summary_tables
from orderkeep.demo.run import DemoOptions, DemoSummary, Progress, run_demo
from orderkeep.demo.shop_client import VisitCutShortError
from orderkeep.demo.shopper import STORY_WEIGHTS, KeyKind, Story
from orderkeep.demo.visits import AcknowledgedOrder
from tests.unit.demo.paper_shop import PaperShop, problem

# Below the end of each story's share of the numbers from 0 to 1.
STORY_DRAWN = {
    story: sum(weight for _, weight in STORY_WEIGHTS[:index]) / 100 + 0.005
    for index, (story, _) in enumerate(STORY_WEIGHTS)
}


class Dealt:
    """Draws the given story at every visit, keys of both kinds in turn, and no pause."""

    def __init__(self, *stories: Story) -> None:
        self._stories = stories
        self._bits = 0
        self._visit_index = 0
        self._numbers = self._deal()

    def random(self) -> float:
        return next(self._numbers)

    def getrandbits(self, k: int, /) -> int:
        self._bits += 1
        return self._bits % 2**k

    def _deal(self) -> Iterator[float]:
        while True:
            yield STORY_DRAWN[self._stories[self._visit_index % len(self._stories)]]
            yield self._visit_index % 2 / 2
            yield 0.0
            yield from [0.0] * 7
            self._visit_index += 1


class Ticks:
    """A clock that moves by a tick each time somebody looks."""

    def __init__(self, *, tick_s: float) -> None:
        self._tick_s = tick_s
        self._now = 0.0

    def __call__(self) -> float:
        self._now += self._tick_s
        return self._now


def token_of(user_id: str, scopes: tuple[str, ...]) -> str:
    return f"{user_id} {' '.join(scopes)}".strip()


async def run(
    shop: PaperShop,
    *stories: Story,
    shopper_count: int = 1,
    is_resilient: bool = False,
    patience_s: float = 30.0,
    clock: Callable[[], float] | None = None,
    on_acknowledged: Callable[[AcknowledgedOrder], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> DemoSummary:
    options = DemoOptions(
        url="http://shop.example",
        shopper_count=shopper_count,
        duration_s=1.0,
        is_resilient=is_resilient,
        patience_s=patience_s,
        on_acknowledged=on_acknowledged,
        on_progress=on_progress,
        transport=shop.transport,
    )
    return await run_demo(
        options, tokens=token_of, draw=Dealt(*stories), clock=clock or Ticks(tick_s=0.01)
    )


async def test_who_pays_ends_with_a_paid_order() -> None:
    shop = PaperShop()

    summary = await run(shop, Story.PAYS, shopper_count=3)

    assert summary.visits.keys() == {"pays"}
    assert summary.order_count == summary.visits["pays"] == len(shop.orders)
    assert summary.statuses == {"paid": len(shop.orders)}
    assert summary.answers["settle payment"] == {"202": len(shop.orders)}
    assert summary.latencies["payment to paid order"].count >= 1
    assert summary.surprises == ()


async def test_a_failed_payment_is_followed_by_one_that_succeeds() -> None:
    summary = await run(PaperShop(), Story.PAYS_AT_SECOND_TRY)

    assert summary.statuses == {"paid": summary.order_count}
    assert summary.answers["settle payment"] == {"202": 2 * summary.order_count}


async def test_who_cancels_or_walks_away_pays_nothing() -> None:
    summary = await run(PaperShop(), Story.CANCELS, Story.WALKS_AWAY, clock=Ticks(tick_s=0.02))

    assert summary.statuses.keys() == {"cancelled", "pending_payment"}
    assert "open payment" not in summary.answers


async def test_who_pays_late_pays_after_the_deadline() -> None:
    shop = PaperShop(payment_time="2024-01-01T10:00:00.05Z")

    summary = await run(shop, Story.PAYS_LATE, clock=Ticks(tick_s=0.02))

    assert summary.answers["settle payment"]["202"] >= 1
    assert summary.answers["look at order"]["200"] >= 1


async def test_nobody_waits_for_a_deadline_beyond_the_end_of_the_demo() -> None:
    shop = PaperShop(payment_time="2024-01-01T10:30:00Z")

    summary = await run(shop, Story.PAYS_LATE)

    assert summary.statuses.keys() == {"pending_payment"}
    assert "settle payment" not in summary.answers


async def test_the_same_order_sent_twice_is_one_order() -> None:
    shop = PaperShop()

    summary = await run(shop, Story.ORDERS_TWICE)

    assert summary.answers["order again"] == {"201": summary.order_count}
    assert summary.order_count == len(shop.orders)
    assert summary.surprises == ()


async def test_another_order_under_the_same_key_is_refused() -> None:
    summary = await run(PaperShop(), Story.CHANGES_ORDER_UNDER_KEY)

    assert summary.answers["order something else"] == {
        "idempotency_key_reused": summary.order_count
    }
    assert summary.surprises == ()


async def test_what_is_not_sold_or_not_there_is_refused() -> None:
    summary = await run(PaperShop(), Story.WANTS_UNKNOWN_SKU, Story.WANTS_TOO_MUCH)

    assert summary.answers["order"].keys() == {"unknown_sku", "out_of_stock"}
    assert summary.order_count == 0
    assert summary.statuses == {}


async def test_two_orders_for_one_key_are_a_surprise() -> None:
    summary = await run(PaperShop(is_forgetting_keys=True), Story.ORDERS_TWICE)

    assert summary.surprise_count == summary.order_count
    assert summary.surprises[0].startswith("one key made two orders, 01")


async def test_a_second_order_under_a_used_key_is_a_surprise() -> None:
    summary = await run(PaperShop(is_forgetting_keys=True), Story.CHANGES_ORDER_UNDER_KEY)

    assert summary.surprises[0] == "the key of token took a second, other order"


async def test_an_acknowledged_order_that_is_gone_is_a_surprise() -> None:
    shop = PaperShop(is_losing_orders=True)

    summary = await run(shop, Story.WALKS_AWAY)

    lost = min(shop.orders)
    assert summary.surprises[0] == f"the acknowledged order {lost} is gone"


async def test_an_order_for_what_nobody_sells_is_a_surprise() -> None:
    summary = await run(PaperShop(is_selling_everything=True), Story.WANTS_UNKNOWN_SKU)

    assert summary.surprises[0].startswith("wants_unknown_sku was answered the order 01")


async def test_a_broken_service_is_a_surprise() -> None:
    summary = await run(PaperShop(break_every=29), Story.WALKS_AWAY)

    assert summary.surprises[0].endswith("was answered internal")


async def test_every_acknowledged_order_is_told_with_its_key() -> None:
    shop = PaperShop()
    journal: list[AcknowledgedOrder] = []

    await run(shop, Story.PAYS, on_acknowledged=journal.append)

    assert {order.order_no for order in journal} == set(shop.orders)
    assert {order.key_kind for order in journal} == {KeyKind.TOKEN, KeyKind.HEADER}
    for order in journal:
        assert shop.keys[order.user_id, order.key][0] == order.order_no


async def test_goods_are_put_on_the_shelves_and_filled_up_again() -> None:
    shop = PaperShop()
    await run(shop, Story.WALKS_AWAY)
    assert shop.skus["demo-last-few"]["available"] == 20
    shop.skus["demo-last-few"]["available"] = 3
    shop.stock_movements.clear()

    await run(shop, Story.WALKS_AWAY)

    assert [(sku_id, quantity) for sku_id, quantity, _ in shop.stock_movements] == [
        ("demo-last-few", 17)
    ]
    assert shop.scopes_seen == {"", "operator"}


async def test_a_patient_shopper_repeats_what_got_no_answer() -> None:
    shop = PaperShop(lose_answer_every=5, fail_every=7)

    summary = await run(shop, Story.PAYS, is_resilient=True, clock=Ticks(tick_s=0.02))

    assert summary.order_count == len(shop.orders)
    assert sum(codes.get("connection_error", 0) for codes in summary.answers.values()) > 0
    assert summary.visits.keys() == {"pays"}
    assert summary.surprises == ()


async def test_anybody_else_goes_home_and_comes_back() -> None:
    shop = PaperShop(fail_every=17)

    summary = await run(shop, Story.WALKS_AWAY)

    assert summary.visits["cut_short"] >= 1
    assert summary.visits["walks_away"] >= 1


async def test_not_now_is_asked_again_by_everybody() -> None:
    shop = PaperShop(say_not_now_every=13)

    summary = await run(shop, Story.WALKS_AWAY)

    assert sum(codes.get("overloaded", 0) for codes in summary.answers.values()) >= 1
    assert "cut_short" not in summary.visits


async def test_patience_ends() -> None:
    shop = PaperShop(fail_every=1)

    with pytest.raises(VisitCutShortError, match="put sku: no answer"):
        await run(shop, Story.PAYS, is_resilient=True, patience_s=0.05)


async def test_a_service_that_takes_no_goods_is_told_of() -> None:
    def refuse(_request: httpx.Request) -> httpx.Response:
        return problem(403, "insufficient_scope")

    options = DemoOptions(url="http://shop.example", transport=httpx.MockTransport(refuse))

    with pytest.raises(CatalogueError, match=r"did not take the SKU demo-tea: insufficient_scope"):
        await run_demo(options, tokens=token_of, draw=Dealt(Story.PAYS), clock=Ticks(tick_s=0.01))


@pytest.mark.parametrize(
    ("shopper_count", "duration_s", "patience_s"),
    [(0, 1.0, 1.0), (1_001, 1.0, 1.0), (1, 0.0, 1.0), (1, 1.0, -1.0)],
)
def test_options_out_of_range_are_refused(
    shopper_count: int, duration_s: float, patience_s: float
) -> None:
    with pytest.raises(ValueError, match="must be"):
        DemoOptions(
            url="http://shop.example",
            shopper_count=shopper_count,
            duration_s=duration_s,
            patience_s=patience_s,
        )


async def test_the_summary_can_be_read_by_people_and_programs() -> None:
    summary = await run(PaperShop(is_forgetting_keys=True), Story.ORDERS_TWICE)
    console = Console(width=100)

    with console.capture() as shown:
        console.print(summary_tables(summary))

    text = shown.get()
    assert f"{summary.order_count} orders by 1 shoppers" in text
    assert "order again" in text
    assert "surprise: one key made two orders" in text
    assert summary_json(summary)["latencies"]["order"].keys() == {
        "count",
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "max_ms",
    }


async def test_progress_is_told_and_shown() -> None:
    told: list[Progress] = []
    console = Console(width=100, force_terminal=True)

    with console.capture() as shown, DemoProgressBar(console, duration_s=1.0) as show:

        def tell(progress: Progress) -> None:
            told.append(progress)
            show(progress)

        await run(PaperShop(), Story.PAYS, on_progress=tell)

    assert told[0].order_count == 0
    assert "shoppers are busy" in shown.get()


async def test_a_run_with_a_real_clock_ends_in_time() -> None:
    started = time.monotonic()

    summary = await run(PaperShop(), Story.PAYS, shopper_count=5, clock=time.monotonic)

    assert 1.0 <= summary.elapsed_s < 5.0
    assert time.monotonic() - started < 10.0
    assert summary.orders_per_s > 1
