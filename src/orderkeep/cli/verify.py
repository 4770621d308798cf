"""`orderkeep verify`: the guarantees, checked on the live database."""

from typing import TYPE_CHECKING, Annotated

import typer

from orderkeep.cli.environment import read_settings_quietly
from orderkeep.cli.exits import ExitCode
from orderkeep.cli.terminal import AsJson, examples, note_console, print_json, print_text

if TYPE_CHECKING:
    from orderkeep.database.transaction import Database, ReadTransaction
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

    Checked are stock, history, payments, refunds and keys of all orders, in one snapshot; nothing
    is changed. What is late is a warning, since the work may be under way.
    """
    from orderkeep.cli.opened_database import with_database

    settings = read_settings_quietly()
    with note_console().status("checking the guarantees"):
        breaches, late = with_database(
            settings, lambda database: _find(database, settings, is_quiesced=quiesced)
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
            }
        )
    else:
        _print(breaches, warnings)
    if breaches:
        raise typer.Exit(ExitCode.WRONG)


async def _find(
    database: "Database", settings: "Settings", *, is_quiesced: bool
) -> tuple[list["Finding"], list["Finding"]]:
    from orderkeep.orders.verify import find_breaches, find_lateness
    from orderkeep.wiring.storage import KERNEL_TABLES

    patience_s = 0.0 if is_quiesced else _OUTBOX_PATIENCE_S

    async def read(transaction: "ReadTransaction") -> tuple[list["Finding"], list["Finding"]]:
        breaches = await find_breaches(transaction)
        late = await find_lateness(
            transaction,
            overdue_s=settings.sweep_grace_s + settings.sweep_interval_s,
            outboxes=list(KERNEL_TABLES.values()),
            outbox_age_s=settings.outbox_poll_interval_s + patience_s,
        )
        return breaches, late

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
