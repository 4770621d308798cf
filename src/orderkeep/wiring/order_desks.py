"""Builds the desks of the order service: all of it that a command needs, without the web."""

from orderkeep.database.transaction import Database
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.case_desk import CaseDesk
from orderkeep.orders.desk import OrderDesk
from orderkeep.orders.placing import PlacingRules
from orderkeep.settings import Settings
from orderkeep.wiring import chance

# One is worked on here while the other is worked on there: docs/decisions/0017.
_BATCHES_UNDER_WAY_MAX = 2


def build_order_desk(
    settings: Settings, *, database: Database, outbox: Outbox, token_secret: str
) -> OrderDesk:
    """Return the desk alone, as the command line needs it."""
    return OrderDesk(
        database=database,
        outbox=outbox,
        rules=PlacingRules(
            payment_timeout_s=settings.order_timeout_s, token_ttl_s=settings.token_ttl_s
        ),
        token_secret=token_secret.encode(),
        draw_nonce=chance.draw_nonce,
        draw_number=chance.draw_order_number,
        batch_size_max=settings.intake_batch_size,
        waiting_count_max=settings.intake_queue_size,
        # A file has one writer: a second batch would wait for it, and both would be smaller.
        batches_under_way_max=1 if settings.is_embedded else _BATCHES_UNDER_WAY_MAX,
    )


def build_case_desk(*, database: Database, outbox: Outbox) -> CaseDesk:
    """Return the desk for payment cases alone, as the command line needs it."""
    return CaseDesk(database=database, outbox=outbox, draw_refund_no=chance.draw_refund_no)
