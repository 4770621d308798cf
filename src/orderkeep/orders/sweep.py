"""The sweep: closes unpaid orders that no message closed.

Invariant: while the database and one worker are up, no order stays unpaid longer than its deadline,
the grace, and one sweep interval, even if every message is lost. The grace leaves the precise
trigger, the message, time to come first; closing twice is impossible either way. An order that
cannot be closed (its rows were changed by hand, say) holds back nobody else.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from orderkeep.database.transaction import (
    Database,
    ReadTransaction,
    StoreBusyError,
    StoreUnavailableError,
    Transaction,
)
from orderkeep.failure_points import reach
from orderkeep.instant import after
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.signal import is_set_within
from orderkeep.orders.close_orders import Closings, close_orders
from orderkeep.orders.order import OrderNumber
from orderkeep.orders.store.orders import find_due_order_nos

log = structlog.get_logger()

# Orders closed in one transaction: enough to make the commit cheap, few enough to hold locks short.
CLOSED_PER_TRANSACTION_MAX = 200

_ACTOR = "sweep"


class Sweep:
    """Looks for overdue orders every so often and closes them."""

    def __init__(
        self,
        *,
        database: Database,
        outbox: Outbox,
        interval_s: float,
        grace_s: float,
        observe_closed: Callable[[int], None] = lambda _count: None,
        observe_lag_s: Callable[[Sequence[float]], None] = lambda _lag_s: None,
    ) -> None:
        """Sweep the orders of the database.

        Args:
            grace_s: How long past its deadline an order is left to its message.
            observe_closed: Told how many orders each sweep closed.
            observe_lag_s: Told by how much the closings came after their deadlines.
        """
        self._database = database
        self._outbox = outbox
        self._interval_s = interval_s
        self._grace_s = grace_s
        self._observe_closed = observe_closed
        self._observe_lag_s = observe_lag_s

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until told to stop; a database that is away is tried again at the next turn."""
        while not stop.is_set():
            try:
                await self.run_once(stop=stop)
            except StoreUnavailableError as error:
                log.warning("sweep_postponed", reason=str(error))
            await is_set_within(stop, timeout_s=self._interval_s)

    async def run_once(self, *, stop: asyncio.Event | None = None) -> int:
        """Close every order that is overdue by more than the grace; return how many.

        Args:
            stop: Set in between, it leaves the rest to the next sweep.
        """
        closed_count = failed_count = 0
        while stop is None or not stop.is_set():
            # Those that could not be closed are still the longest overdue.
            find = partial(self._find_overdue, passed_over_count=failed_count)
            order_nos = await self._database.read(find)
            closed, failed = await self._close(order_nos)
            closed_count += closed
            failed_count += failed
            reach("sweep.after_batch")
            if len(order_nos) < CLOSED_PER_TRANSACTION_MAX:
                break
        if closed_count:
            log.info("sweep_closed_orders", order_count=closed_count)
            self._observe_closed(closed_count)
        return closed_count

    async def _find_overdue(
        self, transaction: ReadTransaction, *, passed_over_count: int
    ) -> Sequence[OrderNumber]:
        return await find_due_order_nos(
            transaction,
            due_at=after(await transaction.now(), seconds=-self._grace_s),
            passed_over_count=passed_over_count,
            limit_count=CLOSED_PER_TRANSACTION_MAX,
        )

    async def _close(self, order_nos: Sequence[OrderNumber]) -> tuple[int, int]:
        """Close the orders together; where that fails, each by itself.

        Returns:
            How many were closed, and for how many that failed.
        """
        if not order_nos:
            return 0, 0

        async def write(transaction: Transaction) -> Closings:
            return await close_orders(
                transaction, dict.fromkeys(order_nos, _ACTOR), outbox=self._outbox
            )

        try:
            closings = await self._database.transact(write)
        except Exception as error:
            if isinstance(error, StoreUnavailableError) and not isinstance(error, StoreBusyError):
                raise
            _note_failure(error, order_nos)
            if len(order_nos) == 1:
                return 0, 1
            each = [await self._close([order_no]) for order_no in order_nos]
            return sum(closed for closed, _ in each), sum(failed for _, failed in each)
        self._observe_lag_s(closings.lag_s)
        return len(closings.closed), 0


def _note_failure(error: Exception, order_nos: Sequence[OrderNumber]) -> None:
    if isinstance(error, StoreBusyError):
        # Somebody holds what it needs: nothing is broken, and the next sweep finds it.
        log.warning("sweep_waited", order_count=len(order_nos), reason=str(error))
    elif len(order_nos) == 1:
        # It stays overdue, which `verify` and the metrics tell.
        log.error("sweep_failed", order_no=order_nos[0], exc_info=error)
    else:
        log.warning("sweep_batch_failed", order_count=len(order_nos), exc_info=error)
