"""`orderkeep status`: what is going on."""

from typing import TYPE_CHECKING

import typer

from orderkeep.cli.environment import read_settings_quietly
from orderkeep.cli.terminal import (
    AsJson,
    examples,
    print_fields,
    print_json,
    print_table,
    print_text,
)

if TYPE_CHECKING:
    from orderkeep.status import Status

app = typer.Typer()


@app.command(rich_help_panel="Look", epilog=examples("orderkeep status", "orderkeep status --json"))
def status(*, as_json: AsJson = False) -> None:
    """Show what is going on: orders by status, and what waits, is parked or was set aside."""
    from orderkeep.cli.opened_database import with_database
    from orderkeep.wiring.operator_desks import build_status_reader
    from orderkeep.wiring.storage import build_outboxes

    settings = read_settings_quietly()
    reader = build_status_reader(settings, build_outboxes(settings))
    read = with_database(settings, lambda database: database.read(reader.read))
    if as_json:
        print_json(read)
    else:
        _print(read)


def _print(read: "Status") -> None:
    print_fields({"at": read.at, "orders": sum(read.orders.values()) or "none"})
    print_fields({f"  {name}": count for name, count in sorted(read.orders.items())})
    print_fields(
        {
            "overdue orders": read.overdue_orders,
            "open payment cases": read.payment_cases_open,
            "open refunds": read.refunds_open,
            "failed refunds": read.refunds_failed,
        }
    )
    print_text("")
    print_table(
        ("outbox", "pending", "failed", "oldest pending (s)"),
        [
            (each.outbox, each.pending, each.failed, f"{each.oldest_pending_s:.1f}")
            for each in read.outboxes
        ],
        numbers=("pending", "failed", "oldest pending (s)"),
    )
    print_text("")
    if read.queues:
        print_table(("queue", "waiting"), sorted(read.queues.items()), numbers=("waiting",))
        print_text("")
    if read.dead_letters:
        print_table(
            ("dead letters in", "count"), sorted(read.dead_letters.items()), numbers=("count",)
        )
    else:
        print_text("no dead letters")
