"""Settling payments: every distinct report of money is told to orders, once."""

import asyncio

import pytest

from orderkeep.contracts.order_status import Status
from orderkeep.database.transaction import Transaction
from orderkeep.payments.payment import Payment, with_money
from orderkeep.payments.settle_payment import (
    FailureReport,
    MoneyReport,
    settle_failures,
    settle_successes,
)
from orderkeep.payments.store.payments import PaymentChange, change_payments
from orderkeep.refusal import Refusal
from tests.integration.payments.stage import ANN, BOB, OPERATOR, ORDER, TEN, Stage, order_event

SUCCEEDED = "payment.succeeded"


async def _opened(stage: Stage, *, pay_channel: str, order_no: str = ORDER) -> str:
    await stage.hear(order_event(order_no))
    opened = await stage.desk.open(order_no=order_no, pay_channel=pay_channel, user_id="ann")
    return opened.payment.payment_no


async def test_a_sandbox_payment_succeeds_on_demand_and_orders_are_told(stage: Stage):
    payment_no = await _opened(stage, pay_channel="sandbox")

    payment = await stage.desk.succeed_in_sandbox(payment_no, caller=ANN)

    assert (payment.status, payment.trade_no) == ("succeeded", "SBX-P1")
    assert payment.paid_at == payment.ended_at
    [body] = await stage.sent(SUCCEEDED)
    assert str(body.pop("paid_at")).endswith("Z")
    assert body == {
        "payment_no": "P1",
        "order_no": ORDER,
        "user_id": "ann",
        "amount": 100.0,
        "currency": "CNY",
        "trade_no": "SBX-P1",
        "pay_channel": "sandbox",
    }
    [_, row] = await stage.outbox_rows()
    assert (row["route"], row["aggregate_id"], row["sequence"]) == (
        "payment.success.notify",
        ORDER,
        2,
    )
    assert b'"amount":100.00' in row["body"]


async def test_50_demands_for_success_tell_orders_once(stage: Stage):
    payment_no = await _opened(stage, pay_channel="sandbox")
    desk = stage.desk

    await asyncio.gather(*(desk.succeed_in_sandbox(payment_no, caller=ANN) for _ in range(50)))

    assert len(await stage.sent(SUCCEEDED)) == 1


async def test_a_sandbox_payment_fails_on_demand_and_orders_are_not_told(stage: Stage):
    payment_no = await _opened(stage, pay_channel="sandbox")

    payment = await stage.desk.fail_in_sandbox(payment_no, caller=ANN)
    await stage.desk.fail_in_sandbox(payment_no, caller=ANN)

    assert (payment.status, payment.reason) == ("failed", "as asked of the sandbox")
    assert await stage.sent(SUCCEEDED) == []


async def test_a_failure_after_the_money_changes_nothing(stage: Stage):
    payment_no = await _opened(stage, pay_channel="sandbox")
    await stage.desk.succeed_in_sandbox(payment_no, caller=ANN)

    payment = await stage.desk.fail_in_sandbox(payment_no, caller=ANN)

    assert payment.status == "succeeded"
    assert payment.reason is None


async def test_money_after_a_failure_counts(stage: Stage):
    payment_no = await _opened(stage, pay_channel="sandbox")
    await stage.desk.fail_in_sandbox(payment_no, caller=ANN)

    payment = await stage.desk.succeed_in_sandbox(payment_no, caller=ANN)

    assert payment.status == "succeeded"
    assert payment.reason is None
    assert len(await stage.sent(SUCCEEDED)) == 1


@pytest.mark.parametrize("status", [Status.CLOSED, Status.CANCELLED, Status.PAID])
async def test_money_for_an_order_that_has_ended_is_told_all_the_same(stage: Stage, status: Status):
    payment_no = await _opened(stage, pay_channel="sandbox")
    await stage.hear(order_event(status=status, version=2))

    payment = await stage.desk.succeed_in_sandbox(payment_no, caller=ANN)

    assert payment.status == "succeeded"
    assert [body["trade_no"] for body in await stage.sent(SUCCEEDED)] == ["SBX-P1"]


async def test_another_user_cannot_settle_and_an_operator_can(stage: Stage):
    payment_no = await _opened(stage, pay_channel="sandbox")

    with pytest.raises(Refusal, match="not_found"):
        await stage.desk.succeed_in_sandbox(payment_no, caller=BOB)
    with pytest.raises(Refusal, match="not_found"):
        await stage.desk.fail_in_sandbox(payment_no, caller=BOB)
    payment = await stage.desk.succeed_in_sandbox(payment_no, caller=OPERATOR)

    assert payment.status == "succeeded"


async def test_the_sandbox_settles_no_payment_of_another_channel(stage: Stage):
    payment_no = await _opened(stage, pay_channel="bank")

    with pytest.raises(Refusal, match="not_found"):
        await stage.desk.succeed_in_sandbox(payment_no, caller=ANN)

    assert [row["status"] for row in await stage.payment_rows()] == ["open"]


