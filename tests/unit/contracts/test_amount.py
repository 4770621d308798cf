"""Amounts in their three forms."""

from decimal import Decimal

import msgspec
import pytest

from orderkeep.contracts.amount import (
    AMOUNT_MINOR_MAX,
    AmountText,
    check_amount,
    minor_of_text,
    raw_of_minor,
    read_amount_minor,
    text_of_minor,
)
from orderkeep.refusal import Refusal


@pytest.mark.parametrize(
    ("amount_minor", "text"),
    [
        (10_000, "100.00"),
        (0, "0.00"),
        (5, "0.05"),
        (999_999_999_999, "9999999999.99"),
        (-5, "-0.05"),
        (-1_050, "-10.50"),
    ],
)
def test_http_and_messages_show_two_decimals(amount_minor: int, text: str) -> None:
    assert text_of_minor(amount_minor) == text
    assert msgspec.json.encode([raw_of_minor(amount_minor)]) == f"[{text}]".encode()


@pytest.mark.parametrize(
    ("text", "amount_minor"), [("100.00", 10_000), ("0.00", 0), ("9999999999.99", 999_999_999_999)]
)
def test_a_request_names_an_amount_with_two_decimals(text: str, amount_minor: int) -> None:
    assert minor_of_text(text) == amount_minor
    assert msgspec.convert(text, AmountText) == text


@pytest.mark.parametrize(
    "text",
    [
        "100",
        "100.0",
        "100.000",
        "01.00",
        "-1.00",
        "+1.00",
        ".50",
        "1e2",
        "",
        " 1.00",
        "1.00 ",
        "1.00\n",
        "1_0.00",
        "\uff11.00",
        "NaN",
        "1234567890123456.00",
    ],
)
def test_a_request_with_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="exactly two decimals"):
        minor_of_text(text)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text, AmountText)


def test_an_amount_over_the_limit_has_a_code_of_its_own() -> None:
    with pytest.raises(Refusal) as refused:
        minor_of_text("10000000000.00")

    assert refused.value.code == "amount_too_large"
    assert refused.value.members == {"limit": "9999999999.99"}


def test_the_limit_itself_passes() -> None:
    check_amount(AMOUNT_MINOR_MAX)
    with pytest.raises(Refusal, match="amount_too_large"):
        check_amount(AMOUNT_MINOR_MAX + 1)


@pytest.mark.parametrize(
    ("value", "amount_minor"),
    [
        (100, 10_000),
        (0, 0),
        (Decimal("100.00"), 10_000),
        (Decimal("100.0000000"), 10_000),
        (Decimal("1E+2"), 10_000),
        (Decimal("0.1"), 10),
        (Decimal("-0.0"), 0),
        (Decimal("0.29"), 29),
        ("100", 10_000),
        ("100.5", 10_050),
        ("0100.50000", 10_050),
        ("9999999999.99", 999_999_999_999),
    ],
    ids=repr,
)
def test_a_foreign_amount_may_be_any_number_or_decimal_string_exact_to_two_decimals(
    value: object, amount_minor: int
) -> None:
    assert read_amount_minor(value) == amount_minor


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "a number or a decimal string"),
        (True, "a number or a decimal string"),
        (1.5, "a number or a decimal string"),
        ([], "a number or a decimal string"),
        ("1e2", "a number or a decimal string"),
        ("+1", "a number or a decimal string"),
        ("1,00", "a number or a decimal string"),
        ("1_0", "a number or a decimal string"),
        ("\uff11", "a number or a decimal string"),
        ("NaN", "a number or a decimal string"),
        ("1" * 65, "a number or a decimal string"),
        (Decimal("NaN"), "neither huge nor tiny"),
        (Decimal("Infinity"), "neither huge nor tiny"),
        (Decimal("1E+999999"), "neither huge nor tiny"),
        (Decimal("1E-999999"), "neither huge nor tiny"),
        (10**400, "neither huge nor tiny"),
        (Decimal("0.001"), "exact to two decimals"),
        (Decimal("100.00000000000000000000000000000000000001"), "exact to two decimals"),
        ("0.005", "exact to two decimals"),
        (-1, "from 0.00 to 9999999999.99"),
        ("-0.01", "from 0.00 to 9999999999.99"),
        (Decimal("-100.00"), "from 0.00 to 9999999999.99"),
        (10_000_000_000, "from 0.00 to 9999999999.99"),
        (10**100, "from 0.00 to 9999999999.99"),
    ],
    ids=repr,
)
def test_any_other_foreign_amount_is_refused_with_what_was_expected(
    value: object, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        read_amount_minor(value)
