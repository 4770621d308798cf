"""`verify` finds every breach that is planted, names it, and nothing else."""

from dataclasses import dataclass

import pytest
from sqlalchemy.dialects import postgresql, sqlite

from orderkeep.carts.tables import KERNEL as CART_KERNEL
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import ReadTransaction
from orderkeep.orders.order import Order
from orderkeep.orders.payment import LatePaymentPolicy
from orderkeep.orders.tables import KERNEL
from orderkeep.orders.verify import CHECKS, Finding, find_breaches, find_lateness
from tests.integration.orders.shop import Shop, payment


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """One order in each state; all but the refunded one are of Ann, and each wants 2 teas."""

    pending: Order
    paid: Order
    cancelled: Order
    closed: Order
    # Cancelled, then paid by T-refunded: R1 gives it back.
    refunded: Order
    # Pending; T-doubtful brought the wrong amount.
    doubtful: Order


@pytest.fixture
async def orders(shop: Shop) -> Orders:
    await shop.fill(tea=100, pot=10)
    orders = Orders(
        pending=await shop.order(tea=2),
        paid=await shop.order(tea=2),
        cancelled=await shop.order(tea=2),
        closed=await shop.order(tea=2),
        refunded=await shop.order("bob", tea=2),
        doubtful=await shop.order(tea=2),
    )
    await shop.pay(payment(orders.paid, "T-paid"))
    await shop.cancel(orders.cancelled)
    await shop.cancel(orders.refunded)
    await shop.expire(orders.closed)
    await shop.pay(payment(orders.refunded, "T-refunded"))
    await shop.pay(payment(orders.doubtful, "T-doubtful", amount_minor=1))
    return orders


async def _broken(shop: Shop) -> dict[str, tuple[str, ...]]:
    return {found.invariant: found.subjects for found in await shop.breaches()}


@pytest.mark.usefixtures("orders")
async def test_a_shop_that_was_left_alone_breaks_nothing(shop: Shop) -> None:
    assert await shop.breaches() == []


async def test_an_empty_shop_breaks_nothing(shop: Shop) -> None:
    assert await shop.breaches() == []


async def test_a_revived_order_breaks_nothing(shop: Shop, orders: Orders) -> None:
    await shop.pay(payment(orders.closed, "T-late"), policy=LatePaymentPolicy.REVIVE)

    assert shop.order_row(orders.closed.order_no)["status"] == "paid"
    assert await shop.breaches() == []


@pytest.mark.parametrize(
    ("sql", "broken"),
    [
        (
            "UPDATE order_history SET cause = 'payment' WHERE order_no = :no AND version = 3",
            {"history-is-a-chain"},
        ),
        (
            "DELETE FROM stock_movements WHERE cause = :no AND kind = 'revive'",
            {"stock-equals-movements", "order-moves-its-stock"},
        ),
        (
            "UPDATE stock_movements SET kind = 'sell' WHERE cause = :no AND kind = 'revive'",
            {"stock-equals-movements", "order-moves-its-stock"},
        ),
        (
            "UPDATE order_payments SET outcome = 'refund' WHERE order_no = :no",
            {"paid-by-one-payment", "refund-for-each-refunded-payment"},
        ),
        (
            (
                "INSERT INTO order_history SELECT order_no, 4, 'paid', 'closed', 'payment_timeout',"
                " 'm', NULL, changed_at FROM order_history WHERE order_no = :no AND version = 3"
            ),
            {"history-without-gaps", "history-is-a-chain"},
        ),
    ],
)
async def test_what_is_wrong_with_a_revived_order_is_found(
    shop: Shop, orders: Orders, sql: str, broken: set[str]
) -> None:
    await shop.pay(payment(orders.closed, "T-late"), policy=LatePaymentPolicy.REVIVE)

    shop.write(sql, no=orders.closed.order_no)

    found = await _broken(shop)
    assert set(found) == broken
    assert {found[name] for name in broken} <= {("tea",), (orders.closed.order_no,), ("T-late",)}


