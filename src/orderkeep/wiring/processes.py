"""The processes there are: `run` does everything, `serve` answers HTTP, `work` moves messages.

Invariant: port, data directory and schema are in order before anything starts, and the database is
closed last. One `run` holds its data directory; on the embedded engine every lease that it finds
therefore belongs to nobody, and what a killed predecessor had in hand, messages and refunds, is
taken up again at once. On PostgreSQL any number of `serve` and `work` may run beside each other.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

import httpx
import structlog

from orderkeep import failure_points
from orderkeep.data_directory import (
    lock_data_directory,
    prepare_data_directory,
)
from orderkeep.database.schema_version import (
    SCHEMA_WORDS,
    SchemaState,
    find_schema_state,
    upgrade_schema,
)
from orderkeep.database.transaction import Database
from orderkeep.orders.webhooks import release_webhook_claims
from orderkeep.payments.carry_out_refunds import release_refund_claims
from orderkeep.settings import Settings
from orderkeep.web.server import listen
from orderkeep.wiring.collector import spare_what_stays
from orderkeep.wiring.keys import find_jwt_secret
from orderkeep.wiring.parts import Role
from orderkeep.wiring.preparation import Preparation, WrongSetupError
from orderkeep.wiring.running import chosen_loops, run_shop
from orderkeep.wiring.shop import Shop, build_shop
from orderkeep.wiring.storage import (
    Brokers,
    open_brokers,
    open_database,
    open_wake_ups,
    relay_of,
    schema_url,
    used_topology,
)

log = structlog.get_logger()

Announce = Callable[[str], None]


async def run_everything(settings: Settings, *, stop: asyncio.Event, announce: Announce) -> None:
    """Serve and work in one process until the stop event is set.

    Args:
        settings: What to run.
        stop: Set to end.
        announce: Told the address once requests are answered there.

    Raises:
        DataDirectoryError: the data directory cannot be written, or another `run` holds it.
        PortInUseError: the port cannot be had.
        SchemaTooNewError: the database was made by a newer release.
        WrongSetupError: the database on the server has an older schema.
        StoreUnavailableError: the database cannot be opened.
        WrongTopologyError: the broker has been set up in a way that would lose or hurry messages.
        DelayPluginMissingError: the broker lacks the plugin that the settings name.
    """
    with _held_directories(settings):
        await _run(
            settings,
            _Plan(roles=frozenset(Role), http_port=settings.http_port),
            stop=stop,
            announce=announce,
        )


async def run_serve(settings: Settings, *, stop: asyncio.Event, announce: Announce) -> None:
    """Answer HTTP until the stop event is set; see `run_everything` for what is raised."""
    _refuse_embedded(settings, command="serve")
    if settings.jwt_secret is None:
        message = (
            "`orderkeep serve` needs ORDERKEEP_JWT_SECRET: every process that serves must verify"
            " tokens with the same one"
        )
        raise WrongSetupError(message)
    plan = _Plan(roles=frozenset({Role.SERVE}), http_port=settings.http_port)
    await _run(settings, plan, stop=stop, announce=announce)


async def run_work(
    settings: Settings, *, only: tuple[str, ...], stop: asyncio.Event, announce: Announce
) -> None:
    """Move messages until the stop event is set; see `run_everything` for what else is raised.

    Args:
        settings: What to run.
        only: Names of loops or kinds of them; empty is all.
        stop: Set to end.
        announce: Told the address of health and metrics once it answers.

    Raises:
        UnknownLoopError: `only` names what this process could not do.
    """
    _refuse_embedded(settings, command="work")
    plan = _Plan(roles=frozenset({Role.WORK}), http_port=settings.work_http_port, only=only)
    await _run(settings, plan, stop=stop, announce=announce)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What one process does.

    Attributes:
        only: The loops that it runs of those it could; empty is all.
    """

    roles: frozenset[Role]
    http_port: int
    only: tuple[str, ...] = ()

    @property
    def awaits_database(self) -> bool:
        """Whether it begins without its database: nobody asks it for anything but its health."""
        return self.roles == {Role.WORK}


async def _run(settings: Settings, plan: _Plan, *, stop: asyncio.Event, announce: Announce) -> None:
    failure_points.arm(settings.armed_point)
    variable = "ORDERKEEP_HTTP_PORT" if Role.SERVE in plan.roles else "ORDERKEEP_WORK_HTTP_PORT"
    listener = listen(settings.http_host, plan.http_port, variable=variable)
    try:
        if not plan.awaits_database:
            await _bring_schema_up(settings)
        async with _built_shop(settings, plan) as shop:
            spare_what_stays()
            announce(listener.url)
            await run_shop(shop, listener=listener, stop=stop, shutdown_s=settings.shutdown_s)
    finally:
        listener.close()


