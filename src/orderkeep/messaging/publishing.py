"""Publishing outbox rows: what the broker made of each, and whose fault it is where that fails.

Invariant: every row gets one outcome. What raises for one row while others pass is that row's
fault; where none passes it is the route's. A crash leaves rows whose outcome nobody knows: they are
pending still, and sent again.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from orderkeep.database.transaction import StoreUnavailableError
from orderkeep.instant import Instant
from orderkeep.messaging.broker import (
    Broker,
    BrokerRefusedError,
    BrokerUnavailableError,
    Topology,
)
from orderkeep.messaging.column_text import error_words
from orderkeep.messaging.message import PublishOutcome, PublishResult
from orderkeep.messaging.outbox_reading import PendingRow

log = structlog.get_logger()

# What a broker makes of a message that is not at fault, by a route that is not down.
_PASSED = frozenset({PublishResult.CONFIRMED, PublishResult.NOT_HELD})


class Publishing:
    """Hands the rows of one outbox to the broker."""

    def __init__(
        self,
        broker: Broker,
        *,
        topology: Topology,
        outbox_name: str,
        observe_confirm_s: Callable[[float], None],
    ) -> None:
        """Publish to the broker.

        Args:
            broker: Takes the messages.
            topology: Declared before the first message, and again after a route was down.
            outbox_name: For log lines.
            observe_confirm_s: Is told how long each batch took to be confirmed.
        """
        self._broker = broker
        self._topology = topology
        self._outbox_name = outbox_name
        self._observe_confirm_s = observe_confirm_s
        self._is_declared = False
        self._unreachable_since_s: float | None = None

    @property
    def unreachable_s(self) -> float:
        """For how long the broker could not be reached; 0 if it could the last time."""
        if self._unreachable_since_s is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._unreachable_since_s

    async def declare(self) -> bool:
        """Declare the topology, and return whether the broker could be reached.

        Raises:
            BrokerRefusedError: what is there already would let messages go wrong.
        """
        try:
            await self._broker.declare(self._topology)
        except BrokerUnavailableError as error:
            self._note_unreachable(error)
            return False
        self._is_declared = True
        self._unreachable_since_s = None
        return True

    def declare_again(self) -> None:
        """Declare the topology before the next message: what is missing may be why it failed."""
        self._is_declared = False

    async def send(self, rows: Sequence[PendingRow], *, now: Instant) -> Sequence[PublishOutcome]:
        """Return the broker's outcome for each row.

        What makes the broker raise is found by publishing one by one: a row that raises while
        others pass is refused; where none passes, the route is at fault.
        """
        try:
            return await self._publish_together(rows, now=now)
        except (StoreUnavailableError, BrokerRefusedError):
            raise
        except Exception as error:
            log.exception("publish_failed", outbox=self._outbox_name, messages_count=len(rows))
            if len(rows) == 1:
                return [_outcome(PublishResult.ROUTE_DOWN, error)]
        outcomes: list[PublishOutcome] = []
        for row in rows:
            try:
                outcomes += await self._publish_together([row], now=now)
            except (StoreUnavailableError, BrokerRefusedError):
                raise
            except Exception as error:  # noqa: BLE001 (logged above, kept in the row)
                outcomes.append(_outcome(PublishResult.REFUSED, error))
        if any(outcome.result in _PASSED for outcome in outcomes):
            return outcomes
        return [
            PublishOutcome(result=PublishResult.ROUTE_DOWN, detail=outcome.detail)
            for outcome in outcomes
        ]

    async def _publish_together(
        self, rows: Sequence[PendingRow], *, now: Instant
    ) -> Sequence[PublishOutcome]:
        started_s = asyncio.get_running_loop().time()
        try:
            if not self._is_declared:
                await self._broker.declare(self._topology)
                self._is_declared = True
            outcomes = await self._broker.publish([row.message for row in rows], now=now)
        except BrokerUnavailableError as error:
            self._note_unreachable(error)
            return [_outcome(PublishResult.ROUTE_DOWN, error)] * len(rows)
        self._unreachable_since_s = None
        self._observe_confirm_s(asyncio.get_running_loop().time() - started_s)
        return outcomes

    def _note_unreachable(self, error: BrokerUnavailableError) -> None:
        if self._unreachable_since_s is None:
            log.warning("broker_unreachable", outbox=self._outbox_name, error=str(error))
            self._unreachable_since_s = asyncio.get_running_loop().time()


def _outcome(result: PublishResult, error: Exception) -> PublishOutcome:
    return PublishOutcome(result=result, detail=error_words(error))