# What is planted, as SQL with the numbers of `Orders` by name; and every invariant that it breaks.
PLANTED = [
    # Stock.
    (
        "UPDATE stock SET available = available + 1 WHERE sku_id = 'pot'",
        {"stock-equals-movements": "pot"},
    ),
    (
        "UPDATE stock_movements SET quantity = 11 WHERE sku_id = 'pot'",
        {"stock-equals-movements": "pot"},
    ),
    (
        (
            "INSERT INTO stock_movements (sku_id, kind, cause, quantity, moved_at)"
            " VALUES ('ghost', 'adjust', 'olga 1', 1, 1)"
        ),
        {"movement-has-its-stock": "ghost"},
    ),
    (
        "UPDATE stock SET available = -10, reserved = 20 WHERE sku_id = 'pot'",
        {
            "stock-equals-movements": "pot",
            "stock-not-negative": "pot",
            "stock-equals-orders": "pot",
        },
    ),
    (
        "UPDATE stock SET reserved = reserved - 2, available = available + 2 WHERE sku_id = 'tea'",
        {"stock-equals-movements": "tea", "stock-equals-orders": "tea"},
    ),
    (
        "UPDATE stock_movements SET cause = :pending WHERE cause = :cancelled AND kind = 'release'",
        {"order-moves-its-stock": ":cancelled :pending"},
    ),
    (
        "UPDATE stock_movements SET kind = 'release' WHERE kind = 'sell'",
        {"stock-equals-movements": "tea", "order-moves-its-stock": ":paid"},
    ),
    (
        "DELETE FROM stock_movements WHERE cause = :pending",
        {"stock-equals-movements": "tea", "order-moves-its-stock": ":pending"},
    ),
    (
        "UPDATE stock_movements SET cause = 'nobody' WHERE cause = :closed AND kind = 'release'",
        {"order-moves-its-stock": ":closed", "movement-has-its-line": "nobody"},
    ),
    (
        (
            "INSERT INTO stock_movements (sku_id, kind, cause, quantity, moved_at)"
            " VALUES ('tea', 'revive', :paid, 2, 1)"
        ),
        {"stock-equals-movements": "tea", "order-moves-its-stock": ":paid"},
    ),
    # History.
    (
        "DELETE FROM order_history WHERE order_no = :pending",
        {"history-without-gaps": ":pending"},
    ),
    (
        "DELETE FROM order_history WHERE order_no = :paid AND version = 1",
        {"history-without-gaps": ":paid"},
    ),
    (
        "DELETE FROM order_history WHERE order_no = :paid AND version = 2",
        {"history-without-gaps": ":paid"},
    ),
    (
        "UPDATE order_history SET version = 3 WHERE order_no = :paid AND version = 2",
        {"history-without-gaps": ":paid"},
    ),
    (
        (
            "INSERT INTO order_history SELECT order_no, 0, from_status, to_status, cause, actor,"
            " note, changed_at FROM order_history WHERE order_no = :pending"
        ),
        {"history-without-gaps": ":pending", "history-is-a-chain": ":pending"},
    ),
    (
        (
            "UPDATE order_history SET to_status = 'cancelled', cause = 'buyer'"
            " WHERE order_no = :closed AND version = 2"
        ),
        {"history-equals-order": ":closed"},
    ),
    (
        "UPDATE order_history SET from_status = 'closed' WHERE order_no = :pending",
        {"history-is-a-chain": ":pending"},
    ),
    (
        "UPDATE order_history SET from_status = 'closed' WHERE order_no = :paid AND version = 2",
        {"history-is-a-chain": ":paid"},
    ),
    (
        "UPDATE order_history SET from_status = NULL WHERE order_no = :paid AND version = 2",
        {"history-is-a-chain": ":paid"},
    ),
    (
        "UPDATE order_history SET to_status = 'closed' WHERE order_no = :pending",
        {"history-equals-order": ":pending", "history-is-a-chain": ":pending"},
    ),
    # Ends and deadlines.
    ("UPDATE orders SET paid_at = NULL WHERE order_no = :paid", {"end-has-its-time": ":paid"}),
    (
        "UPDATE orders SET cancelled_at = NULL WHERE order_no = :cancelled",
        {"end-has-its-time": ":cancelled"},
    ),
    (
        "UPDATE orders SET closed_at = NULL WHERE order_no = :closed",
        {"end-has-its-time": ":closed"},
    ),
    (
        "UPDATE orders SET trade_no = NULL WHERE order_no = :paid",
        {"end-has-its-time": ":paid", "payment-equals-order": ":paid"},
    ),
    (
        "UPDATE orders SET closed_at = expires_at - 1 WHERE order_no = :closed",
        {"closed-not-early": ":closed"},
    ),
    # Payments.
    (
        "DELETE FROM order_payments WHERE trade_no = 'T-paid'",
        {"paid-by-one-payment": ":paid"},
    ),
    (
        "UPDATE order_payments SET order_no = :pending WHERE trade_no = 'T-paid'",
        {"paid-by-one-payment": ":pending :paid", "payment-equals-order": ":pending"},
    ),
    (
        "UPDATE order_payments SET order_no = 'nobody' WHERE trade_no = 'T-paid'",
        {"paid-by-one-payment": ":paid", "payment-equals-order": "nobody"},
    ),
    (
        "UPDATE order_payments SET amount_minor = 1 WHERE trade_no = 'T-paid'",
        {"payment-equals-order": ":paid"},
    ),
    (
        "UPDATE order_payments SET amount_minor = NULL WHERE trade_no = 'T-paid'",
        {"payment-equals-order": ":paid"},
    ),
    (
        "UPDATE order_payments SET currency = 'EUR' WHERE trade_no = 'T-paid'",
        {"payment-equals-order": ":paid"},
    ),
    (
        "UPDATE order_payments SET currency = NULL WHERE trade_no = 'T-paid'",
        {"payment-equals-order": ":paid"},
    ),
    (
        "UPDATE orders SET trade_no = 'T-other' WHERE order_no = :paid",
        {"payment-equals-order": ":paid"},
    ),
    (
        "UPDATE orders SET pay_channel = NULL WHERE order_no = :paid",
        {"payment-equals-order": ":paid"},
    ),
    # Refunds and cases.
    (
        "DELETE FROM order_payments WHERE trade_no = 'T-refunded'",
        {"refunded-once": "R1"},
    ),
    (
        (
            "INSERT INTO order_refunds SELECT 'R2', :paid, 'alipay', 'T-paid', NULL, 1, 'CNY',"
            " 'late_payment', 'requested', NULL, NULL, 1, NULL"
        ),
        {"refunded-once": "R2"},
    ),
    (
        (
            "INSERT INTO order_refunds SELECT 'R2', order_no, pay_channel, trade_no, NULL, 1,"
            " 'CNY', 'late_payment', 'requested', NULL, NULL, 1, NULL FROM order_payments"
            " WHERE trade_no = 'T-doubtful'"
        ),
        {"refunded-once": "R2"},
    ),
    (
        "UPDATE order_refunds SET amount_minor = amount_minor + 1",
        {"refunded-once": "R1"},
    ),
    ("UPDATE order_refunds SET currency = 'EUR'", {"refunded-once": "R1"}),
    ("UPDATE order_refunds SET order_no = :cancelled", {"refunded-once": "R1"}),
    (
        "UPDATE order_payments SET amount_minor = NULL WHERE trade_no = 'T-refunded'",
        {"refunded-once": "R1"},
    ),
    (
        "DELETE FROM order_refunds",
        {"refund-for-each-refunded-payment": "T-refunded"},
    ),
    (
        "UPDATE order_refunds SET pay_channel = 'wechat'",
        {"refunded-once": "R1", "refund-for-each-refunded-payment": "T-refunded"},
    ),
    (
        "DELETE FROM payment_cases",
        {"case-for-each-payment-in-doubt": "T-doubtful"},
    ),
    (
        "UPDATE payment_cases SET order_no = :paid",
        {"case-for-each-payment-in-doubt": "T-doubtful"},
    ),
    (
        "UPDATE payment_cases SET resolution = 'dismiss'",
        {"case-went-as-resolved": "T-doubtful"},
    ),
    (
        "UPDATE payment_cases SET state = 'resolved', resolution = 'dismiss'",
        {"case-went-as-resolved": "T-doubtful"},
    ),
    (
        "UPDATE payment_cases SET state = 'resolved', resolution = 'accept', resolved_by = 'olga'",
        {"case-went-as-resolved": "T-doubtful"},
    ),
    (
        "UPDATE payment_cases SET state = 'resolved', resolution = 'refund', resolved_by = 'olga'",
        {"case-went-as-resolved": "T-doubtful"},
    ),
    # Keys and lines.
    (
        "INSERT INTO order_requests VALUES ('ann', 'header', 'lost', 'nobody', 'hash')",
        {"key-names-an-order": "nobody"},
    ),
    (
        "UPDATE order_requests SET user_id = 'eve' WHERE order_no = :paid",
        {"key-names-an-order": ":paid"},
    ),
    (
        "DELETE FROM order_requests WHERE order_no = :paid",
        {"order-has-one-key": ":paid"},
    ),
    (
        "INSERT INTO order_requests VALUES ('ann', 'token', 'second', :paid, 'hash')",
        {"order-has-one-key": ":paid"},
    ),
    (
        "UPDATE orders SET total_amount_minor = total_amount_minor + 1 WHERE order_no = :paid",
        {"amount-equals-lines": ":paid"},
    ),
    (
        "UPDATE order_lines SET unit_price_minor = 1 WHERE order_no = :paid",
        {"line-equals-price-times-quantity": ":paid"},
    ),
    (
        "UPDATE order_lines SET subtotal_minor = 1 WHERE order_no = :paid",
        {"amount-equals-lines": ":paid", "line-equals-price-times-quantity": ":paid"},
    ),
    (
        (
            "UPDATE order_lines SET quantity = 3, subtotal_minor = unit_price_minor * 3"
            " WHERE order_no = :pending"
        ),
        {
            "stock-equals-orders": "tea",
            "order-moves-its-stock": ":pending",
            "amount-equals-lines": ":pending",
        },
    ),
    (
        "DELETE FROM order_lines WHERE order_no = :cancelled",
        {"movement-has-its-line": ":cancelled", "amount-equals-lines": ":cancelled"},
    ),
    # What the orders and their rows make together.
    (
        "UPDATE orders SET status = 'closed', closed_at = expires_at WHERE order_no = :pending",
        {
            "stock-equals-orders": "tea",
            "order-moves-its-stock": ":pending",
            "history-equals-order": ":pending",
        },
    ),
    (
        "UPDATE orders SET status = 'paid', paid_at = 1, trade_no = 'T9' WHERE order_no = :pending",
        {
            "stock-equals-orders": "tea",
            "order-moves-its-stock": ":pending",
            "history-equals-order": ":pending",
            "paid-by-one-payment": ":pending",
        },
    ),
]


