"""The page about the doctor names every examination."""

import re

from tests.repo.checkout import ROOT
from tests.repo.written_tables import rows_of

PAGE = ROOT / "docs" / "how-to" / "doctor.md"

_NAME = re.compile(r'"((?:settings|database|messages|broker)(?:\.[a-z_]+)?)"')


def test_every_examination_stands_on_the_page() -> None:
    sources = (ROOT / "src" / "orderkeep" / "wiring" / "doctor").glob("*.py")
    named = {name for path in sources for name in _NAME.findall(path.read_text())}

    rows = rows_of(PAGE, heading="## What it looks at")
    documented = [name for row in rows for name in re.findall(r"`([a-z_.]+)`", row[0])]

    assert sorted(documented) == sorted(named)
