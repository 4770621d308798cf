"""The intake: concurrent requests for orders are gathered and decided in one commit.

A row of stock that everyone wants is held from its lock to the end of its commit, so one commit
for each order makes a popular SKU slow. Here, while as many batches as may be are under way, the
next one gathers, and then it is one commit for as many as are waiting: nobody waits for others to
come (a batch of one is the same code). With more than one, the database works on one while another
is read, decided or written here; then who waits is shared out among them, and those who are only
few gather for a moment while a larger batch is new. Requests are decided in order of arrival inside
a batch; of two batches that want one SKU, whichever locks it first has it.

Invariant: a request gets its answer after the commit that holds its order, never before. A client
that hangs up changes nothing: its order is decided with its batch. A batch that fails for a reason
of its own (a broken rule of the schema, a bug met by one request) is run again one by one, so a
request fails alone. A batch that waited too long for a row of stock is run again behind those of
ours that were under way with it; if somebody else holds the row it is parted: who wants that SKU is
told to ask again, and all others are decided without them. A crash at any point loses only requests
that nobody has answered.

Where the answer to a batch's commit is lost, the same batch is run again: its keys were claimed in
that commit, so they answer with the orders that it made, or make them now. Nobody was told of the
first run, so whoever is answered "as before" has missed nothing; a request that the first run
refused is decided anew, as it would be if its client had asked again.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from math import ceil

import structlog
from msgspec import Struct

from orderkeep.database.transaction import (
    CommitUnknownError,
    StoreBusyError,
    StoreUnavailableError,
)
from orderkeep.failure_points import reach
from orderkeep.orders.placing import Answer, PlaceOrder
from orderkeep.refusal import Refusal

log = structlog.get_logger()

# Each run of a batch ends within the limits of the database: after so many of unknown outcome the
# clients are told to ask again, which is the same question.
_UNKNOWN_RUNS_MAX = 3

# A batch costs as much as a few orders, whatever its size: a crowd of fewer is not worth parting,
# and beside a smaller batch another begins at once.
_PART_SIZE_MIN = 16

# A full batch takes 15 to 75 ms. One that is under way for longer may hang on somebody's lock:
# nobody is to gather for its sake.
_YOUNG_S = 0.1

# Opens a transaction, places the orders in it, commits, and returns one answer for each request.
PlaceBatch = Callable[[Sequence[PlaceOrder]], Awaitable[Sequence[Answer]]]

# Returns which of the SKUs somebody holds right now, in a transaction of its own.
FindHeld = Callable[[Collection[str]], Awaitable[Collection[str]]]


class _Waiting(Struct, frozen=True):
    request: PlaceOrder
    answer: asyncio.Future[Answer]


@dataclass(slots=True)
class _Batch:
    """Requests that are decided together.

    Attributes:
        is_young: Whether it has been under way for less than `_YOUNG_S`.
    """

    waiting: Sequence[_Waiting]
    is_young: bool = True


class Intake:
    """Gathers requests and answers each after its batch's commit."""

    def __init__(
        self,
        place_batch: PlaceBatch,
        *,
        find_held: FindHeld,
        batch_size_max: int,
        waiting_count_max: int,
        batches_under_way_max: int,
    ) -> None:
        """Gather for the given way to place a batch.

        Args:
            find_held: Asked when a batch has waited too long for somebody else's lock.
            batch_size_max: Orders decided in one commit, at least 1.
            waiting_count_max: Requests that may wait; one more is refused as `overloaded`.
            batches_under_way_max: Batches that may be under way at once, at least 1.
        """
        self._place_batch = place_batch
        self._find_held = find_held
        self._batch_size_max = batch_size_max
        self._waiting_count_max = waiting_count_max
        self._batches_under_way_max = batches_under_way_max
        self._waiting: deque[_Waiting] = deque()
        self._under_way: dict[asyncio.Task[None], _Batch] = {}
        # Set whenever there may be something to begin, or to end.
        self._arrived = asyncio.Event()
        self._is_closed = False

    async def place(self, request: PlaceOrder) -> Answer:
        """Wait for the request's turn and return its answer, once that is committed.

        Raises:
            Refusal: `overloaded`, when too many requests wait already.
            StoreUnavailableError: the database cannot serve now.
        """
        if self._is_closed:
            raise _shutting_down()
        if len(self._waiting) >= self._waiting_count_max:
            raise Refusal(
                "overloaded", "Too many orders are waiting to be placed; try again shortly."
            )
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._arrived.set()
        return await waiting.answer

    async def run(self, stop: asyncio.Event) -> None:
        """Place batches until told to stop and nobody waits any more; it may be run again."""
        self._is_closed = False
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(lambda _done: self._arrived.set())
        try:
            while True:
                self._arrived.clear()
                self._see_to_the_ended()
                self._begin_batches()
                if stop.is_set() and not self._under_way:
                    break
                await self._arrived.wait()
        finally:
            self._is_closed = True
            stopping.cancel()
            for settling, batch in self._under_way.items():
                settling.cancel()
                # A task that has not begun never reaches its `finally`, which tells them.
                self._waiting.extend(batch.waiting)
            while self._waiting:
                _fail(self._waiting.popleft(), _shutting_down())
            await asyncio.gather(*self._under_way, return_exceptions=True)
            self._under_way.clear()

    def _see_to_the_ended(self) -> None:
        """Count batches that have ended no longer, and raise what one of them raised."""
        for settling in [each for each in self._under_way if each.done()]:
            del self._under_way[settling]
            settling.result()

    def _begin_batches(self) -> None:
        """Let as many batches be under way as may, of about the same size, while anybody waits.

        Were each as large as it can be, the first of a crowd that comes back after its answers
        would be a batch of their own and all others the next one: as if there was one at a time.
        So none takes more than its share of all who are asking, and none begins that is less than
        half as large as another that has just begun.
        """
        while len(self._under_way) < self._batches_under_way_max and self._is_enough_waiting():
            count = self._next_size()
            self._begin(_Batch([self._waiting.popleft() for _ in range(count)]))

    def _begin(self, batch: _Batch) -> None:
        settling = asyncio.create_task(self._settle(batch.waiting, ahead=tuple(self._under_way)))
        self._under_way[settling] = batch

        def grow_old() -> None:
            batch.is_young = False
            self._arrived.set()

        growing_old = asyncio.get_running_loop().call_later(_YOUNG_S, grow_old)

        def end(_settling: asyncio.Task[None]) -> None:
            growing_old.cancel()
            self._arrived.set()

        settling.add_done_callback(end)

    def _is_enough_waiting(self) -> bool:
        """Return whether those who wait are worth a batch beside what is under way."""
        largest = max(
            (len(each.waiting) for each in self._under_way.values() if each.is_young), default=0
        )
        return len(self._waiting) >= (_half(largest) if largest >= _PART_SIZE_MIN else 1)

    def _next_size(self) -> int:
        """Return how many of those who wait the next batch takes."""
        waiting_count = len(self._waiting)
        asking_count = waiting_count + sum(len(each.waiting) for each in self._under_way.values())
        share = max(ceil(asking_count / self._batches_under_way_max), _PART_SIZE_MIN)
        if waiting_count - share < _half(share):
            # Those left would be too few to follow.
            share = waiting_count
        return min(share, waiting_count, self._batch_size_max)

    async def _settle(
        self, batch: Sequence[_Waiting], *, ahead: Collection[asyncio.Task[None]] = ()
    ) -> None:
        """Answer everybody in the batch.

        Args:
            ahead: The batches that were under way when this one began.
        """
        reach("intake.before_batch")
        try:
            await self._answer(batch, ahead=ahead)
        except StoreBusyError as error:
            await self._settle_without_held(batch, error)
        except StoreUnavailableError as error:
            for waiting in batch:
                _fail(waiting, error)
        except Exception as error:
            if len(batch) == 1:
                if batch[0].answer.done():  # the client has hung up: nobody else will tell
                    log.exception("intake_request_failed")
                _fail(batch[0], error)
                return
            # Whatever it is, it is one request's: find out whose.
            log.warning("intake_batch_failed", request_count=len(batch), exc_info=error)
            for waiting in batch:
                await self._settle([waiting])
        finally:
            # Cut off in the middle: the orders may be committed or not. Who asks again with the
            # same key is told which.
            for waiting in batch:
                _fail(waiting, _shutting_down())

    async def _settle_without_held(self, batch: Sequence[_Waiting], error: StoreBusyError) -> None:
        """Fail who wants what somebody holds, and decide the others, who are fewer."""
        wanted = {line.sku_id for waiting in batch for line in waiting.request.wanted}
        try:
            held = set(await self._find_held(wanted))
        except StoreUnavailableError:
            held = wanted
        others: list[_Waiting] = []
        for waiting in batch:
            if held.isdisjoint(line.sku_id for line in waiting.request.wanted):
                others.append(waiting)
            else:
                _fail(waiting, error)
        log.warning("intake_batch_parted", held=sorted(held), request_count=len(batch))
        if len(others) < len(batch):
            if others:
                await self._settle(others)
            return
        # Nothing is held any more, or it was a key: whoever asks again is told which.
        for waiting in others:
            _fail(waiting, error)

    async def _answer(
        self, batch: Sequence[_Waiting], *, ahead: Collection[asyncio.Task[None]]
    ) -> None:
        requests = [waiting.request for waiting in batch]
        try:
            answers = await self._place_surely(requests)
        except StoreBusyError:
            if not ahead and len(self._under_way) == 1:
                raise
            # It may be another batch of ours that held what this one wants. So it is run again,
            # behind those that began before it: these never wait for it, so nobody waits in a
            # circle.
            if ahead:
                await asyncio.wait(ahead)
            answers = await self._place_surely(requests)
        reach("intake.after_batch")
        for waiting, answer in zip(batch, answers, strict=True):
            if not waiting.answer.done():  # done already: the client has hung up
                waiting.answer.set_result(answer)

    async def _place_surely(self, requests: Sequence[PlaceOrder]) -> Sequence[Answer]:
        """Place the batch, again where it is unknown whether it was committed."""
        for _ in range(_UNKNOWN_RUNS_MAX - 1):
            try:
                return await self._place_batch(requests)
            except CommitUnknownError as error:
                log.warning("intake_commit_unknown", request_count=len(requests), reason=str(error))
        return await self._place_batch(requests)


def _half(count: int) -> int:
    return ceil(count / 2)


def _shutting_down() -> StoreUnavailableError:
    return StoreUnavailableError("the service is shutting down")


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
