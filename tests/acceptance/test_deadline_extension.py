"""A payment under way moves its order's deadline, once, and then the order closes all the same."""

from datetime import datetime
from pathlib import Path

import pytest

from tests.acceptance.buyer import Buyer, Json
from tests.acceptance.setups import opened

# The second is more than a hold queue of the first can hold.
TIMEOUT_S = 4.0
EXTENSION_S = 6.0


@pytest.mark.parametrize("name", ["sqlite, database queues", "postgresql, rabbitmq, hold queue"])
def test_an_order_closes_at_the_deadline_that_a_payment_has_moved_and_its_payment_with_it(
    name: str, tmp_path: Path
) -> None:
    with (
        opened(
            name,
            tmp_path,
            order_timeout_s=TIMEOUT_S,
            payment_extension_s=EXTENSION_S,
            # The message closes it, not the sweep.
            sweep_interval_s=600,
            sweep_grace_s=600,
        ) as shop,
        Buyer(shop, "ann") as ann,
    ):
        shop.put_sku("tea", stock=5)
        order = ann.order({"tea": 2})
        order_no = order["order_no"]

        def extended() -> Json | None:
            seen = ann.see(order_no)
            return seen if seen["expires_at"] > order["expires_at"] else None

        def payment_closed() -> bool | None:
            return ann.see_payment(payment_no)["status"] == "closed" or None

        payment_no = ann.open_payment(order_no)["payment_no"]
        moved = shop.wait_until(extended, "the deadline moves")
        closed = ann.wait_for(order_no, "closed")
        shop.wait_until(payment_closed, "the payment is closed")
        verified = shop.command("verify")

    assert (order["version"], moved["version"]) == (1, 1)
    moved_s = seconds_between(order["created_at"], moved["expires_at"])
    assert EXTENSION_S <= moved_s < TIMEOUT_S + EXTENSION_S
    assert closed["expires_at"] == moved["expires_at"] <= closed["closed_at"]
    assert verified.returncode == 0, verified.stdout


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
