"""The order service's edge for requests: opens one transaction around each use case.

Invariant: an answer leaves after its commit. What was refused left nothing behind.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeAlias

import structlog
from msgspec import Struct

from orderkeep.database.transaction import Database, ReadTransaction, Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.outbox_rows import OutboxRows
from orderkeep.orders.cancel_order import CancelOrder, cancel_orders
from orderkeep.orders.idempotency_key import KeyKind
from orderkeep.orders.intake import Intake
from orderkeep.orders.order import Order, Receiver
from orderkeep.orders.order_token import find_issued_at, issue_token
from orderkeep.orders.place_orders import place_orders, place_orders_on_locked_stock
from orderkeep.orders.placing import Answer, PlacedOrder, PlaceOrder, PlacingRules
from orderkeep.orders.pricing import WantedLine
from orderkeep.orders.store.orders import find_order
from orderkeep.orders.store.reports import (
    OrderFilter,
    TimedOutOrder,
    list_orders,
    list_timed_out,
)
from orderkeep.orders.store.requests import RequestKey
from orderkeep.orders.store.stock import SkuChangedError, find_held_skus
from orderkeep.orders.timeline import Item, for_buyer, read_timeline
from orderkeep.refusal import Refusal

log = structlog.get_logger()

_Place: TypeAlias = Callable[..., Awaitable[Sequence[Answer]]]


class OrderRequest(Struct, frozen=True, kw_only=True):
    """What a buyer asks for.

    Attributes:
        body_hash: Equal for two requests exactly if their decoded bodies are, token aside.
    """

    user_id: str
    key_kind: KeyKind
    key: str
    body_hash: str
    wanted: tuple[WantedLine, ...]
    receiver: Receiver | None
    buyer_remark: str | None
    expected_pay_amount_minor: int | None


class OrderDesk:
    """Where orders are placed, read and cancelled."""

    def __init__(
        self,
        *,
        database: Database,
        outbox: Outbox,
        rules: PlacingRules,
        token_secret: bytes,
        draw_nonce: Callable[[], str],
        draw_number: Callable[[], int],
        batch_size_max: int,
        waiting_count_max: int,
        batches_under_way_max: int,
    ) -> None:
        """Serve orders kept in the database.

        Args:
            rules: The payment deadline and the life of a token.
            token_secret: Signs one-time tokens; every process of the service shares it.
            draw_nonce: Draws letters and digits that make a token unlike any other.
            draw_number: Draws 0..10^12-1 for an order's number.
            batch_size_max: Orders decided in one commit.
            waiting_count_max: Requests that may wait for their batch.
            batches_under_way_max: Batches that may be under way at once.
        """
        self._database = database
        self._outbox = outbox
        self._outbox_rows = OutboxRows(outbox)
        self._rules = rules
        self._token_secret = token_secret
        self._draw_nonce = draw_nonce
        self._draw_number = draw_number
        self.intake = Intake(
            self._place_batch,
            find_held=self._find_held,
            batch_size_max=batch_size_max,
            waiting_count_max=waiting_count_max,
            batches_under_way_max=batches_under_way_max,
        )

    @property
    def token_ttl_s(self) -> float:
        """How long an unused token lives."""
        return self._rules.token_ttl_s

    async def issue_token(self, user_id: str) -> str:
        """Return a one-time token for the user, dated by the database's clock."""
        now = await self._database.read(_now)
        return issue_token(
            user_id=user_id, issued_at=now, nonce=self._draw_nonce(), secret=self._token_secret
        )

    async def place(self, request: OrderRequest) -> PlacedOrder:
        """Place the order, or find the one that the same request made before.

        Raises:
            Refusal: business said no; the key is free again.
        """
        answer = await self.intake.place(
            PlaceOrder(
                key=RequestKey(request.user_id, request.key_kind, request.key),
                body_hash=request.body_hash,
                token_issued_at=self._issued_at(request),
                wanted=request.wanted,
                receiver=request.receiver,
                buyer_remark=request.buyer_remark,
                expected_pay_amount_minor=request.expected_pay_amount_minor,
            )
        )
        if isinstance(answer, Refusal):
            raise answer
        return answer

    async def get(self, order_no: str, *, user_id: str | None) -> Order:
        """Return the order; of this user only, unless user_id is None.

        Raises:
            Refusal: `not_found`, also for another user's order.
        """

        async def read(transaction: ReadTransaction) -> Order | None:
            return await find_order(transaction, order_no)

        return _owned(await self._database.read(read), order_no=order_no, user_id=user_id)

    async def list(self, wanted: OrderFilter, *, limit_count: int) -> Sequence[Order]:
        """Return orders that fit the filter, newest first."""

        async def read(transaction: ReadTransaction) -> Sequence[Order]:
            return await list_orders(transaction, wanted, limit_count=limit_count)

        return await self._database.read(read)

    async def timeline(self, order_no: str, *, user_id: str | None) -> Sequence[Item]:
        """Return what happened to the order, the earliest first.

        Args:
            user_id: Whose order it must be, who is told what concerns a buyer; None is an operator,
                who is told all.

        Raises:
            Refusal: `not_found`, also for another user's order.
        """

        async def read(transaction: ReadTransaction) -> Sequence[Item]:
            _owned(await find_order(transaction, order_no), order_no=order_no, user_id=user_id)
            items = await read_timeline(transaction, order_no, outbox_rows=self._outbox_rows)
            return items if user_id is None else for_buyer(items)

        return await self._database.read(read)

    async def cancel(self, cancellation: CancelOrder) -> Order:
        """Cancel the order, or find it cancelled already.

        Raises:
            Refusal: `not_found`, `order_not_pending`, `version_mismatch`.
        """

        async def write(transaction: Transaction) -> Order | Refusal:
            (answer,) = await cancel_orders(transaction, [cancellation], outbox=self._outbox)
            return answer

        answer = await self._database.transact(write)
        if isinstance(answer, Refusal):
            raise answer
        return answer

    async def list_timed_out(
        self, *, before: str | None, limit_count: int
    ) -> Sequence[TimedOutOrder]:
        """Return the abandoned-orders report, newest first."""

        async def read(transaction: ReadTransaction) -> Sequence[TimedOutOrder]:
            return await list_timed_out(transaction, before=before, limit_count=limit_count)

        return await self._database.read(read)

    async def _place_batch(self, requests: Sequence[PlaceOrder]) -> Sequence[Answer]:
        def work(place: _Place) -> Callable[[Transaction], Awaitable[Sequence[Answer]]]:
            return lambda transaction: place(
                transaction,
                requests,
                outbox=self._outbox,
                rules=self._rules,
                draw_number=self._draw_number,
            )

        try:
            return await self._database.transact(work(place_orders))
        except SkuChangedError as changed:
            log.info("sku_changed_meanwhile", sku_id=str(changed), request_count=len(requests))
            return await self._database.transact(work(place_orders_on_locked_stock))

    async def _find_held(self, sku_ids: Collection[str]) -> Collection[str]:
        async def find(transaction: Transaction) -> Collection[str]:
            return await find_held_skus(transaction, sku_ids)

        return await self._database.transact(find)

    def _issued_at(self, request: OrderRequest) -> Instant | None:
        if request.key_kind is not KeyKind.TOKEN:
            return None
        return find_issued_at(request.key, user_id=request.user_id, secret=self._token_secret)


async def _now(transaction: ReadTransaction) -> Instant:
    return await transaction.now()


def _owned(order: Order | None, *, order_no: str, user_id: str | None) -> Order:
    # Another user's order is answered like one that does not exist: nobody learns which do.
    if order is None or user_id not in {None, order.user_id}:
        raise Refusal("not_found", f"There is no order {order_no}.")
    return order
