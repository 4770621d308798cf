"""Puts together what a process serves and works on; nothing here runs yet."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

import httpx
from litestar.types import ControllerRouterHandler

from orderkeep.database.transaction import Database
from orderkeep.messaging.outbox import Outbox
from orderkeep.metrics import Metrics
from orderkeep.settings import Settings
from orderkeep.web.admin_routes import ROUTE_HANDLERS as OPERATION_ROUTES
from orderkeep.web.app import WebApp, WebParts, build_app
from orderkeep.web.audit import AuditDesk
from orderkeep.web.audit_routes import ROUTE_HANDLERS as AUDIT_ROUTES
from orderkeep.web.auth import TokenAuthenticator
from orderkeep.web.health import Readiness
from orderkeep.web.health_bodies import Health
from orderkeep.web.operations import OperationsDesk
from orderkeep.web.queues import ROUTE_HANDLERS as QUEUE_ROUTES
from orderkeep.web.queues import InboundQueue
from orderkeep.web.replay_routes import ROUTE_HANDLERS as REPLAY_ROUTES
from orderkeep.wiring import chance
from orderkeep.wiring.cart_parts import build_cart_parts
from orderkeep.wiring.keys import token_key
from orderkeep.wiring.loops import messaging_loops
from orderkeep.wiring.operator_desks import build_messages, build_replay_desk, build_status_reader
from orderkeep.wiring.order_parts import build_order_parts
from orderkeep.wiring.parts import Relay, Role, Run, ServiceParts
from orderkeep.wiring.payment_parts import build_payment_parts
from orderkeep.wiring.readiness import readiness_checks
from orderkeep.wiring.storage import (
    SERVICE_OF_SETTING,
    Brokers,
    build_outboxes,
    open_brokers,
    open_database,
    relay_of,
)

# Nothing that is never started signs or verifies anything, and no secret is made for it.
_NO_SECRET = "0" * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """Everything of one process, built and not yet running.

    Attributes:
        loops: What runs in the background, by name.
        read_queues: The queues whose messages the services of this process read.
    """

    app: WebApp
    readiness: Readiness
    loops: Mapping[str, Run]
    read_queues: frozenset[str]


def build_shop(
    settings: Settings,
    *,
    roles: Collection[Role],
    database: Database,
    brokers: Brokers,
    jwt_secret: str,
    client: httpx.AsyncClient,
    relay: Relay,
) -> Shop:
    """Return what a process with the roles does of every service that the settings name.

    Args:
        settings: What to build.
        roles: Without `SERVE` it answers nothing but health and metrics; without `WORK` it moves
            no message.
        database: Where everything is kept.
        brokers: Where messages travel.
        jwt_secret: Signs and verifies tokens.
        client: Calls others over HTTP; follows no redirects.
        relay: Wakes loops in other processes.
    """
    metrics = Metrics()
    outboxes = build_outboxes(settings)
    for outbox in outboxes.values():
        relay(outbox.tables.outbox.name, outbox.appended)
    services = _services(
        settings,
        database=database,
        outboxes=outboxes,
        metrics=metrics,
        jwt_secret=jwt_secret,
        client=client,
        relay=relay,
    )
    readiness = Readiness(
        readiness_checks(
            settings, database=database, brokers=brokers, outboxes=list(outboxes.values())
        )
    )
    app = build_app(
        _web_parts(
            settings,
            services if Role.SERVE in roles else (),
            database=database,
            outboxes=outboxes,
            metrics=metrics,
            readiness=readiness,
            jwt_secret=jwt_secret,
        )
    )
    metrics.watch_in_hand(lambda: app.requests_in_hand_count)
    return Shop(
        app=app,
        readiness=readiness,
        loops=_loops(
            settings, services, roles=roles, database=database, brokers=brokers, metrics=metrics
        ),
        read_queues=frozenset(
            consumer.queue for service in services for consumer in service.consumers
        ),
    )


@asynccontextmanager
async def unstarted_shop(settings: Settings, *, roles: Collection[Role]) -> AsyncIterator[Shop]:
    """Build a shop to read something of it: no file is opened, no request is sent."""
    database = open_database(settings)
    brokers = open_brokers(settings, database)
    try:
        async with httpx.AsyncClient() as client:
            yield build_shop(
                settings,
                roles=roles,
                database=database,
                brokers=brokers,
                jwt_secret=_NO_SECRET,
                client=client,
                relay=relay_of(None),
            )
    finally:
        await brokers.close()
        await database.close()


def _web_parts(
    settings: Settings,
    services: Sequence[ServiceParts],
    *,
    database: Database,
    outboxes: Mapping[str, Outbox],
    metrics: Metrics,
    readiness: Readiness,
    jwt_secret: str,
) -> WebParts:
    """Return what the application is made of; without services it answers nothing but health."""
    status_reader = build_status_reader(settings, outboxes)

    messages = build_messages(settings, outboxes, database=database)

    async def refresh_metrics() -> None:
        # First what can be told without the database as well.
        found = await readiness.ask()
        metrics.show_checks(
            {name: check.status is Health.OK for name, check in found.checks.items()}
        )
        metrics.show(await database.read(status_reader.read_gauges))

    async def read_status() -> object:
        return await database.read(status_reader.read)

    return WebParts(
        route_handlers=_route_handlers(services) if services else [],
        dependencies={
            "operations_desk": OperationsDesk(messages),
            "replay_desk": build_replay_desk(messages),
            "audit_desk": AuditDesk(database),
            "readiness": readiness,
            "read_status": read_status,
            "inbound_queues": _inbound_queues(settings, services, database=database),
            **{name: value for service in services for name, value in service.dependencies.items()},
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
        count_answer=metrics.count_answer,
    )


def _loops(
    settings: Settings,
    services: Sequence[ServiceParts],
    *,
    roles: Collection[Role],
    database: Database,
    brokers: Brokers,
    metrics: Metrics,
) -> dict[str, Run]:
    loops: dict[str, Run] = {}
    for service in services:
        if Role.SERVE in roles:
            loops.update(service.serving_loops)
        if Role.WORK in roles:
            loops.update(service.working_loops)
            loops.update(
                messaging_loops(
                    settings, service, database=database, brokers=brokers, metrics=metrics
                )
            )
    return loops


def _services(
    settings: Settings,
    *,
    database: Database,
    outboxes: Mapping[str, Outbox],
    metrics: Metrics,
    jwt_secret: str,
    client: httpx.AsyncClient,
    relay: Relay,
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
                relay=relay,
            )
        )
    if "carts" in wanted:
        services.append(build_cart_parts(database=database, outbox=outboxes["carts"]))
    if "payments" in wanted:
        services.append(
            build_payment_parts(
                settings, database=database, outbox=outboxes["payments"], relay=relay
            )
        )
    return services


def _route_handlers(services: Sequence[ServiceParts]) -> list[ControllerRouterHandler]:
    handlers: list[ControllerRouterHandler] = [
        *OPERATION_ROUTES,
        *REPLAY_ROUTES,
        *AUDIT_ROUTES,
        *QUEUE_ROUTES,
    ]
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
