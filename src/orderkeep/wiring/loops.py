"""The loops that carry a service's messages: its dispatcher, consumers, retention, reconciliation.

Any of them may run in any number of processes at once.
"""

from collections.abc import Mapping

from orderkeep.contracts import order_timeout_queue, payment_success_notify
from orderkeep.database.transaction import Database
from orderkeep.database.turns import giving_way, going_first
from orderkeep.messaging.delivery import DeliveryPolicy, Subscription
from orderkeep.messaging.dispatcher import Dispatcher
from orderkeep.messaging.outbox_settling import DispatchPolicy
from orderkeep.messaging.reconciliation import Reconciliation
from orderkeep.messaging.retention import Retention, RetentionPolicy
from orderkeep.messaging.settling import RetryPolicy
from orderkeep.metrics import Metrics
from orderkeep.settings import Settings
from orderkeep.wiring import chance
from orderkeep.wiring.parts import Run, ServiceParts
from orderkeep.wiring.storage import Brokers, receivers_of, used_topology

# What decides how an order ends: its deadline has come, its money has come. The messages of the
# other queues tell somebody of what has been decided, and give way to requests and to these.
_AWAITED_QUEUES = frozenset({order_timeout_queue.QUEUE, payment_success_notify.QUEUE})


def messaging_loops(
    settings: Settings,
    service: ServiceParts,
    *,
    database: Database,
    brokers: Brokers,
    metrics: Metrics,
) -> Mapping[str, Run]:
    """Return the loops of one service, by name."""
    return {
        **_sending_loops(settings, service, database=database, brokers=brokers, metrics=metrics),
        **_receiving_loops(settings, service, database=database, brokers=brokers, metrics=metrics),
        **_reconciling_loops(
            settings, service, database=database, brokers=brokers, metrics=metrics
        ),
    }


def _reconciling_loops(
    settings: Settings,
    service: ServiceParts,
    *,
    database: Database,
    brokers: Brokers,
    metrics: Metrics,
) -> dict[str, Run]:
    if settings.has_database_queues:
        # What a queue in the database confirms is a row beside the outbox: it cannot be lost alone.
        return {}
    reconciliation = Reconciliation(
        service.outbox,
        receivers=receivers_of(settings),
        database=database,
        broker=brokers.consuming,
        topology=used_topology(settings),
        note_missing=metrics.note_missing,
    )
    name = service.outbox.tables.service
    return {f"{name}-reconciliation": giving_way(reconciliation.run)}


def _sending_loops(
    settings: Settings,
    service: ServiceParts,
    *,
    database: Database,
    brokers: Brokers,
    metrics: Metrics,
) -> dict[str, Run]:
    name = service.outbox.tables.service
    dispatcher = Dispatcher(
        service.outbox,
        database=database,
        broker=brokers.publishing[name],
        topology=used_topology(settings),
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
    return {
        f"{name}-dispatcher": giving_way(dispatcher.run),
        f"{name}-retention": giving_way(retention.run),
    }


def _receiving_loops(
    settings: Settings,
    service: ServiceParts,
    *,
    database: Database,
    brokers: Brokers,
    metrics: Metrics,
) -> dict[str, Run]:
    policy = DeliveryPolicy(
        prefetch=settings.prefetch,
        retry=RetryPolicy(
            tries_max=settings.max_deliveries,
            base_s=settings.retry_base_s,
            max_s=settings.retry_max_s,
        ),
    )
    loops: dict[str, Run] = {}
    for consumer in service.consumers:
        if consumer.queue in settings.unused_queues:
            continue
        subscription = Subscription(
            consumer,
            database=database,
            broker=brokers.consuming,
            topology=used_topology(settings),
            outbox=service.outbox,
            draw_jitter=chance.draw_jitter,
            policy=policy,
            count_outcome=metrics.count_messages,
            aggregate_name="order_no",
        )
        is_awaited = consumer.queue in _AWAITED_QUEUES
        in_turn = going_first if is_awaited else giving_way
        loops[consumer.queue] = in_turn(subscription.run)
    return loops
