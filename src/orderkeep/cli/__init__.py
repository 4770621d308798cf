"""The command `orderkeep`: one module for each command or group of commands.

Modules here import nothing heavy until a command runs, so that help answers at once. `exits.py`
says what exit codes mean, `terminal.py` how answers look.
"""

from typing import Annotated

import typer

from orderkeep.cli import (
    config,
    dead_letters,
    demo,
    migrate,
    openapi,
    orders,
    outbox,
    run,
    skus,
    status,
    token,
    verify,
)
from orderkeep.cli.command_line import CommandLine

_EPILOG = """\
Settings are environment variables; `orderkeep config` lists them with their values.
Exit codes: 0 fine; 1 what was checked or asked for is wrong; 2 wrong usage or settings.
"""

app = typer.Typer(
    cls=CommandLine,
    name="orderkeep",
    help="Takes every order from checkout to its one and only end, and tells everybody about it.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _module in (run, migrate, token, demo, status, verify, config, openapi):
    app.add_typer(_module.app)
for _name, _group in (
    ("orders", orders),
    ("outbox", outbox),
    ("dead-letters", dead_letters),
    ("skus", skus),
):
    app.add_typer(_group.app, name=_name, no_args_is_help=True)


def main() -> None:
    """Run the command that the arguments of this process name, and end with its exit code."""
    app(prog_name="orderkeep")


def _print_version(*, is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        print(f"orderkeep {version('orderkeep')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=lambda value: _print_version(is_wanted=value),
            help="Print the version and leave.",
        ),
    ] = False,
) -> None:
    pass
