"""Who gets the stock, and what its movements add up to."""

import pytest

from orderkeep.orders.stock import (
    ACCEPTED,
    Admission,
    MovementKind,
    Short,
    Shortage,
    StockCounts,
    admit,
    change_of,
    counts_from,
    out_of_stock,
    sum_by_sku,
)


def test_lines_of_one_sku_are_one_demand() -> None:
    assert sum_by_sku([("tea", 2), ("pot", 1), ("tea", 3)]) == {"tea": 5, "pot": 1}


def test_who_comes_first_gets_it_and_who_is_refused_takes_nothing() -> None:
    admission = admit(
        [
            {"tea": 6},
            {"tea": 5, "pot": 1},
            {"tea": 4},
            {"pot": 1},
            {"tea": 1},
        ],
        available={"tea": 10, "pot": 1, "mug": 7},
    )

    assert admission == Admission(
        verdicts=(
            ACCEPTED,
            Short(shortages=(Shortage(sku_id="tea", requested=5, available=4),)),
            ACCEPTED,
            ACCEPTED,
            Short(shortages=(Shortage(sku_id="tea", requested=1, available=0),)),
        ),
        remaining={"tea": 0, "pot": 0, "mug": 7},
        taken={"tea": 10, "pot": 1},
    )


def test_every_sku_that_is_short_is_named_and_one_nobody_knows_has_none() -> None:
    admission = admit([{"tea": 3, "mug": 1, "pot": 1}], available={"tea": 2, "pot": 1})

    assert admission.verdicts == (
        Short(
            shortages=(
                Shortage(sku_id="mug", requested=1, available=0),
                Shortage(sku_id="tea", requested=3, available=2),
            )
        ),
    )
    assert admission.remaining == {"tea": 2, "pot": 1}
    assert admission.taken == {}


def test_what_was_given_stays_as_it_was() -> None:
    available = {"tea": 2}

    admit([{"tea": 2}], available=available)

    assert available == {"tea": 2}


def test_the_refusal_names_each_sku_with_what_is_available() -> None:
    refusal = out_of_stock(
        [
            Shortage(sku_id="mug", requested=1, available=0),
            Shortage(sku_id="tea", requested=3, available=2),
        ]
    )

    assert refusal.code == "out_of_stock"
    assert refusal.detail == "not enough in stock: mug (0 of 1), tea (2 of 3)"
    assert refusal.members == {
        "items": [
            {"sku_id": "mug", "requested": 1, "available": 0},
            {"sku_id": "tea", "requested": 3, "available": 2},
        ]
    }


@pytest.mark.parametrize(
    ("kind", "quantity", "change"),
    [
        (MovementKind.ADJUST, 5, StockCounts(available=5)),
        (MovementKind.ADJUST, -5, StockCounts(available=-5)),
        (MovementKind.ADJUST, 0, StockCounts()),
        (MovementKind.RESERVE, 2, StockCounts(available=-2, reserved=2)),
        (MovementKind.RELEASE, 2, StockCounts(available=2, reserved=-2)),
        (MovementKind.SELL, 2, StockCounts(reserved=-2, sold=2)),
        (MovementKind.REVIVE, 2, StockCounts(available=-2, sold=2)),
    ],
)
def test_each_movement_changes_the_counts_it_names(
    kind: MovementKind, quantity: int, change: StockCounts
) -> None:
    assert change_of(kind, quantity=quantity) == change


@pytest.mark.parametrize("kind", [kind for kind in MovementKind if kind != MovementKind.ADJUST])
@pytest.mark.parametrize("quantity", [0, -1])
def test_only_an_adjustment_may_be_below_one(kind: MovementKind, quantity: int) -> None:
    with pytest.raises(ValueError, match="only an adjustment"):
        change_of(kind, quantity=quantity)


def test_the_counts_are_what_the_movements_add_up_to() -> None:
    counts = counts_from(
        [
            (MovementKind.ADJUST, 10),
            (MovementKind.RESERVE, 4),
            (MovementKind.RESERVE, 3),
            (MovementKind.SELL, 4),
            (MovementKind.RELEASE, 3),
            (MovementKind.REVIVE, 1),
            (MovementKind.ADJUST, -2),
        ]
    )

    assert counts == StockCounts(available=3, reserved=0, sold=5)
    assert counts.total == 8
