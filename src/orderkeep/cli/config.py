"""`orderkeep config`: the settings in effect."""

from dataclasses import asdict

import typer

from orderkeep.cli.environment import read_settings
from orderkeep.cli.terminal import AsJson, examples, print_json, print_table

app = typer.Typer()


@app.command(
    rich_help_panel="Look",
    epilog=examples("orderkeep config", "ORDERKEEP_LOG_FORMAT=json orderkeep config --json"),
)
def config(*, as_json: AsJson = False) -> None:
    """Show every setting as it is in effect, with secrets and passwords masked.

    Each is an environment variable; NAME_FILE may name a file that holds the value instead.
    """
    from orderkeep.settings import describe

    descriptions = describe(read_settings())
    if as_json:
        print_json({"items": [asdict(each) for each in descriptions]})
        return
    print_table(
        ("variable", "value", "", "meaning"),
        [
            (each.variable, each.value, None if each.is_default else "set", each.meaning)
            for each in descriptions
        ],
    )
