"""Payment cases: what each action does with each kind, once, and what is left on record."""

import json
from typing import Any

import pytest

from orderkeep.database.audit import AuditFilter, RecordedAct, list_audit
from orderkeep.database.transaction import ReadTransaction
from orderkeep.messaging.consumer import HANDLED
from orderkeep.orders.order import Order
from orderkeep.orders.payment import LatePaymentPolicy
from tests.integration.orders.shop import LONG_AGO, Shop, only, payment
from tests.integration.orders.storefront import Storefront, problem

UNKNOWN_ORDER_NO = "0100000000000009"


@pytest.fixture
async def order(storefront: Storefront) -> Order:
    """An unpaid order of Ann's: 2 teas of 10, for 51.98 CNY."""
    await storefront.shop.fill(tea=10)
    storefront.shop.write("DELETE FROM admin_audit")
    return await storefront.shop.order("ann", tea=2)


async def resolve(
    storefront: Storefront, action: str, *, case_id: int | str = 1, by: str = "olga"
) -> Any:
    path = f"/admin/payment-cases/{case_id}/resolve"
    return await storefront.post(path, {"action": action, "reason": "agreed"}, by=by)


async def open_case(shop: Shop, order: Order, kind: str) -> None:
    """Let a payment T1 become the one case of the kind."""
    if kind == "late_payment":
        await shop.expire(order)
        await shop.pay(payment(order), policy=LatePaymentPolicy.MANUAL)
    elif kind == "amount_mismatch":
        await shop.pay(payment(order, amount_minor=5_000))
    elif kind == "currency_mismatch":
        await shop.pay(payment(order, currency="EUR"))
    elif kind == "amount_missing":
        await shop.pay(payment(order, amount_minor=None))
    else:
        # A trade that says with and without a channel that it pays one order.
        await shop.pay(payment(order, pay_channel=None))
        await shop.pay(payment(order))
    assert shop.row("SELECT kind, state FROM payment_cases") == {"kind": kind, "state": "open"}


def outcomes(shop: Shop) -> list[str]:
    rows = shop.rows("SELECT outcome FROM order_payments ORDER BY received_at, pay_channel")
    return [row["outcome"] for row in rows]


def refunds(shop: Shop) -> list[tuple[Any, ...]]:
    rows = shop.rows("SELECT * FROM order_refunds ORDER BY refund_no")
    names = ("order_no", "trade_no", "amount_minor", "currency", "reason", "status")
    return [tuple(row[name] for name in names) for row in rows]


# What operators see.


async def test_a_case_is_listed_and_shown(storefront: Storefront, order: Order) -> None:
    await open_case(storefront.shop, order, "amount_mismatch")

    page = (await storefront.get("/admin/payment-cases", by="otto")).json()
    shown = (await storefront.get("/admin/payment-cases/1", by="otto")).json()

    opened_at = shown.pop("opened_at")
    assert opened_at.endswith("Z")
    assert shown == {
        "id": 1,
        "kind": "amount_mismatch",
        "state": "open",
        "order_no": order.order_no,
        "pay_channel": "alipay",
        "trade_no": "T1",
        "payment_no": "P-T1",
        "amount": "50.00",
        "currency": "CNY",
        "message_id": "in-1",
        "detail": f"order {order.order_no} owes 51.98 CNY, 50.00 was received",
    }
    assert page == {"items": [{**shown, "opened_at": opened_at}], "next_cursor": None}


async def test_cases_are_listed_by_state_newest_first_page_by_page(
    storefront: Storefront, order: Order
) -> None:
    for trade_no in ("T1", "T2", "T3", "T4"):
        await storefront.shop.pay(payment(order, trade_no, amount_minor=1))
    await resolve(storefront, "dismiss", case_id=2)

    first = (await storefront.get("/admin/payment-cases?state=open&limit=2", by="otto")).json()
    query = f"state=open&limit=2&cursor={first['next_cursor']}"
    rest = (await storefront.get(f"/admin/payment-cases?{query}", by="otto")).json()
    resolved = (await storefront.get("/admin/payment-cases?state=resolved", by="otto")).json()

    assert [case["id"] for case in first["items"]] == [4, 3]
    assert [case["id"] for case in rest["items"]] == [1]
    assert rest["next_cursor"] is None
    assert [case["id"] for case in resolved["items"]] == [2]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("state=gone", (422, "invalid_request")),
        ("limit=0", (422, "invalid_request")),
        ("cursor=x", (400, "invalid_cursor")),
    ],
)
async def test_a_list_refuses_what_it_cannot_take(
    storefront: Storefront, query: str, told: tuple[int, str]
) -> None:
    assert problem(await storefront.get(f"/admin/payment-cases?{query}", by="otto")) == told


