"""The command `orderkeep`: one module for each command or group of commands.

Modules here import nothing heavy until a command runs, so that help answers at once. `exits.py`
says what exit codes mean, `terminal.py` how answers look.
"""

import io
import sys
from typing import Annotated

import typer

from orderkeep.cli import (
    audit,
    config,
    dead_letters,
    demo,
    doctor,
    migrate,
    openapi,
    orders,
    outbox,
    payment_cases,
    run,
    skus,
    status,
    token,
    verify,
)
from orderkeep.cli.command_line import CommandLine
from orderkeep.cli.exits import ExitCode
from orderkeep.cli.terminal import note

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

for _module in (run, migrate, token, demo, status, verify, doctor, config, openapi):
    app.add_typer(_module.app)
for _name, _group in (
    ("orders", orders),
    ("outbox", outbox),
    ("dead-letters", dead_letters),
    ("payment-cases", payment_cases),
    ("skus", skus),
    ("audit", audit),
):
    app.add_typer(_group.app, name=_name, no_args_is_help=True)


def main() -> None:
    """Run the command that the arguments of this process name, and end with its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal whose encoding lacks a character shows its number instead.
        sys.stdout.reconfigure(errors="backslashreplace")
    if any(not _is_text(argument) for argument in sys.argv[1:]):
        note("orderkeep: an argument is not UTF-8")
        sys.exit(ExitCode.USAGE)
    app(prog_name="orderkeep")


def _is_text(argument: str) -> bool:
    # What is no UTF-8 comes as lone surrogates, which no database and no document takes.
    return not any("\ud800" <= one <= "\udfff" for one in argument)


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
