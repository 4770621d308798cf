"""One key makes one order, whatever is repeated, raced or batched."""

import asyncio
from collections.abc import Awaitable, Sequence

import pytest

from orderkeep.database.transaction import Database
from orderkeep.orders.desk import OrderRequest
from orderkeep.orders.idempotency_key import KeyKind
from orderkeep.orders.placing import PlacedOrder
from orderkeep.refusal import Refusal
from tests.integration.orders.shop import Shop, payment, request

A_TEA = ("tea", 1)
TWO_TEAS = ("tea", 2)


async def _code(answer: Awaitable[object]) -> str:
    with pytest.raises(Refusal) as refused:
        await answer
    return refused.value.code


async def _together(shop: Shop, *wanted: OrderRequest) -> list[str]:
    """Place requests in one batch; return for each its order's number, or why it was refused."""
    answers = await asyncio.gather(
        *(shop.desk.place(one) for one in wanted), return_exceptions=True
    )
    return [_told(answer) for answer in answers]


def _told(answer: PlacedOrder | BaseException) -> str:
    if isinstance(answer, PlacedOrder):
        return answer.order.order_no
    assert isinstance(answer, Refusal)
    return answer.code


def _order_nos(shop: Shop) -> Sequence[str]:
    return [row["order_no"] for row in shop.rows("SELECT order_no FROM orders ORDER BY order_no")]


async def _token(shop: Shop, user_id: str = "ann") -> str:
    return await shop.desk.issue_token(user_id)


def _with_token(token: str, *, user_id: str = "ann") -> OrderRequest:
    return request(A_TEA, user_id=user_id, key=token, key_kind=KeyKind.TOKEN)


async def test_the_same_request_again_is_answered_the_same_order(shop: Shop) -> None:
    await shop.fill(tea=10)
    first = await shop.desk.place(request(A_TEA))
    before = shop.dump()

    again = await shop.desk.place(request(A_TEA))

    assert again.is_replayed
    assert again.order == first.order
    assert shop.dump() == before


async def test_a_replay_answers_the_order_as_it_is_now(shop: Shop) -> None:
    await shop.fill(tea=10)
    first = await shop.desk.place(request(A_TEA))
    await shop.pay(payment(first.order))

    again = await shop.desk.place(request(A_TEA))

    assert (again.order.status, again.order.version) == ("paid", 2)


async def test_a_replay_needs_neither_stock_nor_an_active_sku(shop: Shop) -> None:
    await shop.fill(tea=1)
    first = await shop.desk.place(request(A_TEA))
    await shop.put_sku("tea", is_active=False)

    again = await shop.desk.place(request(A_TEA))

    assert again.order.order_no == first.order.order_no


async def test_the_same_key_with_another_body_is_refused(shop: Shop) -> None:
    await shop.fill(tea=10)
    await shop.desk.place(request(A_TEA))
    before = shop.dump()

    code = await _code(shop.desk.place(request(TWO_TEAS)))

    assert code == "idempotency_key_reused"
    assert shop.dump() == before


async def test_keys_of_two_users_never_mix(shop: Shop) -> None:
    await shop.fill(tea=10)

    ann = await shop.desk.place(request(A_TEA, user_id="ann"))
    bob = await shop.desk.place(request(A_TEA, user_id="bob"))

    assert not bob.is_replayed
    assert ann.order.order_no != bob.order.order_no


async def test_a_token_and_a_header_of_the_same_text_never_mix(shop: Shop) -> None:
    await shop.fill(tea=10)
    token = await _token(shop)

    by_header = await shop.desk.place(request(A_TEA, key=token))
    by_token = await shop.desk.place(_with_token(token))

    assert not by_token.is_replayed
    assert by_header.order.order_no != by_token.order.order_no


async def test_a_token_is_good_for_one_order(shop: Shop) -> None:
    await shop.fill(tea=10)
    token = await _token(shop)
    first = await shop.desk.place(_with_token(token))

    again = await shop.desk.place(_with_token(token))

    assert (first.is_replayed, again.is_replayed) == (False, True)
    assert again.order.order_no == first.order.order_no


async def test_a_token_that_was_never_issued_is_refused(shop: Shop) -> None:
    await shop.fill(tea=10)

    assert await _code(shop.desk.place(_with_token("ot1.0.0.0"))) == "token_expired"
    assert shop.count_rows("order_requests") == 0


async def test_a_token_of_another_user_is_refused(shop: Shop) -> None:
    await shop.fill(tea=10)
    token = await _token(shop, "bob")

    assert await _code(shop.desk.place(_with_token(token))) == "token_expired"
    assert (await shop.desk.place(_with_token(token, user_id="bob"))).order.user_id == "bob"