@asynccontextmanager
async def _built_shop(settings: Settings, plan: _Plan) -> AsyncIterator[Shop]:
    """Build what the plan says, on open connections; close them at the end, the database last."""
    wake_ups = open_wake_ups(settings)
    database = open_database(settings)
    brokers = open_brokers(settings, database, wake_ups=wake_ups)
    try:
        if settings.is_embedded:
            await _recover(database, brokers)
        async with httpx.AsyncClient(follow_redirects=False) as client:
            shop = build_shop(
                settings,
                roles=plan.roles,
                database=database,
                brokers=brokers,
                # A process that does not serve verifies no token.
                jwt_secret=find_jwt_secret(settings) if Role.SERVE in plan.roles else "",
                client=client,
                relay=relay_of(wake_ups),
            )
            loops = dict(chosen_loops(shop.loops, plan.only) if plan.only else shop.loops)
            if wake_ups is not None:
                loops["wake-ups"] = wake_ups.run
            if brokers.database_queue is not None:
                _warn_of_unread_queues(settings, shop, plan=plan)

            async def prepare() -> None:
                await _prepare(settings, database=database, brokers=brokers)

            if plan.awaits_database:
                preparation = Preparation(prepare)
                await preparation.try_now()
                loops = preparation.awaited_by(loops)
            else:
                await prepare()
            yield replace(shop, loops=loops)
    finally:
        await brokers.close()
        await database.close()


@contextmanager
def _held_directories(settings: Settings) -> Iterator[None]:
    # The database may lie outside the data directory: then its own directory is held as well.
    held = {settings.data_dir.resolve()}
    if settings.sqlite_path is not None:
        held.add(settings.sqlite_path.resolve().parent)
    with ExitStack() as locks:
        for directory in sorted(held):
            prepare_data_directory(directory)
            locks.callback(lock_data_directory(directory).close)
        yield


async def _prepare(settings: Settings, *, database: Database, brokers: Brokers) -> None:
    """See that the database is there and as it should be, and tell its queues of each other."""
    if not settings.is_embedded:
        await _bring_schema_up(settings)
        # Through a transaction pooler nobody has named, the dispatchers' locks would mean
        # nothing, and prepared statements would be another's.
        await (await database.open_session(on_lost=_ignore)).close()
    if brokers.database_queue is not None:
        # Whoever publishes into the queues routes by the topology.
        await brokers.database_queue.declare(used_topology(settings))


async def _bring_schema_up(settings: Settings) -> None:
    """Bring a database of our own to the current schema; of a server's, see that it has it."""
    url = schema_url(settings)
    if settings.is_embedded:
        await asyncio.to_thread(upgrade_schema, url)
        return
    state = await asyncio.to_thread(find_schema_state, url)
    if state is not SchemaState.CURRENT:
        raise WrongSetupError(str(SCHEMA_WORDS[state]))


async def _recover(database: Database, brokers: Brokers) -> None:
    """Take up at once what a killed predecessor had in hand."""
    if brokers.database_queue is not None:
        message_count = await brokers.database_queue.release_all_leases()
        if message_count:
            log.info("messages_recovered", message_count=message_count)
    refund_count = await database.transact(release_refund_claims)
    if refund_count:
        log.info("refunds_recovered", refund_count=refund_count)
    webhook_count = await database.transact(release_webhook_claims)
    if webhook_count:
        log.info("webhooks_recovered", webhook_count=webhook_count)


def _refuse_embedded(settings: Settings, *, command: str) -> None:
    if settings.is_embedded:
        message = (
            f"`orderkeep {command}` needs PostgreSQL, and ORDERKEEP_DATABASE_URL names none:"
            " on a SQLite file one `orderkeep run` does everything"
        )
        raise WrongSetupError(message)


def _warn_of_unread_queues(settings: Settings, shop: Shop, *, plan: _Plan) -> None:
    # Queues in the database are read by our own processes alone: what none reads piles up.
    if plan.only or Role.WORK not in plan.roles:
        return
    for queue in used_topology(settings).queues:
        if queue.name not in shop.read_queues:
            log.warning(
                "queue_unread",
                queue=queue.name,
                hint="name it in ORDERKEEP_UNUSED_QUEUES, or its messages pile up",
            )


def _ignore() -> None:
    """Need not hear that the connection ended: it was opened to be closed."""
