"""Orders under any course of events: made, paid, cancelled, expired, told twice or in disorder.

A machine draws the course, the service and an independent model of it live through it, and after
every step both must have come to the same: states, stock, payments, cases, refunds. The stock
equation is taken from the movements, and `verify` finds nothing.

The course follows from the seed that pytest prints: `--randomly-seed=N` repeats it.
"""

import asyncio
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from structlog.testing import capture_logs

from orderkeep.contracts import order_timeout_queue, payment_refund_result, payment_success_notify
from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.instant import Instant
from orderkeep.messaging.arrival import read_arrival
from orderkeep.messaging.consumer import Consumer
from orderkeep.messaging.message import FIRST_RECEIVED_HEADER, Delivery
from orderkeep.messaging.settling import RetryPolicy, Settling
from orderkeep.orders.cancel_order import CancelOrder
from orderkeep.orders.consumers.order_timeout_queue import order_timeout_consumer
from orderkeep.orders.consumers.payment_refund_result import payment_refund_result_consumer
from orderkeep.orders.consumers.payment_success_notify import payment_success_consumer
from orderkeep.orders.idempotency_key import KeyKind
from orderkeep.orders.order import Cause
from orderkeep.orders.payment import LatePaymentPolicy
from orderkeep.orders.placing import PlacedOrder, PlaceOrder
from orderkeep.orders.pricing import WantedLine
from orderkeep.orders.store.requests import RequestKey
from orderkeep.orders.sweep import Sweep
from orderkeep.refusal import Refusal
from tests.conftest import create_tables_sql
from tests.integration.orders.shop import LONG_AGO, Shop
from tests.properties.order_model import PRICES, STOCK, Model, Report, Wish

NOBODYS_ORDER = "0100000000000009"

LINES = st.lists(
    st.tuples(st.sampled_from(["tea"] * 5 + ["pot"] * 2 + ["ghost"]), st.integers(1, 2)),
    min_size=1,
    max_size=3,
).map(tuple)
WISHES = st.builds(
    Wish, user_id=st.sampled_from(["ann", "bob"]), key=st.sampled_from("klmnopqrstuvw"), lines=LINES
)
AMOUNTS = st.sampled_from(["right"] * 7 + ["wrong", "zero", "missing"])
CURRENCIES = st.sampled_from(["CNY"] * 5 + [None, None, "EUR"])
TRADES = st.sampled_from([f"T{number}" for number in range(12)])
CHANNELS = st.sampled_from(["alipay", "alipay", "wechat", None])
AGES = st.sampled_from([False, False, True])


# An order, a trade with its channel, an amount in words with its currency, and whether it is old.
DrawnPayment: TypeAlias = tuple[str, tuple[str, str | None], tuple[str, str | None], bool]