async def test_a_token_that_expired_unused_is_refused(database: Database) -> None:
    async with Shop(database, token_ttl_s=0.0).open() as shop:
        await shop.fill(tea=10)
        token = await _token(shop)

        assert await _code(shop.desk.place(_with_token(token))) == "token_expired"


async def test_a_claimed_token_is_answered_after_it_expired(database: Database) -> None:
    async with Shop(database).open() as before:
        await before.fill(tea=10)
        token = await _token(before)
        first = await before.desk.place(_with_token(token))
    async with Shop(database, token_ttl_s=0.0).open() as later:
        again = await later.desk.place(_with_token(token))

    assert again.is_replayed
    assert again.order.order_no == first.order.order_no


async def test_a_refused_request_leaves_its_token_good(shop: Shop) -> None:
    await shop.fill(tea=0)
    token = await _token(shop)
    assert await _code(shop.desk.place(_with_token(token))) == "out_of_stock"
    await shop.catalogue.move_stock(
        sku_id="tea", quantity=1, reason="found", cause="olga 1", actor="olga"
    )

    placed = await shop.desk.place(_with_token(token))

    assert not placed.is_replayed


async def test_one_key_three_times_in_one_batch_makes_one_order(shop: Shop) -> None:
    await shop.fill(tea=10)

    answers = await _together(shop, request(A_TEA), request(A_TEA), request(A_TEA))

    assert answers == [*_order_nos(shop)] * 3
    assert shop.stock_of("tea") == (9, 1, 0)
    assert await shop.breaches() == []


async def test_one_key_with_two_bodies_in_one_batch_stands_for_the_first(shop: Shop) -> None:
    await shop.fill(tea=10)

    answers = await _together(shop, request(A_TEA), request(TWO_TEAS), request(A_TEA))

    (order_no,) = _order_nos(shop)
    assert answers == [order_no, "idempotency_key_reused", order_no]
    assert await _code(shop.desk.place(request(TWO_TEAS))) == "idempotency_key_reused"


async def test_the_second_of_one_key_in_a_batch_is_decided_by_itself_if_the_first_was_refused(
    shop: Shop,
) -> None:
    await shop.fill(tea=1)

    answers = await _together(shop, request(TWO_TEAS), request(A_TEA), request(A_TEA))

    (order_no,) = _order_nos(shop)
    assert answers == ["out_of_stock", order_no, order_no]
    assert (await shop.desk.place(request(A_TEA))).order.order_no == order_no
    assert await _code(shop.desk.place(request(TWO_TEAS))) == "idempotency_key_reused"
    assert await shop.breaches() == []


async def test_one_key_refused_each_time_in_a_batch_is_free_again(shop: Shop) -> None:
    await shop.fill(tea=1)

    answers = await _together(shop, request(TWO_TEAS), request(("tea", 3)), request(TWO_TEAS))

    assert answers == ["out_of_stock"] * 3
    assert shop.count_rows("order_requests") == 0


async def test_a_batch_of_earlier_and_new_keys_answers_each(shop: Shop) -> None:
    await shop.fill(tea=3)
    earlier = await shop.desk.place(request(A_TEA, key="k1"))

    answers = await _together(
        shop,
        request(A_TEA, key="k1"),
        request(A_TEA, key="k2"),
        request(TWO_TEAS, key="k1"),
        request(TWO_TEAS, key="k3"),
        request(A_TEA, key="k4"),
        request(A_TEA, key="k2"),
    )

    k2, k4 = (order_no for order_no in _order_nos(shop) if order_no != earlier.order.order_no)
    assert {answers[1], answers[4]} == {k2, k4}
    assert answers[0] == earlier.order.order_no
    assert answers[2:4] == ["idempotency_key_reused", "out_of_stock"]
    assert answers[5] == answers[1]
    assert await shop.breaches() == []


async def test_of_50_requests_at_once_with_one_key_every_answer_names_the_one_order(
    shop: Shop,
) -> None:
    await shop.fill(tea=100)

    answers = await _together(shop, *[request(A_TEA)] * 50)

    assert answers == [*_order_nos(shop)] * 50
    assert shop.stock_of("tea") == (99, 1, 0)
    assert shop.count_rows("order_requests") == 1


async def test_two_processes_that_race_with_one_key_make_one_order(
    database: Database,
) -> None:
    one, other = Shop(database), Shop(database)
    # Each process draws for itself; these two would draw the same.
    other.desk._draw_number = lambda: 10**9 + next(other._numbers)
    async with one.open(), other.open():
        await one.fill(tea=100)

        answers = await asyncio.gather(
            *(shop.desk.place(request(A_TEA)) for shop in (one, other) for _ in range(20))
        )

    assert {answer.order.order_no for answer in answers} == {*_order_nos(one)}
    assert one.count_rows("orders") == 1
    assert sum(not answer.is_replayed for answer in answers) == 1
