"""The reference of the command line says what `--help` says, command by command."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from orderkeep.cli import app
from tests.repo.written_tables import REFERENCE, check_part, code, table


def commands_of(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield every command with what a person types for it."""
    members = getattr(command, "commands", None)
    if members is None:
        yield " ".join(words), command
        return
    for name, member in members.items():
        yield from commands_of(member, (*words, name))


def described(typed: str, command: Any) -> str:
    """Return the section of one command."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    usage = " ".join([typed, *(str(each.metavar or each.name) for each in arguments)])
    paragraphs = [" ".join(each.split()) for each in (command.help or "").strip().split("\n\n")]
    # Each sentence has a line of its own, as everywhere in these documents.
    sentences = [re.sub(r"(?<=\.) (?=[A-Z])", "\n", paragraph) for paragraph in paragraphs]
    text = f"### {usage}\n\n" + "\n\n".join(sentences) + "\n"
    options = [
        (
            ", ".join(code(each) for each in (*option.opts, *option.secondary_opts)),
            " ".join((option.help or "").split()),
            default_of(option),
        )
        for option in command.params
        if option.param_type_name == "option" and option.name != "help"
    ]
    if options:
        text += "\n" + table(("option", "meaning", "default"), options)
    return text


def default_of(option: Any) -> str:
    """Return what an option is when it is not given, as far as there is anything to say."""
    if option.required:
        return "must be given"
    if option.is_flag or option.default in (None, (), []):
        return ""
    return code(str(option.default))


def test_every_command_stands_in_the_reference() -> None:
    commands = list(commands_of(typer.main.get_command(app), ("orderkeep",)))

    check_part(
        REFERENCE / "command-line.md",
        writer=__file__,
        text="\n" + "\n".join(described(typed, command) for typed, command in commands) + "\n",
    )
    assert len(commands) >= 20
