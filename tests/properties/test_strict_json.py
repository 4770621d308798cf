"""The strict reader against Python's own: it never reads a text otherwise, only refuses more."""

import json
from decimal import Decimal

from hypothesis import example, given
from hypothesis import strategies as st

from orderkeep.contracts.strict_json import MalformedJsonError, parse

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["a", "b", ":", '":', "\\u003a", "{", "]", "\\"]
)
NUMBERS = st.integers() | st.decimals(
    allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=2
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)

# Pieces of JSON, sound and broken, glued together: near misses that no generator of values makes.
PIECES = st.lists(
    st.sampled_from(
        [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            '"',
            "\\",
            "-",
            ".",
            "e",
            "0",
            "1",
            "12",
            "1.5",
            "1e5",
            "1e999",
            "-0",
            "01",
            "true",
            "nul",
            "null",
            "NaN",
            "Infinity",
            '"a"',
            '"a":',
            '"b":',
            '"\\u0061"',
            '"\\u003a"',
            '":"',
            '"\\ud800"',
            '"\\u0000"',
            '{"a":1}',
            '{"a":1,"a":":"}',
            "é",
            "\t",
            "\n",
            "\x00",
            "\ufeff",
        ]
    ),
    max_size=12,
).map("".join)


class _TwiceError(ValueError):
    pass


def read_by_python(text: str) -> object:
    """Read by `json` alone, with what the strict reader also refuses refused in plain words."""

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise _TwiceError
        return dict(pairs)

    def refuse(name: str) -> object:
        raise ValueError(name)

    def decimal(digits: str) -> Decimal:
        number = Decimal(digits)
        if abs(number.adjusted()) > 324:
            raise ValueError(digits)
        return number

    return json.loads(text, object_pairs_hook=once, parse_constant=refuse, parse_float=decimal)


def written(value: object) -> str:
    """Write by hand, so that decimals keep their digits."""
    match value:
        case Decimal():
            return f"{value:f}"
        case dict():
            return "{" + ",".join(f"{json.dumps(k)}: {written(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + " ,".join(map(written, value)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False)


@given(VALUES)
def test_every_value_that_is_written_is_read_as_it_was(value: object) -> None:
    text = written(value)

    assert parse(text.encode()) == value
    assert repr(parse(text.encode())) == repr(read_by_python(text))


@given(PIECES)
@example('{"a":1,"a":":"}')
@example('{"a":1,"\\u0061":2}')
@example('{"a":1,"a":"\\u003a"}')
@example('{"\\u003a":1,"a":1,"a":2}')
def test_any_text_is_read_as_python_reads_it_or_refused_as_there(text: str) -> None:
    try:
        expected = repr(read_by_python(text))
    except ValueError:
        expected = "refused"

    try:
        found = repr(parse(text.encode()))
    except MalformedJsonError:
        found = "refused"

    assert found == expected


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused_never_a_crash(raw: bytes) -> None:
    try:
        value = parse(raw)
    except MalformedJsonError:
        return

    assert repr(value) == repr(read_by_python(raw.decode()))


@given(st.integers(min_value=0, max_value=200), st.sampled_from(["[", '{"k":']), st.booleans())
def test_the_depth_decides_and_nothing_else(depth: int, opening: str, is_closed: bool) -> None:  # noqa: FBT001 (drawn)
    closing = "]" if opening == "[" else "}"
    text = opening * depth + "1" + closing * (depth if is_closed else 0)

    try:
        parse(text.encode())
        is_read = True
    except MalformedJsonError:
        is_read = False

    assert is_read == (depth <= 32 and (is_closed or depth == 0))
