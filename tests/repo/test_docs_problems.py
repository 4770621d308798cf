"""The reference of error codes has every code, with its status and when to try again."""

import json

from orderkeep.orders.stock import Shortage, out_of_stock
from orderkeep.web.problems import KINDS, problem_of
from tests.acceptance.walks import blocks_of
from tests.repo.written_tables import REFERENCE, code, rows_of

PAGE = REFERENCE / "problems.md"


def test_every_error_code_stands_in_the_reference() -> None:
    rows = rows_of(PAGE, heading="## Codes")

    assert [tuple(row[:4]) for row in rows] == [
        (code(name), str(kind.status), kind.title, _retry_after(kind.retry_after_s))
        for name, kind in KINDS.items()
    ]
    assert all(len(row) == 5 and row[4] for row in rows)


def test_the_example_is_what_is_answered() -> None:
    (example,) = (block for block in blocks_of(PAGE.read_text()) if block.language == "json")
    shown = json.loads(example.text)

    refusal = out_of_stock([Shortage(sku_id="tea", requested=9, available=8)])
    answered = problem_of(refusal, request_id=shown["request_id"])

    assert list(shown.items()) == list(json.loads(answered.body).items())


def _retry_after(seconds: int | None) -> str:
    return "" if seconds is None else f"{seconds} s"
