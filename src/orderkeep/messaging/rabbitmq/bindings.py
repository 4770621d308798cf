"""Binding again, all the time, what others may unbind while we publish.

Invariant: an exchange is published to only if each binding of ours was made, or found, within the
last second. A broker that has lost one of several, ours or a stranger's, routes to the others and
returns nothing: nobody would notice that a queue of ours misses its messages.

What is published in the second between is for the reconciliation to find. A crash changes nothing:
a binding that exists already is no change.
"""

import asyncio
from collections.abc import Iterable, Sequence

import structlog
from pika import spec

from orderkeep.messaging.broker import Binding
from orderkeep.messaging.message import PublishOutcome, PublishResult
from orderkeep.messaging.rabbitmq.channel import Channel, ChannelLostError
from orderkeep.messaging.rabbitmq.connection import Connection

log = structlog.get_logger()

# A binding costs the broker a look into its own database, as much as some messages do.
REBIND_INTERVAL_S = 1.0


class KeptBindings:
    """The bindings of one topology."""

    def __init__(self, bindings: Sequence[Binding], *, call_timeout_s: float) -> None:
        """Keep the bindings, from the next publication on."""
        self._by_exchange: dict[str, list[Binding]] = {}
        for binding in bindings:
            self._by_exchange.setdefault(binding.exchange, []).append(binding)
        self._call_timeout_s = call_timeout_s
        self._kept_at_s: dict[str, float] = {}
        self._turn = asyncio.Lock()

    async def keep(
        self, connection: Connection, exchanges: Iterable[str]
    ) -> dict[str, PublishOutcome]:
        """Make the bindings of the exchanges, and return what is to be said of those that fail.

        A user who may not bind publishes all the same: somebody else has declared for them.
        """
        bound = sorted(self._by_exchange.keys() & set(exchanges))
        if not bound:
            return {}
        async with self._turn:
            now_s = asyncio.get_running_loop().time()
            failed: dict[str, PublishOutcome] = {}
            for exchange in bound:
                if now_s - self._kept_at_s.get(exchange, -REBIND_INTERVAL_S) < REBIND_INTERVAL_S:
                    continue
                try:
                    await self._bind(connection, self._by_exchange[exchange])
                except ChannelLostError as error:
                    if error.code != spec.ACCESS_REFUSED:
                        failed[exchange] = PublishOutcome(
                            result=PublishResult.ROUTE_DOWN, detail=error.text
                        )
                        continue
                    log.warning("bindings_not_kept", exchange=exchange, detail=error.text)
                    del self._by_exchange[exchange]
                self._kept_at_s[exchange] = now_s
            return failed

    async def _bind(self, connection: Connection, bindings: Sequence[Binding]) -> None:
        """Bind on a channel of its own: the broker closes it where something is missing.

        Raises:
            ChannelLostError: the queue or the exchange is missing, or we have no right to it.
        """
        channel = await Channel.open(connection, call_timeout_s=self._call_timeout_s)
        for binding in bindings:
            await channel.bind_queue(
                binding.queue, exchange=binding.exchange, routing_key=binding.routing_key
            )
        await channel.close()
