"""The root of all commands: where every error becomes one message and an exit code."""

import sys
import traceback

import typer
from typer.core import TyperGroup

from orderkeep.cli.environment import is_debugging
from orderkeep.cli.exits import ExitCode, exit_code_of, message_of
from orderkeep.cli.terminal import leave_quietly, note


class CommandLine(TyperGroup):
    """A group of commands that never ends in a traceback, unless one is asked for."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]  # reason: the wider type of a context is private to Typer
        """Run the command that was asked for.

        Raises:
            typer.Exit: it failed, and the message has been told.
        """
        try:
            answer = super().invoke(ctx)
            # Here, not when the interpreter ends: nobody could catch a closed pipe there.
            sys.stdout.flush()
        except BrokenPipeError:
            leave_quietly()
        except (typer.Exit, typer.Abort):
            raise
        except typer.TyperException as error:
            # So begins what the library says of a word that is none of those an option takes.
            error.message = error.message.removeprefix("Value error, ")
            raise
        except Exception as error:  # noqa: BLE001 (the boundary: what no command caught ends here)
            raise typer.Exit(tell(error)) from None
        return answer


def tell(error: Exception) -> ExitCode:
    """Tell a person what is wrong; return the exit code that it stands for."""
    if is_debugging():
        note("".join(traceback.format_exception(error)).rstrip())
    note(f"orderkeep: {message_of(error)}")
    return exit_code_of(error)
