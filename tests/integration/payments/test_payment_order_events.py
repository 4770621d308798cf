"""What the payment service makes of order events: the newest counts, and an end closes payments."""

from orderkeep.contracts.order_status import Status
from orderkeep.contracts.payment_refund_request import RefundRequest
from orderkeep.database.transaction import ReadTransaction
from orderkeep.messaging.consumer import HANDLED
from orderkeep.payments.store.known_orders import KnownOrder, find_order
from tests.integration.payments.stage import ANN, HALF_PAST_TEN, ORDER, Stage, later, order_event

OTHER = "0100000000000017"


async def _known(stage: Stage, order_no: str = ORDER) -> KnownOrder | None:
    async def work(transaction: ReadTransaction) -> KnownOrder | None:
        return await find_order(transaction, order_no)

    return await stage.database.read(work)


async def _statuses(stage: Stage) -> dict[str, str]:
    return {row["payment_no"]: row["status"] for row in await stage.payment_rows()}


async def test_an_order_is_known_as_its_event_tells(stage: Stage):
    outcomes = await stage.hear(order_event(amount_minor=12_345))

    assert outcomes == [HANDLED]
    assert await _known(stage) == KnownOrder(
        order_no=ORDER,
        user_id="ann",
        status=Status.PENDING_PAYMENT,
        version=1,
        amount_minor=12_345,
        currency="CNY",
        expires_at=HALF_PAST_TEN,
    )


async def test_a_repeat_changes_nothing(stage: Stage):
    await stage.hear(order_event())

    outcomes = await stage.hear(order_event(), order_event())

    assert outcomes == [HANDLED, HANDLED]
    known = await _known(stage)
    assert known is not None
    assert known.version == 1


async def test_a_late_copy_does_not_bring_an_ended_order_back(stage: Stage):
    await stage.hear(order_event())
    await stage.hear(order_event(status=Status.CLOSED, version=2))

    await stage.hear(order_event())

    known = await _known(stage)
    assert known is not None
    assert (known.status, known.version) == (Status.CLOSED, 2)


async def test_in_a_batch_the_newest_event_counts_wherever_it_stands(stage: Stage):
    await stage.hear(
        order_event(status=Status.CANCELLED, version=2),
        order_event(OTHER),
        order_event(),
        order_event(OTHER, status=Status.PAID, version=2),
    )

    first, second = await _known(stage), await _known(stage, OTHER)
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (Status.CANCELLED, Status.PAID)


async def test_a_closed_order_may_be_revived(stage: Stage):
    await stage.hear(order_event(status=Status.CLOSED, version=2))

    await stage.hear(order_event(status=Status.PAID, version=3))

    known = await _known(stage)
    assert known is not None
    assert known.status == Status.PAID


async def test_a_deadline_moves_later_and_never_earlier_within_a_version(stage: Stage):
    await stage.hear(order_event())

    await stage.hear(order_event(expires_at=later(seconds=300)))
    await stage.hear(order_event(expires_at=later(seconds=60)))

    known = await _known(stage)
    assert known is not None
    assert known.expires_at == later(seconds=300)


async def test_the_end_of_an_order_closes_its_open_payments_and_no_others(stage: Stage):
    await stage.hear(order_event(), order_event(OTHER))
    desk = stage.desk
    await desk.open(order_no=ORDER, pay_channel="sandbox", user_id="ann")
    await desk.open(order_no=ORDER, pay_channel="bank", user_id="ann")
    await desk.open(order_no=OTHER, pay_channel="sandbox", user_id="ann")
    await desk.fail_in_sandbox("P1", caller=ANN)

    await stage.hear(order_event(status=Status.CLOSED, version=2))

    assert await _statuses(stage) == {"P1": "failed", "P2": "closed", "P3": "open"}
    [closed] = [row for row in await stage.payment_rows() if row["payment_no"] == "P2"]
    assert closed["ended_at"] is not None


async def test_a_paid_order_closes_the_payments_that_did_not_pay_it(stage: Stage):
    await stage.hear(order_event())
    await stage.desk.open(order_no=ORDER, pay_channel="bank", user_id="ann")
    await stage.pay_in_sandbox()

    await stage.hear(order_event(status=Status.PAID, version=2))

    assert await _statuses(stage) == {"P1": "closed", "P2": "succeeded"}


async def test_an_order_that_was_only_counted_becomes_known(stage: Stage):
    await stage.ask_refund(
        RefundRequest(refund_no="R1", order_no=ORDER, trade_no="T1", amount_minor=1, currency="CNY")
    )
    assert await _known(stage) is None

    await stage.hear(order_event())
    await stage.desk.open(order_no=ORDER, pay_channel="sandbox", user_id="ann")

    assert await _known(stage) is not None
    assert [row["sequence"] for row in await stage.outbox_rows()] == [1, 2]
