"""`python -m bench.peers.celery_shop.relay`: publish what the outbox holds, a hundred at a time."""

import signal
import threading
from datetime import UTC, datetime

from sqlalchemy import select

from bench.peers.celery_shop.models import OutboxMessage, Session
from bench.peers.celery_shop.tasks import celery_app

_BATCH_SIZE = 100
_PAUSE_S = 1.0


def publish_some() -> int:
    """Publish up to a hundred messages, note that they are sent, and return how many."""
    with Session() as session, celery_app.producer_or_acquire() as producer:
        messages = session.scalars(
            select(OutboxMessage)
            .where(OutboxMessage.sent_at.is_(None))
            .order_by(OutboxMessage.id)
            .limit(_BATCH_SIZE)
            .with_for_update(skip_locked=True)
        ).all()
        for message in messages:
            celery_app.send_task(
                message.task, args=message.arguments, eta=message.due_at, producer=producer
            )
            message.sent_at = datetime.now(UTC)
        session.commit()
        return len(messages)


def main() -> None:
    """Publish until the process is told to end; a batch is finished first."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    while not stop.is_set():
        if publish_some() < _BATCH_SIZE:
            stop.wait(_PAUSE_S)


if __name__ == "__main__":
    main()
