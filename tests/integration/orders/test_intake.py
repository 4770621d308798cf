"""The intake: many requests, one commit, and each its own answer."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import pytest

from orderkeep.database.transaction import (
    ConstraintViolatedError,
    Database,
    StoreBusyError,
    StoreUnavailableError,
)
from orderkeep.orders import intake as intake_module
from orderkeep.orders.intake import Intake
from orderkeep.orders.placing import Answer, PlacedOrder, PlaceOrder
from orderkeep.orders.store.requests import RequestKey
from orderkeep.refusal import Refusal
from tests.integration.orders.shop import PATIENCE_S, CountingDatabase, Shop, request, until


@pytest.fixture
def counted(database: Database) -> CountingDatabase:
    return CountingDatabase(database)


@pytest.fixture
def closed_shop(database: Database, counted: CountingDatabase) -> Shop:
    """A shop whose intake does not run yet, with 10 teas."""
    return Shop(database, served=counted, batch_size_max=64, waiting_count_max=200)


def _send(shop: Shop, *quantities: int) -> list[asyncio.Task[PlacedOrder]]:
    """Let one buyer for each quantity ask for so much tea."""
    return [
        asyncio.create_task(shop.desk.place(request(("tea", quantity), user_id=f"buyer-{n}")))
        for n, quantity in enumerate(quantities)
    ]


async def test_requests_that_wait_together_are_decided_in_one_commit(
    closed_shop: Shop, counted: CountingDatabase
) -> None:
    await closed_shop.fill(tea=100)
    counted.transactions_count = 0
    buyers = _send(closed_shop, *[1] * 17)
    await until(lambda: len(closed_shop.desk.intake._waiting) == 17)

    async with closed_shop.open():
        placed = await asyncio.gather(*buyers)

    assert counted.transactions_count == 1
    assert len({answer.order.order_no for answer in placed}) == 17


async def test_a_crowd_is_shared_out_among_the_batches_that_may_be_under_way(
    closed_shop: Shop, counted: CountingDatabase
) -> None:
    await closed_shop.fill(tea=100)
    counted.transactions_count = 0
    buyers = _send(closed_shop, *[1] * 51)
    await until(lambda: len(closed_shop.desk.intake._waiting) == 51)

    async with closed_shop.open():
        await asyncio.gather(*buyers)

    sizes = closed_shop.rows("SELECT count(*) AS size FROM orders GROUP BY created_at ORDER BY 1")
    assert [row["size"] for row in sizes] == [25, 26]
    assert counted.transactions_count == 2


async def test_a_batch_has_a_largest_size(closed_shop: Shop, counted: CountingDatabase) -> None:
    await closed_shop.fill(tea=1000)
    counted.transactions_count = 0
    counted.may_begin.clear()
    buyers = _send(closed_shop, *[1] * 200)
    await until(lambda: len(closed_shop.desk.intake._waiting) == 200)

    async with closed_shop.open():
        await until(lambda: counted.transactions_count == 2)
        assert len(closed_shop.desk.intake._waiting) == 200 - 2 * 64
        counted.may_begin.set()
        await asyncio.gather(*buyers)


async def test_what_arrives_while_a_batch_commits_goes_into_the_next(
    closed_shop: Shop, counted: CountingDatabase
) -> None:
    await closed_shop.fill(tea=100)
    counted.transactions_count = 0
    counted.may_begin.clear()
    async with closed_shop.open():
        first = _send(closed_shop, 1)
        await until(lambda: counted.transactions_count == 1)
        later = _send(closed_shop, *[1] * 10)
        await until(lambda: len(closed_shop.desk.intake._waiting) == 10)

        counted.may_begin.set()
        await asyncio.gather(*first, *later)

    assert counted.transactions_count == 2


async def test_a_request_alone_is_placed_at_once(
    closed_shop: Shop, counted: CountingDatabase
) -> None:
    await closed_shop.fill(tea=1)
    counted.transactions_count = 0

    async with closed_shop.open():
        await closed_shop.order(tea=1)

    assert counted.transactions_count == 1


async def test_one_request_too_many_is_refused_at_once(closed_shop: Shop) -> None:
    await closed_shop.fill(tea=400)
    buyers = _send(closed_shop, *[1] * 200)
    await until(lambda: len(closed_shop.desk.intake._waiting) == 200)

    with pytest.raises(Refusal, match="overloaded"):
        await closed_shop.order(tea=1)

    async with closed_shop.open():
        assert len(await asyncio.gather(*buyers)) == 200
        await closed_shop.order(tea=1)


async def test_a_client_that_hangs_up_does_not_cancel_its_batch(
    closed_shop: Shop, counted: CountingDatabase
) -> None:
    await closed_shop.fill(tea=10)
    counted.may_begin.clear()
    async with closed_shop.open():
        hasty, patient = _send(closed_shop, 1, 2)
        await until(lambda: counted.transactions_count == 2)

        hasty.cancel()
        counted.may_begin.set()
        placed = await patient

    assert hasty.cancelled()
    assert placed.order.lines[0].quantity == 2
    assert closed_shop.stock_of("tea") == (7, 3, 0)
    assert await closed_shop.breaches() == []


async def test_a_database_that_is_away_is_told_to_every_request_of_the_batch(
    closed_shop: Shop, counted: CountingDatabase
) -> None:
    await closed_shop.fill(tea=10)
    counted.errors = [StoreUnavailableError("away")]
    counted.transactions_count = 0
    buyers = _send(closed_shop, 1, 2, 3)
    await until(lambda: len(closed_shop.desk.intake._waiting) == 3)

    async with closed_shop.open():
        answers = await asyncio.gather(*buyers, return_exceptions=True)

        assert [type(answer) for answer in answers] == [StoreUnavailableError] * 3
        assert counted.transactions_count == 1
        assert (await closed_shop.order(tea=1)).status == "pending_payment"


async def test_a_batch_that_fails_is_tried_again_one_by_one(
    closed_shop: Shop, counted: CountingDatabase
) -> None:
    await closed_shop.fill(tea=10)
    counted.errors = [
        ConstraintViolatedError("the batch"),
        None,
        ConstraintViolatedError("the second request"),
    ]
    buyers = _send(closed_shop, 1, 2, 3)
    await until(lambda: len(closed_shop.desk.intake._waiting) == 3)

    async with closed_shop.open():
        first, second, third = await asyncio.gather(*buyers, return_exceptions=True)

    assert isinstance(first, PlacedOrder)
    assert isinstance(second, ConstraintViolatedError)
    assert isinstance(third, PlacedOrder)
    assert closed_shop.stock_of("tea") == (6, 4, 0)
    assert await closed_shop.breaches() == []


async def test_a_request_that_breaks_a_rule_of_the_schema_fails_alone(closed_shop: Shop) -> None:
    await closed_shop.fill(tea=10)
    closed_shop.sql.poison("order_lines", on="INSERT", when="NEW.quantity = 2")
    buyers = _send(closed_shop, 1, 2, 3)
    await until(lambda: len(closed_shop.desk.intake._waiting) == 3)

    async with closed_shop.open():
        first, second, third = await asyncio.gather(*buyers, return_exceptions=True)

    assert isinstance(first, PlacedOrder)
    assert isinstance(second, ConstraintViolatedError)
    assert isinstance(third, PlacedOrder)
    assert closed_shop.count_rows("order_requests") == 2
    assert await closed_shop.breaches() == []


async def test_who_waits_when_the_service_stops_is_still_answered(closed_shop: Shop) -> None:
    await closed_shop.fill(tea=200)
    buyers = _send(closed_shop, *[1] * 100)
    await until(lambda: len(closed_shop.desk.intake._waiting) == 100)
    stop = asyncio.Event()
    stop.set()

    await closed_shop.desk.intake.run(stop)

    assert len(await asyncio.gather(*buyers)) == 100


async def test_who_comes_after_the_service_stopped_is_told_so(closed_shop: Shop) -> None:
    await closed_shop.fill(tea=10)
    async with closed_shop.open():
        pass

    with pytest.raises(StoreUnavailableError):
        await closed_shop.order(tea=1)


async def test_an_intake_that_is_started_again_serves_again(closed_shop: Shop) -> None:
    await closed_shop.fill(tea=10)
    async with closed_shop.open():
        pass

    async with closed_shop.open():
        assert (await closed_shop.order(tea=1)).status == "pending_payment"


async def test_who_is_in_a_batch_that_is_cut_off_is_told_so(
    closed_shop: Shop, counted: CountingDatabase
) -> None:
    await closed_shop.fill(tea=10)
    counted.may_begin.clear()
    running = asyncio.create_task(closed_shop.desk.intake.run(asyncio.Event()))
    buyers = _send(closed_shop, 1, 2)
    await until(lambda: counted.transactions_count == 2)

    running.cancel()
    async with asyncio.timeout(PATIENCE_S):
        answers = await asyncio.gather(*buyers, return_exceptions=True)

    assert [type(answer) for answer in answers] == [StoreUnavailableError] * 2
    assert running.cancelled()


async def test_too_few_answers_fail_a_request_and_not_the_intake() -> None:
    async def answer_nothing(_requests: Sequence[PlaceOrder]) -> Sequence[Answer]:
        return []

    async def find_nothing(_sku_ids: Collection[str]) -> Collection[str]:
        return ()

    intake = Intake(
        answer_nothing,
        find_held=find_nothing,
        batch_size_max=1,
        waiting_count_max=1,
        batches_under_way_max=1,
    )
    running = asyncio.create_task(intake.run(asyncio.Event()))
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ValueError, match="shorter"):
            await intake.place(_any_request())

    assert not running.done()
    running.cancel()


class _Placing:
    """Batches that are placed once somebody says so, each refused in the end."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.may_end: list[asyncio.Future[None]] = []
        self.at_once_count_max = 0

    async def place(self, requests: Sequence[PlaceOrder]) -> Sequence[Answer]:
        self.begun.append(len(requests))
        self.may_end.append(asyncio.get_running_loop().create_future())
        under_way = sum(not each.done() for each in self.may_end)
        self.at_once_count_max = max(self.at_once_count_max, under_way)
        await self.may_end[-1]
        return [Refusal("out_of_stock", "No.")] * len(requests)

    async def find_held(self, sku_ids: Collection[str]) -> Collection[str]:
        return sku_ids

    def end_all(self) -> None:
        for may_end in self.may_end:
            if not may_end.done():
                may_end.set_result(None)


