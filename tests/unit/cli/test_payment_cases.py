"""What `payment-cases` lists, and how it ends."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Invoke

UNKNOWN_ORDER_NO = "0100000000000009"


@pytest.fixture(autouse=True)
def _case_without_currency(invoke: Invoke, tmp_path: Path) -> None:
    """Let one case wait: money for an order nobody has made, in a currency nobody named."""
    assert invoke("migrate").exit_code == 0
    with closing(sqlite3.connect(tmp_path / "data" / "orderkeep.db")) as database, database:
        database.execute(
            "INSERT INTO order_payments (pay_channel, trade_no, order_no, amount_minor, paid_at,"
            " received_at, outcome, message_id) VALUES ('bank', 'T-1', ?, 100, 1, 1, 'case', 'm')",
            (UNKNOWN_ORDER_NO,),
        )
        database.execute(
            "INSERT INTO payment_cases (kind, state, order_no, pay_channel, trade_no,"
            " amount_minor, message_id, detail, opened_at)"
            " VALUES ('unknown_order', 'open', ?, 'bank', 'T-1', 100, 'm', 'there is none', 1)",
            (UNKNOWN_ORDER_NO,),
        )


def test_an_action_that_does_not_fit_the_case_is_a_refusal_and_no_wrong_usage(
    invoke: Invoke,
) -> None:
    result = invoke("payment-cases", "resolve", "1", "refund", "--reason", "nobody ordered")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "the payment names no currency: give it back at the channel" in result.stderr


def test_cases_are_listed_by_order_and_by_trade_number(invoke: Invoke) -> None:
    def listed(*options: str) -> list[int]:
        page = json.loads(invoke("payment-cases", "list", *options, "--json").stdout)
        return [case["id"] for case in page["items"]]

    assert listed() == listed("--order", UNKNOWN_ORDER_NO) == listed("--trade-no", "T-1") == [1]
    assert listed("--trade-no", "T-2") == listed("--state", "resolved") == []
    assert (
        invoke("payment-cases", "resolve", "1", "dismiss", "--reason", "given back").exit_code == 0
    )
    assert listed() == []
    assert listed("--trade-no", "T-1") == [1]


def test_a_reason_has_two_spellings(invoke: Invoke) -> None:
    result = invoke("payment-cases", "resolve", "1", "dismiss", "--why", "given back")

    assert result.exit_code == 0
    shown = json.loads(invoke("payment-cases", "show", "1", "--json").stdout)
    assert shown["reason"] == "given back"
