"""Builds the order service."""

from collections.abc import Sequence

import httpx

from orderkeep.database.transaction import Database
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.signal import Signal
from orderkeep.metrics import Metrics
from orderkeep.orders.case_routes import ROUTE_HANDLERS as CASE_ROUTES
from orderkeep.orders.catalogue_desk import CatalogueDesk
from orderkeep.orders.consumers.order_outbox import order_outbox_consumer
from orderkeep.orders.consumers.order_timeout_dlq import order_timeout_dlq_consumer
from orderkeep.orders.consumers.order_timeout_queue import order_timeout_consumer
from orderkeep.orders.consumers.payment_opened_notify import payment_opened_consumer
from orderkeep.orders.consumers.payment_refund_result import payment_refund_result_consumer
from orderkeep.orders.consumers.payment_success_notify import payment_success_consumer
from orderkeep.orders.operator_routes import ROUTE_HANDLERS as OPERATOR_ROUTES
from orderkeep.orders.payment import LatePaymentPolicy
from orderkeep.orders.routes import ROUTE_HANDLERS as BUYER_ROUTES
from orderkeep.orders.sweep import Sweep
from orderkeep.orders.webhooks import WebhookPolicy, WebhookWorker
from orderkeep.settings import Settings
from orderkeep.wiring import chance
from orderkeep.wiring.order_desks import build_case_desk, build_order_desk
from orderkeep.wiring.parts import AnyConsumer, Relay, Run, ServiceParts


def build_order_parts(
    settings: Settings,
    *,
    database: Database,
    outbox: Outbox,
    metrics: Metrics,
    token_secret: str,
    client: httpx.AsyncClient,
    relay: Relay,
) -> ServiceParts:
    """Return the order service.

    Args:
        token_secret: Signs one-time order tokens.
        client: Sends webhooks.
        relay: Wakes the webhook worker of another process.
    """
    desk = build_order_desk(settings, database=database, outbox=outbox, token_secret=token_secret)
    recorded = Signal()
    relay("webhooks", recorded)
    return ServiceParts(
        outbox=outbox,
        consumers=_consumers(settings, outbox=outbox, metrics=metrics, recorded=recorded),
        serving_loops={"intake": desk.intake.run},
        working_loops={
            "sweep": _sweep(settings, database=database, outbox=outbox, metrics=metrics).run,
            **_webhooks(settings, database=database, client=client, recorded=recorded),
        },
        route_handlers=[*BUYER_ROUTES, *OPERATOR_ROUTES, *CASE_ROUTES],
        dependencies={
            "order_desk": desk,
            "catalogue_desk": CatalogueDesk(database=database),
            "case_desk": build_case_desk(database=database, outbox=outbox),
        },
    )


def _consumers(
    settings: Settings, *, outbox: Outbox, metrics: Metrics, recorded: Signal
) -> Sequence[AnyConsumer]:
    return [
        order_timeout_consumer(outbox=outbox, observe_lag_s=metrics.observe_close_lag_s),
        payment_success_consumer(
            outbox=outbox,
            policy=LatePaymentPolicy(settings.late_payment_policy),
            unknown_order_retry_for_s=settings.unknown_order_retry_for_s,
            draw_refund_no=chance.draw_refund_no,
        ),
        order_timeout_dlq_consumer(),
        order_outbox_consumer(
            receivers=settings.webhook_urls,
            recorded=recorded,
            count_event=metrics.count_order_event,
        ),
        payment_refund_result_consumer(),
        payment_opened_consumer(outbox=outbox, extension_s=settings.payment_extension_s),
    ]


def _sweep(settings: Settings, *, database: Database, outbox: Outbox, metrics: Metrics) -> Sweep:
    return Sweep(
        database=database,
        outbox=outbox,
        interval_s=settings.sweep_interval_s,
        grace_s=settings.sweep_grace_s,
        observe_closed=metrics.count_swept,
        observe_lag_s=metrics.observe_close_lag_s,
    )


def _webhooks(
    settings: Settings, *, database: Database, client: httpx.AsyncClient, recorded: Signal
) -> dict[str, Run]:
    if not settings.webhook_urls:
        return {}
    worker = WebhookWorker(
        database=database,
        client=client,
        policy=WebhookPolicy(
            secrets=tuple(secret.get_secret_value() for secret in settings.webhook_secrets),
            retry_base_s=settings.retry_base_s,
            retry_max_s=settings.retry_max_s,
            retry_for_s=settings.webhook_retry_for_s,
        ),
        recorded=recorded,
        draw_jitter=chance.draw_jitter,
    )
    return {"webhooks": worker.run}