def _intake_of(placing: _Placing, *, batch_size_max: int = 2) -> Intake:
    return Intake(
        placing.place,
        find_held=placing.find_held,
        batch_size_max=batch_size_max,
        waiting_count_max=100,
        batches_under_way_max=2,
    )


@asynccontextmanager
async def _running(placing: _Placing) -> AsyncIterator[Intake]:
    """Run an intake of batches of up to a hundred."""
    intake = _intake_of(placing, batch_size_max=100)
    stop = asyncio.Event()
    running = asyncio.create_task(intake.run(stop))
    await until(lambda: not intake._is_closed)
    yield intake
    stop.set()
    await running


def _ask(intake: Intake, count: int) -> list[asyncio.Task[Answer]]:
    return [asyncio.create_task(intake.place(_any_request(f"k{n}"))) for n in range(count)]


async def _gathered(intake: Intake, placing: _Placing) -> list[asyncio.Task[Answer]]:
    """Let seven ask; two batches of two are under way then, and three requests wait."""
    asking = [asyncio.create_task(intake.place(_any_request(f"k{n}"))) for n in range(7)]
    await until(lambda: placing.begun == [2, 2] and len(intake._waiting) == 3)
    return asking


async def test_while_two_batches_are_under_way_no_third_begins() -> None:
    placing = _Placing()
    intake = _intake_of(placing)
    stop = asyncio.Event()
    running = asyncio.create_task(intake.run(stop))
    asking = await _gathered(intake, placing)

    # The later of the two may well be the first to end.
    placing.may_end[1].set_result(None)
    await until(lambda: placing.begun == [2, 2, 2])
    assert [one.done() for one in asking] == [False, False, True, True, False, False, False]
    stop.set()
    for number in (0, 2):
        placing.may_end[number].set_result(None)
    await until(lambda: placing.begun == [2, 2, 2, 1])
    placing.may_end[3].set_result(None)

    async with asyncio.timeout(PATIENCE_S):
        answers = await asyncio.gather(*asking)
        await running
    assert [type(answer) for answer in answers] == [Refusal] * 7
    assert placing.at_once_count_max == 2