async def test_a_wrong_state_is_named_as_the_client_wrote_it(storefront: Storefront) -> None:
    answer = await storefront.get("/admin/payment-cases?state=resolvd", by="otto")

    assert answer.json()["errors"] == [
        {"pointer": "query/state", "detail": "is not known; did you mean resolved?"}
    ]


@pytest.mark.parametrize("case_id", ["2", "x", "-1", "1.0", "9" * 19])
async def test_a_case_that_is_not_there_is_not_found(
    storefront: Storefront, order: Order, case_id: str
) -> None:
    await open_case(storefront.shop, order, "amount_mismatch")

    shown = await storefront.get(f"/admin/payment-cases/{case_id}", by="olga")
    resolved = await resolve(storefront, "dismiss", case_id=case_id)

    assert problem(shown) == problem(resolved) == (404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        {"action": "accept"},
        {"reason": "agreed"},
        {"action": "accept", "reason": ""},
        {"action": "accept", "reason": "x" * 501},
        {"action": "keep", "reason": "agreed"},
        {"action": "accept", "reason": "agreed", "amount": "1.00"},
    ],
)
async def test_a_verdict_names_its_action_and_its_reason(
    storefront: Storefront, order: Order, body: dict[str, str]
) -> None:
    await open_case(storefront.shop, order, "amount_mismatch")
    before = storefront.shop.dump()

    answer = await storefront.post("/admin/payment-cases/1/resolve", body, by="olga")

    assert problem(answer) == (422, "invalid_request")
    assert storefront.shop.dump() == before


# Accept.


@pytest.mark.parametrize(
    ("kind", "received"),
    [
        ("amount_mismatch", (5_000, "CNY")),
        ("currency_mismatch", (5_198, "EUR")),
        ("amount_missing", (None, "CNY")),
    ],
)
async def test_accepting_pays_a_pending_order_with_what_was_received(
    storefront: Storefront, order: Order, kind: str, received: tuple[int | None, str]
) -> None:
    shop = storefront.shop
    await open_case(shop, order, kind)

    answer = await resolve(storefront, "accept")

    assert answer.status_code == 200
    assert only(answer.json(), "state", "action", "resolved_by", "reason") == {
        "state": "resolved",
        "action": "accept",
        "resolved_by": "olga",
        "reason": "agreed",
    }
    assert only(
        shop.order_row(order.order_no), "status", "version", "trade_no", "pay_amount_minor"
    ) == {"status": "paid", "version": 2, "trade_no": "T1", "pay_amount_minor": 5_198}
    assert shop.history(order.order_no)[1:] == [(2, "pending_payment", "paid", "operator", "olga")]
    assert shop.stock_of("tea") == (8, 0, 2)
    assert shop.sent(order.order_no)[2:] == [(3, "order.paid")]
    recorded = shop.row("SELECT outcome, amount_minor, currency FROM order_payments")
    assert tuple(recorded.values()) == ("accepted", *received)
    assert refunds(shop) == []
    assert await shop.breaches() == []


@pytest.mark.parametrize("kind", ["late_payment", "amount_mismatch"])
async def test_accepting_revives_a_closed_order_whose_stock_is_there(
    storefront: Storefront, order: Order, kind: str
) -> None:
    shop = storefront.shop
    await open_case(shop, order, kind)
    if kind != "late_payment":
        await shop.expire(order)

    answer = await resolve(storefront, "accept")

    assert answer.status_code == 200
    assert shop.history(order.order_no)[2:] == [(3, "closed", "paid", "revival", "olga")]
    assert shop.movements(order.order_no)[-1] == ("tea", "revive", 2)
    assert shop.stock_of("tea") == (8, 0, 2)
    assert outcomes(shop) == ["accepted"]
    assert await shop.breaches() == []


