"""Sets the stage for a measurement: data directories, a stocked catalogue, callers' tokens."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from orderkeep.database.schema_version import upgrade_schema
from orderkeep.database.transaction import Database, Transaction
from orderkeep.instant import after
from orderkeep.orders.catalogue_desk import SkuEntry, put_sku
from orderkeep.settings import Settings, load_settings
from orderkeep.web.tokens import TokenKey, sign_token
from orderkeep.wiring import chance
from orderkeep.wiring.storage import open_database, schema_url

JWT_SECRET = "a-secret-that-guards-nothing-but-a-benchmark"  # noqa: S105 (guards no data)

# A stranger's shop: enough SKUs that two orders of one batch seldom meet.
SKU_COUNT = 1000
HOT_SKU = "HOT"

# More than any run orders.
STOCK_OF_EACH = 10_000_000

_USER_COUNT = 64
_TOKEN_LIFE_S = 3600


def settings_for(data_dir: Path) -> Settings:
    """Return the default settings, with the data in the given directory."""
    return load_settings({"ORDERKEEP_DATA_DIR": str(data_dir)})


@asynccontextmanager
async def stocked_database(settings: Settings) -> AsyncIterator[Database]:
    """Make a database with the current schema and a stocked catalogue, and open it."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    await asyncio.to_thread(upgrade_schema, schema_url(settings))
    database = open_database(settings)
    try:
        await database.transact(_stock)
        yield database
    finally:
        await database.close()


async def _stock(transaction: Transaction) -> None:
    for sku_id in sku_ids():
        await put_sku(
            transaction,
            SkuEntry(
                sku_id=sku_id,
                product_id=None,
                title=f"Stoneware mug {sku_id}",
                unit_price_minor=1990,
                currency="CNY",
                is_active=True,
                stock=STOCK_OF_EACH,
            ),
        )


def sku_ids() -> Iterator[str]:
    """Yield the id of every SKU there is."""
    for number in range(SKU_COUNT):
        yield f"MUG-{number:04d}"
    yield HOT_SKU


def user_tokens() -> list[str]:
    """Return a bearer token for each of a few dozen buyers."""
    key = TokenKey(secret=JWT_SECRET, audience="orderkeep")
    expires_at = after(chance.now(), seconds=_TOKEN_LIFE_S)
    return [
        sign_token(key, user_id=f"buyer-{number}", scopes=(), expires_at=expires_at)
        for number in range(_USER_COUNT)
    ]
