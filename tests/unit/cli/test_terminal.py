"""What commands write: nothing of it can move a cursor, and nothing is cut where nobody looks."""

import io
import json
import sys

import pytest
import typer

from orderkeep.cli import terminal
from orderkeep.cli.exits import WrongUsageError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 茶", "plain 茶"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("one\ntwo\r", r"one\ntwo\r"),
        ("\x9b\x00", r"\x9b\x00"),
    ],
)
def test_what_does_not_print_is_written_out(text: str, shown: str) -> None:
    assert terminal.printable(text) == shown


def test_a_table_for_a_pipe_has_whole_values_and_no_frame(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal.print_table(("name", "count"), [("x" * 200, 7), ("[red]", None)], numbers=("count",))

    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["name", "count"], ["x" * 200, "7"], ["[red]"]]
    assert [line for line in lines if line != line.rstrip()] == []


def test_on_a_narrow_terminal_ids_and_moments_stay_whole_and_words_fold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "50")
    order_no, moment = "0117041032000000000000000006", "2026-11-29T18:32:21.489050Z"
    words = "many words that need no line of their own"

    terminal.print_table(("order", "made", "title"), [(order_no, moment, words)])

    shown = capsys.readouterr().out
    assert order_no in shown
    assert moment in shown
    assert words not in shown


def test_an_escape_sequence_in_a_table_is_written_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal.print_table(("title",), [("\x1b[2Jgone",)])

    assert "\x1b" not in (shown := capsys.readouterr().out)
    assert r"\x1b[2Jgone" in shown


def test_fields_without_a_value_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_fields({"order": "01", "paid": None, "to": "a\nb"})

    assert capsys.readouterr().out == "order  01\nto     a\\nb\n"


def test_a_document_is_json_in_utf_8(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    terminal.print_json({"title": "茶", "amount": "1.00"})

    shown = capfdbinary.readouterr().out
    assert json.loads(shown.decode("utf-8")) == {"title": "茶", "amount": "1.00"}
    assert "茶".encode() in shown


def test_a_confirmed_question_is_not_asked(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.confirm("Really?", is_confirmed=True)

    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("typed", ["y\n", "Yes\n", " YES "])
def test_a_yes_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))

    terminal.confirm("Really?", is_confirmed=False)

    assert capsys.readouterr() == ("", "Really? [y/N] ")


@pytest.mark.parametrize("typed", ["n\n", "\n", "yeah\n"])
def test_anything_else_ends_the_command_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))

    with pytest.raises(typer.Exit) as caught:
        terminal.confirm("Really?", is_confirmed=False)

    assert caught.value.exit_code == 1
    assert capsys.readouterr() == ("", "Really? [y/N] Nothing was changed.\n")


def test_where_nobody_can_answer_a_question_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))

    with pytest.raises(WrongUsageError, match="--yes"):
        terminal.confirm("Really?", is_confirmed=False)


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 dead letters"),
        (1, "1 dead letter"),
        (2, "2 dead letters"),
        (9, "9 or more dead letters"),
    ],
)
def test_things_are_counted_as_a_person_would(count: int, said: str) -> None:
    assert terminal.counted(count, "dead letter", count_max=9) == said