@pytest.mark.parametrize(("sql", "broken"), PLANTED, ids=[sql for sql, _ in PLANTED])
async def test_a_planted_breach_is_found_by_the_checks_that_it_breaks_and_no_other(
    shop: Shop, orders: Orders, sql: str, broken: dict[str, str]
) -> None:
    numbers = {
        name: getattr(orders, name).order_no for name in Orders.__slots__ if f":{name}" in sql
    }
    shop.write(sql, **numbers)

    found = await _broken(shop)

    every = {f":{name}": getattr(orders, name).order_no for name in Orders.__slots__}
    assert found == {
        invariant: tuple(sorted(every.get(subject, subject) for subject in subjects.split()))
        for invariant, subjects in broken.items()
    }


def test_a_breach_of_every_check_is_planted_above() -> None:
    planted = {invariant for _, broken in PLANTED for invariant in broken}

    assert {check.invariant for check in CHECKS} == planted
    assert len(CHECKS) == len(planted)


async def test_history_of_an_ended_order_that_goes_on_is_found(shop: Shop, orders: Orders) -> None:
    for order, after in ((orders.paid, "cancelled"), (orders.cancelled, "paid")):
        shop.write(
            "INSERT INTO order_history SELECT order_no, 3, to_status, :after, cause, actor, note,"
            " changed_at FROM order_history WHERE order_no = :no AND version = 2",
            no=order.order_no,
            after=after,
        )
        shop.write("UPDATE orders SET version = 3 WHERE order_no = :no", no=order.order_no)

    found = await _broken(shop)

    both = tuple(sorted([orders.paid.order_no, orders.cancelled.order_no]))
    assert found == {"history-equals-order": both, "history-is-a-chain": both}


