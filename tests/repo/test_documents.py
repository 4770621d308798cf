"""What is written in Markdown holds together."""

import re
from pathlib import Path

import pytest

from tests.repo.checkout import ROOT, repository_files
from tests.repo.documents import anchors, broken_links

DECISIONS = ROOT / "docs" / "decisions"

DECISION_PARTS = ["Context", "Decision", "Consequences"]


def decisions() -> list[Path]:
    return sorted(DECISIONS.glob("[0-9][0-9][0-9][0-9]-*.md"))


def test_every_relative_link_leads_somewhere() -> None:
    broken = [sentence for path in repository_files("**/*.md") for sentence in broken_links(path)]

    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    "link", ["missing.md", "../missing/", "#no-such-heading", "other.md#no-such-heading"]
)
def test_a_broken_link_is_found(tmp_path: Path, link: str) -> None:
    document = tmp_path / "document.md"
    document.write_text(f"# A heading\n\nSee [there]({link}).\n")
    (tmp_path / "other.md").write_text("# Another heading\n")

    assert len(list(broken_links(document))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "[there](other.md)",
        "[there](other.md#how-it-works-1)",
        "[here](#a-heading)",
        "[far away](https://shop.example/missing.md)",
        "`[code](missing.md)`",
        "```\n[code](missing.md)\n```",
    ],
)
def test_a_good_link_is_let_be(tmp_path: Path, text: str) -> None:
    document = tmp_path / "document.md"
    document.write_text(f"# A heading\n\n{text}\n")
    (tmp_path / "other.md").write_text("# How it works\n\n## How it works\n")

    assert list(broken_links(document)) == []


def test_a_heading_is_linked_to_by_its_words(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("# The `run` command: what it does\n\n```sh\n# no heading\n```\n")

    assert anchors(document) == {"the-run-command-what-it-does"}


def test_every_decision_is_listed_with_its_title() -> None:
    listed = re.findall(
        r"\[(\d{4})\]\(([^)]+)\) \| ([^|]+) \|", (DECISIONS / "README.md").read_text()
    )

    written = [
        (path.name[:4], path.name, path.read_text().splitlines()[0].removeprefix("# ").strip())
        for path in decisions()
    ]
    assert [
        (number, name, f"{number}. {title.strip()}") for number, name, title in listed
    ] == written


def test_decisions_are_numbered_from_one_without_a_gap() -> None:
    numbers = [int(path.name[:4]) for path in decisions()]

    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 9


@pytest.mark.parametrize("path", decisions(), ids=lambda path: path.stem)
def test_every_decision_has_its_parts(path: Path) -> None:
    headings = re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE)

    assert headings == DECISION_PARTS
    assert re.search(r"^Status: (accepted|superseded by )", path.read_text(), re.MULTILINE)
