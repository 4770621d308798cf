"""The inbox tells what is new, once."""

import pytest

from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging import Inbox
from tests.integration.messaging.shop_kernel import SHOP, Shop

NOW = Instant(1_700_000_000_000_000)
INBOX = Inbox(SHOP)


async def record(shop: Shop, *message_ids: str, consumer: str = "parcels") -> frozenset[str]:
    return await shop.database.transact(
        lambda transaction: INBOX.record(
            transaction, consumer=consumer, message_ids=message_ids, now=NOW
        )
    )


async def test_only_what_is_new_is_answered(shop: Shop):
    first = await record(shop, "b", "a", "a")
    second = await record(shop, "b", "c")

    assert first == {"a", "b"}
    assert second == {"c"}


async def test_each_consumer_has_its_own_record(shop: Shop):
    await record(shop, "a")

    assert await record(shop, "a", consumer="letters") == {"a"}


async def test_what_is_forgotten_is_new_again(shop: Shop):
    await record(shop, "a", "b")

    await shop.database.transact(
        lambda transaction: INBOX.forget(transaction, consumer="parcels", message_ids=["a"])
    )

    assert await record(shop, "a", "b") == {"a"}


async def test_a_transaction_that_fails_records_nothing(shop: Shop):
    async def fail(transaction: Transaction) -> None:
        await INBOX.record(transaction, consumer="parcels", message_ids=["a"], now=NOW)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await shop.database.transact(fail)

    assert await record(shop, "a") == {"a"}
