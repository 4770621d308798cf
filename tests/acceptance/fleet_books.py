"""What PostgreSQL says of a fleet when one looks from outside; see `books.py`.

Every question opens a connection of its own, so that one may be asked across a restart of the
server, and from any thread.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg

from tests.acceptance.books import CONTRADICTIONS, DEAD_LETTERS, OPEN_WORK

_CONNECT_S_MAX = 5.0
_STATEMENT_S_MAX = 120.0

# What a server that starts, stops or is not there answers with.
NO_ANSWER = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)

# What one looks at while waiting for rest: `OPEN_WORK`, and what lies in a queue at the broker.
UNRECEIVED = "an event that no consumer has received"

_TRIED = "a message that is counted as tried and is not there"

_SERVICES = ("order", "cart", "payment")

# Money that came must have paid its order, or have gone back in full, and never both.
_MONEY_ASTRAY = """
    select payment.payment_no from payments as payment
    left join orders on orders.order_no = payment.order_no
        and orders.status = 'paid' and orders.trade_no = payment.trade_no
    left join order_refunds as refund on refund.trade_no = payment.trade_no
        and refund.pay_channel = payment.pay_channel and refund.status = 'succeeded'
        and refund.amount_minor = payment.amount_minor
    where payment.status = 'succeeded' and (orders.order_no is null) = (refund.refund_no is null)"""

# Sequences rise in the order of commits, and rows are numbered as they are written: together they
# must tell one story of each order.
_OUT_OF_ORDER = """
    select later.aggregate_id || ' ' || later.sequence from order_outbox as later
    join order_outbox as earlier on earlier.aggregate_id = later.aggregate_id
        and earlier.route = later.route and earlier.sequence < later.sequence
        and earlier.id > later.id
    where later.ordered and earlier.ordered
        and later.retry_key is null and earlier.retry_key is null"""


# Held by the broker until the deadline. The sweep does what a lost one would have done, so it is
# not sent again.
_CHECK = "order.timeout.queue "


class FleetBooks:
    """The books of one database.

    Attributes:
        wiped_at: When a broker that has lost all it held was itself again, by the database's clock
            in microseconds; 0 where none has. What was sent before may be missing where nobody
            sends it again: timeout checks, and what goes to a program that is none of ours.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.wiped_at = 0

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return what a query yields; its parameters are `$1` and so on."""

        async def ask() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(self._url, timeout=_CONNECT_S_MAX)
            try:
                found = await connection.fetch(statement, *parameters, timeout=_STATEMENT_S_MAX)
            finally:
                await connection.close(timeout=_CONNECT_S_MAX)
            return [tuple(row) for row in found]

        # A thread of its own, so that a test may call this while its event loop runs.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, ask()).result()

    def answers(self) -> bool:
        """Whether the server lets us in and answers."""
        try:
            self.rows("select 1")
        except NO_ANSWER:
            return False
        return True

    def under_way(self) -> dict[str, int]:
        """Return what is still to be done, by kind; empty when the fleet has come to rest."""
        counted = " union all ".join(
            f"select '{what}', ({statement})" for what, statement in OPEN_WORK.items()
        )
        found = {what: count for what, count in self.rows(counted) if count}
        # Costly, and of no use before the rest has come to rest.
        if not found and (unreceived := self._unreceived()):
            return {UNRECEIVED: len(unreceived)}
        return found

    def _unreceived(self) -> list[str]:
        found = [str(row[0]) for row in self.rows(CONTRADICTIONS[UNRECEIVED])]
        checks = {one.removeprefix(_CHECK) for one in found if one.startswith(_CHECK)}
        if not (self.wiped_at and checks):
            return found
        statement = """
            select message_id from order_outbox where message_id = any($1) and sent_at <= $2"""
        wiped = {f"{_CHECK}{row[0]}" for row in self.rows(statement, list(checks), self.wiped_at)}
        return [one for one in found if one not in wiped]

    def _tried_in_vain(self) -> list[str]:
        """Return what is counted as tried and was not lost with the broker that had it in hand."""
        counted = " union all ".join(
            f"select consumer || ' ' || message_id from {table} where last_at > $1"  # noqa: S608
            for table in (f"{service}_delivery_attempts" for service in _SERVICES)
        )
        return [str(row[0]) for row in self.rows(counted, self.wiped_at)]

    def contradictions(self) -> dict[str, list[str]]:
        """Return what was lost, doubled, or told differently in two places, in a fleet at rest."""
        statements: Mapping[str, str] = {
            **CONTRADICTIONS,
            "money that neither paid nor went back": _MONEY_ASTRAY,
            "an event written before one of a lower sequence": _OUT_OF_ORDER,
        }
        found = {
            what: [str(row[0]) for row in self.rows(statement)]
            for what, statement in statements.items()
            if what != UNRECEIVED
        }
        if self.wiped_at:
            found[_TRIED] = self._tried_in_vain()
        found[UNRECEIVED] = self._unreceived()
        return {what: subjects for what, subjects in found.items() if subjects}

    def dead_letters(self) -> list[tuple[str, str]]:
        """Return queue and reason of every dead letter."""
        return [(row[0], row[1]) for row in self.rows(DEAD_LETTERS)]

    def statuses(self) -> dict[str, str]:
        """Return the status of every order, by its number."""
        return dict(self.rows("select order_no, status from orders"))

    def now(self) -> int:
        """Return the database's clock, in microseconds since 1970."""
        statement = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint"
        return int(self.rows(statement)[0][0])

    def contents(self) -> dict[str, tuple[dict[str, int], int]]:
        """Return of every order what is in it, by SKU, and what it costs in minor units."""
        statement = """
            select orders.order_no, orders.pay_amount_minor, line.sku_id, line.quantity
            from orders left join order_lines as line on line.order_no = orders.order_no"""
        found: dict[str, tuple[dict[str, int], int]] = {}
        for order_no, amount_minor, sku_id, quantity in self.rows(statement):
            items, _ = found.setdefault(order_no, ({}, amount_minor))
            if sku_id is not None:
                items[sku_id] = items.get(sku_id, 0) + quantity
        return found

    def orders_by_key(self) -> dict[tuple[str, str], str]:
        """Return the order that each user's key stands for."""
        statement = "select user_id, key, order_no from order_requests"
        return {(user_id, key): order_no for user_id, key, order_no in self.rows(statement)}

    def order_event_ids(self, *, where: str = "true") -> set[str]:
        """Return the ids of the events of `order.events` that the outbox has.

        Args:
            where: A condition on the rows of `order_outbox`.
        """
        statement = (
            "select distinct message_id from order_outbox"  # noqa: S608 (a test's own words)
            f" where route = 'order.events' and ({where})"
        )
        return {row[0] for row in self.rows(statement)}

    def ids_that_may_go(self, outbox: str) -> list[int]:
        """Return the pending rows of an outbox that wait for nothing but a dispatcher."""
        statement = (
            f"select id from {outbox} where state = 'pending'"  # noqa: S608 (a table's own name)
            " and not_before <= extract(epoch from clock_timestamp()) * 1000000"
        )
        return [row[0] for row in self.rows(statement)]

    def pending_count_among(self, outbox: str, ids: Sequence[int]) -> int:
        """Return how many of the rows are pending still."""
        statement = f"select count(*) from {outbox} where state = 'pending' and id = any($1)"  # noqa: S608
        return int(self.rows(statement, list(ids))[0][0])

    def rows_failed_count(self) -> int:
        """Return how many rows of the outboxes are parked."""
        counted = " + ".join(
            f"(select count(*) from {service}_outbox where state = 'failed')"  # noqa: S608
            for service in _SERVICES
        )
        return int(self.rows(f"select {counted}")[0][0])

    def swept_count(self) -> int:
        """Return how many orders the sweep closed, because no message had."""
        return int(self.rows("select count(*) from order_history where actor = 'sweep'")[0][0])

    def deadlocks_count(self) -> int:
        """Return how many deadlocks the server has counted in this database."""
        statement = "select deadlocks from pg_stat_database where datname = current_database()"
        return int(self.rows(statement)[0][0])
