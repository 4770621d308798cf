"""`orderkeep verify`: the guarantees, checked on the live database."""

from typing import TYPE_CHECKING, Annotated

import typer

from orderkeep.cli.environment import read_settings_quietly
from orderkeep.cli.exits import ExitCode
from orderkeep.cli.terminal import AsJson, examples, note_console, print_json, print_text

if TYPE_CHECKING:
    from orderkeep.database.transaction import Database, ReadTransaction
    from orderkeep.messaging.receipts import Receipts
    from orderkeep.orders.verify import Finding
    from orderkeep.settings import Settings

app = typer.Typer()

# A dispatcher sends within a second; what waits a minute longer than its poll is late. On a system
# at rest nothing that may go waits longer than the poll.
_OUTBOX_PATIENCE_S = 60.0


@app.command(
    rich_help_panel="Look",
    epilog=examples("orderkeep verify", "orderkeep verify --quiesced --json"),
)
def verify(
    *,
    quiesced: Annotated[
        bool,
        typer.Option("--quiesced", help="The system is at rest: what is late is a breach, too."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the guarantees on the live database; exit with 1 on a breach.

    Checked are stock, history, payments, refunds and keys of all orders, and of all events whether
    their consumers have them, in one snapshot; nothing is changed. What is late is a warning,
    since the work may be under way.
    """
    from orderkeep.cli.opened_database import PATIENT_READS, with_database

    settings = read_settings_quietly()
    with note_console().status("checking the guarantees"):
        breaches, late, receipts, unknown_orders = with_database(
            settings,
            lambda database: _find(database, settings, is_quiesced=quiesced),
            limits=PATIENT_READS,
        )
    warnings: list[Finding] = []
    if quiesced:
        breaches = [*breaches, *late]
    else:
        warnings = late
    if as_json:
        print_json(
            {
                "is_clean": not breaches,
                "breaches": [_json_of(each) for each in breaches],
                "warnings": [_json_of(each) for each in warnings],
                "deliveries": [
                    {
                        "outbox": each.outbox,
                        "queue": each.queue,
                        "sent_count": each.sent_count,
                        "missing_count": each.missing_count,
                    }
                    for each in receipts
                ],
                "unknown_orders": list(unknown_orders),
            }
        )
    else:
        _print(breaches, warnings)
        _print_receipts(receipts)
        _print_unknown(unknown_orders)
    if breaches:
        raise typer.Exit(ExitCode.WRONG)


async def _find(
    database: "Database", settings: "Settings", *, is_quiesced: bool
) -> "tuple[list[Finding], list[Finding], list[Receipts], tuple[str, ...]]":
    from orderkeep.messaging.receipts import count_receipts
    from orderkeep.orders.verify import (
        SHOWN_PER_INVARIANT_MAX,
        find_breaches,
        find_lateness,
        find_missing,
        find_unknown_orders,
    )
    from orderkeep.wiring.storage import KERNEL_TABLES, receivers_of, used_topology

    patience_s = 0.0 if is_quiesced else _OUTBOX_PATIENCE_S

    async def read(
        transaction: "ReadTransaction",
    ) -> "tuple[list[Finding], list[Finding], list[Receipts], tuple[str, ...]]":
        breaches = await find_breaches(transaction)
        late = await find_lateness(
            transaction,
            overdue_s=settings.sweep_grace_s + settings.sweep_interval_s,
            outboxes=list(KERNEL_TABLES.values()),
            outbox_age_s=settings.outbox_poll_interval_s + patience_s,
        )
        receipts = await count_receipts(
            transaction,
            senders=list(KERNEL_TABLES.values()),
            receivers=receivers_of(settings),
            topology=used_topology(settings),
            patience_s=patience_s,
            shown_count_max=SHOWN_PER_INVARIANT_MAX,
        )
        unknown_orders = await find_unknown_orders(transaction)
        return breaches, [*late, *find_missing(receipts)], receipts, unknown_orders

    return await database.read(read)


def _json_of(finding: "Finding") -> dict[str, object]:
    return {
        "invariant": finding.invariant,
        "says": finding.says,
        "subjects": finding.subjects,
        "remedy": finding.remedy,
    }


def _print(breaches: "list[Finding]", warnings: "list[Finding]") -> None:
    for kind, findings in (("BREACH", breaches), ("late", warnings)):
        for finding in findings:
            print_text(f"{kind}: {finding.invariant}: {finding.says}")
            by = "broken by" if kind == "BREACH" else "concerns"
            print_text(f"  {by}: {', '.join(finding.subjects)}")
            print_text(f"  what to do: {finding.remedy}")
    if not breaches:
        print_text(
            f"Every guarantee holds; late: {len(warnings)}."
            if warnings
            else "Every guarantee holds."
        )


def _print_receipts(receipts: "list[Receipts]") -> None:
    """Say how much of what was sent has been received, as long as the outboxes remember it."""
    sent_count = sum(each.sent_count for each in receipts)
    missing_count = sum(each.missing_count for each in receipts)
    if sent_count:
        print_text(
            f"Of {sent_count:,} events that were sent, {sent_count - missing_count:,} have been"
            " received."
        )


def _print_unknown(order_nos: "tuple[str, ...]") -> None:
    """Name the orders that a restored backup lacks, where something still tells of them."""
    if order_nos:
        print_text(
            f"There are orders that payments know and that are not here: {', '.join(order_nos)}"
        )
        print_text('  what to do: docs/how-to/backup.md, "The broker is ahead"')