@pytest.mark.parametrize("after", ["cancelled", "closed", "pending_payment"])
async def test_history_of_a_closed_order_that_goes_on_otherwise_than_paid_is_found(
    shop: Shop, orders: Orders, after: str
) -> None:
    shop.write(
        "INSERT INTO order_history SELECT order_no, 3, to_status, :after, cause, actor, note,"
        " changed_at FROM order_history WHERE order_no = :no AND version = 2",
        no=orders.closed.order_no,
        after=after,
    )

    found = await _broken(shop)

    assert found["history-is-a-chain"] == (orders.closed.order_no,)


async def test_a_pending_order_that_becomes_pending_again_is_found(
    shop: Shop, orders: Orders
) -> None:
    shop.write(
        "UPDATE order_history SET from_status = 'pending_payment', to_status = 'pending_payment'"
        " WHERE order_no = :no AND version = 2",
        no=orders.paid.order_no,
    )

    assert "history-is-a-chain" in await _broken(shop)


async def test_two_accepted_payments_of_one_order_are_found(shop: Shop, orders: Orders) -> None:
    shop.write("DROP INDEX uq_order_payments_accepted")
    shop.write(
        "INSERT INTO order_payments SELECT 'wechat', trade_no, order_no, payment_no, amount_minor,"
        " currency, paid_at, received_at, outcome, message_id FROM order_payments"
        " WHERE trade_no = 'T-paid'"
    )

    found = await _broken(shop)

    assert found["paid-by-one-payment"] == (orders.paid.order_no,)


