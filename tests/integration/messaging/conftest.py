"""A shop on a fresh database of each engine, for every test of the kernel."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from orderkeep.database.sqlite import SqliteDatabase
from tests.cleaned_databases import CleanedDatabases
from tests.conftest import ENGINES, opened_postgresql
from tests.integration.messaging.shop_kernel import (
    TOPOLOGY,
    Shop,
    create_tables,
    shop_on,
)


@pytest.fixture
async def sqlite_shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """The shop on a file."""
    database = SqliteDatabase(tmp_path / "shop.db")
    await create_tables(database)
    shop = shop_on(database)
    await shop.broker.declare(TOPOLOGY)
    yield shop
    await database.close()


@pytest.fixture
async def postgresql_shop(shop_databases: CleanedDatabases) -> AsyncIterator[Shop]:
    """The shop on PostgreSQL."""
    with shop_databases.given() as url:
        async with opened_postgresql(url) as database:
            shop = shop_on(database)
            await shop.broker.declare(TOPOLOGY)
            yield shop


@pytest.fixture(params=ENGINES)
def shop(request: pytest.FixtureRequest) -> Shop:
    """The shop with its queues declared and nothing in them, on each engine in turn."""
    opened: Shop = request.getfixturevalue(f"{request.param}_shop")
    return opened


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nothing is printed: the failures that these tests provoke fill many screens."""
    with capture_logs():
        yield
