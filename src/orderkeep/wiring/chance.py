"""The clock and the dice: what the rest of the code takes as arguments."""

import os
import random
import secrets
import time

from orderkeep.instant import Instant
from orderkeep.orders.order_number import DRAWN_LIMIT

_NANOSECONDS_PER_MICROSECOND = 1_000
_NANOSECONDS_PER_MILLISECOND = 1_000_000

# Of a UUID of version 7 (RFC 9562, section 5.7): the time takes 48 bits, the rest is drawn.
_UUID_DRAWN_BYTES = 10
_UUID_VARIANTS = "89ab"

# 80 bits: two refunds or payments never share a number.
_NUMBER_LENGTH_BYTES = 10

_system_random = random.SystemRandom()

# For UUIDs. One call to the system draws so many of them; more gain nothing.
_UUIDS_DRAWN_COUNT = 256
_uuid_bytes: list[bytes] = []
# A process that is forked off would draw the same ones.
os.register_at_fork(after_in_child=_uuid_bytes.clear)


def now() -> Instant:
    """Return this machine's wall clock. Due times take the database's clock instead."""
    return Instant(time.time_ns() // _NANOSECONDS_PER_MICROSECOND)


def new_uuid() -> str:
    """Draw a UUID: a message id, a lease token, a request id.

    It begins with the time, so that keys drawn together stand together in an index; an index of
    keys without order has a page to write for nearly each of them.
    """
    milliseconds = time.time_ns() // _NANOSECONDS_PER_MILLISECOND
    drawn = _draw_uuid_bytes()
    digits = f"{milliseconds:012x}{drawn.hex()}"
    variant = _UUID_VARIANTS[drawn[-1] & 3]
    return f"{digits[:8]}-{digits[8:12]}-7{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _draw_uuid_bytes() -> bytes:
    try:
        return _uuid_bytes.pop()
    except IndexError:
        # Another thread may be here as well: each draws for itself, and all are for everybody.
        drawn = secrets.token_bytes(_UUIDS_DRAWN_COUNT * _UUID_DRAWN_BYTES)
        first, *others = (
            drawn[start : start + _UUID_DRAWN_BYTES]
            for start in range(0, len(drawn), _UUID_DRAWN_BYTES)
        )
        _uuid_bytes.extend(others)
        return first


def draw_jitter() -> float:
    """Draw from 0.0 to 1.0: what spreads pauses, so that no crowd returns as one."""
    return random.random()  # noqa: S311 (spreads load; nobody gains by guessing it)


def draw_order_number() -> int:
    """Draw what an order's number ends with."""
    return _system_random.randrange(DRAWN_LIMIT)


def draw_nonce() -> str:
    """Draw what makes a one-time token unlike any other."""
    return secrets.token_hex(8)


def draw_payment_no() -> str:
    """Draw the number of a payment."""
    return f"P{secrets.token_hex(_NUMBER_LENGTH_BYTES)}"


def draw_refund_no() -> str:
    """Draw the number of a refund."""
    return f"R{secrets.token_hex(_NUMBER_LENGTH_BYTES)}"


def draw_secret() -> bytes:
    """Draw a key of 256 bits."""
    return secrets.token_bytes(32)
