"""`orderkeep audit`: what operators did by hand, over HTTP and on the command line."""

from typing import TYPE_CHECKING, Annotated

import typer

from orderkeep.cli.environment import read_settings_quietly
from orderkeep.cli.known_names import check_known
from orderkeep.cli.paging import (
    LIMIT_DEFAULT,
    All,
    Cursor,
    Limit,
    Page,
    Paging,
    print_page,
    print_page_json,
)
from orderkeep.cli.terminal import AsJson, examples

if TYPE_CHECKING:
    from orderkeep.database.audit import AuditFilter
    from orderkeep.database.transaction import Database
    from orderkeep.web.audit_routes import RecordedActAnswer

app = typer.Typer(help="Look at what operators did: who, what, when and why.")


@app.callback()
def _audit() -> None:
    # A group of one command would otherwise be that command.
    pass


@app.command(
    "list",
    epilog=examples(
        "orderkeep audit list",
        "orderkeep audit list --order 0100000000000009",
        "orderkeep audit list --action dead_letters.replay --actor olga --json",
    ),
)
def list_audit(
    *,
    actor: Annotated[
        str | None, typer.Option("--actor", help="Only by this one, such as olga or cli:root.")
    ] = None,
    action: Annotated[
        str | None, typer.Option("--action", help="Only this act, such as orders.cancel.")
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option("--subject", help="Only upon this order number, SKU or message's id."),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option("--order", help="Only upon this order number, and upon its payment cases."),
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    is_whole: All = False,
    as_json: AsJson = False,
) -> None:
    """List what operators did by hand, newest first."""
    from orderkeep.cli.opened_database import with_database
    from orderkeep.database.audit import AuditFilter

    check_known("--action", action, "action")
    wanted = AuditFilter(actor=actor, action=action, subject=subject, order_no=order)
    paging = Paging(limit=limit, cursor=cursor, is_whole=is_whole)
    page = with_database(
        read_settings_quietly(),
        lambda database: paging.collect(
            lambda at, count: _fetch(database, wanted, cursor=at, limit=count)
        ),
    )
    if as_json:
        print_page_json(page)
        return
    print_page(
        page,
        ("at", "actor", "action", "subject", "reason", "detail"),
        lambda act: (
            act.at,
            act.actor,
            act.action,
            act.subject,
            act.reason,
            bytes(act.detail).decode(),
        ),
    )


async def _fetch(
    database: "Database", wanted: "AuditFilter", *, cursor: str | None, limit: int
) -> "Page[RecordedActAnswer]":
    from orderkeep.web.audit import AuditDesk
    from orderkeep.web.audit_routes import recorded_act_answer

    page = await AuditDesk(database).list(wanted, cursor=cursor, limit=limit)
    return Page(items=[recorded_act_answer(act) for act in page.acts], next_cursor=page.next_cursor)
