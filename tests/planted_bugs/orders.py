"""Mistakes in how orders are placed, closed, and kept in stock."""

from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace

from orderkeep.database.transaction import ReadTransaction, StoreUnavailableError, Transaction
from orderkeep.instant import Instant, after
from orderkeep.orders import close_orders, drafted_changes, place_orders, placing
from orderkeep.orders.cancel_order import CancelOrder
from orderkeep.orders.desk import OrderDesk
from orderkeep.orders.order import CloseDecision, Order, Status, Transition, close_when_due
from orderkeep.orders.order import cancel as decide_cancel
from orderkeep.orders.pricing import Pricing, WantedLine, price
from orderkeep.orders.stock import MovementKind, Sku, StockCounts
from orderkeep.orders.store import stock
from orderkeep.orders.store.orders import find_due_order_nos
from orderkeep.orders.store.requests import Claim, RequestKey
from orderkeep.orders.store.stock import lock_skus
from orderkeep.orders.sweep import CLOSED_PER_TRANSACTION_MAX, Sweep
from orderkeep.refusal import Refusal
from tests.planted_bugs.plant import Plant
from tests.simulation.process import RUNNING, Process

_SEEN: ContextVar[Mapping[str, Sku] | None] = ContextVar("seen", default=None)


@contextmanager
def _read_modify_write() -> Iterator[None]:
    place_batch = OrderDesk._place_batch

    async def place(self: Any, requests: Any) -> Any:
        sku_ids = {line.sku_id for request in requests for line in request.wanted}
        token = _SEEN.set(await self._database.transact(partial(lock_skus, sku_ids=sku_ids)))
        try:
            return await place_batch(self, requests)
        finally:
            _SEEN.reset(token)

    async def seen(_transaction: Transaction, sku_ids: Collection[str]) -> dict[str, Sku]:
        return {id_: sku for id_, sku in (_SEEN.get() or {}).items() if id_ in sku_ids}

    async def look(
        transaction: Transaction, sku_ids: Collection[str]
    ) -> tuple[dict[str, Sku], Instant]:
        return await seen(transaction, sku_ids), await transaction.now()

    async def write(transaction: Any, changes: Mapping[str, StockCounts]) -> None:
        for sku_id, change in sorted(changes.items()):
            sku = (_SEEN.get() or {})[sku_id]
            transaction._connection.execute(
                "UPDATE stock SET available = ?, reserved = ?, sold = ? WHERE sku_id = ?",
                (
                    sku.available + change.available,
                    sku.reserved + change.reserved,
                    sku.sold + change.sold,
                    sku_id,
                ),
            )

    async def reserve(transaction: Transaction, taken: Mapping[str, int], **_seen: object) -> None:
        await stock.reserve_locked_stock(transaction, taken)

    with (
        patch.object(OrderDesk, "_place_batch", place),
        patch.object(place_orders, "look_at_skus", look),
        patch.object(place_orders, "lock_skus", seen),
        patch.object(place_orders, "reserve_seen_stock", reserve),
        patch.object(stock, "change_stock", write),
    ):
        yield


@contextmanager
def _no_state_guard() -> Iterator[None]:
    def close(order: Order, *, now: Instant) -> CloseDecision:
        decision = close_when_due(replace(order, status=Status.PENDING_PAYMENT), now=now)
        return replace(decision, before=order) if isinstance(decision, Transition) else decision

    with patch.object(close_orders, "close_when_due", close):
        yield


@contextmanager
def _stock_back_on_paid() -> Iterator[None]:
    movements = {
        Status.PENDING_PAYMENT: MovementKind.RELEASE,
        Status.CLOSED: MovementKind.REVIVE,
    }
    with patch.object(drafted_changes, "_MOVEMENTS", movements):
        yield


def _process() -> Process:
    process = RUNNING.get()
    assert process is not None, "the product runs in a process"
    return process


@contextmanager
def _application_clock() -> Iterator[None]:
    def close(order: Order, *, now: Instant) -> CloseDecision:
        del now
        return close_when_due(order, now=_process().chance.now())

    async def find_overdue(
        self: Any, transaction: ReadTransaction, *, passed_over_count: int
    ) -> Sequence[str]:
        return await find_due_order_nos(
            transaction,
            due_at=after(_process().chance.now(), seconds=-self._grace_s),
            passed_over_count=passed_over_count,
            limit_count=CLOSED_PER_TRANSACTION_MAX,
        )

    with (
        patch.object(close_orders, "close_when_due", close),
        patch.object(Sweep, "_find_overdue", find_overdue),
    ):
        yield


