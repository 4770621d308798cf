"""Which queues a message reaches: the topology's bindings, worked out in memory. PURE."""

from functools import lru_cache

from orderkeep.messaging.broker import ExchangeType, Topology

# Message types are few and fixed; a bound all the same, should a sender invent them.
_REMEMBERED_COUNT = 1024


class Routes:
    """The routes of one topology."""

    def __init__(self, topology: Topology) -> None:
        """Take the queues, exchanges and bindings of the topology."""
        self.queues = frozenset(queue.name for queue in topology.queues)
        self._types = {exchange.name: exchange.type for exchange in topology.exchanges}
        self._bindings = topology.bindings
        self._bound_queues = lru_cache(_REMEMBERED_COUNT)(self._find_bound_queues)

    def queues_for(self, route: str, *, message_type: str) -> tuple[str, ...]:
        """Return the queues that a message of the type reaches; none where it can reach none."""
        if route in self.queues:
            return (route,)
        if route in self._types:
            return self._bound_queues(route, message_type)
        return ()

    def _find_bound_queues(self, exchange: str, message_type: str) -> tuple[str, ...]:
        is_match = topic_matches if self._types[exchange] is ExchangeType.TOPIC else str.__eq__
        queues = [
            binding.queue
            for binding in self._bindings
            if binding.exchange == exchange and is_match(binding.routing_key, message_type)
        ]
        # A queue that is bound twice gets one copy.
        return tuple(dict.fromkeys(queues))


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Return whether a topic binding takes the routing key.

    Words stand between dots; `*` is exactly one word, `#` is any number of them, also none.
    """
    # The pattern's positions that the words so far can have led to.
    words = pattern.split(".")
    reached = _skip_hashes({0}, words)
    for word in routing_key.split("."):
        following: set[int] = set()
        for position in reached:
            if position == len(words):
                continue
            if words[position] == "#":
                following.add(position)
            elif words[position] in ("*", word):
                following.add(position + 1)
        reached = _skip_hashes(following, words)
    return len(words) in reached


def _skip_hashes(positions: set[int], words: list[str]) -> set[int]:
    reached = set(positions)
    for position in sorted(positions):
        following = position
        while following < len(words) and words[following] == "#":
            following += 1
            reached.add(following)
    return reached