async def test_beside_a_large_batch_none_begins_until_half_as_many_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake_module, "_YOUNG_S", 3_600.0)
    placing = _Placing()
    async with _running(placing) as intake:
        asking = _ask(intake, 17)
        await until(lambda: placing.begun == [17])

        asking += _ask(intake, 8)
        await until(lambda: len(intake._waiting) == 8)
        assert placing.begun == [17]
        asking += _ask(intake, 1)
        await until(lambda: placing.begun == [17, 9])

        placing.end_all()
        assert await _answers(asking) == [Refusal] * 26


@pytest.mark.parametrize(
    ("under_way_count", "young_s"),
    [pytest.param(16, 0.1, id="one that hangs"), pytest.param(15, 3_600.0, id="a small one")],
)
async def test_for_the_sake_of_some_batches_nobody_gathers(
    under_way_count: int, young_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "_YOUNG_S", young_s)
    placing = _Placing()
    async with _running(placing) as intake:
        asking = _ask(intake, under_way_count)
        await until(lambda: placing.begun == [under_way_count])

        asking += _ask(intake, 1)
        await until(lambda: placing.begun == [under_way_count, 1])

        placing.end_all()
        assert await _answers(asking) == [Refusal] * (under_way_count + 1)


async def test_of_a_crowd_that_comes_back_to_one_batch_the_next_takes_its_share() -> None:
    placing = _Placing()
    async with _running(placing) as intake:
        asking = _ask(intake, 1)
        await until(lambda: placing.begun == [1])

        asking += _ask(intake, 99)
        await until(lambda: placing.begun == [1, 50])
        placing.may_end[0].set_result(None)
        await until(lambda: placing.begun == [1, 50, 49])

        placing.end_all()
        assert await _answers(asking) == [Refusal] * 100