class OrderMachine(RuleBasedStateMachine):
    """Draws courses of events, and holds the service to the model."""

    template: ClassVar[Path]

    orders = Bundle("orders")
    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.folder = Path(tempfile.mkdtemp(prefix="orderkeep-"))
        path = self.folder / "orderkeep.db"
        shutil.copyfile(self.template, path)
        self.runner = asyncio.Runner()
        self.database = SqliteDatabase(path)
        self.shop = Shop(self.database)
        self.reader = sqlite3.connect(path)
        self.reader.row_factory = sqlite3.Row
        self.message_count = 0
        # Payments whose order is not visible, and which may come again.
        self.waiting: dict[int, tuple[Delivery, Report]] = {}

    def teardown(self) -> None:
        self.runner.run(self.database.close())
        self.runner.close()
        self.reader.close()
        shutil.rmtree(self.folder)

    @initialize(target=orders, policy=st.sampled_from(["refund", "manual"]))
    def open_the_shop(self, policy: str) -> MultipleResults[str]:
        self.model.policy = policy
        numbers = iter(range(1, 10_000))
        self.consumers: dict[str, Consumer[Any]] = {
            consumer.queue: consumer
            for consumer in (
                order_timeout_consumer(outbox=self.shop.outbox),
                payment_refund_result_consumer(),
                payment_success_consumer(
                    outbox=self.shop.outbox,
                    policy=LatePaymentPolicy(policy),
                    unknown_order_retry_for_s=3_600.0,
                    draw_refund_no=lambda: f"R{next(numbers)}",
                ),
            )
        }
        a_tea = Wish(user_id="ann", key="a", lines=(("tea", 1),))
        two_pots = Wish(user_id="bob", key="b", lines=(("pot", 1), ("pot", 1)))
        return self._create([a_tea, two_pots])

    # What may happen.

    @rule(target=orders, wishes=st.lists(WISHES, min_size=1, max_size=3))
    def create(self, wishes: list[Wish]) -> MultipleResults[str]:
        return self._create(wishes)

    def _create(self, wishes: list[Wish]) -> MultipleResults[str]:
        answers = self.runner.run(
            self.shop.desk._place_batch([_place_order(wish) for wish in wishes])
        )

        order_nos = [
            answer.order.order_no if isinstance(answer, PlacedOrder) else None for answer in answers
        ]
        before = set(self.model.orders)
        assert [_told(answer) for answer in answers] == self.model.place(wishes, order_nos)
        return multiple(*(no for no in self.model.orders if no not in before))

    @rule(order_no=orders, by=st.sampled_from([Cause.BUYER, Cause.OPERATOR]))
    def cancel(self, order_no: str, by: Cause) -> None:
        cancellation = CancelOrder(order_no=order_no, user_id=None, by=by, actor="somebody")
        try:
            answer = self.runner.run(self.shop.desk.cancel(cancellation)).status.value
        except Refusal as refusal:
            answer = refusal.code

        assert answer == self.model.cancel(order_no)

    @rule(order_no=orders)
    def expire(self, order_no: str) -> None:
        order = self.runner.run(self.shop.desk.get(order_no, user_id=None))
        # Long ago: an order that is closed already was not closed before that.
        self.shop.make_due(order, since_s=3_600.0)
        self.model.orders[order_no].is_due = True

    @rule()
    def sweep(self) -> None:
        due = [no for no, order in self.model.orders.items() if order.is_due]
        sweep = Sweep(database=self.database, outbox=self.shop.outbox, interval_s=1.0, grace_s=0.0)
        pending = [no for no in due if self.model.orders[no].status == "pending_payment"]

        assert self.runner.run(sweep.run_once()) == len(pending)
        for order_no in pending:
            self.model.close_if_due(order_no)

    @rule(target=sent, order_nos=st.lists(orders, min_size=1, max_size=3))
    def check_deadlines(self, order_nos: list[str]) -> MultipleResults[Delivery]:
        checks = [order_timeout_queue.TimeoutCheck(order_no=no) for no in order_nos]
        deliveries = [
            self._delivery(order_timeout_queue.QUEUE, order_timeout_queue.encode(check))
            for check in checks
        ]

        assert self._deliver(deliveries) == ["handled"] * len(deliveries)
        for order_no in dict.fromkeys(order_nos):
            self.model.close_if_due(order_no)
        return multiple(*deliveries)

    @rule(
        target=sent,
        payments=st.lists(
            st.tuples(
                st.one_of(*[orders] * 9, st.just(NOBODYS_ORDER)),
                st.tuples(TRADES, CHANNELS),
                st.tuples(AMOUNTS, CURRENCIES),
                AGES,
            ),
            min_size=1,
            max_size=3,
        ),
        copies_count=st.integers(min_value=1, max_value=2),
    )
    def pay(self, payments: list[DrawnPayment], copies_count: int) -> MultipleResults[Delivery]:
        return self._pay(payments, copies_count=copies_count)

    @rule(target=sent, order_no=orders, trade_no=TRADES)
    def pay_what_is_owed(self, order_no: str, trade_no: str) -> MultipleResults[Delivery]:
        return self._pay([(order_no, (trade_no, "alipay"), ("right", "CNY"), False)])

    def _pay(
        self, payments: list[DrawnPayment], *, copies_count: int = 1
    ) -> MultipleResults[Delivery]:
        reports = [self._report(payment) for payment in payments]
        deliveries = [
            self._delivery(
                payment_success_notify.QUEUE,
                _payment_body(report),
                first_received_at=LONG_AGO if report.is_old else None,
            )
            for report in reports
        ]

        outcomes = self._deliver(deliveries * copies_count)

        heard = [self.model.hear(report) for report in reports]
        assert outcomes == heard + ["duplicate"] * len(reports) * (copies_count - 1)
        waiting = {
            delivery.tag: (delivery, report)
            for delivery, report, outcome in zip(deliveries, reports, outcomes, strict=False)
            if outcome == "postponed"
        }
        self.waiting.update(waiting)
        return multiple(*(it for it in deliveries if it.tag not in waiting))

    @rule(target=sent, place=st.integers(min_value=0, max_value=50))
    def retry(self, place: int) -> MultipleResults[Delivery]:
        """Deliver again what waits for its order: its trade may have been heard of since."""
        if not self.waiting:
            return multiple()
        tag = sorted(self.waiting)[place % len(self.waiting)]
        delivery, report = self.waiting[tag]

        expected = self.model.hear(report)
        assert self._deliver([delivery]) == [expected]
        if expected == "postponed":
            return multiple()
        del self.waiting[tag]
        return multiple(delivery)

    @rule(
        target=sent,
        place=st.integers(min_value=0, max_value=50),
        status=st.sampled_from(["succeeded", "failed"]),
    )
    def end_refund(self, place: int, status: str) -> MultipleResults[Delivery]:
        if not self.model.refunds:
            return multiple()
        identity = sorted(self.model.refunds)[place % len(self.model.refunds)]
        row = self.shop.row(
            "SELECT refund_no, order_no FROM order_refunds"
            " WHERE pay_channel = :channel AND trade_no = :trade_no",
            channel=identity[0],
            trade_no=identity[1],
        )
        result = payment_refund_result.RefundResult(
            refund_no=row["refund_no"],
            order_no=row["order_no"],
            status=payment_refund_result.RefundOutcome(status),
        )
        delivery = self._delivery(payment_refund_result.QUEUE, payment_refund_result.encode(result))

        assert self._deliver([delivery]) == [self.model.end_refund(identity, status)]
        return multiple(delivery)

    @rule(deliveries=st.lists(sent, min_size=1, max_size=4))
    def redeliver(self, deliveries: list[Delivery]) -> None:
        before = self._all_but_dead_letters()

        outcomes = self._deliver_each(deliveries)

        # What was set aside took no effect, so it is no copy: its dead letter is written anew.
        assert set(outcomes) <= {"duplicate", "set_aside"}
        assert self._all_but_dead_letters() == before

    # What must hold.

    @invariant()
    def the_database_is_as_the_model_says(self) -> None:
        rows = self._rows
        orders = {
            row["order_no"]: (row["status"], row["version"]) for row in rows("SELECT * FROM orders")
        }
        assert orders == {
            no: (order.status, order.version) for no, order in self.model.orders.items()
        }
        stock = {
            row["sku_id"]: [row["available"], row["reserved"], row["sold"]]
            for row in rows("SELECT * FROM stock")
        }
        assert stock == self.model.stock
        assert {
            (row["pay_channel"], row["trade_no"]): (
                row["order_no"],
                row["amount_minor"],
                row["currency"],
                row["outcome"],
            )
            for row in rows("SELECT * FROM order_payments")
        } == self.model.payments
        assert {
            (row["pay_channel"], row["trade_no"]): [
                row["order_no"],
                row["amount_minor"],
                row["currency"],
                row["reason"],
                row["status"],
            ]
            for row in rows("SELECT * FROM order_refunds")
        } == self.model.refunds
        assert [
            (
                row["kind"],
                row["order_no"],
                (row["pay_channel"], row["trade_no"]),
                row["amount_minor"],
                row["currency"],
            )
            for row in rows("SELECT * FROM payment_cases ORDER BY id")
        ] == self.model.cases
        assert {
            (row["user_id"], row["key"]): row["order_no"]
            for row in rows("SELECT * FROM order_requests")
        } == {key: order_no for key, (order_no, _) in self.model.keys.items()}

    @invariant()
    def the_stock_equation_holds(self) -> None:
        counts = {sku_id: [0, 0, 0] for sku_id in STOCK}
        adjusted = dict.fromkeys(STOCK, 0)
        directions = {
            "adjust": (1, 0, 0),
            "reserve": (-1, 1, 0),
            "release": (1, -1, 0),
            "sell": (0, -1, 1),
        }
        for row in self._rows("SELECT * FROM stock_movements ORDER BY id"):
            sku_counts = counts[row["sku_id"]]
            for place, direction in enumerate(directions[row["kind"]]):
                sku_counts[place] += direction * row["quantity"]
            assert min(sku_counts) >= 0
            if row["kind"] == "adjust":
                adjusted[row["sku_id"]] += row["quantity"]
        assert counts == self.model.stock
        assert adjusted == {sku_id: sum(each) for sku_id, each in counts.items()} == STOCK

    @invariant()
    def events_are_numbered_without_gaps_in_the_order_they_were_appended(self) -> None:
        numbers: dict[str, list[int]] = {}
        for row in self._rows(
            "SELECT aggregate_id, sequence FROM order_outbox WHERE retry_key IS NULL ORDER BY id"
        ):
            numbers.setdefault(row["aggregate_id"], []).append(row["sequence"])
        for row in self._rows("SELECT order_no, event_seq FROM orders"):
            assert numbers[row["order_no"]] == list(range(1, row["event_seq"] + 1))

    @invariant()
    def verify_finds_nothing(self) -> None:
        assert self.runner.run(self.shop.breaches()) == []

    # How it is done.

    def _all_but_dead_letters(self) -> dict[str, list[tuple[object, ...]]]:
        rows = self.shop.dump()
        del rows["order_dead_letters"]
        return rows

    def _rows(self, sql: str) -> list[sqlite3.Row]:
        return self.reader.execute(sql).fetchall()

    def _report(self, payment: DrawnPayment) -> Report:
        order_no, trade, money, is_old = payment
        order = self.model.orders.get(order_no)
        owed = order.amount if order else 2_599
        amounts = {"right": owed, "wrong": owed + 1, "zero": 0, "missing": None}
        return Report(
            order_no=order_no,
            trade_no=trade[0],
            channel=trade[1],
            amount=amounts[money[0]],
            currency=money[1],
            is_old=is_old,
        )

    def _delivery(
        self, queue: str, body: bytes, *, first_received_at: Instant | None = None
    ) -> Delivery:
        self.message_count += 1
        headers = {} if first_received_at is None else {FIRST_RECEIVED_HEADER: first_received_at}
        return Delivery(
            queue=queue,
            tag=self.message_count,
            body=body,
            message_id=f"message-{self.message_count}".encode(),
            type="",
            headers=headers,
            redelivered=False,
        )

    def _deliver(self, deliveries: list[Delivery]) -> list[str]:
        """Deliver messages of one queue in one batch; return what became of each, copies last."""
        consumer = self.consumers[deliveries[0].queue]
        settling = Settling(
            consumer, outbox=self.shop.outbox, policy=RetryPolicy(), draw_jitter=lambda: 0.5
        )
        arrivals = [read_arrival(delivery, consumer=consumer) for delivery in deliveries]

        async def settle() -> list[Any]:
            return await self.database.transact(
                lambda transaction: settling.take_effect(transaction, arrivals)
            )

        settled = self.runner.run(settle())
        copies = [each for each in settled if each.outcome == "duplicate"]
        others = [each for each in settled if each.outcome != "duplicate"]
        others.sort(key=lambda each: each.arrival.delivery.tag)
        return [str(each.outcome) for each in (*others, *copies)]

    def _deliver_each(self, deliveries: list[Delivery]) -> list[str]:
        return [outcome for delivery in deliveries for outcome in self._deliver([delivery])]


