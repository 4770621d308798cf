r"""The types of what clients may write: identifiers, quantities, remarks, each with its limits.

They are for the fields of request bodies. Every end of a pattern is written `$(?!\n)`: Python's `$`
alone lets a trailing newline pass, and its `\Z` means the letter Z to readers of OpenAPI.
NUL and lone surrogates are refused for every string by `strict_json`.
"""

import re
from typing import Annotated

import msgspec

LINE_COUNT_MAX = 100
QUANTITY_MAX = 9_999

# An upper bound of stock that leaves room to add up all movements of a SKU in 64 bits.
STOCK_QUANTITY_MAX = 1_000_000_000

Identifier = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9._:-]{1,64}$(?!\n)",
        description="1 to 64 of letters, digits and `._:-`.",
    ),
]

# An order number as a client sends it: never refused for its check digit, only unknown.
OrderNo = Identifier

# What another program numbers by its own rules, such as a channel's trade number: some are longer
# than an identifier, or hold a slash or an equals sign.
ForeignNumber = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[^\s\u0000-\u001f\u007f-\u009f]{1,128}$(?!\n)",
        description="1 to 128 visible characters.",
    ),
]

Quantity = Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)]
StockQuantity = Annotated[int, msgspec.Meta(ge=0, le=STOCK_QUANTITY_MAX)]
StockChange = Annotated[int, msgspec.Meta(ge=-STOCK_QUANTITY_MAX, le=STOCK_QUANTITY_MAX)]

CurrencyCode = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Z]{3}$(?!\n)", description="ISO 4217.", examples=["CNY"])
]

BuyerRemark = Annotated[str, msgspec.Meta(max_length=500)]
Reason = Annotated[str, msgspec.Meta(max_length=500)]
Title = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
ReceiverName = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
ReceiverPhone = Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
ReceiverAddress = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]

_IDENTIFIER = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_FOREIGN_NUMBER = re.compile("[^\\s\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}")
_CURRENCY_CODE = re.compile(r"[A-Z]{3}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

# "01", and no more than 32 digits in all.
_ORDER_NUMBER = re.compile(r"01[0-9]{0,30}")

# Free text of a foreign message, such as the reason of a failed refund.
_FREE_TEXT_LENGTH_MAX = 2_000


def is_identifier(text: str) -> bool:
    """Return whether the text is an `Identifier`: for paths, headers and token subjects."""
    return _IDENTIFIER.fullmatch(text) is not None


def is_order_number(text: str) -> bool:
    """Return whether the text has the form of an order's number; its check digit is not looked at.

    Another program's order may be called otherwise: what is not known under a text of another form
    will not become known by waiting.
    """
    return _ORDER_NUMBER.fullmatch(text) is not None


def read_identifier(value: object) -> str:
    """Return an identifier from a foreign message.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or _IDENTIFIER.fullmatch(value) is None:
        message = "expected 1 to 64 of letters, digits and ._:-"
        raise ValueError(message)
    return value


def read_foreign_number(value: object) -> str:
    """Return a number or name that another program gave by its own rules.

    Raises:
        ValueError: it is no text of 1 to 128 visible characters.
    """
    if not isinstance(value, str) or _FOREIGN_NUMBER.fullmatch(value) is None:
        message = "expected 1 to 128 visible characters"
        raise ValueError(message)
    return value


def read_currency_code(value: object) -> str:
    """Return a currency from a foreign message, whether prices may be set in it or not.

    Raises:
        ValueError: it is not three capital letters.
    """
    if not isinstance(value, str) or _CURRENCY_CODE.fullmatch(value) is None:
        message = "expected three capital letters"
        raise ValueError(message)
    return value


def read_free_text(value: object) -> str:
    """Return text of a foreign message that a database can store.

    Raises:
        ValueError: it is no text, longer than 2,000 characters, or holds NUL or a lone surrogate.
    """
    if not isinstance(value, str) or len(value) > _FREE_TEXT_LENGTH_MAX:
        message = f"expected text of at most {_FREE_TEXT_LENGTH_MAX} characters"
        raise ValueError(message)
    if _UNSTORABLE.search(value):
        message = "expected text without NUL and lone surrogates"
        raise ValueError(message)
    return value


def read_quantity(value: object) -> int:
    """Return a quantity from a foreign message.

    Raises:
        ValueError: it is no whole number from 1 to 9,999.
    """
    return _read_whole_number(value, least=1, most=QUANTITY_MAX)


def read_version(value: object) -> int:
    """Return a version from a foreign message.

    Raises:
        ValueError: it is no whole number from 0 to 2^31 - 1.
    """
    return _read_whole_number(value, least=0, most=2**31 - 1)


def _read_whole_number(value: object, *, least: int, most: int) -> int:
    # A bool is an int to Python, and no number.
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        message = f"expected a whole number from {least} to {most}"
        raise ValueError(message)
    return value
