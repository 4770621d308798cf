"""Places orders through the use case itself, all due at a given moment: no HTTP, no desk."""

from bench.stage import SKU_COUNT
from orderkeep.database.transaction import Database, Transaction
from orderkeep.instant import MICROSECONDS_PER_SECOND, Instant
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.idempotency_key import KeyKind
from orderkeep.orders.place_orders import place_orders
from orderkeep.orders.placing import PlacedOrder, PlaceOrder, PlacingRules
from orderkeep.orders.pricing import WantedLine
from orderkeep.orders.store.requests import RequestKey
from orderkeep.wiring import chance


async def place_due(
    database: Database, outbox: Outbox, *, first_number: int, count: int, due_at: Instant
) -> list[str]:
    """Place orders of two lines, all due at one moment, in one commit; return their numbers."""

    async def write(transaction: Transaction) -> list[str]:
        now = await transaction.now()
        answers = await place_orders(
            transaction,
            [_request(number) for number in range(first_number, first_number + count)],
            outbox=outbox,
            rules=PlacingRules(
                payment_timeout_s=(due_at - now) / MICROSECONDS_PER_SECOND, token_ttl_s=300
            ),
            draw_number=chance.draw_order_number,
        )
        placed = [answer for answer in answers if isinstance(answer, PlacedOrder)]
        assert len(placed) == count
        return [answer.order.order_no for answer in placed]

    return await database.transact(write)


def _request(number: int) -> PlaceOrder:
    return PlaceOrder(
        key=RequestKey(f"buyer-{number % 64}", KeyKind.HEADER, f"bench-{number}"),
        body_hash=f"{number:064x}",
        token_issued_at=None,
        wanted=(
            WantedLine(sku_id=f"MUG-{number % SKU_COUNT:04d}", quantity=1),
            WantedLine(sku_id=f"MUG-{(7 * number + 3) % SKU_COUNT:04d}", quantity=2),
        ),
        receiver=None,
        buyer_remark=None,
        expected_pay_amount_minor=None,
    )
