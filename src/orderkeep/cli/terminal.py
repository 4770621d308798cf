"""What commands write: tables for a person, one JSON document for a program, notes beside both.

Standard output holds the answer and nothing else, so it can be piped; notes, progress and errors go
to standard error. Text that came from outside is written so that it can neither move the cursor nor
pass for another line.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from orderkeep.cli.exits import ExitCode, WrongUsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Why = Annotated[
    str | None,
    typer.Option("--why", "--reason", help="Your reason, for the record of what operators did."),
]

# Wide enough for every table: where nobody looks, no column is cut or folded.
_UNBOUNDED_WIDTH = 10_000

# Message ids have 36 characters, moments 27, order numbers 28.
_WHOLE_LENGTH_MAX = 40


def examples(*lines: str) -> str:
    """Return the lines as the end of a help text: each on a line of its own."""
    return "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def answer_console() -> "Console":
    """Return where answers go."""
    return _console(is_stderr=False)


def note_console() -> "Console":
    """Return where notes, progress and errors go."""
    return _console(is_stderr=True)


def print_json(value: object) -> None:
    """Print the value as one JSON document, in UTF-8 whatever the terminal's encoding is."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    print_bytes(text + b"\n")


def print_bytes(raw: bytes) -> None:
    """Write the bytes to standard output exactly as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(raw)
    sys.stdout.buffer.flush()


def read_file(name: str) -> bytes:
    """Return what is in the file, or, for `-`, what comes on standard input.

    Raises:
        WrongUsageError: it cannot be read.
    """
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        with open(name, "rb") as file:  # noqa: PTH123 (a name that a person typed)
            return file.read()
    except OSError as error:
        message = f"{name}: {error.strerror}"
        raise WrongUsageError(message) from None


def print_text(text: str) -> None:
    """Print a line of an answer."""
    print(printable(text))


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    numbers: Sequence[str] = (),
) -> None:
    """Print rows under the names of their columns; None is an empty cell.

    Args:
        columns: Their names.
        rows: As many values as there are columns.
        title: Stands above, if given.
        numbers: Columns whose values stand at the right.
    """
    from rich.measure import Measurement

    console = answer_console()
    cells = [[_cell(value) for value in row] for row in rows]
    table = _table(columns, cells, is_terminal=console.is_terminal, numbers=numbers)
    if title is not None:
        print_text(title)
    if console.is_terminal:
        # What must stay whole makes lines run over where there is no room for them.
        needed = Measurement.get(console, console.options.update(width=_UNBOUNDED_WIDTH), table)
        console.width = max(console.width, needed.minimum)
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    # What fills a line up to its end serves nobody who reads it from a pipe.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def print_fields(fields: Mapping[str, object]) -> None:
    """Print each field on a line of its own; those that are None are left out."""
    present = {name: value for name, value in fields.items() if value is not None}
    width = max(map(len, present), default=0)
    for name, value in present.items():
        print_text(f"{name:<{width}}  {value}")


def note(text: str) -> None:
    """Tell a person something that is no part of the answer."""
    print("\n".join(printable(line) for line in text.split("\n")), file=sys.stderr)


def warn(text: str) -> None:
    """Tell a person that something may not be as they think."""
    note(f"orderkeep: warning: {text}")


def counted(count: int, thing: str, *, count_max: int | None = None) -> str:
    """Return how many there are of a thing, such as "1 dead letter".

    Args:
        count: How many.
        thing: What one of them is called.
        count_max: Nobody has counted further; None is no limit.
    """
    if count_max is not None and count >= count_max:
        return f"{count} or more {thing}s"
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def confirm(question: str, *, is_confirmed: bool) -> None:
    """Return if the person says yes, or has said so with `--yes`.

    Raises:
        WrongUsageError: nobody is there to ask.
        typer.Exit: they say no.
    """
    if is_confirmed:
        return
    print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        note("")
        message = "nobody is there to confirm it: give --yes if it shall be done unasked"
        raise WrongUsageError(message)
    if line.strip().lower() not in {"y", "yes"}:
        note("Nothing was changed.")
        raise typer.Exit(ExitCode.WRONG)


def leave_quietly() -> NoReturn:
    """End the command because whoever read its output has gone.

    Raises:
        typer.Exit: always.
    """
    import os

    # What is left in the buffer would fail once more, and loudly, when the interpreter ends.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    raise typer.Exit(ExitCode.PIPE_CLOSED)


def printable(text: object) -> str:
    r"""Return the text with every character that does not print written out, as in `\x1b`."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in shown
    )


def _cell(value: object) -> str:
    from rich.markup import escape

    return "" if value is None else escape(printable(value))


def _table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    is_terminal: bool,
    numbers: Sequence[str],
) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD if is_terminal else None,
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    for place, name in enumerate(columns):
        # An id or a moment in two halves cannot be copied into the next command.
        is_whole = all(
            len(row[place]) <= _WHOLE_LENGTH_MAX and " " not in row[place] for row in rows
        )
        justify = "right" if name in numbers else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=is_whole)  # type: ignore[arg-type]  # reason: one of the two words
    for row in rows:
        table.add_row(*row)
    return table


def _console(*, is_stderr: bool) -> "Console":
    from rich.console import Console

    class PipedConsole(Console):
        """Leaves a closed pipe to the one place that ends the command for it."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    stream = sys.stderr if is_stderr else sys.stdout
    width = None if stream.isatty() else _UNBOUNDED_WIDTH
    return PipedConsole(stderr=is_stderr, width=width, highlight=False, emoji=False)
