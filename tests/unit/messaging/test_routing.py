"""Which queues a message reaches."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderkeep.messaging import Binding, Exchange, ExchangeType, Queue, Topology
from orderkeep.messaging.routing import Routes, topic_matches


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("order.created", "order.created", True),
        ("order.created", "order.paid", False),
        ("order.*", "order.created", True),
        ("order.*", "order", False),
        ("order.*", "order.created.again", False),
        ("*.created", "order.created", True),
        ("*", "", True),
        ("order.#", "order", True),
        ("order.#", "order.created.again", True),
        ("order.#", "orders.created", False),
        ("#", "anything.at.all", True),
        ("#", "", True),
        ("#.paid", "paid", True),
        ("#.paid", "order.today.paid", True),
        ("#.paid.#", "order.paid.late", True),
        ("#.*", "order", True),
        ("#.#", "order", True),
        ("a.#.b.#.c", "a.x.b.y.b.c", True),
        ("a.#.b.#.c", "a.x.y.c", False),
    ],
)
def test_a_topic_pattern_matches_words(pattern: str, key: str, *, expected: bool):
    assert topic_matches(pattern, key) is expected


def matches_as_expression(pattern: str, key: str) -> bool:
    """Say the same in regular expressions: every word with a dot before it."""
    words = {"*": r"\.[^.]*", "#": r"(?:\.[^.]*)*"}
    expression = "".join(words.get(word, rf"\.{word}") for word in pattern.split("."))
    return re.fullmatch(expression, "." + key) is not None


@given(
    st.lists(st.sampled_from("ab*#"), min_size=1, max_size=6).map(".".join),
    st.lists(st.sampled_from("ab"), min_size=1, max_size=6).map(".".join),
)
def test_matching_agrees_with_regular_expressions(pattern: str, key: str):
    assert topic_matches(pattern, key) is matches_as_expression(pattern, key)


ROUTES = Routes(
    Topology(
        queues=(Queue(name="a"), Queue(name="b"), Queue(name="c")),
        exchanges=(
            Exchange(name="events", type=ExchangeType.TOPIC),
            Exchange(name="exact", type=ExchangeType.DIRECT),
        ),
        bindings=(
            Binding(exchange="events", queue="a", routing_key="order.#"),
            Binding(exchange="events", queue="a", routing_key="order.paid"),
            Binding(exchange="events", queue="b", routing_key="order.paid"),
            Binding(exchange="exact", queue="c", routing_key="order.#"),
        ),
    )
)


@pytest.mark.parametrize(
    ("route", "type_", "queues"),
    [
        ("a", "whatever", ("a",)),
        ("events", "order.paid", ("a", "b")),
        ("events", "order.closed", ("a",)),
        ("events", "cart.cleared", ()),
        ("exact", "order.#", ("c",)),
        ("exact", "order.paid", ()),
        ("nowhere", "order.paid", ()),
    ],
)
def test_a_message_reaches_each_bound_queue_once(route: str, type_: str, queues: tuple):
    assert ROUTES.queues_for(route, message_type=type_) == queues
