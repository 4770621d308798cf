"""`orderkeep skus`: the catalogue from a file.

Invariant: a file is imported whole, in one transaction, or not at all; so it can be mended and
imported again. A crash in between leaves nothing of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orderkeep.cli.environment import operator_name, read_settings_quietly
from orderkeep.cli.exits import ExitCode, WrongUsageError
from orderkeep.cli.terminal import (
    AsJson,
    Why,
    examples,
    note,
    note_console,
    print_json,
    print_text,
)

if TYPE_CHECKING:
    from orderkeep.database.audit import Act
    from orderkeep.database.transaction import Transaction
    from orderkeep.orders.catalogue_desk import SkuEntry
    from orderkeep.orders.sku_file import SkuFileProblem
    from orderkeep.settings import Settings

app = typer.Typer(help="Fill the catalogue.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did."""

    created_count: int
    updated_count: int


@app.callback()
def _skus() -> None:
    # A group of one command would otherwise be that command.
    pass


@app.command(
    "import",
    epilog=examples("orderkeep skus import examples/skus.csv"),
)
def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A CSV file in UTF-8; its first line names the columns."
        ),
    ],
    *,
    why: Why = None,
    as_json: AsJson = False,
) -> None:
    """Import a catalogue from a CSV file: all of it, or, if a line is wrong, nothing.

    Columns: sku_id, title, price, currency; and, if wanted, product_id, stock, is_active.
    SKUs that are known get the file's title and price, and keep the stock they have.
    While a very large file is written, a service on the same SQLite database cannot take orders.
    """
    import asyncio

    from orderkeep.database.audit import Act
    from orderkeep.orders.sku_file import SkuFileError, read_sku_file

    settings = read_settings_quietly()
    try:
        raw = file.read_bytes()
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}"
        raise WrongUsageError(message) from error
    try:
        entries = read_sku_file(raw)
    except SkuFileError as error:
        _print_problems(error.problems, file=file, as_json=as_json)
        raise typer.Exit(ExitCode.WRONG) from None
    act = Act(actor=operator_name(), reason=why)
    imported = asyncio.run(_import(settings, entries, act=act))
    if as_json:
        print_json({"created": imported.created_count, "updated": imported.updated_count})
    else:
        print_text(
            f"{len(entries)} SKUs imported: {imported.created_count} new,"
            f" {imported.updated_count} updated."
        )


async def _import(settings: "Settings", entries: "Sequence[SkuEntry]", *, act: "Act") -> Imported:
    from rich.progress import Progress

    from orderkeep.cli.opened_database import bring_up, opened_database

    path = settings.sqlite_path
    if path is not None and not path.exists():
        # A catalogue may come before the first `run`.
        await bring_up(settings)
    console = note_console()
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("importing", total=len(entries))
        async with opened_database(settings) as database:
            return await database.transact(
                lambda transaction: import_skus(
                    transaction,
                    entries,
                    act=act,
                    advance=lambda: progress.advance(task),
                )
            )


async def import_skus(
    transaction: "Transaction",
    entries: "Sequence[SkuEntry]",
    *,
    act: "Act",
    advance: Callable[[], object],
) -> Imported:
    """Write every entry inside the transaction; a SKU that is known keeps its stock.

    Args:
        transaction: Takes all of them.
        entries: Each SKU once.
        act: Who imports them, and why.
        advance: Called after each.
    """
    from dataclasses import replace

    from orderkeep.orders.catalogue_desk import put_sku
    from orderkeep.orders.store.stock import lock_skus

    known = await lock_skus(transaction, {entry.sku_id for entry in entries})
    # Sorted, as every use case takes its locks.
    for entry in sorted(entries, key=lambda entry: entry.sku_id):
        is_known = entry.sku_id in known
        await put_sku(transaction, replace(entry, stock=None) if is_known else entry, act=act)
        advance()
    return Imported(created_count=len(entries) - len(known), updated_count=len(known))


def _print_problems(problems: "Sequence[SkuFileProblem]", *, file: Path, as_json: bool) -> None:
    if as_json:
        print_json({"problems": [{"line": each.line, "detail": each.detail} for each in problems]})
        return
    for problem in problems:
        note(f"{file}:{problem.line}: {problem.detail}")
    note("Nothing was imported: mend the file and import it again.")
