"""Which messages an operator's request means, and how what became of them is answered."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from orderkeep.contracts.time_text import read_instant
from orderkeep.instant import Instant
from orderkeep.messaging.dead_letter import DeadLetterFilter
from orderkeep.refusal import invalid
from orderkeep.web.admin_bodies import ChangedAnswer, DeadLetterFilterBody
from orderkeep.web.known_names import QUEUES, SERVICES, check_known
from orderkeep.web.service_messages import Changed


class _Filter(Protocol):
    @property
    def all(self) -> bool: ...


FilterT = TypeVar("FilterT", bound=_Filter)


def given_filter(ids: Sequence[str] | None, which: FilterT | None) -> FilterT | None:
    """Return the filter, or None where ids were given.

    A filter without a condition means everything only where it says so: a script whose variable is
    empty shall not act on all there is.

    Raises:
        Refusal: `invalid_request` for both, for neither, and for a filter that says nothing, or
            everything and a condition.
    """
    if (ids is None) == (which is None):
        raise invalid("", "give either ids or filter")
    if which is None:
        return None
    is_bare = which in {type(which)(), type(which)(all=True)}  # type: ignore[call-arg]  # a body, all of whose members have defaults
    if is_bare and not which.all:
        raise invalid("/filter", 'it names nothing; for every one, give {"all": true}')
    if which.all and not is_bare:
        raise invalid("/filter/all", "give either all or conditions")
    return which


def letter_filter(which: DeadLetterFilterBody) -> DeadLetterFilter:
    """Return which dead letters a filter means.

    Raises:
        Refusal: `invalid_request` for a time that is none, and for a name that nobody has.
    """
    check_known("/filter/service", which.service, SERVICES)
    check_known("/filter/queue", which.queue, QUEUES)
    return DeadLetterFilter(
        queue=which.queue,
        reason=which.reason,
        aggregate_id=which.aggregate_id,
        set_aside_from=read_moment("/filter/set_aside_from", which.set_aside_from),
        set_aside_to=read_moment("/filter/set_aside_to", which.set_aside_to),
    )


def read_moment(pointer: str, text: str | None) -> Instant | None:
    """Return the moment that a text tells, or None where there is none.

    Raises:
        Refusal: `invalid_request`.
    """
    if text is None:
        return None
    try:
        return read_instant(text)
    except ValueError as error:
        raise invalid(pointer, str(error)) from None


def changed_answers(changed: Sequence[Changed]) -> tuple[ChangedAnswer, ...]:
    """Return what became of each message, as operators see it."""
    return tuple(ChangedAnswer(id=one.reference, result=one.result) for one in changed)


def counts_of(changed: Sequence[Changed]) -> dict[str, int]:
    """Return how many there are of each result, for the log."""
    results = [one.result for one in changed]
    return {f"{result}_count": results.count(result) for result in sorted(set(results))}
