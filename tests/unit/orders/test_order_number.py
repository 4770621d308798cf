"""Order numbers: 28 digits that rise with time and end in a check digit."""

import pytest

from orderkeep.instant import Instant
from orderkeep.orders.order_number import luhn_digit, make_order_number

# 2024-01-01T10:00:00Z
TEN = Instant(1_704_103_200_000_000)


@pytest.mark.parametrize(
    ("digits", "check_digit"),
    [
        ("010000000000000", 9),
        ("7992739871", 3),
        ("411111111111111", 1),
        ("0", 0),
        ("5", 9),
        ("9", 1),
        ("", 0),
    ],
)
def test_the_check_digit_is_that_of_luhn(digits: str, check_digit: int) -> None:
    assert luhn_digit(digits) == check_digit


@pytest.mark.parametrize(
    ("at", "drawn", "order_no"),
    [
        (TEN, 0, "0117041032000000000000000006"),
        (TEN, 123_456_789_012, "0117041032000001234567890124"),
        (TEN + 999, 0, "0117041032000000000000000006"),
        (TEN + 1_000, 999_999_999_999, "0117041032000019999999999996"),
        (0, 0, "0100000000000000000000000009"),
        (9_999_999_999_999_999, 0, "0199999999999990000000000002"),
    ],
)
def test_a_number_is_its_kind_its_millisecond_what_was_drawn_and_the_check_digit(
    at: int, drawn: int, order_no: str
) -> None:
    assert make_order_number(Instant(at), drawn=drawn) == order_no


@pytest.mark.parametrize(
    ("at", "drawn"),
    [(TEN, -1), (TEN, 10**12), (-1, 0), (10**16, 0)],
)
def test_what_does_not_fit_its_digits_is_a_bug_of_the_caller(at: int, drawn: int) -> None:
    with pytest.raises(ValueError, match=r"instant|drawn"):
        make_order_number(Instant(at), drawn=drawn)
