"""Puts the services together and runs them in one process until told to stop.

Invariant: the port, the data directory and the schema are in order before anything starts; on the
way out requests are finished first, then the messages in hand, and the database is closed last.
Correctness does not rest on any of that: a kill at any instant loses nothing.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import httpx
import structlog
from litestar.types import ControllerRouterHandler

from orderkeep.contracts import order_timeout_queue, payment_success_notify
from orderkeep.database.schema_version import find_schema_version, newest_schema_version
from orderkeep.database.transaction import Database, ReadTransaction
from orderkeep.database.turns import giving_way
from orderkeep.messaging.broker import Topology
from orderkeep.messaging.database_queue import DatabaseQueue
from orderkeep.messaging.dead_letters import DeadLetters
from orderkeep.messaging.delivery import DeliveryPolicy, Subscription
from orderkeep.messaging.dispatcher import Dispatcher, DispatchPolicy
from orderkeep.messaging.kept_loop import keep_running
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.outbox_rows import OutboxRows
from orderkeep.messaging.retention import Retention, RetentionPolicy
from orderkeep.messaging.settling import RetryPolicy
from orderkeep.metrics import Metrics
from orderkeep.settings import Settings
from orderkeep.status import StatusReader
from orderkeep.web.admin_routes import ROUTE_HANDLERS as OPERATION_ROUTES
from orderkeep.web.app import WebApp, WebParts, build_app
from orderkeep.web.auth import TokenAuthenticator
from orderkeep.web.health import CheckFailedError, Readiness, ReadinessCheck
from orderkeep.web.operations import OperationsDesk, ServiceMessages
from orderkeep.web.queues import ROUTE_HANDLERS as QUEUE_ROUTES
from orderkeep.web.queues import InboundQueue
from orderkeep.web.server import Listener, serve
from orderkeep.wiring import chance
from orderkeep.wiring.cart_parts import build_cart_parts
from orderkeep.wiring.keys import token_key
from orderkeep.wiring.order_parts import build_order_parts
from orderkeep.wiring.parts import Run, ServiceParts
from orderkeep.wiring.payment_parts import build_payment_parts
from orderkeep.wiring.storage import SERVICE_OF_SETTING, build_outboxes, used_topology

log = structlog.get_logger()

# What decides how an order ends: its deadline has come, its money has come. The messages of the
# other queues tell somebody of what has been decided, and give way to requests and to these.
_AWAITED_QUEUES = frozenset({order_timeout_queue.QUEUE, payment_success_notify.QUEUE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """Everything of one process, built and not yet running.

    Attributes:
        loops: What runs in the background, by name.
    """

    app: WebApp
    readiness: Readiness
    loops: Mapping[str, Run]


def build_operations_desk(outboxes: Mapping[str, Outbox], *, database: Database) -> OperationsDesk:
    """Return the desk for what operators do with messages."""
    return OperationsDesk(
        [
            ServiceMessages(
                service=outbox.tables.service,
                database=database,
                outbox_rows=OutboxRows(outbox),
                dead_letters=DeadLetters(outbox),
            )
            for outbox in outboxes.values()
        ]
    )


def build_status_reader(settings: Settings, outboxes: Mapping[str, Outbox]) -> StatusReader:
    """Return what reads the status of all services."""
    return StatusReader(
        {outbox.tables.service: outbox for outbox in outboxes.values()},
        overdue_s=settings.sweep_grace_s + settings.sweep_interval_s,
    )


def build_shop(
    settings: Settings,
    *,
    database: Database,
    queue: DatabaseQueue,
    jwt_secret: str,
    client: httpx.AsyncClient,
) -> Shop:
    """Return every service that the settings name, with HTTP, dispatchers and consumers.

    Args:
        client: Calls others over HTTP; follows no redirects.
    """
    metrics = Metrics()
    outboxes = build_outboxes(settings)
    services = _services(
        settings,
        database=database,
        outboxes=outboxes,
        metrics=metrics,
        jwt_secret=jwt_secret,
        client=client,
    )
    loops: dict[str, Run] = {}
    for service in services:
        loops.update(service.loops)
        loops.update(
            _messaging_loops(settings, service, database=database, queue=queue, metrics=metrics)
        )
    _warn_of_unread_queues(settings, services)
    readiness = Readiness(_readiness_checks(database))
    status_reader = build_status_reader(settings, outboxes)

    async def refresh_metrics() -> None:
        metrics.show(await database.read(status_reader.read_gauges))

    async def read_status() -> object:
        return await database.read(status_reader.read)

    app = build_app(
        WebParts(
            route_handlers=_route_handlers(services),
            dependencies={
                "operations_desk": build_operations_desk(outboxes, database=database),
                "readiness": readiness,
                "read_status": read_status,
                "inbound_queues": _inbound_queues(settings, services, database=database),
                **{
                    name: value
                    for service in services
                    for name, value in service.dependencies.items()
                },
            },
            authenticator=TokenAuthenticator(
                token_key(settings, jwt_secret=jwt_secret), now=chance.now
            ),
            readiness=readiness,
            registry=metrics.registry,
            refresh_metrics=refresh_metrics,
            version=version("orderkeep"),
            new_request_id=chance.new_uuid,
            logs_requests=settings.log_level == "debug",
        )
    )
    return Shop(app=app, readiness=readiness, loops=loops)


async def run_shop(
    shop: Shop, *, listener: Listener, stop: asyncio.Event, shutdown_s: float
) -> None:
    """Run the shop until the stop event is set, then finish what is in hand.

    Args:
        shutdown_s: How long that may take: half of it for requests, the rest for messages.
    """
    # Requests end before the loops: an order in hand still needs its intake.
    stop_loops = asyncio.Event()
    running = [
        asyncio.create_task(
            keep_running(run, name=name, stop=stop_loops, draw_jitter=chance.draw_jitter),
            name=name,
        )
        for name, run in shop.loops.items()
    ]
    announcing = asyncio.create_task(_announce_shutdown(shop.readiness, stop=stop))
    try:
        await serve(shop.app.asgi, listener, stop=stop, shutdown_s=shutdown_s / 2)
    finally:
        announcing.cancel()
        stop_loops.set()
        _, late = await asyncio.wait(running, timeout=max(shutdown_s / 2, 0.1))
        for task in late:
            log.warning("loop_cancelled", loop=task.get_name())
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _announce_shutdown(readiness: Readiness, *, stop: asyncio.Event) -> None:
    await stop.wait()
    readiness.begin_shutdown()
    log.info("shutting_down")


def _services(
    settings: Settings,
    *,
    database: Database,
    outboxes: Mapping[str, Outbox],
    metrics: Metrics,
    jwt_secret: str,
    client: httpx.AsyncClient,
) -> list[ServiceParts]:
    wanted = {SERVICE_OF_SETTING[name] for name in settings.services}
    services: list[ServiceParts] = []
    if "orders" in wanted:
        services.append(
            build_order_parts(
                settings,
                database=database,
                outbox=outboxes["orders"],
                metrics=metrics,
                token_secret=jwt_secret,
                client=client,
            )
        )
    if "carts" in wanted:
        services.append(build_cart_parts(database=database, outbox=outboxes["carts"]))
    if "payments" in wanted:
        services.append(
            build_payment_parts(settings, database=database, outbox=outboxes["payments"])
        )
    return services


def _messaging_loops(
    settings: Settings,
    service: ServiceParts,
    *,
    database: Database,
    queue: DatabaseQueue,
    metrics: Metrics,
) -> dict[str, Run]:
    topology: Topology = used_topology(settings)
    name = service.outbox.tables.service
    dispatcher = Dispatcher(
        service.outbox,
        database=database,
        broker=queue,
        topology=topology,
        draw_jitter=chance.draw_jitter,
        policy=DispatchPolicy(
            poll_interval_s=settings.outbox_poll_interval_s,
            batch_size=settings.outbox_batch_size,
            retry_base_s=settings.retry_base_s,
            retry_max_s=settings.retry_max_s,
        ),
        observe_confirm_s=metrics.observe_confirm_s,
        aggregate_name="order_no",
    )
    retention = Retention(
        service.outbox.tables,
        database=database,
        policy=RetentionPolicy(outbox_s=settings.outbox_retention_s),
    )
    loops: dict[str, Run] = {
        f"{name}-dispatcher": giving_way(dispatcher.run),
        f"{name}-retention": giving_way(retention.run),
    }
    policy = DeliveryPolicy(
        prefetch=settings.prefetch,
        retry=RetryPolicy(
            tries_max=settings.max_deliveries,
            base_s=settings.retry_base_s,
            max_s=settings.retry_max_s,
        ),
    )
    for consumer in service.consumers:
        if consumer.queue in settings.unused_queues:
            continue
        subscription = Subscription(
            consumer,
            database=database,
            broker=queue,
            topology=topology,
            outbox=service.outbox,
            draw_jitter=chance.draw_jitter,
            policy=policy,
            count_outcome=metrics.count_messages,
            aggregate_name="order_no",
        )
        is_awaited = consumer.queue in _AWAITED_QUEUES
        loops[consumer.queue] = subscription.run if is_awaited else giving_way(subscription.run)
    return loops


def _route_handlers(services: Sequence[ServiceParts]) -> list[ControllerRouterHandler]:
    handlers: list[ControllerRouterHandler] = [*OPERATION_ROUTES, *QUEUE_ROUTES]
    for service in services:
        handlers.extend(service.route_handlers)
    return handlers


def _inbound_queues(
    settings: Settings, services: Sequence[ServiceParts], *, database: Database
) -> dict[str, InboundQueue]:
    return {
        consumer.queue: InboundQueue(outbox=service.outbox, consumer=consumer, database=database)
        for service in services
        for consumer in service.consumers
        # What is handed in for a queue that nobody reads would never arrive.
        if consumer.queue not in settings.unused_queues
    }


def _warn_of_unread_queues(settings: Settings, services: Sequence[ServiceParts]) -> None:
    # Queues in the database can be read by this process alone: what it does not read piles up.
    read = {consumer.queue for service in services for consumer in service.consumers}
    for queue in used_topology(settings).queues:
        if queue.name not in read:
            log.warning(
                "queue_unread",
                queue=queue.name,
                hint="name it in ORDERKEEP_UNUSED_QUEUES, or its messages pile up",
            )


def _readiness_checks(database: Database) -> list[ReadinessCheck]:
    async def answers() -> None:
        async def work(transaction: ReadTransaction) -> None:
            await transaction.now()

        await database.read(work)

    async def schema_is_current() -> None:
        version = await database.read(find_schema_version)
        if version != newest_schema_version():
            message = f"the schema is at version {version}, not at {newest_schema_version()}"
            raise CheckFailedError(message)

    return [
        ReadinessCheck(name="database", is_required=True, run=answers),
        ReadinessCheck(name="schema", is_required=True, run=schema_is_current),
    ]
