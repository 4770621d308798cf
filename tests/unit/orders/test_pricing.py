"""What an order costs."""

import pytest

from orderkeep.orders.order import OrderLine
from orderkeep.orders.pricing import Pricing, WantedLine, price
from orderkeep.orders.stock import Sku
from orderkeep.refusal import Refusal


def entry(
    sku_id: str, *, unit_price_minor: int, currency: str = "CNY", is_active: bool = True
) -> Sku:
    return Sku(
        sku_id=sku_id,
        product_id=None,
        title=f"The {sku_id}",
        unit_price_minor=unit_price_minor,
        currency=currency,
        is_active=is_active,
        available=0,
        reserved=0,
        sold=0,
    )


CATALOGUE = {
    "tea": entry("tea", unit_price_minor=2_599),
    "pot": entry("pot", unit_price_minor=10_000),
    "gold": entry("gold", unit_price_minor=999_999_999_999),
    "mug": entry("mug", unit_price_minor=500, currency="EUR"),
    "old": entry("old", unit_price_minor=1, is_active=False),
    "free": entry("free", unit_price_minor=0),
}


def test_lines_have_the_titles_and_prices_of_the_catalogue_and_stay_as_they_were_asked_for() -> (
    None
):
    pricing = price(
        [
            WantedLine(sku_id="tea", quantity=3, cart_item_id="c1"),
            WantedLine(sku_id="pot", quantity=1),
            WantedLine(sku_id="tea", quantity=1),
        ],
        catalogue=CATALOGUE,
    )

    assert pricing == Pricing(
        lines=(
            OrderLine(
                line_no=1,
                sku_id="tea",
                title="The tea",
                unit_price_minor=2_599,
                quantity=3,
                subtotal_minor=7_797,
                cart_item_id="c1",
            ),
            OrderLine(
                line_no=2,
                sku_id="pot",
                title="The pot",
                unit_price_minor=10_000,
                quantity=1,
                subtotal_minor=10_000,
            ),
            OrderLine(
                line_no=3,
                sku_id="tea",
                title="The tea",
                unit_price_minor=2_599,
                quantity=1,
                subtotal_minor=2_599,
            ),
        ),
        total_amount_minor=20_396,
        pay_amount_minor=20_396,
        currency="CNY",
    )


@pytest.mark.parametrize("sku_id", ["no-such", "old"])
def test_what_is_not_in_the_catalogue_or_not_for_sale_is_unknown(sku_id: str) -> None:
    with pytest.raises(Refusal) as refused:
        price([WantedLine(sku_id=sku_id, quantity=1)], catalogue=CATALOGUE)

    assert refused.value.code == "unknown_sku"
    assert refused.value.members == {"sku_id": sku_id}


def test_one_order_has_one_currency() -> None:
    wanted = [WantedLine(sku_id="tea", quantity=1), WantedLine(sku_id="mug", quantity=1)]

    with pytest.raises(Refusal) as refused:
        price(wanted, catalogue=CATALOGUE)

    assert refused.value.code == "mixed_currencies"
    assert refused.value.members == {"currencies": ["CNY", "EUR"]}


def test_the_largest_amount_passes_and_a_cent_more_does_not() -> None:
    largest = price([WantedLine(sku_id="gold", quantity=1)], catalogue=CATALOGUE)

    assert largest.pay_amount_minor == 999_999_999_999
    with pytest.raises(Refusal) as refused:
        price(
            [WantedLine(sku_id="gold", quantity=1), WantedLine(sku_id="tea", quantity=1)],
            catalogue=CATALOGUE,
        )
    assert refused.value.code == "amount_too_large"


@pytest.mark.parametrize("expected", [None, 2_599])
def test_a_price_as_the_buyer_saw_it_passes(expected: int | None) -> None:
    pricing = price(
        [WantedLine(sku_id="tea", quantity=1)],
        catalogue=CATALOGUE,
        expected_pay_amount_minor=expected,
    )

    assert pricing.pay_amount_minor == 2_599


def test_what_costs_nothing_can_be_expected_to_cost_nothing() -> None:
    wanted = [WantedLine(sku_id="free", quantity=1)]

    assert price(wanted, catalogue=CATALOGUE, expected_pay_amount_minor=0).pay_amount_minor == 0
    with pytest.raises(Refusal, match="price_changed"):
        price(wanted, catalogue=CATALOGUE, expected_pay_amount_minor=1)


def test_another_price_than_the_buyer_saw_is_refused_with_the_lines_as_they_are() -> None:
    with pytest.raises(Refusal) as refused:
        price(
            [
                WantedLine(sku_id="tea", quantity=2, cart_item_id="c1"),
                WantedLine(sku_id="pot", quantity=1),
            ],
            catalogue=CATALOGUE,
            expected_pay_amount_minor=0,
        )

    assert refused.value.code == "price_changed"
    assert refused.value.members == {
        "items": [
            {
                "sku_id": "tea",
                "title": "The tea",
                "unit_price": "25.99",
                "quantity": 2,
                "subtotal": "51.98",
                "cart_item_id": "c1",
            },
            {
                "sku_id": "pot",
                "title": "The pot",
                "unit_price": "100.00",
                "quantity": 1,
                "subtotal": "100.00",
            },
        ],
        "pay_amount": "151.98",
        "currency": "CNY",
    }
