"""Refunds: asked for by message, given back once, answered once, never more than what came in."""

import asyncio
from collections.abc import Callable

import pytest

from orderkeep.contracts.payment_refund_request import RefundRequest
from orderkeep.database.transaction import StoreUnavailableError
from orderkeep.instant import Instant
from orderkeep.messaging.consumer import HANDLED, SetAside
from orderkeep.payments.accept_refunds import _insert
from orderkeep.payments.carry_out_refunds import CHANNEL_TIMEOUT_S, CLAIM_S, POLL_INTERVAL_S
from orderkeep.payments.channels.channel import (
    ChannelUnavailableError,
    RefundFailed,
    RefundOrder,
    RefundSucceeded,
)
from orderkeep.payments.channels.sandbox import SandboxChannel
from orderkeep.payments.payment import Refund, RefundStatus
from orderkeep.payments.settle_payment import MoneyReport, settle_successes
from orderkeep.payments.store.refunds import postpone_refunds
from orderkeep.refusal import Refusal
from tests.integration.payments.stage import ANN, AUDITOR, BOB, ORDER, Stage, order_event

OTHER = "0100000000000017"


def _request(
    refund_no: str = "R1",
    *,
    order_no: str = ORDER,
    trade_no: str = "T1",
    amount_minor: int = 10_000,
    currency: str = "CNY",
    pay_channel: str | None = "bank",
    payment_no: str | None = "P1",
) -> RefundRequest:
    return RefundRequest(
        refund_no=refund_no,
        order_no=order_no,
        user_id="ann",
        payment_no=payment_no,
        trade_no=trade_no,
        pay_channel=pay_channel,
        amount_minor=amount_minor,
        currency=currency,
        reason="late_payment",
    )


@pytest.fixture
async def paid(stage: Stage) -> Stage:
    """A payment P1 of 100.00 CNY on `bank`, by trade T1."""
    await stage.hear(order_event())
    await stage.desk.open(order_no=ORDER, pay_channel="bank", user_id="ann")
    await stage.notify(payment_no="P1", trade_no="T1", amount="100.00", result="succeeded")
    return stage


async def _answers(stage: Stage) -> list[tuple[object, object, object]]:
    return [
        (body["refund_no"], body["status"], body.get("reason"))
        for body in await stage.sent("refund.finished")
    ]


async def test_a_refund_is_given_back_by_the_channel_and_answered(paid: Stage):
    outcomes = await paid.ask_refund(_request())

    wait_s = await paid.refund_worker().run_once()

    assert outcomes == [HANDLED]
    assert wait_s is None
    assert paid.bank.asked == [
        RefundOrder(refund_no="R1", trade_no="T1", amount_minor=10_000, currency="CNY")
    ]
    [body] = await paid.sent("refund.finished")
    assert str(body.pop("finished_at")).endswith("Z")
    assert body == {
        "refund_no": "R1",
        "order_no": ORDER,
        "amount": 100.0,
        "currency": "CNY",
        "status": "succeeded",
        "channel_refund_no": "BR1",
    }
    row = (await paid.outbox_rows())[-1]
    assert (row["route"], row["aggregate_id"], row["sequence"]) == (
        "payment.refund.result",
        ORDER,
        3,
    )


async def test_the_sandbox_gives_back_at_once(stage: Stage):
    await stage.hear(order_event())
    payment_no = await stage.pay_in_sandbox()
    await stage.ask_refund(
        _request(trade_no=f"SBX-{payment_no}", pay_channel="sandbox", payment_no=payment_no)
    )

    await stage.refund_worker().run_once()

    [body] = await stage.sent("refund.finished")
    assert (body["status"], body["channel_refund_no"]) == ("succeeded", "SBX-R1")


async def test_acceptance_wakes_the_worker(paid: Stage):
    paid.refund_requested.clear()

    await paid.ask_refund(_request())

    assert await paid.refund_requested.wait(timeout_s=0)


async def test_a_refund_names_its_payment_where_the_request_does_not(paid: Stage):
    await paid.ask_refund(_request(payment_no=None, pay_channel=None))

    [row] = await paid.refund_rows()
    assert (row["payment_no"], row["pay_channel"], row["status"]) == ("P1", "bank", "requested")


