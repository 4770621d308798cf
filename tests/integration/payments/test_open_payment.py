"""Opening payments: for one's own pending order, once for each channel."""

import asyncio
import json

import pytest

from orderkeep.contracts.order_status import Status
from orderkeep.contracts.payment_refund_request import RefundRequest
from orderkeep.database.transaction import Transaction
from orderkeep.payments.open_payment import OpenedPayment, OpenRequest, open_payments
from orderkeep.refusal import Refusal
from tests.integration.payments.stage import ORDER, Stage, order_event


async def test_a_payment_is_opened_for_what_the_order_owes(stage: Stage):
    await stage.hear(order_event(amount_minor=12_345))

    opened = await stage.desk.open(order_no=ORDER, pay_channel="sandbox", user_id="ann")

    payment = opened.payment
    assert opened.is_new
    assert (payment.payment_no, payment.order_no, payment.pay_channel) == ("P1", ORDER, "sandbox")
    assert (payment.amount_minor, payment.currency, payment.status) == (12_345, "CNY", "open")


async def test_orders_are_told_of_an_opened_payment(stage: Stage):
    await stage.hear(order_event())

    await stage.desk.open(order_no=ORDER, pay_channel="sandbox", user_id="ann")

    [row] = await stage.outbox_rows()
    assert row["type"] == "payment.opened"
    assert row["route"] == "payment.opened.notify"
    assert (row["aggregate_id"], row["sequence"], row["ordered"]) == (ORDER, 1, 1)
    body = json.loads(row["body"])
    assert body.pop("opened_at").endswith("Z")
    assert body == {"payment_no": "P1", "order_no": ORDER, "pay_channel": "sandbox"}


async def test_an_open_payment_on_the_same_channel_is_answered_again(stage: Stage):
    await stage.hear(order_event())
    await stage.desk.open(order_no=ORDER, pay_channel="sandbox", user_id="ann")

    again = await stage.desk.open(order_no=ORDER, pay_channel="sandbox", user_id="ann")

    assert not again.is_new
    assert again.payment.payment_no == "P1"
    assert len(await stage.outbox_rows()) == 1


async def test_another_channel_is_another_payment(stage: Stage):
    await stage.hear(order_event())
    await stage.desk.open(order_no=ORDER, pay_channel="sandbox", user_id="ann")

    other = await stage.desk.open(order_no=ORDER, pay_channel="bank", user_id="ann")

    assert other.is_new
    assert [row["sequence"] for row in await stage.outbox_rows()] == [1, 2]


async def test_after_a_failure_a_new_payment_is_opened(stage: Stage):
    await stage.hear(order_event())
    await stage.desk.open(order_no=ORDER, pay_channel="bank", user_id="ann")
    await stage.notify(payment_no="P1", trade_no="T1", amount="100.00", result="failed")

    again = await stage.desk.open(order_no=ORDER, pay_channel="bank", user_id="ann")

    assert again.is_new
    assert [row["status"] for row in await stage.payment_rows()] == ["failed", "open"]


async def test_20_tasks_that_open_one_payment_open_one(stage: Stage):
    await stage.hear(order_event())
    desk = stage.desk

    answers = await asyncio.gather(
        *(desk.open(order_no=ORDER, pay_channel="sandbox", user_id="ann") for _ in range(20))
    )

    assert len({answer.payment.payment_no for answer in answers}) == 1
    assert sum(answer.is_new for answer in answers) == 1
    assert len(await stage.payment_rows()) == 1
    assert len(await stage.outbox_rows()) == 1


async def test_another_users_order_is_not_found(stage: Stage):
    await stage.hear(order_event(user_id="bob"))

    with pytest.raises(Refusal) as refused:
        await stage.desk.open(order_no=ORDER, pay_channel="sandbox", user_id="ann")

    assert refused.value.code == "not_found"
    assert await stage.payment_rows() == []


