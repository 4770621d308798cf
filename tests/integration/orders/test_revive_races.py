"""Late payments and buyers want the same stock, in many processes: it is given out once."""

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from orderkeep.database.transaction import Transaction
from orderkeep.orders.idempotency_key import KeyKind
from orderkeep.orders.order import Order
from orderkeep.orders.payment import LatePaymentPolicy
from orderkeep.orders.place_orders import place_orders
from orderkeep.orders.placing import PlacedOrder, PlaceOrder
from orderkeep.orders.pricing import WantedLine
from orderkeep.orders.store.requests import RequestKey
from orderkeep.refusal import Refusal
from tests.condition import eventually
from tests.conftest import opened_postgresql
from tests.integration.orders.shop import Shop, payment
from tests.integration.orders.test_several_processes import (
    all_of,
    deadlocks,
    opened_shops,
    waits_for_a_lock,
)

REVIVE = LatePaymentPolicy.REVIVE

ROUNDS = 12
CLOSED_COUNT = 12
BUYERS_PER_PROCESS = 6


async def test_buyers_and_late_payments_share_what_there_is(postgresql_url: str) -> None:
    """Each has an event loop and a pool of its own in a thread of its own, as processes have."""
    workers_count = 4
    async with opened_postgresql(postgresql_url) as database, Shop(database).open() as shop:
        before = deadlocks(shop)
        winners: Counter[str] = Counter()
        shop._numbers = count(1, workers_count + 1)
        await shop.fill(tea=0, pot=0)
        for turn in range(ROUNDS):
            for sku_id in ("tea", "pot"):
                missing = CLOSED_COUNT - shop.stock_of(sku_id)[0]
                await shop.catalogue.move_stock(
                    sku_id=sku_id,
                    quantity=missing,
                    reason="refill",
                    cause=f"olga {turn}-{sku_id}",
                    actor="olga",
                )
            closed = [
                await shop.order(f"late-{turn}-{n}", key="k", tea=1, pot=1)
                for n in range(CLOSED_COUNT)
            ]
            await shop.expire(*closed)

            barrier = threading.Barrier(workers_count)
            with ThreadPoolExecutor(workers_count) as pool:
                works = [
                    pool.submit(
                        _race_in_a_thread, postgresql_url, index, turn, closed[index::2], barrier
                    )
                    for index in range(workers_count)
                ]
                bought_count = sum([await asyncio.wrap_future(work) for work in works])

            revived_count = sum(shop.order_row(it.order_no)["status"] == "paid" for it in closed)
            winners.update(revived=revived_count, bought=bought_count)
            assert revived_count + bought_count <= CLOSED_COUNT
            assert shop.stock_of("tea")[0] == CLOSED_COUNT - revived_count - bought_count
        assert await shop.breaches() == []
        assert deadlocks(shop) == before

    # Either side has won, or the race was none.
    assert winners["revived"] > 0
    assert winners["bought"] > 0


def _race_in_a_thread(
    url: str, index: int, turn: int, closed: list[Order], barrier: threading.Barrier
) -> int:
    """Buy, or pay late, in a process's stead; return how many buyers were served."""

    async def race() -> int:
        async with opened_postgresql(url) as database, Shop(database).open() as shop:
            shop._numbers = count(1_000 * turn + index + 1, 5)
            shop._refund_numbers = count(10_000 * turn + index, 5)
            shop._message_ids = count(1_000_000 * (turn + 1) + index, 5)
            barrier.wait()
            if index < 2:
                batch = [payment(order, f"T{index}-{order.order_no}") for order in closed]
                await all_of(*(shop.pay(*batch[n::3], policy=REVIVE) for n in range(3)))
                return 0
            answers: list[object] = []
            for n in range(BUYERS_PER_PROCESS):
                # One after the other: a batch of all of them would take everything at once.
                answers += await all_of(
                    shop.order(f"buyer-{turn}-{index}-{n}", key="k", pot=1, tea=1)
                )
            assert all(
                answer.code == "out_of_stock" for answer in answers if isinstance(answer, Refusal)
            )
            return sum(isinstance(answer, Order) for answer in answers)

    return asyncio.run(race())


async def test_one_late_payment_that_every_process_hears_of_revives_once(
    postgresql_url: str,
) -> None:
    async with opened_shops(postgresql_url, 4) as shops:
        await shops[0].fill(tea=4)
        order = await shops[0].order(tea=2)
        await shops[0].expire(order)

        await all_of(*(shop.pay(payment(order, "T1"), policy=REVIVE) for shop in shops))

        assert shops[0].order_row(order.order_no)["version"] == 3
        assert shops[0].stock_of("tea") == (2, 0, 2)
        assert shops[0].count_rows("order_payments") == 1
        assert await shops[0].breaches() == []


@pytest.mark.parametrize("turn", range(5))
async def test_late_payments_of_the_last_piece_revive_one_order_and_the_others_go_back(
    postgresql_url: str, turn: int
) -> None:
    async with opened_shops(postgresql_url, 4) as shops:
        await shops[0].fill(tea=4)
        orders = [await shops[0].order(f"u{n}", tea=1) for n in range(4)]
        await shops[0].expire(*orders)
        await shops[0].order("bob", tea=3)

        await all_of(
            *(
                shop.pay(payment(order, f"T{turn}{n}"), policy=REVIVE)
                for n, (shop, order) in enumerate(zip(shops, orders, strict=True))
            )
        )

        statuses = Counter(shops[0].order_row(it.order_no)["status"] for it in orders)
        assert statuses == {"paid": 1, "closed": 3}
        assert shops[0].stock_of("tea") == (0, 3, 1)
        assert shops[0].count_rows("order_refunds") == 3
        assert await shops[0].breaches() == []


async def test_a_late_payment_waits_for_a_buyer_who_is_taking_the_last_piece(
    postgresql_url: str,
) -> None:
    async with opened_shops(postgresql_url, 2) as (shop, other):
        await shop.fill(tea=1)
        order = await shop.order("ann", tea=1)
        await shop.expire(order)
        has_taken, may_commit = asyncio.Event(), asyncio.Event()

        async def buy(transaction: Transaction) -> None:
            (answer,) = await place_orders(
                transaction,
                [_wish("bob", tea=1)],
                outbox=shop.outbox,
                rules=shop.rules,
                draw_number=lambda: 77,
            )
            assert isinstance(answer, PlacedOrder)
            has_taken.set()
            await may_commit.wait()

        buying = asyncio.create_task(shop.database.transact(buy))
        await has_taken.wait()
        paying = asyncio.create_task(other.pay(payment(order), policy=REVIVE))
        await eventually(lambda: waits_for_a_lock(shop))
        may_commit.set()
        await all_of(buying, paying)

        assert shop.order_row(order.order_no)["status"] == "closed"
        assert shop.stock_of("tea") == (0, 1, 0)
        assert shop.count_rows("order_refunds") == 1
        assert await shop.breaches() == []


def _wish(user_id: str, **wanted: int) -> PlaceOrder:
    return PlaceOrder(
        key=RequestKey(user_id, KeyKind.HEADER, "k"),
        body_hash="",
        token_issued_at=None,
        wanted=tuple(WantedLine(sku_id=it, quantity=count_) for it, count_ in wanted.items()),
        receiver=None,
        buyer_remark=None,
        expected_pay_amount_minor=None,
    )
