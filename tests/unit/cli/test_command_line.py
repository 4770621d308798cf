"""The root of all commands: help, exit codes, and one message for every error."""

import importlib
import subprocess
import sys

import pytest

from orderkeep.cli import exits
from orderkeep.cli.command_line import tell
from orderkeep.cli.exits import (
    WRONG_SETTINGS,
    ExitCode,
    FoundWrongError,
    WrongUsageError,
    exit_code_of,
    message_of,
)
from orderkeep.refusal import Refusal
from tests.unit.cli.conftest import Invoke

# The contract's commands of this release.
COMMANDS = [
    "run",
    "serve",
    "work",
    "migrate",
    "token",
    "verify",
    "doctor",
    "status",
    "config",
    "openapi",
    "orders",
    "outbox",
    "dead-letters",
    "payment-cases",
    "skus",
    "audit",
    "demo",
]
SUBCOMMANDS = [
    ("orders", ["list", "show", "timeline", "cancel"]),
    ("outbox", ["list", "show", "retry", "discard", "replay"]),
    ("dead-letters", ["list", "show", "replay", "discard"]),
    ("payment-cases", ["list", "show", "resolve"]),
    ("skus", ["import"]),
    ("audit", ["list"]),
]


def names_in_help(text: str) -> set[str]:
    return {
        line.split()[1] for line in text.splitlines() if line.startswith("│ ") and line[2] != " "
    }


def test_help_names_every_command_of_this_release_and_no_other(invoke: Invoke) -> None:
    result = invoke("--help")

    assert result.exit_code == 0
    assert names_in_help(result.stdout) - {"--version", "--help"} == set(COMMANDS)


@pytest.mark.parametrize(("group", "commands"), SUBCOMMANDS)
def test_help_of_a_group_names_its_commands(
    invoke: Invoke, group: str, commands: list[str]
) -> None:
    result = invoke(group, "--help")

    assert result.exit_code == 0
    assert names_in_help(result.stdout) - {"--help"} == set(commands)


@pytest.mark.parametrize(
    "command",
    [[name] for name in COMMANDS[:7]]
    + [[group, name] for group, names in SUBCOMMANDS for name in names]
    + [["demo"]],
)
def test_help_of_a_command_shows_an_example(invoke: Invoke, command: list[str]) -> None:
    result = invoke(*command, "--help")

    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    assert f"orderkeep {' '.join(command)}" in result.stdout.split("Examples:")[1]


def test_the_version_is_printed(invoke: Invoke) -> None:
    result = invoke("--version")

    assert (result.exit_code, result.stdout) == (0, "orderkeep 0.1.0\n")


@pytest.mark.parametrize(
    "arguments",
    [["serve"], ["run", "--fast"], ["orders", "show"], ["orders", "list", "--status", "lost"]],
)
def test_wrong_usage_exits_with_2(invoke: Invoke, arguments: list[str]) -> None:
    result = invoke(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr != ""


def test_every_wrong_setting_is_named_at_once(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERKEEP_HTTP_PORT", "many")
    monkeypatch.setenv("ORDERKEEP_LOG_LEVEL", "loud")
    monkeypatch.setenv("ORDERKEEP_UNUSED_QUEUES", "no.such.queue")

    result = invoke("config")

    assert result.exit_code == 2
    assert result.stdout == ""
    for variable in ("ORDERKEEP_HTTP_PORT", "ORDERKEEP_LOG_LEVEL", "ORDERKEEP_UNUSED_QUEUES"):
        assert variable in result.stderr


def test_what_a_person_can_mend_is_told_in_one_line(invoke: Invoke) -> None:
    result = invoke("orders", "list")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("orderkeep: there is no database at ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("module", "name"), WRONG_SETTINGS)
def test_what_a_person_can_mend_exists_under_its_name(module: str, name: str) -> None:
    error = getattr(importlib.import_module(module), name)

    assert issubclass(error, Exception)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (WrongUsageError("not so"), 2, "not so"),
        (FoundWrongError("there is none"), 1, "there is none"),
        (Refusal("not_found", "There is no order 7."), 1, "There is no order 7."),
        (Refusal("order_not_pending", "It is paid."), 1, "It is paid."),
        (Refusal("invalid_cursor", "Begin again."), 2, "Begin again."),
    ],
)
def test_an_expected_error_has_its_code_and_its_own_words(
    error: Exception, code: int, message: str
) -> None:
    assert exit_code_of(error) == code
    assert message_of(error) == message


def test_a_bug_is_told_shortly_with_the_way_to_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = tell(KeyError("colour"))

    assert code is ExitCode.BUG
    assert capsys.readouterr().err == (
        "orderkeep: unexpected KeyError: 'colour'\n"
        "This is a bug. Set ORDERKEEP_LOG_LEVEL=debug to see where it happened.\n"
    )


def test_a_debugging_person_sees_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERKEEP_LOG_LEVEL", "debug")
    try:
        raise KeyError("colour")  # noqa: TRY301 (what a bug looks like)
    except KeyError as error:
        tell(error)

    told = capsys.readouterr().err
    assert told.startswith("Traceback (most recent call last):\n")
    assert "test_command_line.py" in told


def test_an_error_nobody_loaded_the_module_of_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "WRONG_SETTINGS", (("orderkeep.no_such_module", "NoError"),))

    assert exit_code_of(ValueError("x")) is ExitCode.BUG


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from orderkeep.cli import app;"
        "heavy = {'alembic', 'asyncio', 'httpx', 'litestar', 'pydantic', 'sqlalchemy', 'uvicorn'};"
        "print(sorted(heavy & set(sys.modules)))"
    )

    shown = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )

    assert shown.stdout == "[]\n"


@pytest.mark.parametrize("only", ["", ",", " , "])
def test_work_that_is_to_do_nothing_is_refused(invoke: Invoke, only: str) -> None:
    result = invoke("work", "--only", only)

    assert result.exit_code == 2
    assert "names nothing" in result.stderr
