"""`python -m bench.peers.celery_shop.schema`: make the tables and stock the catalogue.

What is on sale comes as JSON on standard input: the ids of the SKUs, and how much there is of each.
"""

import json
import sys

from bench.peers.celery_shop.models import Session, ShopTable, Sku, Stock, engine


def main() -> None:
    """Make the tables, which are not there yet."""
    wanted = json.load(sys.stdin)
    ShopTable.metadata.create_all(engine)
    with Session.begin() as session:
        session.add_all(
            Sku(
                sku_id=sku_id,
                title=f"Stoneware mug {sku_id}",
                unit_price_minor=1990,
                currency="CNY",
                is_active=True,
            )
            for sku_id in wanted["sku_ids"]
        )
        session.flush()
        session.add_all(
            Stock(sku_id=sku_id, available=wanted["stock_of_each"]) for sku_id in wanted["sku_ids"]
        )


if __name__ == "__main__":
    main()
