"""Amounts between their three forms: minor units inside, "100.00" over HTTP, 100.00 in messages.

An amount is an integer of hundredths everywhere inside. It is never a float: not while it is read,
and not while it is written, so `100.00` leaves with two decimals whatever the amount.
"""

import re
from decimal import Decimal
from functools import lru_cache
from typing import Annotated

import msgspec

from orderkeep.refusal import Refusal

# 9,999,999,999.99: the contract's limit on any one amount. A sum of 100 lines at the limit still
# fits the 64 bits of its column.
AMOUNT_MINOR_MAX = 999_999_999_999

# An order's amounts are written half a dozen times, and read as often. So many texts and raw ones
# take a megabyte.
_REMEMBERED_AMOUNT_COUNT_MAX = 4096

# An amount in a request. It admits more digits than the limit, which has a code of its own.
# The end is written `$(?!\n)`: right in Python and in the ECMA dialect that OpenAPI asks for.
AmountText = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(0|[1-9][0-9]{0,14})\.[0-9]{2}$(?!\n)",
        description="An amount with exactly two decimals.",
        examples=["100.00"],
    ),
]

# Beyond this a number is over the limit, or finer than any fraction that could count: decided
# before it becomes an integer, which costs memory in proportion to its exponent.
_EXPONENT_MAX = 400

_AMOUNT_TEXT = re.compile(r"(0|[1-9][0-9]{0,14})\.([0-9]{2})")
_DECIMAL_TEXT = re.compile(r"-?[0-9]{1,64}(\.[0-9]{1,64})?")


@lru_cache(_REMEMBERED_AMOUNT_COUNT_MAX)
def text_of_minor(amount_minor: int) -> str:
    """Return an amount as HTTP shows it: "100.00"."""
    units, hundredths = divmod(abs(amount_minor), 100)
    sign = "-" if amount_minor < 0 else ""
    return f"{sign}{units}.{hundredths:02d}"


@lru_cache(_REMEMBERED_AMOUNT_COUNT_MAX)
def raw_of_minor(amount_minor: int) -> msgspec.Raw:
    """Return an amount as a JSON number with two decimals, for msgspec to put in as it stands."""
    return msgspec.Raw(text_of_minor(amount_minor).encode())


def minor_of_text(text: str) -> int:
    """Return the minor units of an `AmountText`.

    Raises:
        ValueError: text has not exactly two decimals.
        Refusal: `amount_too_large`.
    """
    parts = _AMOUNT_TEXT.fullmatch(text)
    if parts is None:
        message = "expected an amount with exactly two decimals, such as 100.00"
        raise ValueError(message)
    amount_minor = int(parts[1]) * 100 + int(parts[2])
    check_amount(amount_minor)
    return amount_minor


def check_amount(amount_minor: int) -> None:
    """Refuse an amount over the limit.

    Raises:
        Refusal: `amount_too_large`.
    """
    if amount_minor > AMOUNT_MINOR_MAX:
        limit = text_of_minor(AMOUNT_MINOR_MAX)
        detail = f"{text_of_minor(amount_minor)} is over {limit}, the most one amount may be"
        raise Refusal("amount_too_large", detail, members={"limit": limit})


def read_amount_minor(value: object) -> int:
    """Return the minor units of an amount in a foreign message.

    Args:
        value: A parsed JSON number, or a string with a decimal number: 100, 100.0, 1e2, "100.00".

    Raises:
        ValueError: it is neither, negative, over the limit, or finer than two decimals.
    """
    if isinstance(value, str) and _DECIMAL_TEXT.fullmatch(value):
        value = Decimal(value)
    # A bool is an int to Python, and no amount.
    if not isinstance(value, int | Decimal) or isinstance(value, bool):
        message = "expected an amount as a number or a decimal string"
        raise ValueError(message)  # noqa: TRY004 (a reading function raises ValueError)
    number = Decimal(value)
    if not number.is_finite() or not -_EXPONENT_MAX < number.adjusted() < _EXPONENT_MAX:
        message = "expected an amount that is neither huge nor tiny"
        raise ValueError(message)
    return _minor_of_decimal(number)


@lru_cache(_REMEMBERED_AMOUNT_COUNT_MAX)
def _minor_of_decimal(number: Decimal) -> int:
    # A ratio of integers is exact; Decimal's own arithmetic would round at 28 digits.
    numerator, denominator = number.as_integer_ratio()
    amount_minor, rest = divmod(numerator * 100, denominator)
    if rest:
        message = "expected an amount exact to two decimals"
        raise ValueError(message)
    if not 0 <= amount_minor <= AMOUNT_MINOR_MAX:
        message = f"expected an amount from 0.00 to {text_of_minor(AMOUNT_MINOR_MAX)}"
        raise ValueError(message)
    return amount_minor