async def test_accepting_for_a_closed_order_without_its_stock_is_refused_and_the_case_stays_open(
    storefront: Storefront, order: Order
) -> None:
    shop = storefront.shop
    await open_case(shop, order, "late_payment")
    await shop.order("bob", tea=9)
    before = shop.dump()

    answer = await resolve(storefront, "accept")

    assert problem(answer) == (409, "out_of_stock")
    assert answer.json()["items"] == [{"sku_id": "tea", "requested": 2, "available": 1}]
    assert shop.dump() == before
    assert (await resolve(storefront, "refund")).status_code == 200


@pytest.mark.parametrize("end", ["paid", "cancelled"])
async def test_accepting_for_an_order_that_takes_no_money_is_refused(
    storefront: Storefront, order: Order, end: str
) -> None:
    shop = storefront.shop
    await open_case(shop, order, "amount_mismatch")
    if end == "paid":
        await shop.pay(payment(order, "T2"))
    else:
        await shop.cancel(order)
    before = shop.dump()

    answer = await resolve(storefront, "accept")

    assert problem(answer) == (409, "order_not_pending")
    assert answer.json()["order_status"] == end
    assert shop.dump() == before


async def test_two_cases_of_one_order_pay_it_once(storefront: Storefront, order: Order) -> None:
    await storefront.shop.pay(payment(order, "T1", amount_minor=1))
    await storefront.shop.pay(payment(order, "T2", amount_minor=2))

    first = await resolve(storefront, "accept", case_id=1)
    second = await resolve(storefront, "accept", case_id=2)

    assert first.status_code == 200
    assert problem(second) == (409, "order_not_pending")
    assert outcomes(storefront.shop) == ["accepted", "case"]
    assert await storefront.shop.breaches() == []


# Refund.


@pytest.mark.parametrize(
    ("kind", "amount_minor", "currency"),
    [
        ("late_payment", 5_198, "CNY"),
        ("amount_mismatch", 5_000, "CNY"),
        ("currency_mismatch", 5_198, "EUR"),
        ("trade_no_conflict", 5_198, "CNY"),
    ],
)
async def test_refunding_asks_for_what_was_received_once_and_leaves_the_order_as_it_is(
    storefront: Storefront, order: Order, kind: str, amount_minor: int, currency: str
) -> None:
    shop = storefront.shop
    await open_case(shop, order, kind)
    before = shop.order_row(order.order_no)

    answer = await resolve(storefront, "refund")

    assert answer.status_code == 200
    assert only(answer.json()["refund"], "refund_no", "status") == {
        "refund_no": "R1",
        "status": "requested",
    }
    assert refunds(shop) == [
        (order.order_no, "T1", amount_minor, currency, "operator", "requested")
    ]
    assert outcomes(shop)[-1 if kind != "trade_no_conflict" else 1] == "refund"
    (asked,) = shop.bodies("refund.requested")
    assert only(asked, "refund_no", "user_id", "reason", "currency") == {
        "refund_no": "R1",
        "user_id": "ann",
        "reason": "operator",
        "currency": currency,
    }
    after = shop.order_row(order.order_no)
    assert after == {**before, "event_seq": before["event_seq"] + 1}
    assert await shop.breaches() == []


async def test_money_without_an_amount_cannot_go_back_by_itself(
    storefront: Storefront, order: Order
) -> None:
    await open_case(storefront.shop, order, "amount_missing")
    before = storefront.shop.dump()

    answer = await resolve(storefront, "refund")

    assert problem(answer) == (422, "invalid_request")
    assert answer.json()["errors"][0]["pointer"] == "/action"
    assert "names no amount" in answer.json()["detail"]
    assert storefront.shop.dump() == before


# A trade on record by another report.


