"""The tasks of Celery, and how it is set up.

Source: Celery's pages on RabbitMQ ("Using Quorum Queues") and on configuration.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

from celery import Celery
from celery.signals import worker_ready
from sqlalchemy.dialects.postgresql import insert

from bench.peers.celery_shop import orders
from bench.peers.celery_shop.models import Order, Payment, Session
from bench.peers.celery_shop.settings import BROKER_URL, THREAD_COUNT

celery_app = Celery("shop", broker=BROKER_URL)
celery_app.conf.update(
    # Quorum queues, behind a topic exchange as native delayed delivery needs it.
    task_default_queue="shop",
    task_default_exchange="shop",
    task_default_exchange_type="topic",
    task_default_routing_key="shop",
    task_default_queue_type="quorum",
    broker_transport_options={"confirm_publish": True},
    # No thread waits for another's connection.
    broker_pool_limit=THREAD_COUNT,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
)


@celery_app.task(name=orders.CLOSE_TASK)
def close_order(order_id: int) -> None:
    """Close the order if nobody has paid it."""
    with Session() as session:
        orders.close_order(session, order_id)


@celery_app.task(name=orders.OPEN_PAYMENT_TASK)
def open_payment(order_id: int) -> None:
    """Tell the payment service of the order, once."""
    with Session() as session:
        order = session.get_one(Order, order_id)
        session.execute(
            insert(Payment)
            .values(
                order_id=order.id,
                amount_minor=order.total_amount_minor,
                opened_at=datetime.now(UTC),
            )
            .on_conflict_do_nothing()
        )
        session.commit()


@worker_ready.connect
def _note_ready(**_unused: object) -> None:
    if path := os.environ.get("PEER_READY_PATH"):
        Path(path).touch()