async def test_a_sandbox_that_is_off_settles_nothing(stage: Stage):
    payment_no = await _opened(stage, pay_channel="sandbox")
    stage.channels = {"bank": stage.bank}

    with pytest.raises(Refusal, match="not_found"):
        await stage.desk.succeed_in_sandbox(payment_no, caller=ANN)

    assert [row["status"] for row in await stage.payment_rows()] == ["open"]


async def test_a_channel_reports_money_with_its_own_time_and_number(stage: Stage):
    payment_no = await _opened(stage, pay_channel="bank")

    await stage.notify(
        payment_no=payment_no,
        trade_no="T/1",
        amount="100.00",
        currency="CNY",
        paid_at="2024-01-01T18:05:00+08:00",
        result="succeeded",
    )

    [body] = await stage.sent(SUCCEEDED)
    assert body == {
        "payment_no": "P1",
        "order_no": ORDER,
        "user_id": "ann",
        "amount": 100.0,
        "currency": "CNY",
        "trade_no": "T/1",
        "paid_at": "2024-01-01T10:05:00Z",
        "pay_channel": "bank",
    }


async def test_a_repeated_report_changes_nothing_even_at_another_time(stage: Stage):
    payment_no = await _opened(stage, pay_channel="bank")
    report = {"payment_no": payment_no, "trade_no": "T1", "amount": "100.00"}
    await stage.notify(**report, result="succeeded")
    [before] = await stage.payment_rows()

    await stage.notify(**report, result="succeeded")
    await stage.notify(**report, result="succeeded", paid_at="2024-01-01T10:05:00Z")
    await stage.notify(**report, result="succeeded", currency="CNY")

    assert len(await stage.sent(SUCCEEDED)) == 1
    [after] = await stage.payment_rows()
    assert dict(after) == dict(before)


@pytest.mark.parametrize(
    ("amount", "currency", "told"),
    [("0.01", "CNY", (0.01, "CNY")), ("100.01", "", (100.01, "CNY")), ("100", "EUR", (100, "EUR"))],
)
async def test_money_that_does_not_fit_is_told_as_it_came(
    stage: Stage, amount: str, currency: str, told: tuple[float, str]
):
    payment_no = await _opened(stage, pay_channel="bank")

    await stage.notify(
        payment_no=payment_no, trade_no="T1", amount=amount, currency=currency, result="succeeded"
    )

    [body] = await stage.sent(SUCCEEDED)
    assert (body["amount"], body["currency"]) == told


async def test_one_trade_reported_with_two_amounts_is_told_twice(stage: Stage):
    payment_no = await _opened(stage, pay_channel="bank")
    report = {"payment_no": payment_no, "trade_no": "T1", "result": "succeeded"}

    await stage.notify(**report, amount="100.00")
    await stage.notify(**report, amount="90.00")

    assert [body["amount"] for body in await stage.sent(SUCCEEDED)] == [100.0, 90.0]


async def test_a_second_trade_for_a_payment_is_told_and_the_payment_keeps_the_first(stage: Stage):
    payment_no = await _opened(stage, pay_channel="bank")
    report = {"payment_no": payment_no, "amount": "100.00", "result": "succeeded"}

    await stage.notify(**report, trade_no="T1")
    await stage.notify(**report, trade_no="T2")

    assert [body["trade_no"] for body in await stage.sent(SUCCEEDED)] == ["T1", "T2"]
    assert [row["trade_no"] for row in await stage.payment_rows()] == ["T1"]
    assert [row["trade_no"] for row in await stage.receipt_rows()] == ["T1", "T2"]


async def test_one_trade_pays_one_payment_and_orders_hear_of_both(stage: Stage):
    first = await _opened(stage, pay_channel="bank")
    second = await _opened(stage, pay_channel="bank", order_no="0100000000000017")
    report = {"trade_no": "T1", "amount": "100.00", "result": "succeeded"}

    await stage.notify(payment_no=first, **report)
    await stage.notify(payment_no=second, **report)
    await stage.notify(payment_no=second, **report)

    assert [row["status"] for row in await stage.payment_rows()] == ["succeeded", "open"]
    assert [body["order_no"] for body in await stage.sent(SUCCEEDED)] == [
        ORDER,
        "0100000000000017",
    ]


