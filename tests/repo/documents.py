"""Reads the repository's Markdown: its links, and the places that links may point to."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def broken_links(path: Path) -> Iterator[str]:
    """Yield each relative link of a document whose file or heading does not exist."""
    prose = _CODE.sub("", _FENCE.sub("", path.read_text()))
    for link in _LINK.findall(prose):
        if _ELSEWHERE.match(link):
            continue
        name, _, heading = unquote(link).partition("#")
        target = path.parent / name if name else path
        if not target.exists():
            yield f"{path}: {link} leads nowhere"
        elif heading and target.suffix == ".md" and heading not in anchors(target):
            yield f"{path}: {link} names no heading"


def anchors(path: Path) -> set[str]:
    """Return the names under which a document's headings can be linked to."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", path.read_text())):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        # A second heading of the same words gets a number.
        candidates = (anchor, *(f"{anchor}-{number}" for number in range(1, 100)))
        found.add(next(each for each in candidates if each not in found))
    return found
