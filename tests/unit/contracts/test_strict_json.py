"""The one JSON reader: what it takes, what it refuses, and where it says the fault is."""

import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
import pytest

from orderkeep.contracts.strict_json import (
    InvalidShapeError,
    MalformedJsonError,
    Problem,
    convert,
    decode,
    find_unstorable_text,
    parse,
    parse_storable,
    shown,
)


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sku_id: Annotated[str, msgspec.Meta(pattern="^[a-z]+$")]
    quantity: Annotated[int, msgspec.Meta(ge=1, le=9999)]


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    items: Annotated[list[Line], msgspec.Meta(min_length=1)]
    remark: str | None = None
    result: Literal["succeeded", "failed"] = "failed"
    by_name: dict[str, Line] = {}
    odd: Annotated[int, msgspec.Meta(ge=0)] = msgspec.field(default=0, name="a~b/c")


class Tolerant(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""


@pytest.fixture
def lower_digit_limit() -> Iterator[None]:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    yield
    sys.set_int_max_str_digits(before)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a": [1, true, null, "x"]}', {"a": [1, True, None, "x"]}),
        (b" \t\r\n[] ", []),
        (b'"\\ud83d\\ude00 \\u00e9"', "😀 é"),
        ('"订单"'.encode(), "订单"),
        (b'{"at": "10:05:00", "k:": "\\":"}', {"at": "10:05:00", "k:": '":'}),
        (b'{"a": {"k": 1}, "b": {"k": 2}}', {"a": {"k": 1}, "b": {"k": 2}}),
        (b'{"\\u0061": ":"}', {"a": ":"}),
        (b"-0", 0),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
    ],
)
def test_sound_json_comes_as_its_value(raw: bytes, value: object) -> None:
    assert parse(raw) == value


@pytest.mark.parametrize(
    ("raw", "digits"),
    [(b"100.00", "100.00"), (b"1e2", "1E+2"), (b"0.1", "0.1"), (b"-2.50", "-2.50")],
)
@pytest.mark.parametrize("wrapping", [b'{"n": %b}', b'{"n": %b, "\\u0061": 1}'])
def test_a_number_with_fraction_or_exponent_comes_as_decimal_digit_by_digit(
    wrapping: bytes, raw: bytes, digits: str
) -> None:
    value = parse(wrapping % raw)

    assert isinstance(value, dict)
    assert isinstance(value["n"], Decimal)
    assert str(value["n"]) == digits


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        (b"", "Expecting value at character 0"),
        (b"{", "Expecting property name enclosed in double quotes at character 1"),
        (b'{"a":1', "Expecting ',' delimiter at character 6"),
        (b"[1,]", "Expecting value at character 3"),
        (b'{"a":1}x', "Extra data at character 7"),
        (b"01", "Extra data at character 1"),
        (b"'a'", "Expecting value at character 0"),
        (b'"\x01"', "Invalid control character at at character 1"),
        (b'"\xff"', "byte 1 is not UTF-8"),
        (b'"\xed\xa0\x80"', "byte 1 is not UTF-8"),
        ('{"a":1}'.encode("utf-16"), "byte 0 is not UTF-8"),
        ('{"a":1}'.encode("utf-16-le"), "Expecting property name enclosed in double quotes"),
        (b'\xef\xbb\xbf{"a":1}', "begins with a byte order mark"),
        (b"NaN", "NaN is no JSON number"),
        (b"[Infinity]", "Infinity is no JSON number"),
        (b'{"a":-Infinity}', "-Infinity is no JSON number"),
        (b'{"a":1,"a":1}', "the key 'a' stands twice in one object"),
        (b'{"a":1,"\\u0061":2}', "the key 'a' stands twice in one object"),
        (b'{"a":1,"a":"\\u003a"}', "the key 'a' stands twice in one object"),
        (b'[{"b":{"c":1,"d":":","c":{}}}]', "the key 'c' stands twice in one object"),
        (b'{"\\ud800":1,"\\ud800":1}', r"the key '\\ud800' stands twice in one object"),
        (b"1" * 4301, "a number of over 4300 digits or beyond 1e±324"),
        (b"-" + b"1" * 4301, "a number of over 4300 digits or beyond 1e±324"),
        (b"0." + b"1" * 4300, "a number of over 4300 digits or beyond 1e±324"),
        (b"1e999999999", "a number of over 4300 digits or beyond 1e±324"),
        (b"1e-999999999", "a number of over 4300 digits or beyond 1e±324"),
        (b"0e999999999", "a number of over 4300 digits or beyond 1e±324"),
        (b"1e99999999999999999999", "a number of over 4300 digits or beyond 1e±324"),
    ],
)
def test_what_is_no_sound_json_is_refused_with_the_reason(raw: bytes, detail: str) -> None:
    with pytest.raises(MalformedJsonError) as refused:
        parse(raw)

    assert refused.value.code == "malformed_json"
    assert refused.value.detail.startswith(detail)


