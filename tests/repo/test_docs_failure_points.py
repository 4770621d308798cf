"""The page about failure points names each one in the code, and where it is."""

import re

from tests.repo.checkout import ROOT
from tests.repo.written_tables import rows_of

SOURCES = ROOT / "src" / "orderkeep"

PAGE = ROOT / "docs" / "architecture" / "failure-points.md"


def reached_points() -> set[tuple[str, str]]:
    """Return each failure point that the sources reach, with its module."""
    return {
        (name, str(path.relative_to(SOURCES)))
        for path in SOURCES.rglob("*.py")
        for name in re.findall(r"(?<!`)\breach\(\"([^\"]+)\"\)", path.read_text())
        if path.name != "failure_points.py"
    }


def test_every_failure_point_stands_on_its_page() -> None:
    documented = [
        (row[0].strip("`"), re.sub(r"\[`([^`]+)`\]\(.*\)", r"\1", row[1]))
        for heading in re.findall(r"^## Points? .*$", PAGE.read_text(), re.MULTILINE)
        for row in rows_of(PAGE, heading=heading)
    ]

    assert set(documented) == reached_points()
    assert len(documented) == len(set(documented))
