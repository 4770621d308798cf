"""The reference of metrics names what `/metrics` answers."""

from orderkeep.messaging.settling import MessageOutcome
from orderkeep.metrics import Metrics
from orderkeep.status import OutboxStatus, Status
from tests.repo.written_tables import REFERENCE, code, rows_of

STATUS = Status(
    at="2026-01-01T00:00:00Z",
    orders={},
    overdue_orders=0,
    payment_cases_open=0,
    refunds_open=0,
    refunds_failed=0,
    outboxes=(OutboxStatus(outbox="order", pending=0, failed=0, oldest_pending_s=0.0),),
    dead_letters={"cart-sync": 1},
    queues={},
)


def served_metrics() -> set[tuple[str, str, str]]:
    """Return each metric's name as it is scraped, its kind, and its labels."""
    metrics = Metrics()
    metrics.count_order_event("order.created")
    metrics.count_messages("cart-sync", MessageOutcome.HANDLED, 1)
    metrics.count_swept(1)
    metrics.count_answer(200)
    metrics.show_checks({"database": True})
    metrics.note_missing("cart-sync", missing_count=0, resent_count=0)
    metrics.show(STATUS)
    return {
        (
            f"{family.name}_total" if family.type == "counter" else family.name,
            family.type,
            ", ".join(
                sorted({name for sample in family.samples for name in sample.labels} - {"le"})
            ),
        )
        for family in metrics.registry.collect()
        # What the client library tells of a process depends on the system.
        if family.name.startswith("orderkeep_")
    }


def test_every_metric_stands_in_the_reference() -> None:
    rows = rows_of(REFERENCE / "metrics.md", heading="## Names")

    assert {
        (row[0].strip("`"), row[1], row[2].replace("`", "")) for row in rows
    } == served_metrics()
    assert len(rows) == len(served_metrics())


def test_every_outcome_of_a_message_stands_in_the_reference() -> None:
    rows = rows_of(REFERENCE / "metrics.md", heading="## Outcomes of messages")

    assert [row[0] for row in rows] == [code(outcome.value) for outcome in MessageOutcome]