def test_integers_of_the_most_digits_are_read() -> None:
    assert parse(b"[-" + b"1" * 4300 + b"]") == [-int("1" * 4300)]


@pytest.mark.usefixtures("lower_digit_limit")
def test_an_interpreter_with_a_lower_limit_of_digits_refuses_too() -> None:
    with pytest.raises(MalformedJsonError, match="a number of over"):
        parse(b"1" * 1000)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 32 + b"]" * 32,
        b'{"a":' * 32 + b"1" + b"}" * 32,
        b"[" + b",".join([b"[{}]"] * 500) + b"]",
        b'["' + b"[" * 5_000 + b'\\"[[{{", "\\\\", "{"]',
    ],
)
def test_32_levels_are_read_and_brackets_in_strings_are_no_levels(raw: bytes) -> None:
    parse(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 33 + b"]" * 33,
        b'{"a":' * 33 + b"1" + b"}" * 33,
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b"[{" * 100_000,
        b'["\\"' + b"[" * 40 + b'"' + b"[" * 40,
    ],
)
def test_33_levels_or_100_000_are_refused_before_they_are_read(raw: bytes) -> None:
    with pytest.raises(MalformedJsonError, match="nested deeper than 32 levels"):
        parse(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"[]" * 500_000,
        b'\\"' * 500_000,
        b'"' + b'\\"' * 500_000,
        b'"\\""' * 250_000 + b"[" * 40,
        b"[" * 40 + b'"\\' * 400_000,
        b"1" * 1_000_000,
        b'{"a":' * 200_000,
    ],
)
def test_no_body_of_a_mebibyte_takes_long_to_refuse(raw: bytes) -> None:
    begun = time.monotonic()

    with pytest.raises(MalformedJsonError):
        parse(raw)

    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (
            b'{"a": ["x", "\\u0000"]}',
            Problem(pointer="/a/1", detail="holds NUL or a lone surrogate"),
        ),
        (b'"\\ud800"', Problem(pointer="", detail="holds NUL or a lone surrogate")),
        (
            b'{"a/b~": "\\udfff"}',
            Problem(pointer="/a~1b~0", detail="holds NUL or a lone surrogate"),
        ),
        (
            b'{"a": {"\\u0000": 1}}',
            Problem(pointer="/a", detail="has a key with NUL or a lone surrogate"),
        ),
    ],
)
def test_text_that_no_database_stores_is_refused_with_its_place(
    raw: bytes, problem: Problem
) -> None:
    with pytest.raises(InvalidShapeError) as refused:
        parse_storable(raw)

    assert refused.value.problems == (problem,)


def test_escapes_of_storable_text_pass() -> None:
    assert parse_storable(b'{"a": ["\\u00e9\\ud83d\\ude00", 1, null]}') == {"a": ["é😀", 1, None]}
    assert find_unstorable_text({"a": ["é", 1]}) is None


