"""`orderkeep migrate`: the database to the current schema."""

import typer

from orderkeep.cli.environment import read_settings_quietly
from orderkeep.cli.terminal import AsJson, examples, print_json, print_text

app = typer.Typer()


@app.command(rich_help_panel="Serve", epilog=examples("orderkeep migrate"))
def migrate(*, as_json: AsJson = False) -> None:
    """Bring the database to the schema of this release; make it if it is missing.

    On SQLite `orderkeep run` does that by itself.
    """
    import asyncio

    from orderkeep.cli.opened_database import bring_up

    settings = read_settings_quietly()
    is_changed = asyncio.run(bring_up(settings))
    if as_json:
        print_json({"is_changed": is_changed})
    elif is_changed:
        print_text("The database has been brought to the current schema.")
    else:
        print_text("The database has the current schema already.")
