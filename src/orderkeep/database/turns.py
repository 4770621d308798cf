"""Whose turn it is, where all transactions wait for one writer.

A person waits for a request, and a closing has a moment to keep; the events that tell others of
them may leave a little later. So a loop of the latter kind gives way: its transactions begin when
nobody else's waits. Invariant: giving way is not starving. After a few turns that went past a
transaction its own turn comes, so what arrives without end cannot keep it waiting without end.

A crash loses only transactions that had not begun; nobody has been told of those.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

# A transaction of a hundred messages takes some ten milliseconds, of one request about one: so
# whoever gives way waits for tens of milliseconds, and keeps at least a tenth of the turns.
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


class Turns:
    """One thread and the two lines before it."""

    def __init__(self, *, thread_name: str) -> None:
        """Start the thread when there is something to do."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=thread_name)
        self._front: deque[Callable[[], None]] = deque()
        self._behind: deque[Callable[[], None]] = deque()
        self._turns_past_count = 0
        self._is_closed = False

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Let the thread do the work when its turn has come.

        Raises:
            RuntimeError: the thread is ending or has ended.
        """
        if self._is_closed:
            message = "the database is closed"
            raise RuntimeError(message)
        answer: Future[T] = Future()
        line = self._behind if _GIVES_WAY.get() else self._front
        line.append(lambda: _do(work, answer=answer))
        # One call for each piece of work; which piece it does is decided when it runs.
        self._thread.submit(self._do_next)
        return answer

    def close(self) -> None:
        """Do what waits, and end the thread."""
        self._is_closed = True
        self._thread.shutdown(wait=True)

    def _do_next(self) -> None:
        is_past_turn = self._turns_past_count >= TURNS_PAST_MAX
        if self._front and not (self._behind and is_past_turn):
            self._turns_past_count += 1 if self._behind else 0
            self._front.popleft()()
        else:
            self._turns_past_count = 0
            self._behind.popleft()()


def _do(work: Callable[[], T], *, answer: Future[T]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 (whatever it is, it is the caller's)
        answer.set_exception(error)
    else:
        answer.set_result(result)
