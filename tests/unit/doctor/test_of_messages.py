"""What the doctor thinks of what waits in the database."""

from typing import Any

import msgspec
import pytest

from orderkeep.status import OutboxStatus, Status
from orderkeep.wiring.doctor.of_messages import examine_messages
from tests.unit.doctor.facts import found, remedy, verdicts

QUIET = Status(
    at="2026-01-01T00:00:00Z",
    orders={},
    overdue_orders=0,
    payment_cases_open=0,
    refunds_open=0,
    refunds_failed=0,
    outboxes=(OutboxStatus(outbox="order", pending=4, failed=0, oldest_pending_s=1.0),),
    dead_letters={},
    queues={},
)


def examined(**changes: Any):
    status = msgspec.structs.replace(QUIET, **changes)
    return list(examine_messages(status, outbox_age_s_max=65.0))


def test_a_quiet_shop_has_nothing_to_mend() -> None:
    examinations = examined()

    assert verdicts(examinations) == []
    assert found(examinations, "messages.outbox") == "4 pending, none parked"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        (
            {"outboxes": (OutboxStatus(outbox="order", pending=0, failed=2, oldest_pending_s=0),)},
            "messages.outbox",
        ),
        (
            {"outboxes": (OutboxStatus(outbox="order", pending=9, failed=0, oldest_pending_s=66),)},
            "messages.outbox",
        ),
        ({"dead_letters": {"cart-sync": 1}}, "messages.dead_letters"),
        ({"overdue_orders": 1}, "messages.overdue_orders"),
        ({"payment_cases_open": 1}, "messages.payment_cases"),
        ({"refunds_failed": 1}, "messages.refunds"),
    ],
)
def test_what_waits_for_somebody_is_told(changes: dict[str, Any], name: str) -> None:
    examinations = examined(**changes)

    assert verdicts(examinations) == [(name, "warning")]
    assert remedy(examinations, name)


def test_an_old_event_is_told_with_its_age() -> None:
    old = OutboxStatus(outbox="order", pending=9, failed=0, oldest_pending_s=300.4)

    assert found(examined(outboxes=(old,)), "messages.outbox") == (
        "an event that may go has waited for 300 s, with 8 more pending"
    )
