"""Whose turn it is, where transactions wait for one writer, or for a connection.

A person waits for a request, and a closing has a moment to keep; the events that tell others of
them may leave a little later. So a loop of the latter kind gives way: its transactions begin when
nobody else's waits. What frees stock or brings money goes first: beyond what the database can do,
new orders are refused before cancels and payments are. Invariant: waiting behind is not starving.
After a few turns that went past a line its own turn comes, so what arrives without end cannot keep
it waiting without end.

A crash loses only transactions that had not begun; nobody has been told of those.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from enum import IntEnum
from typing import Generic, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

# A turn takes some milliseconds, a few tens at most: so whoever gives way waits for less than a
# second, and keeps a tenth of the turns.
TURNS_PAST_MAX = 9


class _Line(IntEnum):
    """Where one waits; a lower number goes before a higher."""

    FIRST = 0
    FRONT = 1
    BEHIND = 2


_LINE: ContextVar[_Line] = ContextVar("line", default=_Line.FRONT)


def giving_way(run: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Return the function such that all transactions it begins let others go first.

    Tasks that it starts give way as well.
    """
    return _in_line(run, _Line.BEHIND)


def going_first(run: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Return the function such that all transactions it begins go before those of others.

    Tasks that it starts go first as well.
    """
    return _in_line(run, _Line.FIRST)


def gives_way() -> bool:
    """Return whether the loop or request that calls lets others go first."""
    return _LINE.get() is _Line.BEHIND


def _in_line(run: Callable[P, Awaitable[T]], line: _Line) -> Callable[P, Awaitable[T]]:
    async def run_in_line(*args: P.args, **kwargs: P.kwargs) -> T:
        token = _LINE.set(line)
        try:
            return await run(*args, **kwargs)
        finally:
            _LINE.reset(token)

    return run_in_line


class Turns(Generic[T]):
    """Lines of those who wait, one before the other. One thread adds, one other takes."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._lines: tuple[deque[T], ...] = tuple(deque() for _ in _Line)
        # How often the turn went past a line in which somebody waited.
        self._turns_past_counts = [0 for _ in _Line]
        self._line = _Line.FRONT

    def add(self, waiting: T) -> None:
        """Let someone wait in the line of the loop or request that calls."""
        self._lines[_LINE.get()].append(waiting)

    def begin(self) -> T | None:
        """Begin a turn and return whose it is; None if nobody waits."""
        waiting = [line for line in _Line if self._lines[line]]
        if not waiting:
            return None
        passed = [line for line in waiting if self._turns_past_counts[line] >= TURNS_PAST_MAX]
        self._line = (passed or waiting)[0]
        for line in waiting:
            if line > self._line:
                self._turns_past_counts[line] += 1
        self._turns_past_counts[self._line] = 0
        return self._lines[self._line].popleft()

    def join(self) -> T | None:
        """Return who else may share the turn that has begun.

        Those who give way share with their own kind alone, and with nobody once somebody waits in
        front of them; all others share with each other. None if there is nobody.
        """
        first, front, behind = self._lines
        if self._line is _Line.BEHIND:
            return behind.popleft() if behind and not (first or front) else None
        return next((line.popleft() for line in (first, front) if line), None)