def _place_order(wish: Wish) -> PlaceOrder:
    return PlaceOrder(
        key=RequestKey(wish.user_id, KeyKind.HEADER, wish.key),
        body_hash=str(wish.lines),
        token_issued_at=None,
        wanted=tuple(WantedLine(sku_id=sku_id, quantity=count) for sku_id, count in wish.lines),
        receiver=None,
        buyer_remark=None,
        expected_pay_amount_minor=None,
    )


def _told(answer: PlacedOrder | Refusal) -> str:
    if isinstance(answer, Refusal):
        return answer.code
    return f"replayed {answer.order.order_no}" if answer.is_replayed else "new"


def _payment_body(report: Report) -> bytes:
    return payment_success_notify.encode(
        payment_success_notify.PaymentSucceeded(
            order_no=report.order_no,
            trade_no=report.trade_no,
            pay_channel=report.channel,
            amount_minor=report.amount,
            currency=report.currency,
        )
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the catalogue and nothing else, to be copied for each course."""
    path = tmp_path_factory.mktemp("template") / "orderkeep.db"
    with sqlite3.connect(path) as connection:
        for sql in create_tables_sql():
            connection.execute(sql)

    async def fill() -> None:
        database = SqliteDatabase(path)
        shop = Shop(database)
        for sku_id, count in STOCK.items():
            await shop.put_sku(sku_id, unit_price_minor=PRICES[sku_id], stock=count)
        await database.close()

    asyncio.run(fill())
    return path


@pytest.mark.slow
def test_orders_end_as_the_model_says_whatever_happens(
    request: pytest.FixtureRequest, template: Path
) -> None:
    OrderMachine.template = template
    machine = seed(request.config.getoption("randomly_seed", default=0))(OrderMachine)

    with capture_logs():
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=25,
                stateful_step_count=25,
                deadline=None,
                database=None,
                print_blob=True,
                # A course is short enough to read as it was drawn; to shrink it takes minutes.
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
