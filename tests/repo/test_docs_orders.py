"""The page about orders lists what `verify` checks."""

from orderkeep.orders.verify import CHECKS
from tests.repo.checkout import ROOT
from tests.repo.written_tables import check_part, code, table


def test_every_invariant_stands_on_the_page() -> None:
    rows = [(code(check.invariant), check.says, check.remedy) for check in CHECKS]

    check_part(
        ROOT / "docs" / "architecture" / "orders.md",
        writer=__file__,
        text=table(("invariant", "says", "if it does not"), rows),
    )
