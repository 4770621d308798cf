"""Order numbers rise with time and can be checked by anyone."""

from hypothesis import given
from hypothesis import strategies as st

from orderkeep.instant import Instant
from orderkeep.orders.order_number import make_order_number

MILLISECONDS = st.integers(min_value=0, max_value=10**13 - 1)
DRAWN = st.integers(min_value=0, max_value=10**12 - 1)


def passes_luhn(digits: str) -> bool:
    """Return whether the digits pass, by the textbook: double every second, cast out nines."""
    total = 0
    for place, digit in enumerate(map(int, reversed(digits)), start=1):
        total += digit if place % 2 else digit * 2 - (9 if digit > 4 else 0)
    return total % 10 == 0


@given(MILLISECONDS, DRAWN)
def test_a_number_has_28_digits_begins_with_01_and_passes_luhn(ms: int, drawn: int) -> None:
    order_no = make_order_number(Instant(ms * 1000), drawn=drawn)

    assert len(order_no) == 28
    assert order_no.isascii()
    assert order_no.isdigit()
    assert order_no.startswith("01")
    assert passes_luhn(order_no)


@given(MILLISECONDS, DRAWN, st.integers(min_value=0, max_value=26))
def test_a_digit_misread_is_noticed(ms: int, drawn: int, place: int) -> None:
    order_no = make_order_number(Instant(ms * 1000), drawn=drawn)

    misread = order_no[:place] + str((int(order_no[place]) + 1) % 10) + order_no[place + 1 :]

    assert not passes_luhn(misread)


@given(MILLISECONDS, MILLISECONDS, DRAWN, DRAWN)
def test_a_later_millisecond_is_a_larger_number_whatever_was_drawn(
    one: int, other: int, drawn: int, also_drawn: int
) -> None:
    first = make_order_number(Instant(one * 1000), drawn=drawn)
    second = make_order_number(Instant(other * 1000), drawn=also_drawn)

    assert (first < second) == ((one, drawn) < (other, also_drawn))
