"""Headers of any kind are kept."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderkeep.messaging.headers import decode_headers, encode_headers

PLAIN = st.dictionaries(
    st.text(st.characters(exclude_categories=())),
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
)


@given(PLAIN)
def test_plain_headers_come_back_as_they_were(headers: dict):
    assert decode_headers(encode_headers(headers)) == headers


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"raw \xff", "raw \\xff"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (Decimal("1.50"), "Decimal('1.50')"),
        (
            datetime(2024, 1, 1, tzinfo=UTC),
            "datetime.datetime(2024, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)",
        ),
        ((1, [b"two", {"three": 3}]), [1, ["two", {"three": 3}]]),
        (2**70, 2**70),
        ({b"raw": 1}, {"b'raw'": 1}),
    ],
    ids=["bytes", "nan", "infinity", "decimal", "moment", "nested", "huge", "odd name"],
)
def test_what_json_has_no_word_for_is_shown(value: object, shown: object):
    assert json.loads(encode_headers({"x": value})) == {"x": shown}


def test_a_structure_without_end_is_cut() -> None:
    endless: list[object] = []
    endless.append(endless)

    assert json.loads(encode_headers({"x": endless}))


def test_a_number_of_five_thousand_digits_is_kept():
    assert json.loads(encode_headers({"x": 10**5000}))["x"].startswith("0x")
