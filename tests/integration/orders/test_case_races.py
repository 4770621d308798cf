"""Verdicts on the same case, and on the same stock, in many processes: each takes effect once."""

from collections import Counter
from typing import Any

import pytest

from orderkeep.database.audit import Act
from orderkeep.orders.case_resolution import CaseAction
from orderkeep.orders.order import Order
from orderkeep.orders.payment import LatePaymentPolicy
from orderkeep.orders.resolve_cases import ResolveCase, resolve_cases
from orderkeep.refusal import Refusal
from tests.integration.orders.shop import Shop, payment
from tests.integration.orders.test_several_processes import all_of, deadlocks, opened_shops

ACTIONS = list(CaseAction)


def verdict(case_id: int, action: CaseAction, *, by: str = "olga") -> ResolveCase:
    return ResolveCase(case_id=case_id, action=action, act=Act(actor=by, reason="agreed"))


def codes(answers: list[Any]) -> Counter[str]:
    return Counter(answer.code if isinstance(answer, Refusal) else "resolved" for answer in answers)


@pytest.mark.parametrize("turn", range(6))
async def test_of_many_who_resolve_one_case_at_once_exactly_one_wins(
    postgresql_url: str, turn: int
) -> None:
    async with opened_shops(postgresql_url, 4) as shops:
        shop = shops[0]
        await shop.fill(tea=10)
        order = await shop.order(tea=2)
        await shop.pay(payment(order, amount_minor=1))

        answers = await all_of(
            *(
                each.cases.resolve(verdict(1, ACTIONS[(turn + n) % 3], by=f"operator-{n}"))
                for n, each in enumerate([*shops, *shops])
            )
        )

        assert codes(answers) == {"resolved": 1, "case_resolved": 7}
        action = shop.row("SELECT resolution FROM payment_cases")["resolution"]
        assert shop.count_rows("order_refunds") == (action == "refund")
        assert (shop.order_row(order.order_no)["status"] == "paid") == (action == "accept")
        acts = shop.rows("SELECT * FROM admin_audit WHERE action = 'payment_cases.resolve'")
        assert len(acts) == 1
        assert await shop.breaches() == []


async def test_a_verdict_beside_payment_cancelling_and_closing_ends_the_order_once(
    postgresql_url: str,
) -> None:
    async with opened_shops(postgresql_url, 4) as shops:
        shop = shops[0]
        await shop.fill(tea=200)
        before = deadlocks(shop)
        endings: Counter[str] = Counter()
        for turn in range(20):
            order = await shop.order(f"u{turn}", tea=2)
            await shop.pay(payment(order, f"W{turn}", amount_minor=1))
            case_id = shop.row("SELECT max(id) AS id FROM payment_cases")["id"]
            shop.make_due(order)

            await all_of(
                shops[0].cases.resolve(verdict(case_id, CaseAction.ACCEPT)),
                shops[1].pay(payment(order, f"T{turn}")),
                shops[2].close(order),
                shops[3].cancel(order),
            )

            endings[shop.order_row(order.order_no)["status"]] += 1
            assert await shop.breaches() == []
        assert deadlocks(shop) == before
        assert endings["paid"] > 0


async def test_verdicts_that_revive_share_what_stock_there_is_with_late_payments(
    postgresql_url: str,
) -> None:
    async with opened_shops(postgresql_url, 4) as shops:
        shop = shops[0]
        await shop.fill(tea=16, pot=16)
        by_verdict = [await shop.order(f"v{n}", tea=1, pot=1) for n in range(8)]
        by_policy = [await shop.order(f"p{n}", tea=1, pot=1) for n in range(8)]
        await shop.expire(*by_verdict, *by_policy)
        for n, order in enumerate(by_verdict):
            await shop.pay(payment(order, f"V{n}"), policy=LatePaymentPolicy.MANUAL)
        await shop.order("bob", tea=6, pot=6)

        answers = await all_of(
            *(
                shops[n % 4].cases.resolve(verdict(n + 1, CaseAction.ACCEPT))
                for n in range(len(by_verdict))
            ),
            *(
                shops[n % 4].pay(payment(order, f"P{n}"), policy=LatePaymentPolicy.REVIVE)
                for n, order in enumerate(by_policy)
            ),
        )

        paid = [_is_paid(shop, order) for order in [*by_verdict, *by_policy]]
        assert sum(paid) == 10
        assert shop.stock_of("tea") == (0, 6, 10)
        assert codes(answers[:8])["resolved"] == sum(paid[:8])
        assert await shop.breaches() == []


def _is_paid(shop: Shop, order: Order) -> bool:
    return bool(shop.order_row(order.order_no)["status"] == "paid")


async def test_a_batch_of_verdicts_is_decided_in_its_order_each_for_itself(shop: Shop) -> None:
    await shop.fill(tea=2)
    first, second = await shop.order("ann", tea=1), await shop.order("bob", tea=1)
    await shop.expire(first, second)
    for trade_no, order in (("T1", first), ("T2", second), ("T3", first)):
        await shop.pay(payment(order, trade_no), policy=LatePaymentPolicy.MANUAL)
    await shop.order("eve", tea=1)

    async def work(transaction: Any) -> list[Any]:
        return await resolve_cases(
            transaction,
            [
                verdict(1, CaseAction.ACCEPT),
                verdict(2, CaseAction.ACCEPT),
                verdict(1, CaseAction.REFUND),
                verdict(3, CaseAction.REFUND),
                verdict(99, CaseAction.DISMISS),
            ],
            outbox=shop.outbox,
            draw_refund_no=lambda: "R1",
        )

    answers = await shop.database.transact(work)

    told = [answer.code if isinstance(answer, Refusal) else "resolved" for answer in answers]
    assert told == ["resolved", "out_of_stock", "case_resolved", "resolved", "not_found"]
    assert shop.sent(first.order_no)[4:] == [(5, "order.paid"), (6, "refund.requested")]
    assert await shop.breaches() == []
