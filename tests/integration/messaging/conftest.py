"""A shop on a fresh file, for every test of the kernel."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.integration.messaging.shop_kernel import TOPOLOGY, Shop, create_tables, open_shop


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """The shop with its queues declared and nothing in them."""
    shop = open_shop(tmp_path / "shop.db")
    await create_tables(shop.database)
    await shop.broker.declare(TOPOLOGY)
    yield shop
    await shop.database.close()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nothing is printed: the failures that these tests provoke fill many screens."""
    with capture_logs():
        yield
