"""What must hold when a world has come to rest, by its database, its bank and its buyers."""

from collections import Counter
from collections.abc import Iterator

from orderkeep.contracts.topology import TOPOLOGY
from orderkeep.database.sqlite import _drive
from orderkeep.messaging.routing import Routes
from orderkeep.orders.verify import find_breaches
from tests.simulation.database_server import SimulatedTransaction
from tests.simulation.world import World

_SERVICES = ("order", "cart", "payment")

# After the last fault; the broker itself may have been emptied.
_LATE_S = 120.0


def unrest(world: World) -> list[str]:
    """Return what is still under way."""
    one = world.database.connection.execute
    moving: list[str] = []
    for service in _SERVICES:
        count = one(f"SELECT count(*) FROM {service}_outbox WHERE state = 'pending'").fetchone()[0]
        if count:
            moving.append(f"{count} events of {service}s are not sent")
    for name, entries in world.broker.queues.items():
        if entries:
            moving.append(f"{len(entries)} messages wait in {name}")
    in_hand = sum(
        len(each._in_hand)
        for consumptions in world.broker.consumptions.values()
        for each in consumptions.values()
    )
    for words, count in (
        ("messages are in hand", in_hand),
        ("messages are held", world.broker.held_count),
        ("orders are unpaid", _count(world, "orders", "status = 'pending_payment'")),
        ("refunds are under way", _count(world, "order_refunds", "status = 'requested'")),
        ("refunds are not carried out", _count(world, "refunds", "status = 'requested'")),
        ("cases are open", _count(world, "payment_cases", "state = 'open'")),
    ):
        if count:
            moving.append(f"{count} {words}")
    return moving


def check_late(world: World) -> None:
    """Note orders that should have been closed by now, whatever was lost (I11)."""
    before = world.database.now() - round(_LATE_S * 1e6)
    for row in world.database.connection.execute(
        "SELECT order_no FROM orders WHERE status = 'pending_payment' AND expires_at < ?", (before,)
    ):
        world.watch.breach("I11", f"order {row[0]}", f"unpaid {_LATE_S:.0f} s after its deadline")


def missing(world: World) -> list[tuple[str, str]]:
    """Return what counts as sent and is not with its consumer, as (queue, message id)."""
    execute = world.database.connection.execute
    settled = {
        (row[0], row[1])
        for service in _SERVICES
        for table in ("inbox", "dead_letters")
        for row in execute(f"SELECT consumer, message_id FROM {service}_{table}")
    }
    routes = Routes(TOPOLOGY)
    return [
        (queue, row["message_id"])
        for service in _SERVICES
        for row in execute(
            f"SELECT message_id, route, type FROM {service}_outbox"
            " WHERE state = 'sent' AND deliver_at IS NULL"
        )
        for queue in routes.queues_for(row["route"], message_type=row["type"])
        if (queue, row["message_id"]) not in settled
    ]


def check(world: World) -> None:
    """Look at everything; what is wrong is noted in the world's watch."""
    breach = world.watch.breach
    for invariant, subject, detail in (
        *_lost_or_invented(world),
        *_not_as_told(world),
        *_doubled(world),
        *_histories(world),
        *_money(world),
        *_messages(world),
    ):
        breach(invariant, subject, detail)
    transaction = SimulatedTransaction(world.database.connection, now=world.database.now)
    for finding in _drive(find_breaches(transaction)):
        breach("I13", ", ".join(finding.subjects), f"verify: {finding.invariant}: {finding.says}")


def digest(world: World) -> str:
    """Return all that a repeated message must leave as it is (I12)."""
    execute = world.database.connection.execute
    parts: list[str] = []
    for table, columns in (
        ("orders", "order_no, status, version, event_seq"),
        ("order_history", "order_no, version, to_status"),
        ("stock", "sku_id, available, reserved, sold"),
        ("stock_movements", "sku_id, kind, cause, quantity"),
        ("order_payments", "pay_channel, trade_no, outcome"),
        ("order_refunds", "refund_no, status, amount_minor"),
        ("payment_cases", "id, state"),
        ("payments", "payment_no, status"),
        ("refunds", "refund_no, status"),
        ("timed_out_orders", "order_no"),
    ):
        rows = sorted(tuple(row) for row in execute(f"SELECT {columns} FROM {table}"))
        parts.append(f"{table}{rows}")
    parts.append(f"bank{sorted(world.bank.given_back_minor.items())}")
    return "\n".join(parts)


Findings = Iterator[tuple[str, str, str]]


def _lost_or_invented(world: World) -> Findings:
    execute = world.database.connection.execute
    stored = {row[0]: row[1] for row in execute("SELECT order_no, user_id FROM orders")}
    trades = {row[0] for row in execute("SELECT trade_no FROM order_payments")}
    attempted = {each.journal.user_id for each in world.shoppers if each.journal.is_attempted}
    for shopper in world.shoppers:
        journal = shopper.journal
        for order_no in journal.answered:
            if stored.get(order_no) != journal.user_id:
                yield (
                    "I1",
                    f"order {order_no}",
                    f"user {journal.user_id} was told of it; it is gone",
                )
        for trade_no in journal.notified:
            if trade_no not in trades:
                order_no = world.bank.order_of_trade[trade_no]
                yield "I1", f"order {order_no}", f"money of trade {trade_no} is on no record"
        is_told = journal.is_refused and not journal.is_doubtful and not journal.answered
        if is_told and journal.user_id in stored.values():
            yield "I2", f"user {journal.user_id}", "was refused, and has an order"
    for order_no, user_id in stored.items():
        if user_id not in attempted:
            yield "I2", f"order {order_no}", f"nobody asked for it as {user_id}"