_MEMORIES: dict[Process, dict[RequestKey, Claim]] = {}


def _memory() -> dict[RequestKey, Claim]:
    return _MEMORIES.setdefault(_process(), {})


@contextmanager
def _key_in_memory() -> Iterator[None]:
    async def claim(
        transaction: Transaction, claims: Mapping[RequestKey, Claim]
    ) -> set[RequestKey]:
        memory = _memory()
        fresh = {key: claim for key, claim in claims.items() if key not in memory}
        transaction.after_commit(lambda: memory.update(fresh))
        return set(fresh)

    async def find(
        _transaction: Transaction, keys: Collection[RequestKey]
    ) -> dict[RequestKey, Claim]:
        return {key: _memory()[key] for key in keys}

    async def release(transaction: Transaction, keys: Collection[RequestKey]) -> None:
        memory = _memory()

        def forget() -> None:
            for key in keys:
                memory.pop(key, None)

        transaction.after_commit(forget)

    async def correct(transaction: Transaction, claims: Mapping[RequestKey, Claim]) -> None:
        memory = _memory()
        transaction.after_commit(lambda: memory.update(claims))

    with patch.multiple(
        place_orders,
        claim_keys=claim,
        find_claims=find,
        release_claims=release,
        correct_claims=correct,
    ):
        try:
            yield
        finally:
            _MEMORIES.clear()


@contextmanager
def _no_sweep() -> Iterator[None]:
    async def run_once(_self: Any, *, stop: Any = None) -> int:
        del stop
        return 0

    with patch.object(Sweep, "run_once", run_once):
        yield


@contextmanager
def _cancel_before_commit() -> Iterator[None]:
    cancel = OrderDesk.cancel

    async def answered_first(self: Any, wish: CancelOrder) -> Order:
        order = await self.get(wish.order_no, user_id=wish.user_id)
        cancelled = decide_cancel(order, by=wish.by, now=order.created_at)
        # The rest is done when there is time for it.
        _process().spawn(_if_it_can_be(cancel(self, wish)))
        return cancelled.after if isinstance(cancelled, Transition) else order

    with patch.object(OrderDesk, "cancel", answered_first):
        yield


async def _if_it_can_be(work: Coroutine[Any, Any, object]) -> None:
    with suppress(Refusal, StoreUnavailableError):
        await work


@contextmanager
def _one_of_each() -> Iterator[None]:
    def price_one(wanted: Sequence[WantedLine], **rest: Any) -> Pricing:
        return price([replace(line, quantity=1) for line in wanted], **rest)

    with patch.object(placing, "price", price_one):
        yield


PLANTS = (
    Plant(
        name="read-modify-write",
        says="stock is read, counted in memory, and written back",
        caught_by={"I6": "available, reserved, sold are", "I7": "are promised, and there are"},
        planted=_read_modify_write,
    ),
    Plant(
        name="no-state-guard",
        says="a deadline closes an order without a look at its state",
        caught_by={
            "I4": "went from (paid|cancelled) to closed",
            "I19": "(paid|cancelled) to closed by payment_timeout",
        },
        planted=_no_state_guard,
    ),
    Plant(
        name="stock-back-on-paid",
        says="the stock of an order that is paid is given back",
        caught_by={"I6": "available, reserved, sold are"},
        planted=_stock_back_on_paid,
    ),
    Plant(
        name="application-clock",
        says="the deadline is compared with the clock of the process",
        caught_by={"I11": "closed .* before its deadline"},
        planted=_application_clock,
    ),
    Plant(
        name="key-in-memory",
        says="idempotency keys are kept in the memory of the process",
        caught_by={"I3": "one key"},
        planted=_key_in_memory,
    ),
    Plant(
        name="no-sweep",
        says="orders are closed by a delayed message alone",
        caught_by={"I11": "unpaid .* after its deadline"},
        planted=_no_sweep,
    ),
    Plant(
        name="cancel-before-commit",
        says="a cancel is answered, and then it is committed",
        caught_by={"I1": "was told that it is cancelled"},
        planted=_cancel_before_commit,
    ),
    Plant(
        name="one-of-each",
        says="an order holds one piece of what its buyer wants more of",
        caught_by={"I2": "was asked for .* at .*, and"},
        planted=_one_of_each,
    ),
)
