"""Sets the stage for a measurement: data directories, a stocked catalogue, callers' tokens."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from orderkeep.database.audit import Act
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

USER_COUNT = 64
RECEIVER = {"name": "Li Lei", "phone": "13800000000", "address": "1 Long Street, Hangzhou"}

_TOKEN_LIFE_S = 3600


def settings_for(data_dir: Path, *, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the default settings, with the data in the given directory.

    Args:
        environment: What differs from the defaults, by the names of the variables.
    """
    return load_settings({"ORDERKEEP_DATA_DIR": str(data_dir), **(environment or {})})


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
            act=Act(actor="bench"),
        )


def sku_ids() -> Iterator[str]:
    """Yield the id of every SKU there is."""
    for number in range(SKU_COUNT):
        yield f"MUG-{number:04d}"
    yield HOT_SKU


def cold_lines() -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """Return what is ordered of a large catalogue: two lines each, of SKU and quantity."""
    ids = [sku_id for sku_id in sku_ids() if sku_id != HOT_SKU]
    return [
        # 7 and the number of SKUs share no divisor: each is a second line once.
        ((ids[number], 1), (ids[(7 * number + 3) % SKU_COUNT], 2))
        for number in range(SKU_COUNT)
    ]


def order_bodies(*, is_hot: bool) -> list[str]:
    """Return what is ordered: two lines of a large catalogue, or one of the SKU all want."""
    all_lines = [((HOT_SKU, 1),)] if is_hot else cold_lines()
    return [
        json.dumps(
            {
                "items": [{"sku_id": sku_id, "quantity": quantity} for sku_id, quantity in lines],
                "receiver": RECEIVER,
            }
        )
        for lines in all_lines
    ]


def user_tokens() -> list[str]:
    """Return a bearer token for each of a few dozen buyers."""
    return [sign_buyer(number) for number in range(USER_COUNT)]


def buyer_id(number: int) -> str:
    """Return the id of a buyer."""
    return f"buyer-{number}"


def sign_buyer(number: int) -> str:
    """Return a bearer token of a buyer."""
    return sign_token(
        TokenKey(secret=JWT_SECRET, audience="orderkeep"),
        user_id=buyer_id(number),
        scopes=(),
        expires_at=after(chance.now(), seconds=_TOKEN_LIFE_S),
    )
