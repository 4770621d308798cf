"""Work that goes on to its end although whoever asked for it is gone.

A client that hangs up cancels its request. Cut off in the middle, a transaction would leave a
connection in the middle of an answer, and a commit nobody knows the outcome of.

Only the end of the process cuts off what is late, as a kill would: a transaction cut off before its
COMMIT leaves nothing; one at its COMMIT leaves all or nothing, which its keys tell.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class InHand:
    """The works under way; to be waited for before what they use is closed."""

    def __init__(self) -> None:
        """Begin with nothing under way."""
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the work to its end, and return its answer unless the caller is cancelled."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)
        return await asyncio.shield(task)

    def _note_end(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        # Looked at, or the loop complains of a failure that nobody was left to hear of.
        if not task.cancelled():
            task.exception()

    async def end(self, *, within_s: float) -> None:
        """Wait until nothing is under way any more; what takes longer is cut off."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        late = list(self._tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
