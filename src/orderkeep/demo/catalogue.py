"""What the demo sells: a handful of plain goods and one that is nearly gone."""

from dataclasses import dataclass

from orderkeep.demo.shop_client import ShopClient, ShopRequest
from orderkeep.demo.shopper import SCARCE_SKU_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSku:
    """One thing for sale.

    Attributes:
        price: As the API takes it, in `CURRENCY`.
        stock_wanted: How many shall be available when the demo starts.
    """

    sku_id: str
    title: str
    price: str
    stock_wanted: int


CURRENCY = "CNY"

# No demo sells this out; the contract's limit for a SKU is higher.
_PLENTY = 1_000_000

# The scarce one sells out at once, so that "out of stock" is seen in every run.
SKUS = (
    DemoSku(sku_id="demo-tea", title="Jasmine tea, 250 g", price="48.00", stock_wanted=_PLENTY),
    DemoSku(sku_id="demo-cup", title="Porcelain cup", price="29.90", stock_wanted=_PLENTY),
    DemoSku(sku_id="demo-kettle", title="Iron kettle", price="399.00", stock_wanted=_PLENTY),
    DemoSku(sku_id="demo-tray", title="Bamboo tray", price="86.50", stock_wanted=_PLENTY),
    DemoSku(sku_id=SCARCE_SKU_ID, title="Signed teapot", price="1280.00", stock_wanted=20),
)


class CatalogueError(Exception):
    """The goods could not be put on the shelves; the message says what the service answered."""


async def stock_shelves(operator: ShopClient, *, run_tag: str) -> None:
    """Put every SKU on sale and fill its stock up to what is wanted.

    Args:
        operator: Calls with the scope `operator`.
        run_tag: Drawn for this run: it makes the key of each stock movement.

    Raises:
        CatalogueError: the service refused.
        VisitCutShortError: the service could not be reached.
    """
    for sku in SKUS:
        await _stock(operator, sku, run_tag=run_tag)


async def _stock(operator: ShopClient, sku: DemoSku, *, run_tag: str) -> None:
    path = f"/admin/skus/{sku.sku_id}"
    # Without stock: the first answer may get lost, and a repetition may not set stock once more.
    offer: dict[str, object] = {
        "title": sku.title,
        "price": sku.price,
        "currency": CURRENCY,
        "is_active": True,
    }
    answer = await operator.send(ShopRequest(step="put sku", method="PUT", path=path, body=offer))
    if not answer.is_success:
        raise _refused(sku, answer.code)
    found = await operator.send(ShopRequest(step="look at sku", method="GET", path=path))
    if not found.is_success:
        raise _refused(sku, found.code)
    missing = sku.stock_wanted - int(found.body["available"])
    if missing <= 0:
        return
    answer = await operator.send(
        ShopRequest(
            step="add stock",
            method="POST",
            path=f"{path}/stock-movements",
            body={"quantity": missing, "reason": "orderkeep demo"},
            headers={"Idempotency-Key": f"{run_tag}-{sku.sku_id}"},
        )
    )
    if not answer.is_success:
        raise _refused(sku, answer.code)


def _refused(sku: DemoSku, code: str) -> CatalogueError:
    return CatalogueError(f"the service did not take the SKU {sku.sku_id}: {code}")
