"""A shop that is open, for the tests of the order service."""

from collections.abc import AsyncIterator, Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from orderkeep.database.sqlite import SqliteDatabase
from tests.integration.orders.shop import Shop
from tests.integration.orders.storefront import Storefront, storefront_of


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[EventDict]]:
    """What the service logs, instead of on the terminal."""
    with capture_logs() as logged:
        yield logged


@pytest.fixture
async def shop(database: SqliteDatabase) -> AsyncIterator[Shop]:
    """A shop with nothing in its catalogue."""
    async with Shop(database).open() as shop:
        yield shop


@pytest.fixture
async def storefront(shop: Shop) -> AsyncIterator[Storefront]:
    """The shop over HTTP."""
    async with storefront_of(shop) as storefront:
        yield storefront
