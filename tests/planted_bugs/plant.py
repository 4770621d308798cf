"""What a plant is."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A mistake that can be planted.

    Attributes:
        says: What is wrong with it.
        caught_by: The invariants that may be the first to break.
        planted: Makes the mistake for as long as the context lasts.
    """

    name: str
    says: str
    caught_by: frozenset[str]
    planted: Callable[[], AbstractContextManager[object]]