@pytest.mark.parametrize(
    ("raw", "pointer", "detail"),
    [
        (b"[]", "", "Expected `object`, got `array`"),
        (b'{"items": []}', "/items", "Expected `array` of length >= 1"),
        (b"{}", "/items", "is missing"),
        (b'{"items": [{"sku_id": "a"}]}', "/items/0/quantity", "is missing"),
        (b'{"items": [], "extra": 1}', "/items", "Expected `array` of length >= 1"),
        (
            b'{"items": [{"sku_id": "a", "quantity": 1}], "x/y~": 1}',
            "/x~1y~0",
            "is not known",
        ),
        (
            b'{"items": [{"sku_id": "a", "quantity": 1, "x` - at `$.remark": 1}]}',
            "/items/0/x` - at `$.remark",
            "is not known",
        ),
        (
            b'{"items": [{"sku_id": "a", "quantity": "1"}]}',
            "/items/0/quantity",
            "Expected `int`, got `str`",
        ),
        (
            b'{"items": [{"sku_id": "a", "quantity": true}]}',
            "/items/0/quantity",
            "Expected `int`, got `bool`",
        ),
        (
            b'{"items": [{"sku_id": "a", "quantity": 1.5}]}',
            "/items/0/quantity",
            "Expected `int`, got `decimal`",
        ),
        (
            b'{"items": [{"sku_id": "a", "quantity": 1000000000}]}',
            "/items/0/quantity",
            "Expected `int` <= 9999",
        ),
        (
            b'{"items": [{"sku_id": "A", "quantity": 1}]}',
            "/items/0/sku_id",
            "Expected `str` matching regex '^[a-z]+$'",
        ),
        (
            b'{"items": [{"sku_id": "a", "quantity": 1}], "result": "maybe"}',
            "/result",
            "Invalid enum value 'maybe'",
        ),
        (
            b'{"items": [{"sku_id": "a", "quantity": 1}], "by_name": {"k.[0]": {"sku_id": 1}}}',
            "/by_name",
            "Expected `str`, got `int`",
        ),
        (
            b'{"items": [{"sku_id": "a", "quantity": 1}], "a~b/c": -1}',
            "/a~0b~1c",
            "Expected `int` >= 0",
        ),
    ],
)
def test_a_body_of_another_shape_is_refused_with_its_place(
    raw: bytes, pointer: str, detail: str
) -> None:
    with pytest.raises(InvalidShapeError) as refused:
        decode(raw, Wanted)

    assert refused.value.code == "invalid_request"
    assert refused.value.problems == (Problem(pointer=pointer, detail=detail),)
    assert refused.value.members == {"errors": [{"pointer": pointer, "detail": detail}]}


def test_a_body_of_the_right_shape_is_the_struct() -> None:
    wanted = decode(b'{"items": [{"sku_id": "a", "quantity": 2}], "remark": "\\u00e9"}', Wanted)

    assert wanted == Wanted(items=[Line(sku_id="a", quantity=2)], remark="é")


@pytest.mark.parametrize("value", [{"\ud800": 1}, {"result": "\ud800", "items": []}])
def test_a_lone_surrogate_where_names_are_compared_is_a_refusal_not_a_crash(
    value: dict[str, object],
) -> None:
    with pytest.raises(InvalidShapeError) as refused:
        convert(value, Wanted)

    assert "lone surrogate" in refused.value.detail


def test_members_that_are_not_known_are_ignored_where_the_type_allows_it() -> None:
    assert decode(b'{"name": "n", "other": [1.5, {"x": null}]}', Tolerant) == Tolerant(name="n")


def test_what_an_error_repeats_of_the_body_is_short_and_can_be_encoded() -> None:
    assert shown("a" * 65) == "a" * 64 + "…"
    assert shown("a" * 64) == "a" * 64
    assert shown("\ud800") == "\\ud800"