@pytest.mark.parametrize("action", ["accept", "refund"])
async def test_a_trade_that_paid_already_is_neither_accepted_nor_refunded_by_its_conflict(
    storefront: Storefront, order: Order, action: str
) -> None:
    shop = storefront.shop
    await shop.pay(payment(order))
    await shop.pay(payment(order, amount_minor=5_199))
    before = shop.dump()

    answer = await resolve(storefront, action)

    assert problem(answer) == (422, "invalid_request")
    assert shop.dump() == before
    assert (await resolve(storefront, "dismiss")).status_code == 200
    assert await shop.breaches() == []


async def test_one_trade_told_in_two_ways_is_not_accepted(
    storefront: Storefront, order: Order
) -> None:
    await open_case(storefront.shop, order, "trade_no_conflict")

    assert problem(await resolve(storefront, "accept")) == (422, "invalid_request")


# An order that nobody knows.


async def _hear_of_unknown_order(shop: Shop, order_no: str, **members: Any) -> None:
    body = {"order_no": order_no, "user_id": None, "payment_no": None, **members}
    outcome = await shop.pay(payment(await _paper_order(shop), **body), first_received_at=LONG_AGO)
    assert outcome == [HANDLED]


async def _paper_order(shop: Shop) -> Order:
    orders = shop.rows("SELECT order_no FROM orders")
    return await shop.desk.get(orders[0]["order_no"], user_id=None)


@pytest.mark.usefixtures("order")
async def test_money_for_an_order_that_nobody_knows_is_accepted_once_there_is_one(
    storefront: Storefront,
) -> None:
    shop = storefront.shop
    await _hear_of_unknown_order(shop, UNKNOWN_ORDER_NO)

    early = await resolve(storefront, "accept")
    # The order that the money was for is placed, or restored, and bears the number.
    late = await shop.order("bob", tea=2)
    for table in ("payment_cases", "order_payments"):
        shop.write(
            f"UPDATE {table} SET order_no = :late WHERE order_no = :no",  # noqa: S608 (one of two)
            late=late.order_no,
            no=UNKNOWN_ORDER_NO,
        )
    accepted = await resolve(storefront, "accept")

    assert problem(early) == (409, "order_not_ready")
    assert UNKNOWN_ORDER_NO in early.json()["detail"]
    assert accepted.status_code == 200
    assert shop.order_row(late.order_no)["status"] == "paid"
    assert await shop.breaches() == []


@pytest.mark.usefixtures("order")
async def test_money_for_an_order_that_nobody_knows_goes_back(storefront: Storefront) -> None:
    shop = storefront.shop
    await _hear_of_unknown_order(shop, UNKNOWN_ORDER_NO)

    answer = await resolve(storefront, "refund")

    assert answer.status_code == 200
    assert refunds(shop) == [(UNKNOWN_ORDER_NO, "T1", 5_198, "CNY", "operator", "requested")]
    (asked,) = shop.bodies("refund.requested")
    assert asked["order_no"] == UNKNOWN_ORDER_NO
    assert "user_id" not in asked
    assert await shop.breaches() == []


@pytest.mark.usefixtures("order")
async def test_money_of_no_order_and_no_currency_cannot_go_back_by_itself(
    storefront: Storefront,
) -> None:
    await _hear_of_unknown_order(storefront.shop, UNKNOWN_ORDER_NO, currency=None)

    answer = await resolve(storefront, "refund")

    assert problem(answer) == (422, "invalid_request")
    assert "names no currency" in answer.json()["detail"]


# Dismiss, and what holds for every action.


@pytest.mark.parametrize(
    "kind",
    [
        "late_payment",
        "amount_mismatch",
        "currency_mismatch",
        "amount_missing",
        "trade_no_conflict",
    ],
)
async def test_dismissing_closes_a_case_and_nothing_else(
    storefront: Storefront, order: Order, kind: str
) -> None:
    shop = storefront.shop
    await open_case(shop, order, kind)
    before = shop.dump()

    answer = await resolve(storefront, "dismiss")

    after = shop.dump()
    changed = {name for name in before if after[name] != before[name]}
    assert answer.status_code == 200
    assert changed == {"payment_cases", "admin_audit"}
    assert await shop.breaches() == []