async def test_the_same_request_again_is_one_refund(paid: Stage):
    await paid.ask_refund(_request(), _request())

    outcomes = await paid.ask_refund(_request(), _request(payment_no=None))

    await paid.refund_worker().run_once()
    await paid.refund_worker().run_once()
    assert outcomes == [HANDLED, HANDLED]
    assert len(paid.bank.asked) == 1
    assert await _answers(paid) == [("R1", "succeeded", None)]


async def test_who_asks_again_after_the_end_is_answered_again(paid: Stage):
    await paid.ask_refund(_request())
    await paid.refund_worker().run_once()

    await paid.ask_refund(_request())
    await paid.refund_worker().run_once()

    assert len(paid.bank.asked) == 1
    first, second = await paid.sent("refund.finished")
    assert first == second
    sequences = [row["sequence"] for row in await paid.outbox_rows()]
    assert sequences == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "other",
    [
        _request(amount_minor=9_999),
        _request(trade_no="T2"),
        _request(order_no=OTHER),
        _request(currency="EUR"),
        _request(pay_channel="sandbox"),
        _request(payment_no="P2"),
    ],
    ids=["amount", "trade", "order", "currency", "channel", "payment"],
)
async def test_the_same_number_with_other_content_is_set_aside(paid: Stage, other: RefundRequest):
    await paid.ask_refund(_request())

    outcomes = await paid.ask_refund(other)

    assert outcomes == [
        SetAside(
            reason="refund_no_reused",
            detail="Refund R1 was asked for before, with other content.",
        )
    ]
    await paid.refund_worker().run_once()
    assert await _answers(paid) == [("R1", "succeeded", None)]


@pytest.mark.parametrize(
    "request_",
    [
        _request(trade_no="T404"),
        _request(currency="EUR"),
        _request(pay_channel="sandbox"),
        _request(payment_no="P404"),
    ],
    ids=["trade", "currency", "channel", "payment"],
)
async def test_money_that_never_came_is_not_given_back(paid: Stage, request_: RefundRequest):
    outcomes = await paid.ask_refund(request_)

    await paid.refund_worker().run_once()
    assert outcomes == [HANDLED]
    assert paid.bank.asked == []
    assert await _answers(paid) == [
        (
            "R1",
            "failed",
            f"no payment here received trade {request_.trade_no} in {request_.currency}",
        )
    ]


async def test_a_refund_for_an_order_never_heard_of_is_answered(stage: Stage):
    await stage.ask_refund(_request(order_no=OTHER))

    assert await _answers(stage) == [("R1", "failed", "no payment here received trade T1 in CNY")]
    assert [row["sequence"] for row in await stage.outbox_rows()] == [1]


async def test_no_more_goes_back_than_came_in(paid: Stage):
    await paid.ask_refund(_request("R1", amount_minor=6_000))

    await paid.ask_refund(_request("R2", amount_minor=4_001), _request("R3", amount_minor=4_000))
    await paid.ask_refund(_request("R4", amount_minor=1))

    await paid.refund_worker().run_once()
    assert sum(order.amount_minor for order in paid.bank.asked) == 10_000
    why = "more than what is left of trade T1 to give back"
    assert sorted(await _answers(paid), key=str) == [
        ("R1", "succeeded", None),
        ("R2", "failed", why),
        ("R3", "succeeded", None),
        ("R4", "failed", why),
    ]


async def test_what_a_refund_did_not_give_back_may_be_asked_for_again(paid: Stage):
    paid.bank.answers = [RefundFailed(reason="account frozen")]
    await paid.ask_refund(_request("R1"))
    await paid.refund_worker().run_once()

    await paid.ask_refund(_request("R2"))
    await paid.refund_worker().run_once()

    assert await _answers(paid) == [
        ("R1", "failed", "account frozen"),
        ("R2", "succeeded", None),
    ]


