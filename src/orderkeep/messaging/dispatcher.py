"""The dispatcher: outbox rows to the broker, and the only code that publishes.

Invariant: a row is settled as `sent` only after the broker has confirmed it. Of the ordered rows of
one aggregate and route at most one is on its way, and none while an earlier one is unsettled or
parked.

While one batch waits for its confirms the next one is read and published: of the rows that are on
their way, none is read again, and none that must come after one of them is read at all, for they
are pending still. So two batches are on their way at most, and each is settled in one statement.

A crash after the read leaves every row pending. A crash after the publish, before the settlement,
leaves rows pending that the broker has: they are sent again, and the consumers' inboxes make the
copies harmless. A crash after the settlement loses nothing: the next round reads what is left.

What is the route's fault pauses the route in memory and costs its rows nothing; what is the row's
fault costs the row one of its tries, and after the last it is parked as `failed`.

Any number of dispatchers may share an outbox. Each works on the partitions that its session holds,
and reads and settles on that session's own connection. When the connection is lost the way to the
broker is closed before anything else, for the partitions may be another's by now, and what is still
to be published is given up: it must not take another way later. Whoever holds the partitions sends
it again.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from msgspec import Struct
from sqlalchemy import select

from orderkeep.database.statement import DatabaseNow, Statement
from orderkeep.database.transaction import (
    Database,
    Session,
    StoreUnavailableError,
)
from orderkeep.failure_points import reach
from orderkeep.messaging.broker import Broker, Topology
from orderkeep.messaging.look_back import LookBack
from orderkeep.messaging.message import PublishOutcome
from orderkeep.messaging.outbox import PARTITION_COUNT, Outbox
from orderkeep.messaging.outbox_reading import OutboxReading, PendingRow, Ready
from orderkeep.messaging.outbox_settling import DispatchPolicy, OutboxSettling
from orderkeep.messaging.publishing import Publishing
from orderkeep.messaging.retry_schedule import pause_before_attempt
from orderkeep.messaging.route_pauses import RoutePauses
from orderkeep.messaging.signal import is_set_within

log = structlog.get_logger()

# Sent so that the server sees the session used; any statement will do.
_USE = Statement(select(DatabaseNow().label("now")))

# Waiting less would find the database's clock unchanged.
_WAIT_S_MIN = 0.001

# A dispatcher that cannot reach the broker for so long lets others have its partitions: it may be
# the only one that is cut off. It asks for them again once it can.
UNREACHABLE_S_MAX = 5.0

# How often a dispatcher that may not be the only one asks for its share of the partitions: so long
# those of one that died may lie idle, and the asking costs nothing beside the work.
SHARE_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchRound:
    """What one round did.

    Attributes:
        held_back_count: Rows that stay pending, at no cost, because their route is down.
        postponed_count: Rows that wait here until their time, because the broker cannot hold them.
        wait_s: How long there is nothing to do, unless somebody appends; 0 is go on at once.
    """

    sent_count: int
    refused_count: int
    held_back_count: int
    wait_s: float
    postponed_count: int = 0


def _observe_nothing(_seconds: float) -> None:
    """Drop the measurement."""


class Dispatcher:
    """Sends what one service has appended to its outbox."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        database: Database,
        broker: Broker,
        topology: Topology,
        draw_jitter: Callable[[], float],
        policy: DispatchPolicy | None = None,
        observe_confirm_s: Callable[[float], None] = _observe_nothing,
        aggregate_name: str = "aggregate_id",
    ) -> None:
        """Dispatch the outbox to the broker.

        Args:
            outbox: What is dispatched.
            database: Holds the outbox.
            broker: Takes the messages.
            topology: Declared again after a route was down: what is missing may be why.
            draw_jitter: Draws 0.0..1.0 for each pause.
            policy: None takes the defaults.
            observe_confirm_s: Is told how long each batch took to be confirmed.
            aggregate_name: What log lines call an aggregate, such as `order_no`.
        """
        self._outbox = outbox
        self._reading = OutboxReading(outbox.tables)
        self._database = database
        self._broker = broker
        self._draw_jitter = draw_jitter
        self._policy = policy or DispatchPolicy()
        self._pauses = RoutePauses(
            base_s=self._policy.route_pause_base_s, max_s=self._policy.route_pause_max_s
        )
        self._publishing = Publishing(
            broker,
            topology=topology,
            outbox_name=outbox.tables.outbox.name,
            observe_confirm_s=observe_confirm_s,
        )
        self._settling = OutboxSettling(
            self._reading,
            policy=self._policy,
            draw_jitter=draw_jitter,
            aggregate_name=aggregate_name,
        )
        self._look_back = LookBack()
        self._session: Session | None = None
        self._ahead: _OnItsWay | None = None
        self._on_their_way: set[asyncio.Future[Sequence[PublishOutcome]]] = set()
        self._partitions: frozenset[int] = frozenset()
        self._shared_at_s = 0.0
        self._has_rivals = False

    async def run(self, stop: asyncio.Event) -> None:
        """Dispatch until the stop event is set; what is on its way by then is settled."""
        try:
            await self._run(stop)
        finally:
            await self.close()

    async def _run(self, stop: asyncio.Event) -> None:
        outages_count = 0
        # Before there is anything to send: what is wrong at the broker shows at the start.
        await self._publishing.declare()
        async with self._outbox.appended.also_set_by(stop):
            while not stop.is_set():
                # Cleared before the reading: what is appended during it wakes the next wait.
                self._outbox.appended.clear()
                try:
                    dispatched = await self.run_once()
                except StoreUnavailableError as error:
                    outages_count += 1
                    if outages_count == 1:
                        log.warning("outbox_unavailable", outbox=self._name, error=str(error))
                    pause_s = pause_before_attempt(
                        outages_count,
                        jitter=self._draw_jitter(),
                        base_s=self._policy.route_pause_base_s,
                        max_s=self._policy.route_pause_max_s,
                    )
                    await is_set_within(stop, timeout_s=pause_s)
                    continue
                if outages_count:
                    log.info("outbox_available", outbox=self._name, outages_count=outages_count)
                    outages_count = 0
                await self._outbox.appended.wait(timeout_s=dispatched.wait_s)
            with suppress(StoreUnavailableError):  # what is unsettled, somebody sends again
                await self._finish()

    async def run_once(self) -> DispatchRound:
        """Send one batch of what may go, and return what became of it.

        Where there is more than one batch, the next one is on its way when this returns.

        Raises:
            StoreUnavailableError: the database is away; rows stay pending, and the partitions are
                held no longer.
        """
        try:
            return await self._run_once()
        except StoreUnavailableError:
            self._broker.stop_publishing()
            await self.close()
            raise

    async def close(self) -> None:
        """Give back the partitions; whoever goes on asks for them again."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            self._broker.stop_publishing()
            await ahead.give_up()
        session, self._session = self._session, None
        self._partitions = frozenset()
        self._look_back.begin_again()
        if session is not None:
            await session.close()

    async def _finish(self) -> None:
        """Settle what is on its way, and send nothing more."""
        going, self._ahead = self._ahead, None
        if going is not None:
            assert self._session is not None, "who gives up the session gives up what is ahead"
            await self._conclude(going, session=self._session)

    async def _run_once(self) -> DispatchRound:
        if self._has_rivals and self._publishing.unreachable_s > UNREACHABLE_S_MAX:
            await self.close()
            if not await self._publishing.declare():
                return DispatchRound(
                    sent_count=0, refused_count=0, held_back_count=0, wait_s=SHARE_INTERVAL_S
                )
        going, self._ahead = self._ahead, None
        session = await self._hold_share(is_anything_on_its_way=going is not None)
        if going is None:
            ready = await self._read(session)
            if not ready.rows:
                return DispatchRound(
                    sent_count=0,
                    refused_count=0,
                    held_back_count=0,
                    wait_s=self._wait_s(ready.next_due_s, session=session),
                )
            going = self._publish(ready)
        return await self._conclude(going, session=session, reads_ahead=True)

    async def _conclude(
        self, going: "_OnItsWay", *, session: Session, reads_ahead: bool = False
    ) -> DispatchRound:
        """Wait for a batch's confirms, with the next one on its way meanwhile, and settle it."""
        try:
            if reads_ahead and self._may_read_ahead(going):
                following = await self._read(session, on_their_way=going.rows)
                if following.rows:
                    self._ahead = self._publish(following)
            outcomes = await self._outcomes(going, session=session)
        except BaseException:
            self._broker.stop_publishing()
            await going.give_up()
            raise
        reach("dispatcher.after_publish")
        return await self._settle(going.rows, outcomes, session=session)

    async def _hold_share(self, *, is_anything_on_its_way: bool) -> Session:
        """Return the session, with this dispatcher's share of the partitions.

        The share changes only where nothing is on its way: what was published is settled, so a
        partition that is given back has no message on its way.
        """
        session = self._session
        if session is None:
            session = await self._database.open_session(on_lost=self._stop_publishing)
            self._session = session
            self._has_rivals = session.used_within_s is not None
            self._shared_at_s = -SHARE_INTERVAL_S
        if not is_anything_on_its_way and self._is_share_due():
            partitions = await session.hold_share(self._name, part_count=PARTITION_COUNT)
            if session.used_within_s is not None and partitions != self._partitions:
                log.debug("outbox_share", outbox=self._name, partitions=sorted(partitions))
            self._partitions = partitions
            self._shared_at_s = _monotonic_s()
        return session

    def _is_share_due(self) -> bool:
        return _monotonic_s() - self._shared_at_s >= SHARE_INTERVAL_S

    def _may_read_ahead(self, going: "_OnItsWay") -> bool:
        """Whether there is likely more, and the share need not be asked for first."""
        return len(going.rows) >= self._policy.batch_size and not self._is_share_due()

    @property
    def _name(self) -> str:
        return self._outbox.tables.outbox.name

    async def _read(self, session: Session, *, on_their_way: Sequence[PendingRow] = ()) -> Ready:
        at_s = _monotonic_s()
        paused_routes = self._pauses.paused_routes(at_s=at_s)
        since = self._look_back.begin_reading(
            at_s=at_s, partitions=self._partitions, paused_routes=paused_routes
        )
        ready = await self._reading.ready(
            session,
            partitions=self._partitions,
            paused_routes=paused_routes,
            on_their_way=[row.id for row in on_their_way],
            since=since,
            limit=self._policy.batch_size,
        )
        self._look_back.note(ready, on_their_way=on_their_way)
        reach("dispatcher.after_read")
        return ready

    def _publish(self, ready: Ready) -> "_OnItsWay":
        publishing = asyncio.ensure_future(self._publishing.send(ready.rows, now=ready.now))
        self._on_their_way.add(publishing)
        publishing.add_done_callback(self._on_their_way.discard)
        return _OnItsWay(rows=ready.rows, publishing=publishing)

    def _stop_publishing(self) -> None:
        self._broker.stop_publishing()
        for publishing in self._on_their_way:
            publishing.cancel()

    async def _outcomes(self, going: "_OnItsWay", *, session: Session) -> Sequence[PublishOutcome]:
        """Wait for the outcomes; the session is used meanwhile, for a broker may take its time.

        Raises:
            StoreUnavailableError: the session is lost.
        """
        while not going.publishing.done():
            await asyncio.wait([going.publishing], timeout=session.used_within_s)
            if not going.publishing.done():
                await session.fetch_all(_USE)
        if going.publishing.cancelled():
            message = "the session is lost"
            raise StoreUnavailableError(message)
        return going.publishing.result()

    async def _settle(
        self, rows: Sequence[PendingRow], outcomes: Sequence[PublishOutcome], *, session: Session
    ) -> DispatchRound:
        """Write down at once what became of each row; pause routes that are down."""
        settlement = self._settling.sorted(rows, outcomes)
        self._note_routes(
            up={row.message.route for row in settlement.sent} - settlement.down.keys(),
            down=settlement.down,
        )
        reach("dispatcher.before_settle")
        if settlement.settled_count or settlement.down:
            await self._settling.write(session, settlement)
        reach("dispatcher.after_settle")
        self._settling.log(settlement)
        return DispatchRound(
            sent_count=len(settlement.sent),
            refused_count=len(settlement.refused),
            held_back_count=len(rows) - settlement.settled_count,
            wait_s=0.0,
            postponed_count=len(settlement.postponed),
        )

    def _note_routes(self, *, up: set[str], down: dict[str, str]) -> None:
        at_s = _monotonic_s()
        if down:
            self._look_back.begin_again()
        # Of two batches on their way the second one fails as well, and says nothing new.
        paused_already = self._pauses.paused_routes(at_s=at_s)
        for route, detail in sorted(down.items()):
            if route in paused_already:
                continue
            # What is missing at the broker may be why.
            self._publishing.declare_again()
            if self._pauses.pause(route, at_s=at_s, jitter=self._draw_jitter()):
                log.warning("route_down", outbox=self._name, route=route, detail=detail)
        for route in sorted(up):
            if self._pauses.resume(route):
                log.info("route_up", outbox=self._name, route=route)

    def _wait_s(self, next_due_s: float | None, *, session: Session) -> float:
        full_due_in_s = self._look_back.full_due_in_s(_monotonic_s())
        waits_s = [self._policy.poll_interval_s, max(full_due_in_s, _WAIT_S_MIN)]
        if session.used_within_s is not None:
            waits_s.append(SHARE_INTERVAL_S)
        if next_due_s is not None:
            waits_s.append(max(next_due_s, _WAIT_S_MIN))
        next_pause_end_s = self._pauses.next_end_s(at_s=_monotonic_s())
        if next_pause_end_s is not None:
            waits_s.append(max(next_pause_end_s - _monotonic_s(), _WAIT_S_MIN))
        return min(waits_s)


class _OnItsWay(Struct, frozen=True, kw_only=True):
    """A batch that is being published."""

    rows: Sequence[PendingRow]
    publishing: asyncio.Future[Sequence[PublishOutcome]]

    async def give_up(self) -> None:
        """Wait for it no longer: whoever holds its rows next sends them again."""
        self.publishing.cancel()
        await asyncio.gather(self.publishing, return_exceptions=True)


def _monotonic_s() -> float:
    # The loop's clock measures pauses in memory; due times are the database's.
    return asyncio.get_running_loop().time()
