"""What `orders show` tells of the money."""

from typing import Any

import pytest

from orderkeep.cli.orders import find_received

ORDERED = {"kind": "state", "at": "2024-01-01T10:00:00Z"}


def paid(**members: Any) -> dict[str, Any]:
    return {"kind": "payment", "outcome": "accepted", **members}


@pytest.mark.parametrize(
    ("items", "received"),
    [
        ([ORDERED], None),
        ([ORDERED, paid(amount="29.90", currency="USD")], "29.90 USD"),
        ([ORDERED, paid(amount="29.90", currency=None)], "29.90"),
        ([ORDERED, paid(amount=None, currency="USD")], None),
        ([{**paid(amount="1.00", currency="CNY"), "outcome": "refund"}], None),
        ([{**paid(amount="1.00", currency="CNY"), "kind": "case"}], None),
    ],
)
def test_what_paid_an_order_is_what_was_received(
    items: list[dict[str, Any]], received: str | None
) -> None:
    assert find_received(items) == received
