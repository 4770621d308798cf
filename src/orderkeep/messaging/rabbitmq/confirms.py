"""A channel on which everything that is published is accounted for, by the broker's own words.

Invariant: each publication gets at most one outcome, and only from the broker: confirmed, returned
or refused. What the broker has not said anything about when the channel is lost stays unknown.

The broker confirms a message that it could route nowhere, after it has returned it. It says which
message it returns by exchange, routing key and message id only; so of publications that are equal
in all three at most one is on its way, and the others wait for it.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from msgspec import Struct
from pika.channel import Channel as PikaChannel
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from orderkeep.messaging.message import PublishOutcome, PublishResult
from orderkeep.messaging.rabbitmq.channel import Channel, ChannelLostError
from orderkeep.messaging.rabbitmq.connection import Connection
from orderkeep.messaging.rabbitmq.delays import DEFAULT_EXCHANGE
from orderkeep.messaging.rabbitmq.field_table import bytes_of
from orderkeep.messaging.rabbitmq.frames import publication_frames
from orderkeep.messaging.rabbitmq.properties import RawProperties, read_properties

_CONFIRMED = PublishOutcome(result=PublishResult.CONFIRMED)
_NACKED = PublishOutcome(
    result=PublishResult.ROUTE_DOWN, detail="the broker could not take it (basic.nack)"
)

_Key = tuple[str | None, str | None, bytes]


class Publication(Struct, frozen=True, kw_only=True):
    """A message as it is written to a channel."""

    exchange: str
    routing_key: str
    is_mandatory: bool
    message_id: str
    properties: bytes
    body: bytes


class Batch:
    """Publications that were written together.

    Attributes:
        outcomes: What the broker said of each; None while, and where, it has said nothing.
        lost: Why nothing more will be said.
    """

    def __init__(self, count: int) -> None:
        """Expect the outcomes of so many publications."""
        self.outcomes: list[PublishOutcome | None] = [None] * count
        self.lost: ChannelLostError | None = None
        self._unsettled_count = count
        self._ended = asyncio.Event()
        if not count:
            self._ended.set()

    async def ended(self) -> None:
        """Return once every outcome is known, or nothing more will be said."""
        await self._ended.wait()

    def settle(self, index: int, outcome: PublishOutcome) -> None:
        """Note what the broker said of one publication."""
        self.outcomes[index] = outcome
        self._unsettled_count -= 1
        if not self._unsettled_count:
            self._ended.set()

    def lose(self, error: ChannelLostError) -> None:
        """Expect nothing more."""
        if not self._ended.is_set():
            self.lost = error
            self._ended.set()


@dataclass(slots=True, kw_only=True)
class _Outstanding:
    batch: Batch
    index: int
    publication: Publication
    key: _Key
    returned: PublishOutcome | None = None
    waiting: deque["_Outstanding"] = field(default_factory=deque)


class ConfirmChannel:
    """A channel for publishing."""

    def __init__(self, channel: Channel) -> None:
        """See `open`."""
        self._channel = channel
        self._has_refused = False
        self._tag = 0
        self._by_tag: OrderedDict[int, _Outstanding] = OrderedDict()
        self._by_key: dict[_Key, _Outstanding] = {}
        self._batches: set[Batch] = set()

    @classmethod
    async def open(cls, connection: Connection, *, call_timeout_s: float) -> Self:
        """Return a channel of the connection.

        Raises:
            ChannelLostError: the connection is closed.
        """
        channel = await Channel.open(connection, call_timeout_s=call_timeout_s)
        confirming = cls(channel)
        channel.raw.add_on_return_callback(confirming._note_returned)
        await channel.select_confirms(confirming._note_settled)
        channel.on_lost(confirming._note_lost)
        return confirming

    @property
    def connection(self) -> Connection:
        """The connection that it is a channel of."""
        return self._channel.connection

    @property
    def is_open(self) -> bool:
        """Whether publications may be written."""
        return self._channel.lost is None and self._channel.raw.is_open

    @property
    def has_refused(self) -> bool:
        """Whether the broker refused a publication here.

        A channel that meets a quorum queue while its leader is dead goes on refusing for it after
        another one was elected, and for ever (seen on 3.10.8); a new channel finds the new leader.
        """
        return self._has_refused

    @property
    def unconfirmed_count(self) -> int:
        """How many publications are on their way."""
        return len(self._by_tag)

    def write(self, publications: Sequence[Publication]) -> Batch:
        """Write the publications, and return where their outcomes will be."""
        batch = Batch(len(publications))
        self._batches.add(batch)
        with self.connection.gathered_writes():
            for index, publication in enumerate(publications):
                key = _key_of(publication)
                entry = _Outstanding(batch=batch, index=index, publication=publication, key=key)
                ahead = self._by_key.get(key)
                if ahead is None:
                    self._write(entry)
                else:
                    ahead.waiting.append(entry)
        return batch

    async def run(self, publications: Sequence[Publication], *, timeout_s: float) -> Batch:
        """Write the publications and return once their outcomes are known, or never will be.

        If the time runs out the channel is closed: what it had on its way stays unknown.
        """
        batch = self.write(publications)
        try:
            async with asyncio.timeout(timeout_s):
                await batch.ended()
        except TimeoutError:
            self.give_up(f"no confirm within {timeout_s:g} s")
        finally:
            self._batches.discard(batch)
        return batch

    def abandon(self, reason: str) -> None:
        """Wait no longer for what is on its way, and leave it on its way."""
        self._end_batches(ChannelLostError(reason))

    def give_up(self, reason: str) -> None:
        """Close the channel and wait for nothing on it."""
        self._note_lost(ChannelLostError(reason))
        if self.is_open:
            self._channel.raw.close()

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    def _write(self, entry: _Outstanding) -> None:
        if not self.is_open:
            entry.batch.lose(self._channel.lost or ChannelLostError("the channel is closing"))
            return
        publication = entry.publication
        self.connection.write_frames(
            publication_frames(
                self._channel.raw.channel_number,
                exchange=publication.exchange,
                routing_key=publication.routing_key,
                is_mandatory=publication.is_mandatory,
                properties=publication.properties,
                body=publication.body,
                frame_size_max=self.connection.frame_size_max,
            )
        )
        self._tag += 1
        self._by_tag[self._tag] = entry
        self._by_key[entry.key] = entry

    def _note_returned(
        self,
        _channel: PikaChannel,
        method: Basic.Return,
        properties: BasicProperties,
        _body: bytes,
    ) -> None:
        assert isinstance(properties, RawProperties)
        message_id = read_properties(properties.raw).message_id or b""
        entry = self._by_key.get((method.exchange, method.routing_key, message_id))
        if entry is not None:
            entry.returned = PublishOutcome(
                result=PublishResult.ROUTE_DOWN, detail=_words_of_return(method)
            )

    def _note_settled(self, frame: Method[Basic.Ack | Basic.Nack]) -> None:
        method = frame.method
        is_confirmed = isinstance(method, Basic.Ack)
        tag = method.delivery_tag or 0
        if not method.multiple:
            entry = self._by_tag.pop(tag, None)
            if entry is not None:
                self._settle(entry, is_confirmed=is_confirmed)
            return
        while self._by_tag and next(iter(self._by_tag)) <= tag:
            _tag, entry = self._by_tag.popitem(last=False)
            self._settle(entry, is_confirmed=is_confirmed)

    def _settle(self, entry: _Outstanding, *, is_confirmed: bool) -> None:
        self._has_refused = self._has_refused or not is_confirmed
        del self._by_key[entry.key]
        outcome = entry.returned or (_CONFIRMED if is_confirmed else _NACKED)
        entry.batch.settle(entry.index, outcome)
        while entry.waiting:
            following = entry.waiting.popleft()
            if following.batch.lost is None:
                following.waiting = entry.waiting
                self._write(following)
                return

    def _note_lost(self, error: ChannelLostError) -> None:
        self._by_tag.clear()
        self._by_key.clear()
        self._end_batches(error)

    def _end_batches(self, error: ChannelLostError) -> None:
        for batch in self._batches:
            batch.lose(error)
        self._batches.clear()


def _key_of(publication: Publication) -> _Key:
    """Return what the broker tells of a publication that it returns."""
    return (publication.exchange, publication.routing_key, bytes_of(publication.message_id))


def _words_of_return(method: Basic.Return) -> str:
    why = f"{method.reply_code} {method.reply_text}"
    if method.exchange == DEFAULT_EXCHANGE:
        return f"returned by the broker ({why}): there is no queue {method.routing_key}"
    return (
        f"returned by the broker ({why}): no queue is bound to {method.exchange} "
        f"for {method.routing_key}"
    )
