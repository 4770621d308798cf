"""A misspelt filter is refused: an empty answer would look as if all were well."""

import pytest

from tests.unit.cli.conftest import Invoke


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("dead-letters list --queue cart-sink", "--queue: 'cart-sink'|cart-sync"),
        ("dead-letters replay --queue cart-sink", "--queue: 'cart-sink'|cart-sync"),
        ("dead-letters discard --queue cart-sink --yes", "--queue: 'cart-sink'|cart-sync"),
        ("outbox retry --route cart-sink", "--route: 'cart-sink'|cart-sync"),
        ("outbox discard --route order.evnts --yes", "--route: 'order.evnts'|order.events"),
        ("outbox replay --route order.evnts", "--route: 'order.evnts'|order.events"),
        ("outbox replay --order 01 --queue ordr.outbox", "--queue: 'ordr.outbox'|order.outbox"),
        ("audit list --action outbox.rplay", "--action: 'outbox.rplay'|outbox.replay"),
    ],
)
def test_a_name_that_nobody_has_is_wrong_usage(invoke: Invoke, command: str, told: str) -> None:
    assert invoke("migrate").exit_code == 0

    result = invoke(*command.split())

    where, meant = told.split("|")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"{where} is not known; did you mean {meant}?" in result.stderr


def test_a_word_that_an_option_does_not_take_is_told_plainly(invoke: Invoke) -> None:
    result = invoke("orders", "list", "--status", "piad")

    assert result.exit_code == 2
    assert "'piad' is not one of" in result.stderr
    assert "Value error" not in result.stderr