@pytest.mark.parametrize("first", ["accept", "refund", "dismiss"])
@pytest.mark.parametrize("second", ["accept", "refund", "dismiss"])
async def test_a_case_is_resolved_once(
    storefront: Storefront, order: Order, first: str, second: str
) -> None:
    await open_case(storefront.shop, order, "amount_mismatch")
    await resolve(storefront, first)
    before = storefront.shop.dump()

    answer = await resolve(storefront, second)

    assert problem(answer) == (409, "case_resolved")
    assert only(answer.json(), "action", "resolved_by") == {"action": first, "resolved_by": "olga"}
    assert storefront.shop.dump() == before


async def test_a_resolved_payment_told_again_changes_nothing(
    storefront: Storefront, order: Order
) -> None:
    await open_case(storefront.shop, order, "amount_mismatch")
    await resolve(storefront, "refund")
    before = storefront.shop.dump()

    await storefront.shop.pay(payment(order, amount_minor=5_000))

    assert storefront.shop.dump() == before


async def test_who_resolved_a_case_and_why_is_on_record(
    storefront: Storefront, order: Order
) -> None:
    shop = storefront.shop
    await open_case(shop, order, "amount_mismatch")

    await resolve(storefront, "refund")

    row = shop.row("SELECT * FROM payment_cases")
    assert only(row, "state", "resolution", "resolved_by", "resolution_reason") == {
        "state": "resolved",
        "resolution": "refund",
        "resolved_by": "olga",
        "resolution_reason": "agreed",
    }
    assert row["resolved_at"] >= row["opened_at"]
    entry = shop.row("SELECT * FROM admin_audit")
    assert only(entry, "actor", "action", "subject", "reason") == {
        "actor": "olga",
        "action": "payment_cases.resolve",
        "subject": "1",
        "reason": "agreed",
    }
    assert json.loads(entry["detail"]) == {
        "action": "refund",
        "kind": "amount_mismatch",
        "order_no": order.order_no,
        "trade_no": "T1",
        "refund_no": "R1",
    }


async def test_the_timeline_shows_a_case_opened_and_resolved(
    storefront: Storefront, order: Order
) -> None:
    await open_case(storefront.shop, order, "amount_mismatch")
    await storefront.shop.tick()
    await resolve(storefront, "accept")

    path = f"orders/{order.order_no}/timeline"
    for_operator = (await storefront.get(f"/admin/{path}", by="otto")).json()["items"]
    for_buyer = (await storefront.get(f"/{path}", by="ann")).json()["items"]

    opened, resolved = [dict(item) for item in for_operator if item["kind"] == "case"]
    assert only(opened, "case_id", "state", "case_kind") == {
        "case_id": 1,
        "state": "open",
        "case_kind": "amount_mismatch",
    }
    assert only(resolved, "case_id", "state", "action", "resolved_by", "reason") == {
        "case_id": 1,
        "state": "resolved",
        "action": "accept",
        "resolved_by": "olga",
        "reason": "agreed",
    }
    told = [item for item in for_buyer if item["kind"] == "case"]
    assert [item["state"] for item in told] == ["open", "resolved"]
    assert not {"detail", "reason", "resolved_by"} & set().union(*told)


async def test_what_was_done_with_a_case_is_found_by_its_order(
    storefront: Storefront, order: Order
) -> None:
    await open_case(storefront.shop, order, "amount_mismatch")
    await resolve(storefront, "accept")
    other = await storefront.shop.order("bob", tea=1)
    await storefront.post(f"/admin/orders/{other.order_no}/cancel", by="olga")

    async def found(order_no: str) -> list[str]:
        async def read(transaction: ReadTransaction) -> list[RecordedAct]:
            wanted = AuditFilter(order_no=order_no)
            return await list_audit(transaction, wanted, before_id=None, limit_count=9)

        return [act.action for act in await storefront.shop.database.read(read)]

    assert await found(order.order_no) == ["payment_cases.resolve"]
    assert await found(other.order_no) == ["orders.cancel"]
    assert await found(order.order_no.replace("0", "_")) == []
