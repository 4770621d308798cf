"""Which rows an operator means by their numbers, and how many one transaction takes. PURE."""

from collections.abc import Sequence

# The bound of every transaction that changes what operators select, by numbers or by a filter: a
# second of work, for which others wait.
SELECTED_COUNT_MAX = 1000


def named_ids(ids: Sequence[int], *, what: str) -> list[int]:
    """Return the ids, each once, in their order.

    Args:
        ids: As they were given.
        what: What the rows are, for the error.

    Raises:
        ValueError: there are more than one transaction takes.
    """
    if len(ids) > SELECTED_COUNT_MAX:
        message = f"{len(ids)} {what} at once; at most {SELECTED_COUNT_MAX}"
        raise ValueError(message)
    return list(dict.fromkeys(ids))