def _not_as_told(world: World) -> Findings:
    """Yield orders that hold something else than was asked for, or are not cancelled after all."""
    execute = world.database.connection.execute
    lines: dict[str, list[tuple[str, int]]] = {}
    for order_no, sku_id, quantity in execute(
        "SELECT order_no, sku_id, quantity FROM order_lines ORDER BY order_no, sku_id"
    ):
        lines.setdefault(order_no, []).append((sku_id, quantity))
    shoppers = {each.journal.user_id: each for each in world.shoppers}
    statuses: dict[str, str] = {}
    for order_no, user_id, status, amount_minor in execute(
        "SELECT order_no, user_id, status, pay_amount_minor FROM orders"
    ):
        statuses[order_no] = status
        # Whose order nobody asked for has been told of.
        shopper = shoppers.get(user_id)
        held = (lines.get(order_no, []), amount_minor)
        if shopper is not None and held != (shopper.wanted_lines, shopper.wanted_minor):
            asked = f"{shopper.wanted_lines} at {shopper.wanted_minor}"
            yield "I2", f"order {order_no}", f"was asked for {asked}, and is {held[0]} at {held[1]}"
    for shopper in world.shoppers:
        for order_no in shopper.journal.cancelled:
            if statuses.get(order_no) != "cancelled":
                detail = f"its buyer was told that it is cancelled; it is {statuses.get(order_no)}"
                yield "I1", f"order {order_no}", detail


def _doubled(world: World) -> Findings:
    execute = world.database.connection.execute
    for user_id, count, order_no in execute(
        "SELECT user_id, count(*), max(order_no) FROM orders GROUP BY user_id HAVING count(*) > 1"
    ):
        yield "I3", f"order {order_no}", f"user {user_id} has {count} orders by one key"
    for trade_no, count in world.bank.refunds_counts().items():
        if count > 1:
            order_no = world.bank.order_of_trade[trade_no]
            yield "I3", f"order {order_no}", f"trade {trade_no} went back {count} times"


def _histories(world: World) -> Findings:
    execute = world.database.connection.execute
    history: dict[str, list[tuple[int, str]]] = {}
    for order_no, version, status in execute(
        "SELECT order_no, version, to_status FROM order_history ORDER BY order_no, version"
    ):
        history.setdefault(order_no, []).append((version, status))
    for order_no, status, version in execute("SELECT order_no, status, version FROM orders"):
        steps = history.get(order_no, [])
        if [step for step, _ in steps] != list(range(1, version + 1)):
            yield "I4", f"order {order_no}", f"its history has versions {[s for s, _ in steps]}"
        elif steps[-1][1] != status:
            yield "I4", f"order {order_no}", f"is {status}, and {steps[-1][1]} by its history"
        if status == "pending_payment":
            yield "I4", f"order {order_no}", "never ended"


def _money(world: World) -> Findings:
    execute = world.database.connection.execute
    held = world.bank.held_minor()
    accepted = {
        row[0]: row[1]
        for row in execute(
            "SELECT order_no, amount_minor FROM order_payments WHERE outcome = 'accepted'"
        )
    }
    by_verdict = {
        row[0] for row in execute("SELECT order_no FROM payment_cases WHERE resolution = 'accept'")
    }
    for order_no, status, owed_minor in execute(
        "SELECT order_no, status, pay_amount_minor FROM orders"
    ):
        expected_minor = 0
        if status == "paid":
            expected_minor = accepted.get(order_no, -1) if order_no in by_verdict else owed_minor
        if held[order_no] != expected_minor:
            yield (
                "I5",
                f"order {order_no}",
                f"is {status}: {expected_minor} should be held of its money, {held[order_no]} is",
            )


def _messages(world: World) -> Findings:
    execute = world.database.connection.execute
    for queue, message_id in missing(world):
        yield "I10", f"message {message_id}", f"was sent, and {queue}'s consumer never had it"
    for service in _SERVICES:
        for (count,) in execute(f"SELECT count(*) FROM {service}_outbox WHERE state = 'failed'"):
            if count:
                yield "I9", f"{service}_outbox", f"{count} events are parked"


def _count(world: World, table: str, condition: str) -> int:
    row = world.database.connection.execute(f"SELECT count(*) FROM {table} WHERE {condition}")
    return int(row.fetchone()[0])


def race_winners(world: World) -> Counter[str]:
    """Return who won the races between money, deadline and cancel, by the first end of orders."""
    winners: Counter[str] = Counter()
    for shopper in world.shoppers:
        if shopper.order is None or not shopper.fate.value.startswith("pay against"):
            continue
        if f"bank-{shopper._number}" not in world.bank.captured_minor:
            continue
        winners[f"{shopper.fate.value}: {world.watch.first_ends.get(shopper.order.order_no)}"] += 1
    return winners