async def test_the_money_of_a_second_trade_of_one_payment_goes_back_too(paid: Stage):
    await paid.notify(payment_no="P1", trade_no="T2", amount="100.00", result="succeeded")

    await paid.ask_refund(_request(trade_no="T2"))
    await paid.refund_worker().run_once()

    assert [order.trade_no for order in paid.bank.asked] == ["T2"]
    assert await _answers(paid) == [("R1", "succeeded", None)]


async def test_a_trade_number_that_two_channels_use_needs_its_channel_named(paid: Stage):
    paid.channels = {**paid.channels, "bank": paid.bank, "bank-two": paid.bank}
    await paid.hear(order_event(OTHER))
    opened = await paid.desk.open(order_no=OTHER, pay_channel="bank-two", user_id="ann")

    async def settle(transaction):
        report = MoneyReport(
            payment_no=opened.payment.payment_no, trade_no="T1", amount_minor=10_000
        )
        now = await transaction.now()
        return await settle_successes(transaction, [report], outbox=paid.outbox, now=now)

    await paid.database.transact(settle)

    await paid.ask_refund(
        _request("R1", payment_no=None, pay_channel=None),
        _request("R2", payment_no=None, pay_channel="bank-two"),
    )
    await paid.refund_worker().run_once()

    assert await _answers(paid) == [
        ("R1", "failed", "trade T1 is known on 2 channels: name one"),
        ("R2", "succeeded", None),
    ]


async def test_a_channel_without_a_verdict_is_asked_again_later(paid: Stage):
    paid.bank.answers = [ChannelUnavailableError("line is down")]
    await paid.ask_refund(_request())

    wait_s = await paid.refund_worker(base_s=60.0).run_once()

    assert wait_s is not None
    assert 30.0 < wait_s <= 60.0
    assert await _answers(paid) == []
    assert await paid.refund_worker().run_once() is not None
    assert len(paid.bank.asked) == 1


async def test_the_second_try_asks_for_the_same_refund(paid: Stage):
    paid.bank.answers = [ChannelUnavailableError("line is down"), KeyError("a bug")]
    await paid.ask_refund(_request())
    # Pauses of a microsecond are over when the next round reads the clock.
    worker = paid.refund_worker(base_s=0.000_001)

    await _until(worker.run_once, lambda: len(paid.bank.asked) == 3)

    assert {order.refund_no for order in paid.bank.asked} == {"R1"}
    assert await _answers(paid) == [("R1", "succeeded", None)]


async def test_a_refund_fails_when_its_time_is_up_and_says_what_to_do(paid: Stage):
    paid.bank.answers = [ChannelUnavailableError("line is down")]
    await paid.ask_refund(_request())

    await paid.refund_worker(for_s=0.0).run_once()

    why = (
        "no verdict from the channel in 0 s, at last line is down: look there whether it gave back"
    )
    assert await _answers(paid) == [("R1", "failed", why)]


async def test_a_worker_that_died_after_the_channel_gave_back_leaves_one_answer(paid: Stage):
    await paid.ask_refund(_request())
    paid.bank.is_silent = True
    dying = asyncio.create_task(paid.refund_worker().run_once())
    async with asyncio.timeout(4.0):
        await paid.bank.was_asked.wait()
    dying.cancel()
    paid.bank.is_silent = False
    # Its claim still holds, so nobody asks the channel meanwhile.
    assert await paid.refund_worker().run_once() is not None
    assert len(paid.bank.asked) == 1

    await _let_claims_run_out(paid)
    await paid.refund_worker().run_once()

    assert [order.refund_no for order in paid.bank.asked] == ["R1", "R1"]
    assert await _answers(paid) == [("R1", "succeeded", None)]


async def test_ten_workers_carry_out_each_refund_once(paid: Stage):
    await paid.ask_refund(*(_request(f"R{number}", amount_minor=100) for number in range(50)))

    for _ in range(3):
        await asyncio.gather(*(paid.refund_worker().run_once() for _ in range(10)))

    assert sorted(order.refund_no for order in paid.bank.asked) == sorted(
        f"R{number}" for number in range(50)
    )
    assert len(await _answers(paid)) == 50


