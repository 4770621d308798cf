"""Builds the payment service."""

from orderkeep.database.transaction import Database
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.signal import Signal
from orderkeep.payments.carry_out_refunds import RefundRetry, RefundWorker
from orderkeep.payments.channels.known_channels import known_channels
from orderkeep.payments.consumers.payment_order_events import payment_order_events_consumer
from orderkeep.payments.consumers.payment_refund_request import payment_refund_request_consumer
from orderkeep.payments.desk import PaymentDesk
from orderkeep.payments.routes import ROUTE_HANDLERS
from orderkeep.settings import Settings
from orderkeep.wiring import chance
from orderkeep.wiring.parts import Relay, ServiceParts


def build_payment_parts(
    settings: Settings, *, database: Database, outbox: Outbox, relay: Relay
) -> ServiceParts:
    """Return the payment service.

    Args:
        relay: Wakes the refund worker, and requests that wait for an order, of another process.
    """
    channels = known_channels(
        sandbox_is_on=settings.is_sandbox_on,
        secrets_by_channel={
            name: [secret.get_secret_value() for secret in secrets]
            for name, secrets in settings.secrets_by_channel.items()
        },
    )
    order_heard = Signal()
    refund_requested = Signal()
    relay("orders heard of", order_heard)
    relay("refunds", refund_requested)
    worker = RefundWorker(
        database,
        outbox=outbox,
        channels=channels,
        retry=RefundRetry(
            for_s=settings.refund_retry_for_s,
            base_s=settings.retry_base_s,
            max_s=settings.retry_max_s,
        ),
        draw_jitter=chance.draw_jitter,
        requested=refund_requested,
    )
    desk = PaymentDesk(
        database,
        outbox=outbox,
        channels=channels,
        order_heard=order_heard,
        new_payment_no=chance.draw_payment_no,
    )
    return ServiceParts(
        outbox=outbox,
        consumers=[
            payment_order_events_consumer(order_heard=order_heard),
            payment_refund_request_consumer(outbox=outbox, refund_requested=refund_requested),
        ],
        serving_loops={},
        working_loops={"refunds": worker.run},
        route_handlers=ROUTE_HANDLERS,
        dependencies={"payment_desk": desk},
    )