async def test_a_batch_of_reports_is_settled_as_if_they_came_one_by_one(stage: Stage):
    first = await _opened(stage, pay_channel="bank")
    second = await _opened(stage, pay_channel="bank", order_no="0100000000000017")
    reports = [
        MoneyReport(payment_no=second, trade_no="T2", amount_minor=10_000),
        MoneyReport(payment_no=first, trade_no="T1", amount_minor=10_000),
        MoneyReport(payment_no=first, trade_no="T1", amount_minor=10_000, currency="CNY"),
        MoneyReport(payment_no="P404", trade_no="T3", amount_minor=10_000),
        MoneyReport(payment_no=first, trade_no="T2", amount_minor=10_000),
    ]

    async def work(transaction: Transaction) -> list[Payment | Refusal]:
        now = await transaction.now()
        return await settle_successes(transaction, reports, outbox=stage.outbox, now=now)

    answers = await stage.database.transact(work)

    assert [getattr(answer, "trade_no", None) for answer in answers] == [
        "T2",
        "T1",
        "T1",
        None,
        "T1",
    ]
    assert isinstance(answers[3], Refusal)
    assert [(body["payment_no"], body["trade_no"]) for body in await stage.sent(SUCCEEDED)] == [
        (second, "T2"),
        (first, "T1"),
        (first, "T2"),
    ]
    rows = [row for row in await stage.outbox_rows() if row["aggregate_id"] == ORDER]
    assert [row["sequence"] for row in rows] == [1, 2, 3]


async def test_a_batch_of_failures_settles_what_it_knows(stage: Stage):
    payment_no = await _opened(stage, pay_channel="bank")
    reports = [
        FailureReport(payment_no="P404"),
        FailureReport(payment_no=payment_no, reason="insufficient funds"),
        FailureReport(payment_no=payment_no, reason="too late"),
    ]

    async def work(transaction: Transaction) -> list[Payment | Refusal]:
        return await settle_failures(transaction, reports, now=await transaction.now())

    unknown, *known = await stage.database.transact(work)

    assert isinstance(unknown, Refusal)
    assert [getattr(answer, "reason", None) for answer in known] == ["insufficient funds"] * 2
    assert [row["status"] for row in await stage.payment_rows()] == ["failed"]


async def test_a_payment_that_was_not_locked_is_not_written_over(stage: Stage):
    payment_no = await _opened(stage, pay_channel="sandbox")
    before = (await stage.desk.get(payment_no, caller=ANN)).payment
    await stage.desk.fail_in_sandbox(payment_no, caller=ANN)
    after = with_money(before, trade_no="T1", paid_at=TEN, now=TEN)

    async def write_what_was_read_before(transaction: Transaction) -> None:
        await change_payments(transaction, [PaymentChange(before=before, after=after)])

    with pytest.raises(RuntimeError, match="changed while they were locked"):
        await stage.database.transact(write_what_was_read_before)

    assert [row["status"] for row in await stage.payment_rows()] == ["failed"]


async def test_a_payment_of_another_channel_is_not_found_by_a_notification(stage: Stage):
    payment_no = await _opened(stage, pay_channel="sandbox")

    with pytest.raises(Refusal, match="not_found"):
        await stage.notify(
            payment_no=payment_no, trade_no="T1", amount="100.00", result="succeeded"
        )

    assert [row["status"] for row in await stage.payment_rows()] == ["open"]
    assert await stage.receipt_rows() == []


async def test_a_notification_of_an_unknown_payment_or_channel_is_not_found(stage: Stage):
    with pytest.raises(Refusal, match="not_found"):
        await stage.notify(payment_no="P404", trade_no="T1", amount="100.00", result="succeeded")


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"amount": "-1.00"}, "/amount"),
        ({"amount": "0.00"}, "/amount"),
        ({"amount": "1.001"}, "/amount"),
        ({"amount": True}, "/amount"),
        ({"amount": None}, "/amount"),
        ({"amount": "10000000000.00"}, "/amount"),
        ({"currency": "yuan"}, "/currency"),
        ({"paid_at": "yesterday"}, "/paid_at"),
        ({"result": "maybe"}, "/result"),
        ({"trade_no": ""}, "/trade_no"),
        ({"trade_no": "T\x001"}, "/trade_no"),
        ({"payment_no": "P 1"}, "/payment_no"),
        ({"surprise": 1}, "/surprise"),
        ({"reason": "x" * 2001}, "/reason"),
    ],
)
async def test_a_wrong_notification_is_refused_and_changes_nothing(
    stage: Stage, changed: dict[str, object], pointer: str
):
    payment_no = await _opened(stage, pay_channel="bank")
    right = {
        "payment_no": payment_no,
        "trade_no": "T1",
        "amount": "100.00",
        "result": "succeeded",
    }

    with pytest.raises(Refusal) as refused:
        await stage.notify(**{**right, **changed})

    assert refused.value.code == "invalid_request"
    assert refused.value.detail.startswith(f"{pointer}: ")
    assert await stage.receipt_rows() == []


async def test_a_failure_keeps_the_reason_that_the_channel_gives(stage: Stage):
    payment_no = await _opened(stage, pay_channel="bank")

    await stage.notify(
        payment_no=payment_no,
        trade_no="T1",
        amount="0.00",
        result="failed",
        reason="insufficient funds",
    )

    [row] = await stage.payment_rows()
    assert (row["status"], row["reason"], row["trade_no"]) == (
        "failed",
        "insufficient funds",
        None,
    )