async def test_breaches_of_two_orders_that_even_out_are_found(shop: Shop, orders: Orders) -> None:
    await shop.pay(payment(orders.pending, "T-late"))
    for number in (1, -1):
        shop.write(
            "UPDATE order_lines SET subtotal_minor = subtotal_minor + :n WHERE order_no = :no",
            no=(orders.pending if number == 1 else orders.paid).order_no,
            n=number,
        )

    found = await _broken(shop)

    assert found == {
        "amount-equals-lines": tuple(sorted([orders.pending.order_no, orders.paid.order_no])),
        "line-equals-price-times-quantity": tuple(
            sorted([orders.pending.order_no, orders.paid.order_no])
        ),
    }


async def test_of_many_breaches_the_first_20_are_shown(shop: Shop) -> None:
    await shop.fill(tea=30)
    orders = [await shop.order(tea=1) for _ in range(25)]
    shop.write("DELETE FROM order_history")

    (finding,) = await shop.breaches()

    assert finding.subjects == tuple(order.order_no for order in orders[:20])


@pytest.mark.usefixtures("orders")
async def test_a_finding_says_what_should_hold_and_what_to_do(shop: Shop) -> None:
    shop.write("DELETE FROM order_refunds")

    assert await shop.breaches() == [
        Finding(
            invariant="refund-for-each-refunded-payment",
            says="each payment that is to go back has its refund",
            subjects=("T-refunded",),
            remedy="refund the payment at the channel by hand, and report this as a bug",
        )
    ]


@pytest.mark.usefixtures("orders")
async def test_all_checks_see_one_snapshot(shop: Shop) -> None:
    async def between(transaction: ReadTransaction) -> tuple[list[Finding], list[Finding]]:
        before = await find_breaches(transaction)
        shop.write("DELETE FROM order_refunds")
        return before, await find_breaches(transaction)

    before, still = await shop.database.read(between)

    assert (before, still) == ([], [])
    assert len(await shop.breaches()) == 1


