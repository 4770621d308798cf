"""Amounts survive every way they are written, to the last hundredth."""

import json
from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from orderkeep.contracts.amount import (
    minor_of_text,
    raw_of_minor,
    read_amount_minor,
    text_of_minor,
)
from orderkeep.contracts.strict_json import parse

AMOUNTS = st.integers(min_value=0, max_value=999_999_999_999)


@given(AMOUNTS)
def test_an_amount_goes_over_http_and_back(amount_minor: int) -> None:
    assert minor_of_text(text_of_minor(amount_minor)) == amount_minor


@given(AMOUNTS)
def test_an_amount_goes_through_a_queue_and_back(amount_minor: int) -> None:
    raw = msgspec.json.encode({"amount": raw_of_minor(amount_minor)})

    read = parse(raw)

    assert isinstance(read, dict)
    assert read_amount_minor(read["amount"]) == amount_minor
    assert raw[-4:-3] == b"."


@given(AMOUNTS, st.integers(min_value=0, max_value=9))
def test_an_amount_is_the_same_however_a_foreign_program_writes_it(
    amount_minor: int, more_zeros: int
) -> None:
    exact = Decimal(amount_minor).scaleb(-2)

    assert read_amount_minor(str(exact) + "0" * more_zeros) == amount_minor
    assert read_amount_minor(exact.normalize()) == amount_minor
    assert read_amount_minor(parse(json.dumps(float(exact)).encode())) == amount_minor


@given(st.decimals(allow_nan=True, allow_infinity=True) | st.integers())
def test_any_number_is_read_exactly_or_refused(number: Decimal | int) -> None:
    try:
        amount_minor = read_amount_minor(number)
    except ValueError:
        return

    assert 0 <= amount_minor <= 999_999_999_999
    assert Decimal(amount_minor) == Decimal(number) * 100
