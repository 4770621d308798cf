"""Text from outside fits every text column."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderkeep.messaging.column_text import clean_end, clean_start, error_words, is_clean


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("", ""),
        ("plain text", "plain text"),
        ("订单超时未支付", "订单超时未支付"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("nul \x00", "nul \\x00"),
        ("surrogate \ud800", "surrogate \\ud800"),
        ("escape \x1b[31m", "escape \\x1b[31m"),
    ],
)
def test_the_unprintable_is_escaped(text: str, cleaned: str):
    assert clean_start(text, length_max=100) == cleaned
    assert clean_end(text, length_max=100) == cleaned


def test_what_is_too_long_is_cut_where_it_tells_the_least():
    assert clean_start("abcdefgh", length_max=4) == "abc…"
    assert clean_end("abcdefgh", length_max=4) == "…fgh"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("m-1", True), ("", False), ("x" * 9, False), ("a\x00", False), ("a\ud800", False)],
)
def test_clean_text_is_printable_and_not_too_long(text: str, *, expected: bool):
    assert is_clean(text, length_max=8) is expected


def test_an_error_is_told_even_if_it_fails_to_tell_itself():
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert error_words(ValueError("one by none")) == "ValueError: one by none"
    assert "MuteError" in error_words(MuteError())


@given(st.text(st.characters(exclude_categories=()), max_size=200), st.integers(2, 300))
def test_every_text_fits_and_encodes(text: str, length_max: int):
    for cleaned in (
        clean_start(text, length_max=length_max),
        clean_end(text, length_max=length_max),
    ):
        assert len(cleaned) <= length_max
        assert b"\x00" not in cleaned.encode()
