"""A small application for each test, and a client of it."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.unit.web.small_shop import Shop


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with shop.client() as client:
        yield client
