"""Whose turn it is, where transactions wait for one writer, or for a connection.

A person waits for a request, and a closing has a moment to keep; the events that tell others of
them may leave a little later. So a loop of the latter kind gives way: its transactions begin when
nobody else's waits. Invariant: giving way is not starving. After a few turns that went past a
transaction its own turn comes, so what arrives without end cannot keep it waiting without end.

A crash loses only transactions that had not begun; nobody has been told of those.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Generic, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

# A turn takes some milliseconds, a few tens at most: so whoever gives way waits for less than a
# second, and keeps a tenth of the turns.
TURNS_PAST_MAX = 9

_GIVES_WAY: ContextVar[bool] = ContextVar("gives_way", default=False)


def giving_way(run: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Return the function such that all transactions it begins let others go first.

    Tasks that it starts give way as well.
    """

    async def run_giving_way(*args: P.args, **kwargs: P.kwargs) -> T:
        token = _GIVES_WAY.set(True)
        try:
            return await run(*args, **kwargs)
        finally:
            _GIVES_WAY.reset(token)

    return run_giving_way


def gives_way() -> bool:
    """Return whether the loop or request that calls lets others go first."""
    return _GIVES_WAY.get()


class Turns(Generic[T]):
    """Two lines: those in front, and those who give way. One thread adds, one other takes."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._front: deque[T] = deque()
        self._behind: deque[T] = deque()
        self._line = self._front
        self._turns_past_count = 0

    def add(self, waiting: T) -> None:
        """Let someone wait in the line of the loop or request that calls."""
        (self._behind if gives_way() else self._front).append(waiting)

    def begin(self) -> T | None:
        """Begin a turn and return whose it is; None if nobody waits."""
        if self._front and not (self._behind and self._turns_past_count >= TURNS_PAST_MAX):
            self._line = self._front
            self._turns_past_count += 1 if self._behind else 0
        else:
            self._line = self._behind
            self._turns_past_count = 0
        return self._line.popleft() if self._line else None

    def join(self) -> T | None:
        """Return who else may share the turn that has begun: the next one in the same line.

        None if there is nobody, or if somebody in front waits for those who give way.
        """
        if not self._line or (self._line is self._behind and self._front):
            return None
        return self._line.popleft()
