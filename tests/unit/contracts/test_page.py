"""Cursors: what was given out is read again, anything else is refused."""

import base64

import pytest

from orderkeep.contracts.page import decode_cursor, encode_cursor
from orderkeep.refusal import Refusal


def cursor_of(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def test_a_cursor_gives_its_parts_back() -> None:
    assert decode_cursor(encode_cursor(7), int) == (7,)
    assert decode_cursor(encode_cursor("0100000000000009"), str) == ("0100000000000009",)
    assert decode_cursor(encode_cursor(1_704_103_500_000_000, "订/+?单"), int, str) == (
        1_704_103_500_000_000,
        "订/+?单",
    )


def test_a_cursor_needs_no_escape_in_a_query() -> None:
    cursor = encode_cursor("???>>>", 12345)

    assert cursor == "WyI_Pz8-Pj4iLDEyMzQ1XQ"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "!!!!",
        "WzFd WzFd",
        "Wz1d\n",
        "é",
        cursor_of("1"),
        cursor_of("[]"),
        cursor_of("[1,2]"),
        cursor_of('["1"]'),
        cursor_of("[true]"),
        cursor_of("[null]"),
        cursor_of("[1.5]"),
        cursor_of("[[1]]"),
        cursor_of("[9223372036854775808]"),
        cursor_of("[-9223372036854775809]"),
        cursor_of("[1"),
        cursor_of("[" * 300),
        "W" * 513,
        base64.urlsafe_b64encode(b"[\xff]").decode(),
    ],
)
def test_what_is_no_cursor_of_one_number_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        decode_cursor(text, int)

    assert refused.value.code == "invalid_cursor"


@pytest.mark.parametrize("text", ['["a\\u0000"]', '["\\ud800"]', "[1]"])
def test_what_is_no_cursor_of_one_storable_text_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="invalid_cursor"):
        decode_cursor(cursor_of(text), str)