async def test_a_full_round_says_that_more_may_be_due(paid: Stage):
    await paid.ask_refund(*(_request(f"R{number}", amount_minor=100) for number in range(21)))
    worker = paid.refund_worker()

    waits = [await worker.run_once(), await worker.run_once()]

    assert waits == [0.0, None]
    assert len(paid.bank.asked) == 21


async def test_a_channel_that_is_gone_gives_nothing_back_and_says_so(paid: Stage):
    await paid.ask_refund(_request())
    paid.channels = {"sandbox": SandboxChannel()}

    await paid.refund_worker().run_once()

    assert await _answers(paid) == [
        ("R1", "failed", "there is no channel bank here: give back by hand")
    ]


async def test_the_loop_carries_out_what_comes_and_stops_when_told(paid: Stage):
    stop = asyncio.Event()
    loop = asyncio.create_task(paid.refund_worker().run(stop))

    await paid.ask_refund(_request())

    async with asyncio.timeout(4.0):
        await paid.bank.was_asked.wait()
    stop.set()
    await asyncio.wait_for(loop, timeout=1.0)
    assert await _answers(paid) == [("R1", "succeeded", None)]


async def test_the_loop_goes_on_when_the_database_is_back(paid: Stage):
    stop = asyncio.Event()
    worker = paid.refund_worker()
    failures = [StoreUnavailableError("away")]
    run_once = worker.run_once

    async def run_once_after_an_outage() -> float | None:
        if failures:
            raise failures.pop()
        return await run_once()

    worker.run_once = run_once_after_an_outage  # type: ignore[method-assign]  # the outage
    loop = asyncio.create_task(worker.run(stop))
    await asyncio.sleep(0)

    await paid.ask_refund(_request())

    async with asyncio.timeout(4.0):
        await paid.bank.was_asked.wait()
    stop.set()
    await asyncio.wait_for(loop, timeout=1.0)
    assert failures == []
    assert await _answers(paid) == [("R1", "succeeded", None)]


async def test_a_refund_number_taken_by_another_transaction_rolls_this_one_back(paid: Stage):
    await paid.ask_refund(_request())
    [row] = await paid.refund_rows()
    refund = Refund(
        refund_no=row["refund_no"],
        order_no=OTHER,
        trade_no="T1",
        amount_minor=1,
        currency="CNY",
        reason="operator",
        status=RefundStatus.REQUESTED,
        requested_at=Instant(0),
    )

    async def take_the_same_number(transaction):
        await _insert(transaction, [refund], now=Instant(0))

    with pytest.raises(RuntimeError, match="was taken by another request"):
        await paid.database.transact(take_the_same_number)

    assert await paid.refund_rows() == [row]


async def test_a_payment_is_shown_with_its_refunds_to_its_payer_and_operators(paid: Stage):
    paid.bank.answers = [
        RefundFailed(reason="account frozen"),
        RefundSucceeded(channel_refund_no="B2"),
    ]
    await paid.ask_refund(_request("R1"))
    await paid.refund_worker().run_once()
    await paid.ask_refund(_request("R2"))

    shown = await paid.desk.get("P1", caller=ANN)

    assert shown.payment.status == "succeeded"
    assert [(it.refund_no, it.status, it.failure_reason) for it in shown.refunds] == [
        ("R1", "failed", "account frozen"),
        ("R2", "requested", None),
    ]
    assert await paid.desk.get("P1", caller=AUDITOR) == shown
    with pytest.raises(Refusal, match="not_found"):
        await paid.desk.get("P1", caller=BOB)
    with pytest.raises(Refusal, match="not_found"):
        await paid.desk.get("P404", caller=ANN)


async def _until(step: Callable, is_done: Callable[[], bool]) -> None:
    async with asyncio.timeout(5.0):
        while not is_done():
            await step()


def test_what_a_dead_process_claimed_is_taken_up_within_a_minute() -> None:
    assert CHANNEL_TIMEOUT_S < CLAIM_S < 60.0 - POLL_INTERVAL_S


async def _let_claims_run_out(stage: Stage) -> None:
    async def work(transaction):
        await postpone_refunds(transaction, {"R1": await transaction.now()})

    await stage.database.transact(work)