@pytest.mark.parametrize("status", [Status.PAID, Status.CANCELLED, Status.CLOSED])
async def test_an_order_that_has_ended_takes_no_payment(stage: Stage, status: Status):
    await stage.hear(order_event(status=status, version=2))

    with pytest.raises(Refusal) as refused:
        await stage.desk.open(order_no=ORDER, pay_channel="sandbox", user_id="ann")

    assert refused.value.code == "order_not_pending"
    assert refused.value.members == {"order_status": status.value}
    assert await stage.payment_rows() == []


async def test_a_channel_that_does_not_exist_is_refused(stage: Stage):
    await stage.hear(order_event())

    with pytest.raises(Refusal) as refused:
        await stage.desk.open(order_no=ORDER, pay_channel="shells", user_id="ann")

    assert refused.value.code == "unknown_channel"
    assert refused.value.detail == "There is no channel shells; there are: bank, sandbox."
    assert refused.value.members == {"channels": ["bank", "sandbox"]}


async def test_an_order_that_is_not_known_yet_is_refused_after_the_wait(stage: Stage):
    stage.order_wait_s = 0.15
    clock = asyncio.get_running_loop()
    started = clock.time()

    with pytest.raises(Refusal) as refused:
        await stage.desk.open(order_no=ORDER, pay_channel="sandbox", user_id="ann")

    assert refused.value.code == "order_not_ready"
    assert clock.time() - started >= 0.15


async def test_nobody_waits_for_what_is_no_order_number(stage: Stage):
    stage.order_wait_s = 30.0

    with pytest.raises(Refusal) as refused:
        async with asyncio.timeout(10):
            await stage.desk.open(order_no="my-order", pay_channel="sandbox", user_id="ann")

    assert refused.value.code == "invalid_request"


async def test_who_waits_for_an_order_goes_on_when_it_is_heard_of(stage: Stage):
    stage.order_wait_s = 30.0
    waiting = asyncio.gather(
        *(stage.desk.open(order_no=ORDER, pay_channel="bank", user_id="ann") for _ in range(3))
    )
    await asyncio.sleep(0)

    await stage.hear(order_event())

    answers = await asyncio.wait_for(waiting, timeout=5.0)
    # Which of them opens it is chance: the others find it open.
    assert len({answer.payment.payment_no for answer in answers}) == 1
    assert sum(answer.is_new for answer in answers) == 1


async def test_an_order_known_only_by_a_refund_is_not_ready(stage: Stage):
    await stage.hear(order_event())
    payment_no = await stage.pay_in_sandbox()
    await stage.ask_refund(
        RefundRequest(
            refund_no="R1",
            order_no="0100000000000017",
            trade_no=f"SBX-{payment_no}",
            amount_minor=1,
            currency="CNY",
        )
    )

    with pytest.raises(Refusal, match="order_not_ready"):
        await stage.desk.open(order_no="0100000000000017", pay_channel="sandbox", user_id="ann")


async def test_a_batch_of_requests_is_decided_one_by_one(stage: Stage):
    await stage.hear(
        order_event(),
        order_event("0100000000000017", user_id="bob"),
        order_event("0100000000000025", status=Status.PAID, version=2),
    )
    order_nos = [ORDER, "0100000000000017", "0100000000000025", "0100000000000033", ORDER]
    requests = [
        OpenRequest(
            payment_no=f"P{number}", order_no=order_no, user_id="ann", pay_channel="sandbox"
        )
        for number, order_no in enumerate(order_nos)
    ]

    async def work(transaction: Transaction) -> list[OpenedPayment | Refusal]:
        now = await transaction.now()
        return await open_payments(transaction, requests, outbox=stage.outbox, now=now)

    answers = await stage.database.transact(work)

    told = [
        answer.code if isinstance(answer, Refusal) else (answer.payment.payment_no, answer.is_new)
        for answer in answers
    ]
    assert told == [
        ("P0", True),
        "not_found",
        "order_not_pending",
        "order_not_ready",
        ("P0", False),
    ]
    assert len(await stage.outbox_rows()) == 1
