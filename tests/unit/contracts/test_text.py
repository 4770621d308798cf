"""The types of what clients may write, and the readers of what other programs do."""

from decimal import Decimal

import msgspec
import pytest

from orderkeep.contracts import text
from orderkeep.contracts.strict_json import InvalidShapeError, convert


@pytest.mark.parametrize(
    ("its_type", "value"),
    [
        ("Identifier", "a"),
        ("Identifier", "Az09._:-"),
        ("Identifier", "a" * 64),
        ("ForeignNumber", "pi_3Mt/4#é"),
        ("ForeignNumber", "a" * 128),
        ("CurrencyCode", "CNY"),
        ("Quantity", 1),
        ("Quantity", 9999),
        ("StockQuantity", 0),
        ("StockQuantity", 1_000_000_000),
        ("StockChange", -1_000_000_000),
        ("BuyerRemark", ""),
        ("BuyerRemark", "订" * 500),
        ("Title", "A\nB"),
    ],
    ids=repr,
)
def test_values_within_the_limits_pass(its_type: str, value: object) -> None:
    assert convert(value, getattr(text, its_type)) == value


@pytest.mark.parametrize(
    ("its_type", "value"),
    [
        ("Identifier", ""),
        ("Identifier", "a" * 65),
        ("Identifier", "a b"),
        ("Identifier", "a/b"),
        ("Identifier", "é"),
        ("Identifier", "a\n"),
        ("Identifier", "\na"),
        ("Identifier", "a\0"),
        ("Identifier", 1),
        ("ForeignNumber", ""),
        ("ForeignNumber", "a" * 129),
        ("ForeignNumber", "a b"),
        ("ForeignNumber", "a\n"),
        ("ForeignNumber", "a\x7f"),
        ("CurrencyCode", "CN"),
        ("CurrencyCode", "CNYY"),
        ("CurrencyCode", "cny"),
        ("CurrencyCode", "CNY\n"),
        ("Quantity", 0),
        ("Quantity", -1),
        ("Quantity", 10_000),
        ("Quantity", Decimal("1.5")),
        ("Quantity", Decimal("1.0")),
        ("Quantity", True),
        ("Quantity", "1"),
        ("StockQuantity", -1),
        ("StockChange", 1_000_000_001),
        ("BuyerRemark", "a" * 501),
        ("Title", ""),
        ("Title", "a" * 201),
    ],
    ids=repr,
)
def test_values_beyond_the_limits_are_refused(its_type: str, value: object) -> None:
    with pytest.raises(InvalidShapeError):
        convert(value, getattr(text, its_type))


@pytest.mark.parametrize("its_type", ["Identifier", "ForeignNumber", "CurrencyCode"])
def test_patterns_mean_the_same_to_readers_of_openapi(its_type: str) -> None:
    pattern = msgspec.json.schema(getattr(text, its_type))["pattern"]

    assert pattern.startswith("^")
    assert pattern.endswith("$(?!\\n)")
    assert "\\Z" not in pattern


@pytest.mark.parametrize(("value", "is_one"), [("order-1", True), ("", False), ("a\n", False)])
def test_an_identifier_in_a_path_is_told_from_other_text(value: str, *, is_one: bool) -> None:
    assert text.is_identifier(value) is is_one


@pytest.mark.parametrize(
    ("read", "value"),
    [
        ("read_identifier", "0100000000000009"),
        ("read_identifier", "a" * 64),
        ("read_foreign_number", "wechat_pay"),
        ("read_foreign_number", "订单/1"),
        ("read_currency_code", "JPY"),
        ("read_free_text", "订单超时未支付\n"),
        ("read_free_text", "a" * 2000),
        ("read_quantity", 9999),
        ("read_version", 0),
        ("read_version", 2147483647),
    ],
    ids=repr,
)
def test_what_other_programs_write_well_is_read(read: str, value: object) -> None:
    assert getattr(text, read)(value) == value


@pytest.mark.parametrize(
    ("read", "value"),
    [
        ("read_identifier", 100000000000009),
        ("read_identifier", "a" * 65),
        ("read_identifier", "a\n"),
        ("read_identifier", ["a"]),
        ("read_foreign_number", 5),
        ("read_foreign_number", "a b"),
        ("read_foreign_number", "a\0"),
        ("read_foreign_number", "a\ud800"),
        ("read_foreign_number", "a" * 129),
        ("read_currency_code", "cny"),
        ("read_currency_code", 156),
        ("read_free_text", {}),
        ("read_free_text", "a\0"),
        ("read_free_text", "\udfff"),
        ("read_free_text", "a" * 2001),
        ("read_quantity", 0),
        ("read_quantity", 10_000),
        ("read_quantity", True),
        ("read_quantity", "1"),
        ("read_quantity", Decimal("1.0")),
        ("read_version", -1),
        ("read_version", 2147483648),
    ],
    ids=repr,
)
def test_what_other_programs_write_wrong_is_refused(read: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        getattr(text, read)(value)
