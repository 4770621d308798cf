"""Builds the cart service."""

from orderkeep.carts.consumers.cart_sync import cart_sync_consumer
from orderkeep.carts.desk import CartDesk
from orderkeep.carts.routes import ROUTE_HANDLERS
from orderkeep.database.transaction import Database
from orderkeep.messaging.outbox import Outbox
from orderkeep.wiring import chance
from orderkeep.wiring.parts import ServiceParts


def build_cart_parts(*, database: Database, outbox: Outbox) -> ServiceParts:
    """Return the cart service."""
    return ServiceParts(
        outbox=outbox,
        consumers=[cart_sync_consumer(new_cart_item_id=chance.new_uuid)],
        serving_loops={},
        working_loops={},
        route_handlers=ROUTE_HANDLERS,
        dependencies={"cart_desk": CartDesk(database, new_cart_item_id=chance.new_uuid)},
    )
