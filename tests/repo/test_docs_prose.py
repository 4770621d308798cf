"""How the documents are written: a line for each sentence, and nothing of anybody's machine."""

import re
from pathlib import Path

import pytest

from tests.acceptance.walks import blocks_of
from tests.repo.checkout import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# After a full stop, a question mark or an exclamation mark a new sentence begins on a new line.
_TWO_SENTENCES = re.compile(r"[a-z0-9)`\"”][.!?] +[A-Z`\[(]")

_MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:work|home|root|Users|tmp)/")

# Lists and tables keep an entry on one line; the heading of a decision begins with its number.
_ENTRY = re.compile(r"^\s*(?:[-*|#]|\d+\.) ?")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose_lines(text: str) -> list[tuple[int, str]]:
    """Return the numbered lines of a document's paragraphs, without what stands in code."""
    fenced: set[int] = set()
    for block in blocks_of(text):
        fenced.update(range(block.line, block.line + block.text.count("\n") + 3))
    return [
        (number, re.sub(r"`[^`]*`", "`code`", line))
        for number, line in enumerate(text.split("\n"), start=1)
        if number not in fenced and not _ENTRY.match(line) and not line.startswith("<!--")
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_each_sentence_has_a_line_of_its_own(path: Path) -> None:
    crowded = [
        f"{path.name}:{number}: {line}"
        for number, line in prose_lines(path.read_text())
        if _TWO_SENTENCES.search(line)
    ]

    assert not crowded, "\n".join(crowded)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_no_document_names_a_folder_of_one_machine(path: Path) -> None:
    assert _MACHINE_PATHS.findall(path.read_text()) == []


@pytest.mark.parametrize(
    ("line", "is_crowded"),
    [
        ("It stops. It starts.", True),
        ("It stops (or not). Then it starts.", True),
        ("Is it up? `run` tells.", True),
        ("It takes 1.5 seconds, e.g. less.", False),
        ("`It stops. It starts.`", False),
        ("- It stops. It starts.", False),
    ],
)
def test_two_sentences_on_a_line_are_found(line: str, *, is_crowded: bool) -> None:
    found = [text for _, text in prose_lines(line) if _TWO_SENTENCES.search(text)]

    assert bool(found) is is_crowded
