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
from orderkeep.messaging.broker import Broker, BrokerUnavailableError, Topology
from orderkeep.messaging.column_text import error_words
from orderkeep.messaging.message import PublishOutcome, PublishResult
from orderkeep.messaging.outbox_reading import PendingRow

log = structlog.get_logger()


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
        except StoreUnavailableError:
            raise
        except Exception as error:
            log.exception("publish_failed", outbox=self._outbox_name, messages_count=len(rows))
            if len(rows) == 1:
                return [_outcome(PublishResult.ROUTE_DOWN, error)]
        outcomes: list[PublishOutcome] = []
        for row in rows:
            try:
                outcomes += await self._publish_together([row], now=now)
            except StoreUnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 (logged above, kept in the row)
                outcomes.append(_outcome(PublishResult.REFUSED, error))
        if any(outcome.result is PublishResult.CONFIRMED for outcome in outcomes):
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
            return [_outcome(PublishResult.ROUTE_DOWN, error)] * len(rows)
        self._observe_confirm_s(asyncio.get_running_loop().time() - started_s)
        return outcomes


def _outcome(result: PublishResult, error: Exception) -> PublishOutcome:
    return PublishOutcome(result=result, detail=error_words(error))