async def test_who_is_in_any_batch_or_waits_is_told_when_all_is_cut_off() -> None:
    placing = _Placing()
    intake = _intake_of(placing)
    running = asyncio.create_task(intake.run(asyncio.Event()))
    asking = await _gathered(intake, placing)

    running.cancel()

    assert await _answers(asking) == [StoreUnavailableError] * 7
    assert running.cancelled()


async def test_who_is_in_a_batch_that_is_cut_off_before_it_begins_is_told_too() -> None:
    intake = _intake_of(_Placing())
    running = asyncio.create_task(intake.run(asyncio.Event()))
    asking = [asyncio.create_task(intake.place(_any_request(f"k{n}"))) for n in range(7)]
    # `until` would pause for so long that they begin.
    while len(intake._waiting) != 3:
        await asyncio.sleep(0)

    for task in asyncio.all_tasks() - {asyncio.current_task(), *asking}:
        task.cancel()

    assert await _answers(asking) == [StoreUnavailableError] * 7
    assert await asyncio.gather(running, return_exceptions=True)


async def test_a_request_that_comes_while_the_last_batch_ends_is_decided() -> None:
    placing = _Placing()
    intake = _intake_of(placing)
    stop = asyncio.Event()
    running = asyncio.create_task(intake.run(stop))
    first = asyncio.create_task(intake.place(_any_request("first")))
    await until(lambda: placing.begun == [1])
    stop.set()
    late = asyncio.create_task(intake.place(_any_request("late")))
    await until(lambda: placing.begun == [1, 1])

    for may_end in placing.may_end:
        may_end.set_result(None)

    assert await _answers([first, late]) == [Refusal] * 2
    async with asyncio.timeout(PATIENCE_S):
        await running


async def test_what_a_batch_raises_ends_the_intake_at_once() -> None:
    placing = _Placing()
    intake = _intake_of(placing)

    async def fail(_sku_ids: Collection[str]) -> Collection[str]:
        message = "a bug"
        raise LookupError(message)

    intake._find_held = fail
    running = asyncio.create_task(intake.run(asyncio.Event()))
    asking = [asyncio.create_task(intake.place(_any_request()))]
    await until(lambda: placing.begun == [1])

    placing.may_end[0].set_exception(StoreBusyError("somebody holds it"))

    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(LookupError):
            await running
    assert await _answers(asking) == [StoreUnavailableError]


async def test_a_batch_that_waits_too_long_for_another_is_run_again_behind_it() -> None:
    placing = _Placing()
    intake = _intake_of(placing)
    running = asyncio.create_task(intake.run(asyncio.Event()))
    asking = await _gathered(intake, placing)
    for waiting in asking[4:]:
        waiting.cancel()  # or a third batch would begin
    intake._waiting.clear()

    placing.may_end[1].set_exception(StoreBusyError("the first holds it"))
    await until(placing.may_end[1].done)
    assert placing.begun == [2, 2]
    placing.may_end[0].set_result(None)
    await until(lambda: placing.begun == [2, 2, 2])
    placing.may_end[2].set_result(None)

    assert await _answers(asking[:4]) == [Refusal] * 4
    running.cancel()


async def test_two_batches_that_want_one_sku_both_sell_what_there_is(
    database: Database,
) -> None:
    shop = Shop(database, batch_size_max=5, waiting_count_max=100)
    await shop.fill(tea=30)
    buyers = _send(shop, *[1] * 50)

    async with shop.open():
        answers = await asyncio.gather(*buyers, return_exceptions=True)

    assert [type(answer) for answer in answers].count(PlacedOrder) == 30
    assert shop.stock_of("tea") == (0, 30, 0)


async def _answers(asking: Sequence[asyncio.Task[Answer]]) -> list[type]:
    async with asyncio.timeout(PATIENCE_S):
        answers = await asyncio.gather(*asking, return_exceptions=True)
    return [type(answer) for answer in answers]


def _any_request(key: str = "k") -> PlaceOrder:
    return PlaceOrder(
        key=RequestKey("ann", "header", key),
        body_hash="hash",
        token_issued_at=None,
        wanted=(),
        receiver=None,
        buyer_remark=None,
        expected_pay_amount_minor=None,
    )