@pytest.mark.usefixtures("orders")
async def test_checking_changes_nothing(shop: Shop) -> None:
    before = shop.dump()

    await shop.breaches()

    assert shop.dump() == before


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()])
def test_every_check_can_be_said_to_every_engine(dialect) -> None:
    for check in CHECKS:
        assert isinstance(check.breaches, Statement)
        assert "SELECT" in str(check.breaches.clause.compile(dialect=dialect))


# Lateness.


async def _late(
    shop: Shop, *, overdue_s: float = 60.0, outbox_age_s: float = 3_600.0
) -> list[tuple[str, tuple[str, ...]]]:
    async def read(transaction: ReadTransaction) -> list[Finding]:
        return await find_lateness(
            transaction,
            overdue_s=overdue_s,
            outboxes=[KERNEL, CART_KERNEL],
            outbox_age_s=outbox_age_s,
        )

    return [(found.invariant, found.subjects) for found in await shop.database.read(read)]


@pytest.mark.usefixtures("orders")
async def test_a_shop_that_keeps_up_is_not_late(shop: Shop) -> None:
    assert await _late(shop) == []


async def test_an_unpaid_order_past_its_deadline_and_the_patience_is_late(
    shop: Shop, orders: Orders
) -> None:
    shop.make_due(orders.pending, since_s=61.0)
    shop.make_due(orders.doubtful, since_s=50.0)
    shop.make_due(orders.paid, since_s=100.0)

    assert await _late(shop) == [("closed-in-time", (orders.pending.order_no,))]


async def test_the_longest_overdue_orders_are_shown_first(shop: Shop, orders: Orders) -> None:
    shop.make_due(orders.pending, since_s=100.0)
    shop.make_due(orders.doubtful, since_s=200.0)

    assert await _late(shop) == [
        ("closed-in-time", (orders.doubtful.order_no, orders.pending.order_no))
    ]


@pytest.mark.usefixtures("orders")
async def test_an_event_that_may_go_and_stays_is_late(shop: Shop) -> None:
    shop.write("UPDATE order_outbox SET state = 'sent', sent_at = created_at")
    shop.write(
        "UPDATE order_outbox SET state = 'pending', not_before = not_before - 3601000000"
        " WHERE message_id = 'm1'"
    )

    assert await _late(shop) == [("order-outbox-sent-in-time", ("m1",))]


@pytest.mark.usefixtures("orders")
async def test_an_event_that_may_not_go_yet_is_not_late(shop: Shop) -> None:
    shop.write("UPDATE order_outbox SET not_before = not_before + 3600000000")

    assert await _late(shop, outbox_age_s=0.0) == []


async def test_the_outbox_of_each_service_is_looked_at(shop: Shop) -> None:
    shop.write(
        "INSERT INTO cart_outbox (message_id, partition, aggregate_id, sequence, type, route, body,"
        " headers, state, ordered, not_before, attempts, created_at)"
        " VALUES ('c1', 0, 'ann', 1, 't', 'r', :nothing, :nothing, 'pending', true, 1, 0, 1)",
        nothing=b"",
    )

    assert await _late(shop) == [("cart-outbox-sent-in-time", ("c1",))]


@pytest.mark.usefixtures("orders")
async def test_a_parked_event_waits_for_an_operator_and_is_told(shop: Shop) -> None:
    shop.write("UPDATE order_outbox SET state = 'sent', sent_at = created_at")
    shop.write("UPDATE order_outbox SET state = 'failed' WHERE message_id = 'm1'")

    assert await _late(shop) == [("order-outbox-none-parked", ("m1",))]


@pytest.mark.usefixtures("orders")
async def test_an_event_that_was_given_up_is_not_late(shop: Shop) -> None:
    shop.write("UPDATE order_outbox SET state = 'discarded', not_before = 1")

    assert await _late(shop) == []
