"""The parts of the reference that are written by the code itself, between two comments.

    <!-- written by tests/repo/test_docs_settings.py -->
    ...
    <!-- end -->

`WRITE_DOCS=1 make test PYTEST_ARGS="-n 0 -k docs"` writes them anew.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tests.repo.checkout import ROOT

REFERENCE = ROOT / "docs" / "reference"

_PART = re.compile(
    r"(<!-- written by (?P<writer>\S+) -->\n).*?(<!-- end -->\n)", re.MULTILINE | re.DOTALL
)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; a bar inside a cell is escaped."""
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def code(text: str) -> str:
    """Return the text as code, or nothing where there is none."""
    return f"`{text}`" if text else ""


def check_part(document: Path, *, writer: str, text: str) -> None:
    """Fail unless the part of the document that the writer owns is the given text.

    Args:
        document: Has exactly one part of this writer.
        writer: The file of the test that calls.
        text: What should stand there.
    """
    before = document.read_text()
    name = str(Path(writer).relative_to(ROOT))
    owned = [part for part in _PART.finditer(before) if part["writer"] == name]
    assert len(owned) == 1, f"{document.name} has {len(owned)} parts that {name} writes"
    part = owned[0]
    after = before[: part.end(1)] + text + before[part.start(3) :]
    if os.environ.get("WRITE_DOCS"):
        document.write_text(after)
        return
    hint = f'{document.name} is not in step: WRITE_DOCS=1 make test PYTEST_ARGS="-n 0 -k docs"'
    assert before == after, hint


def rows_of(document: Path, *, heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading of a document, without its columns."""
    _, found, rest = document.read_text().partition(f"\n{heading}\n")
    assert found, f"{document.name} has no {heading}"
    lines = rest.split("\n")
    start = next(index for index, line in enumerate(lines) if line.startswith("|"))
    rows: list[list[str]] = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows
