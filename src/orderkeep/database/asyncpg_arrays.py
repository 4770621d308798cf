"""Arrays for PostgreSQL, encoded without asking each member whether it is an array itself.

A batch is written from arrays, a hundred and more values for each order. asyncpg (0.32) looks at
each of them for arrays within the array, through two abstract base classes of `collections.abc`,
and such a question takes Python half a microsecond: together about a sixth of the processor time
that an order costs. Asked for plain types, the same question costs next to nothing.

What is taken for an array from then on is of one of these types or of one derived from them, in the
whole process; asyncpg takes every container that has a length.
"""

from collections import deque

from asyncpg.protocol import protocol

_ARRAY_TYPES: tuple[type, ...] = (
    list,
    tuple,
    set,
    frozenset,
    deque,
    range,
    type({}.keys()),
    type({}.values()),
)

# By these names asyncpg's array codec knows the two classes.
ASKED_FOR = ("IterableABC", "SizedABC")


def ask_for_plain_types() -> None:
    """Let asyncpg tell arrays by plain types, in this process and from now on."""
    for name in ASKED_FOR:
        setattr(protocol, name, _ARRAY_TYPES)
