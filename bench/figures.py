"""Numbers made readable: medians with their spread, tables, and what machine they come from."""

import json
import platform
import sqlite3
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from os import cpu_count, getloadavg
from pathlib import Path
from typing import Any

RESULTS_DIR = Path(__file__).parent / "results"


class SkippedError(Exception):
    """A program cannot measure here, because something it needs is missing; the text says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number measured a few times."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        """Return the median with its spread."""
        return f"{self.median:,.0f} ({self.lowest:,.0f} to {self.highest:,.0f})"

    def as_json(self) -> dict[str, float]:
        """Return the three numbers by name."""
        return {
            "median": round(self.median, 3),
            "lowest": round(self.lowest, 3),
            "highest": round(self.highest, 3),
        }


def figure_of(values: Sequence[float]) -> Figure:
    """Return the figure of at least one measured value."""
    return Figure(median=statistics.median(values), lowest=min(values), highest=max(values))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least the given share of the values does not exceed."""
    ranked = sorted(values)
    return ranked[max(0, min(len(ranked) - 1, round(share * len(ranked) + 0.5) - 1))]


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under their header, each column as wide as its widest text."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, ["-" * width for width in widths], *rows)
    ]
    return "\n".join(["", title, *lines])


def bar_line(bar: str, *, is_met: bool) -> str:
    """Return the line that says what was asked for, and whether this run met it."""
    return f"Bar: {bar}: {'met' if is_met else 'NOT MET'}"


def machine() -> dict[str, str]:
    """Return what is measured on; nothing that names the machine."""
    return {
        "processor": f"{cpu_count()} cores, {platform.machine()}",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": f"{sqlite3.sqlite_version}, WAL, synchronous=FULL",
        "orderkeep": version("orderkeep"),
    }


def load() -> float:
    """Return how many programs had work at once, in the mean of the last minute."""
    return round(getloadavg()[0], 1)


def say(text: str) -> None:
    """Show progress, apart from the results."""
    print(text, file=sys.stderr, flush=True)


def keep(name: str, results: dict[str, Any]) -> None:
    """Write the results of one program, or of all of them, where they can be read again."""
    RESULTS_DIR.mkdir(exist_ok=True)
    text = json.dumps(results, indent=2)
    (RESULTS_DIR / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
