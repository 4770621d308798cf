"""What webhooks told is compared with what there was to tell."""

import pytest

from tests.acceptance.fleet_books import FleetBooks
from tests.faults.verdict import compare_webhooks

UNTOLD = "an event that no webhook told of"
UNKNOWN = "a webhook that tells of nothing"
OUT_OF_ORDER = "webhooks of an order out of order"
GIVEN_UP = "a webhook that was given up"


class Books(FleetBooks):
    """Books of one order with two events."""

    def __init__(self, *, given_up: str | None = None) -> None:
        self._given_up = given_up

    def rows(self, statement: str, *_parameters: object) -> list[tuple[str, ...]]:
        if "webhook_deliveries" in statement:
            return [] if self._given_up is None else [(self._given_up,)]
        return [("1", "a"), ("1", "b")]


@pytest.mark.parametrize(
    ("told", "finding"),
    [
        ({"1": ["a", "b"]}, None),
        ({"1": ["a"]}, UNTOLD),
        ({}, UNTOLD),
        ({"1": ["b", "a"]}, OUT_OF_ORDER),
        ({"1": ["a", "b"], "2": ["c"]}, UNKNOWN),
    ],
)
def test_what_is_missing_strange_or_out_of_order_is_found(
    told: dict[str, list[str]], finding: str | None
) -> None:
    found = {what for what, subjects in compare_webhooks(Books(), told).items() if subjects}
    assert found == (set() if finding is None else {finding})


def test_one_that_was_given_up_is_found() -> None:
    found = compare_webhooks(Books(given_up="1 b"), {"1": ["a", "b"]})
    assert found[GIVEN_UP] == ["1 b"]
