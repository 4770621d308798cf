"""Names of which there are only so many: a misspelt one is refused, and is not taken for nothing.

An empty answer to a misspelt filter would look as if all were well.
"""

import difflib
from collections.abc import Collection

from orderkeep.contracts.topology import READER_BY_QUEUE, TOPOLOGY
from orderkeep.database.audit import CASE_RESOLVED
from orderkeep.refusal import invalid

QUEUES = frozenset(READER_BY_QUEUE)

# Where an event in an outbox may be bound for.
ROUTES = QUEUES | {exchange.name for exchange in TOPOLOGY.exchanges}

# As references of messages begin.
SERVICES = frozenset({"order", "cart", "payment"})

# What operators do by hand, as the record has it.
ACTIONS = frozenset(
    {
        "dead_letters.discard",
        "dead_letters.edit",
        "dead_letters.replay",
        "orders.cancel",
        "outbox.discard",
        "outbox.replay",
        "outbox.retry",
        CASE_RESOLVED,
        "skus.put",
        "stock.move",
    }
)


def unknown_words(name: str, known: Collection[str]) -> str:
    """Return what is said of a name that is not among those that are known."""
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"is not known; did you mean {close[0]}?"
    return f"is not known; there are: {', '.join(sorted(known))}" if known else "is not known"


def check_known(pointer: str, name: str | None, known: Collection[str]) -> None:
    """Let a name pass that is known, or is not given.

    Args:
        pointer: Where it stands in the request.
        name: None is any.
        known: All that there are.

    Raises:
        Refusal: `invalid_request`, with the name that is nearest.
    """
    if name is not None and name not in known:
        raise invalid(pointer, unknown_words(name, known))
