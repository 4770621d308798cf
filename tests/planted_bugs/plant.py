"""What a plant is."""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A mistake that can be planted.

    Attributes:
        says: What is wrong with it.
        caught_by: The invariants that may be the first to break, and a pattern of what
            is said of it: a plant that only breaks, because what it replaces has changed, breaks
            something else, or says something else.
        planted: Makes the mistake for as long as the context lasts.
    """

    name: str
    says: str
    caught_by: Mapping[str, str]
    planted: Callable[[], AbstractContextManager[object]]

    def is_shown_by(self, *, invariant: str, detail: str) -> bool:
        """Return whether a breach is one that the mistake makes."""
        words = self.caught_by.get(invariant)
        return words is not None and re.search(words, detail) is not None
