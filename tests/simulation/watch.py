"""Looks at every commit: stock, states, deadlines, and what messages were settled by.

Triggers in the simulated database tell what each transaction writes; what was rolled back is
forgotten. From orders and lines alone this works out what the stock must be, and compares.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection

from orderkeep.instant import Instant
from orderkeep.messaging.settling import KILLS_ITS_CONSUMER, OUT_OF_TRIES
from tests.simulation.breach import Breach
from tests.simulation.dice import virtual_s

_SERVICES = ("order", "cart", "payment")

_ALLOWED = {
    ("pending_payment", "paid"),
    ("pending_payment", "cancelled"),
    ("pending_payment", "closed"),
    ("closed", "paid"),
}

# Why a message is set aside that somebody has read, or has tried to read in vain until no try was
# left. What is planted is seen at once to be unreadable.
_NOT_OF_POISON = (OUT_OF_TRIES, KILLS_ITS_CONSUMER)

# Enough to see what is wrong; a broken world breaks often.
_BREACHES_MAX = 20


def trigger_sql() -> list[str]:
    """Return the triggers; they call `noted`, which each connection defines."""

    def trigger(event: str, table: str, *values: str, when: str = "1") -> str:
        verb, _, _ = event.partition(" ")
        name = f"watch_{table}_{verb.lower()}_{hash_of(event + when)}"
        return (
            f"CREATE TRIGGER {name} AFTER {event} ON {table} WHEN {when}"
            f" BEGIN SELECT noted({', '.join(values)}); END"
        )

    triggers = [
        trigger("INSERT", "orders", "'order+'", "NEW.order_no", "NEW.status", "NEW.expires_at"),
        trigger("INSERT", "order_lines", "'line'", "NEW.order_no", "NEW.sku_id", "NEW.quantity"),
        trigger(
            "UPDATE",
            "orders",
            "'order'",
            "NEW.order_no",
            "OLD.status",
            "NEW.status",
            "NEW.version - OLD.version",
            "NEW.expires_at",
            when="OLD.status IS NOT NEW.status OR OLD.expires_at IS NOT NEW.expires_at",
        ),
        trigger("DELETE", "orders", "'gone'", "OLD.order_no"),
        trigger("UPDATE", "order_history", "'rewritten'", "OLD.order_no"),
        trigger("DELETE", "order_history", "'rewritten'", "OLD.order_no"),
        trigger(
            "UPDATE", "stock", "'stock'", "NEW.sku_id", "NEW.available", "NEW.reserved", "NEW.sold"
        ),
    ]
    for service in _SERVICES:
        triggers += [
            trigger(
                "UPDATE OF state",
                f"{service}_outbox",
                "'sent'",
                "NEW.message_id",
                "NEW.route",
                when="NEW.state = 'sent' AND OLD.state <> 'sent'",
            ),
            trigger(
                "INSERT",
                f"{service}_outbox",
                "'retry'",
                "NEW.route",
                "NEW.message_id",
                when="NEW.retry_key IS NOT NULL",
            ),
            trigger("INSERT", f"{service}_inbox", "'in'", "NEW.consumer", "NEW.message_id"),
            trigger("DELETE", f"{service}_inbox", "'out'", "OLD.consumer", "OLD.message_id"),
            *(
                trigger(
                    event,
                    f"{service}_dead_letters",
                    "'dead'",
                    "NEW.queue",
                    "NEW.message_id",
                    "NEW.body",
                    "NEW.reason",
                )
                for event in ("INSERT", "UPDATE OF reason")
            ),
        ]
    return triggers


def hash_of(text: str) -> int:
    """Return a number for the text that is the same in every process."""
    number = 0
    for letter in text:
        number = (number * 131 + ord(letter)) % 1_000_003
    return number


class Watch:
    """What must hold at every commit of one world, and what broke it."""

    def __init__(self, *, seed: int, stock: dict[str, int]) -> None:
        """Expect the initial stock, by SKU, and no orders."""
        self.seed = seed
        self.breaches: list[Breach] = []
        self.now: Callable[[], Instant] = lambda: Instant(0)
        # Ids of messages that the broker has put into a queue, or holds until their time.
        self.accepted: Collection[bytes] = ()
        # Bodies that nobody can read, put into queues by the nemesis.
        self.planted: Collection[bytes] = ()
        self.first_ends: dict[str, str] = {}
        self.commits_count = 0
        self.transitions: Counter[str] = Counter()
        self._initial = stock
        self._notes: list[tuple] = []
        self._lines: dict[str, list[tuple[str, int]]] = {}
        self._expires_at: dict[str, Instant] = {}
        self._counts = {sku_id: [total, 0, 0] for sku_id, total in stock.items()}
        self._reserved: Counter[str] = Counter()
        self._sold: Counter[str] = Counter()
        self._recorded: set[tuple[str, str]] = set()
        # By a next try or a dead letter.
        self._kept: set[tuple[str, str]] = set()
        self._taken: dict[str, Callable[..., None]] = {
            "order+": self._order_made,
            "line": self._line_made,
            "order": self._order_changed,
            "gone": self._order_gone,
            "rewritten": self._history_rewritten,
            "sent": self._event_sent,
            "in": self._message_settled,
            "retry": self._message_kept,
            "dead": self._message_set_aside,
            "out": self._record_withdrawn,
            "stock": self._stock_changed,
        }
        self._touched: set[str] = set()

    def attach(self, connection: sqlite3.Connection) -> None:
        """Hear what the connection's transactions write."""
        notes = self._notes
        connection.create_function("noted", -1, lambda *values: notes.append(values))

    def rolled_back(self) -> None:
        """Forget what the transaction wrote."""
        self._notes.clear()

    def committed(self) -> None:
        """Take in what the transaction wrote, and look whether all still holds."""
        self.commits_count += 1
        if not self._notes:
            return
        for kind, *values in self._notes:
            self._taken[kind](*values)
        self._notes.clear()
        for sku_id in sorted(self._touched):
            self._check_stock(sku_id)
        self._touched.clear()

    def breach(self, invariant: str, subject: str, detail: str) -> None:
        """Note that an invariant does not hold."""
        if len(self.breaches) < _BREACHES_MAX:
            self.breaches.append(
                Breach(
                    invariant=invariant,
                    subject=subject,
                    detail=detail,
                    at_s=virtual_s(self.now()),
                )
            )

    def acknowledged(self, queue: str, message_id: str) -> None:
        """Look whether a message that its consumer has done with has left its record."""
        if (queue, message_id) not in self._recorded and (queue, message_id) not in self._kept:
            self.breach(
                "I10",
                f"message {message_id}",
                f"acknowledged in {queue} without an inbox row, a next try or a dead letter",
            )

    # What each kind of note means.

    def _order_made(self, order_no: str, status: str, expires_at: int) -> None:
        self._lines[order_no] = []
        self._expires_at[order_no] = Instant(expires_at)
        if status != "pending_payment":
            self.breach("I4", f"order {order_no}", f"begins as {status}")

    def _line_made(self, order_no: str, sku_id: str, quantity: int) -> None:
        self._lines[order_no].append((sku_id, quantity))
        self._reserved[sku_id] += quantity
        self._touched.add(sku_id)

    def _order_changed(
        self, order_no: str, before: str, after: str, versions_count: int, expires_at: int
    ) -> None:
        self._expires_at[order_no] = Instant(expires_at)
        if before == after:
            return
        self.transitions[f"{before}>{after}"] += 1
        if (before, after) not in _ALLOWED or versions_count != 1:
            self.breach("I4", f"order {order_no}", f"went from {before} to {after}")
        if after == "closed" and self.now() < expires_at:
            early_s = (expires_at - self.now()) / 1e6
            self.breach("I11", f"order {order_no}", f"closed {early_s:.3f} s before its deadline")
        self.first_ends.setdefault(order_no, after)
        for sku_id, quantity in self._lines[order_no]:
            self._touched.add(sku_id)
            if before == "pending_payment":
                self._reserved[sku_id] -= quantity
            elif before == "paid":
                self._sold[sku_id] -= quantity
            if after == "paid":
                self._sold[sku_id] += quantity
            elif after == "pending_payment":
                self._reserved[sku_id] += quantity

    def _order_gone(self, order_no: str) -> None:
        self.breach("I1", f"order {order_no}", "deleted")

    def _history_rewritten(self, order_no: str) -> None:
        self.breach("I4", f"order {order_no}", "its history was changed")

    def _event_sent(self, message_id: str, route: str) -> None:
        if message_id.encode() not in self.accepted:
            self.breach(
                "I9", f"message {message_id}", f"counts as sent to {route}, which never had it"
            )

    def _message_settled(self, queue: str, message_id: str) -> None:
        self._recorded.add((queue, message_id))

    def _message_kept(self, queue: str, message_id: str) -> None:
        self._kept.add((queue, message_id))

    def _message_set_aside(self, queue: str, message_id: str, body: bytes, reason: str) -> None:
        """Look whether the message had to be set aside, while nobody has replayed it yet.

        Only what was planted may be: what a fault does to a message says nothing of the message,
        and no process dies so often that a message would be taken for deadly.
        """
        self._message_kept(queue, message_id)
        if body not in self.planted:
            self.breach("I15", f"message {message_id}", f"set aside in {queue} as {reason}")
        elif reason in _NOT_OF_POISON:
            self.breach("I15", f"what is planted in {queue}", f"set aside as {reason}")

    def _record_withdrawn(self, queue: str, message_id: str) -> None:
        self._recorded.discard((queue, message_id))

    def _stock_changed(self, sku_id: str, available: int, reserved: int, sold: int) -> None:
        self._counts[sku_id] = [available, reserved, sold]
        self._touched.add(sku_id)

    def _check_stock(self, sku_id: str) -> None:
        available, reserved, sold = self._counts[sku_id]
        total = self._initial[sku_id]
        if self._reserved[sku_id] + self._sold[sku_id] > total:
            held = self._reserved[sku_id] + self._sold[sku_id]
            self.breach("I7", f"sku {sku_id}", f"{held} are promised, and there are {total}")
        expected = [
            total - self._reserved[sku_id] - self._sold[sku_id],
            self._reserved[sku_id],
            self._sold[sku_id],
        ]
        if expected != [available, reserved, sold]:
            self.breach(
                "I6",
                f"sku {sku_id}",
                f"available, reserved, sold are {[available, reserved, sold]};"
                f" by the orders they are {expected}",
            )
