"""Names of which there are only so many are all known, and a misspelt one has a neighbour."""

import re
from pathlib import Path

import pytest

import orderkeep
from orderkeep.database.audit import CASE_RESOLVED
from orderkeep.refusal import Refusal
from orderkeep.web.known_names import ACTIONS, QUEUES, ROUTES, check_known, unknown_words

SOURCES = Path(orderkeep.__path__[0])

# How an action is given where it goes on record.
_ACTION = re.compile(r'(?:action=|recorded\()\s*"([a-z_]+\.[a-z_]+)"')


def test_every_action_that_goes_on_record_is_known() -> None:
    written = {
        action
        for path in SOURCES.rglob("*.py")
        for action in _ACTION.findall(path.read_text(encoding="utf-8"))
    }

    assert written | {CASE_RESOLVED} == ACTIONS


@pytest.mark.parametrize("name", [None, "cart-sync", "order.outbox"])
def test_what_is_known_or_not_given_passes(name: str | None) -> None:
    check_known("query/queue", name, QUEUES)


def test_what_nobody_is_called_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(Refusal) as refused:
        check_known("query/queue", "cart-sink", QUEUES)

    assert refused.value.code == "invalid_request"
    assert refused.value.members["errors"] == [
        {"pointer": "query/queue", "detail": "is not known; did you mean cart-sync?"}
    ]
    assert unknown_words("order.evnts", ROUTES) == "is not known; did you mean order.events?"


def test_what_is_near_to_nothing_is_told_all_that_there_is() -> None:
    assert unknown_words("x", {"b", "a"}) == "is not known; there are: a, b"
