"""A database that sorts texts the way people do, not by their bytes, changes no answer."""

import os

import pytest

from orderkeep.instant import Instant
from orderkeep.orders.order import OrderNumber
from orderkeep.orders.store.reports import TimedOutOrder, insert_timed_out, list_timed_out
from tests.conftest import create_every_table, opened_postgresql
from tests.integration.orders.shop import Shop
from tests.servers.availability import postgresql_server


@pytest.fixture
def url():
    """A database with every table, sorted as in English."""
    server = postgresql_server()
    name = f"orderkeep_collated_{os.getpid()}"
    server.query(
        f'CREATE DATABASE "{name}" TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE "en-US"'
    )
    try:
        create_every_table(server.url(name))
        yield server.url(name)
    finally:
        server.drop_database(name)


def timed_out(order_no: str) -> TimedOutOrder:
    return TimedOutOrder(
        order_no=OrderNumber(order_no),
        user_id="ann",
        pay_amount_minor=100,
        currency=None,
        reason_code="payment_timeout",
        created_at=Instant(1),
        timed_out_at=Instant(2),
    )


async def test_lists_begin_at_their_beginning_and_end_at_their_end(url: str) -> None:
    async with opened_postgresql(url) as database:
        await database.transact(
            lambda transaction: insert_timed_out(
                transaction, [timed_out("0109"), timed_out("0118"), timed_out("0127")]
            )
        )

        async def page(before: str | None) -> list[str]:
            listed = await database.read(
                lambda transaction: list_timed_out(transaction, before=before, limit_count=2)
            )
            return [order.order_no for order in listed]

        assert await page(None) == ["0127", "0118"]
        assert await page("0118") == ["0109"]


async def test_every_sku_is_listed_once_whatever_its_letters(url: str) -> None:
    skus = ["B-2", "a1", "A1", "b.2", "_x", "Z", "z", "-", "1"]
    async with opened_postgresql(url) as database:
        shop = Shop(database)
        for sku_id in skus:
            await shop.put_sku(sku_id, unit_price_minor=1, stock=1)
        listed: list[str] = []
        while page := await shop.catalogue.list_active(
            after=listed[-1] if listed else "", limit_count=2
        ):
            listed += [sku.sku_id for sku in page]

        assert sorted(listed) == sorted(skus)
