"""Where operators look at payment cases, and resolve them.

Invariant: an answer leaves after its commit. What was refused left nothing behind.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orderkeep.database.transaction import Database, ReadTransaction, Transaction
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.case_resolution import CaseState, PaymentCase
from orderkeep.orders.refund import OrderRefund
from orderkeep.orders.resolve_cases import ResolveCase, resolve_cases
from orderkeep.orders.store.payment_cases import CaseFilter, find_cases, list_cases
from orderkeep.orders.store.payments import list_refunds_of_orders
from orderkeep.refusal import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseWithRefund:
    """A case, and the refund of its trade for its order, if one was asked for."""

    case: PaymentCase
    refund: OrderRefund | None


class CaseDesk:
    """Where payment cases are read and resolved."""

    def __init__(
        self, *, database: Database, outbox: Outbox, draw_refund_no: Callable[[], str]
    ) -> None:
        """Serve the cases kept in the database.

        Args:
            database: Where they are.
            outbox: Where what follows from them leaves.
            draw_refund_no: Draws a number that no refund has.
        """
        self._database = database
        self._outbox = outbox
        self._draw_refund_no = draw_refund_no

    async def list(
        self,
        *,
        state: CaseState | None,
        before: int | None,
        limit_count: int,
        order_no: str | None = None,
        trade_no: str | None = None,
    ) -> Sequence[CaseWithRefund]:
        """Return cases of which all this holds, newest first, from the one behind `before`.

        Args:
            state: None is any.
            before: The number of the last case of the page before; None is the first page.
            limit_count: How many at most.
            order_no: None is any.
            trade_no: None is any.
        """
        wanted = CaseFilter(state=state, order_no=order_no, trade_no=trade_no, before=before)

        async def read(transaction: ReadTransaction) -> Sequence[CaseWithRefund]:
            cases = await list_cases(transaction, wanted, limit_count=limit_count)
            return await _with_refunds(transaction, cases)

        return await self._database.read(read)

    async def get(self, case_id: int) -> CaseWithRefund:
        """Return the case.

        Raises:
            Refusal: `not_found`.
        """

        async def read(transaction: ReadTransaction) -> Sequence[CaseWithRefund]:
            cases = await find_cases(transaction, [case_id])
            return await _with_refunds(transaction, list(cases.values()))

        found = await self._database.read(read)
        if not found:
            raise unknown_case(case_id)
        return found[0]

    async def resolve(self, wish: ResolveCase) -> CaseWithRefund:
        """Resolve the case, once.

        Raises:
            Refusal: see `resolve_cases`.
        """

        async def write(transaction: Transaction) -> CaseWithRefund | Refusal:
            (answer,) = await resolve_cases(
                transaction, [wish], outbox=self._outbox, draw_refund_no=self._draw_refund_no
            )
            if isinstance(answer, Refusal):
                return answer
            (resolved,) = await _with_refunds(transaction, [answer])
            return resolved

        answer = await self._database.transact(write)
        if isinstance(answer, Refusal):
            raise answer
        return answer


def unknown_case(case_id: int | str) -> Refusal:
    """Return the refusal for a case that does not exist."""
    return Refusal("not_found", f"There is no payment case {case_id}.")


async def _with_refunds(
    transaction: ReadTransaction, cases: Sequence[PaymentCase]
) -> list[CaseWithRefund]:
    refunds = await list_refunds_of_orders(transaction, {case.order_no for case in cases})
    by_trade = {(refund.order_no, refund.identity): refund for refund in refunds}
    return [
        CaseWithRefund(case=case, refund=by_trade.get((case.order_no, case.identity)))
        for case in cases
    ]
