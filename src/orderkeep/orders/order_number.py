"""Order numbers: made without asking anyone, rising with time, safe to read out over a telephone.

    01 1704103200000 000000000000 6
    |  |             |            Luhn digit over all that stands before it
    |  |             12 random digits: 1,000 orders in one millisecond share one by chance in
    |  |             2 million; the primary key refuses the second of such a pair
    |  milliseconds since 1970 UTC, 13 digits until the year 2286
    kind of number: an order

Their order is that of the clocks of the processes that make them, to the millisecond.
"""

from typing import NewType

from orderkeep.instant import Instant

OrderNumber = NewType("OrderNumber", str)

ORDER_KIND = "01"
DRAWN_LIMIT = 10**12

_MILLISECONDS_LIMIT = 10**13
_MICROSECONDS_PER_MILLISECOND = 1_000
_DECIMAL_BASE = 10

# What a digit adds, as it is and doubled: of a result of two digits, their sum.
_AS_IT_IS = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))


def make_order_number(at: Instant, *, drawn: int) -> OrderNumber:
    """Return an order number of 28 digits.

    Args:
        at: When the order is made.
        drawn: A random number, from 0 to `DRAWN_LIMIT` - 1. Drawn by the caller: this stays pure.

    Raises:
        ValueError: drawn is out of its range, or at is before 1970 or after 2286.
    """
    milliseconds = at // _MICROSECONDS_PER_MILLISECOND
    if not 0 <= milliseconds < _MILLISECONDS_LIMIT:
        message = f"instant {at} has no millisecond of 13 digits"
        raise ValueError(message)
    if not 0 <= drawn < DRAWN_LIMIT:
        message = f"drawn {drawn} is not in 0..{DRAWN_LIMIT - 1}"
        raise ValueError(message)
    digits = f"{ORDER_KIND}{milliseconds:013d}{drawn:012d}"
    return OrderNumber(f"{digits}{luhn_digit(digits)}")


def luhn_digit(digits: str) -> int:
    """Return the check digit to append, by the Luhn algorithm (ISO/IEC 7812-1, annex B).

    Args:
        digits: Any number of the digits 0-9.
    """
    # From the right: the first digit counts doubled, the second as it is, and so on.
    raw = digits.encode("ascii")
    added = sum(raw[::-2].translate(_DOUBLED)) + sum(raw[-2::-2].translate(_AS_IT_IS))
    return -added % _DECIMAL_BASE
