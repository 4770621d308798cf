"""`python -m bench.page`: write what the last run has shown into docs/performance.md.

What takes hours is measured by itself. So the last results of programs that were run alone are
shown as well, behind the others, with what they say of themselves.
"""

import json
import sys
from pathlib import Path
from typing import Any

from bench.__main__ import PROGRAMS, header
from bench.figures import RESULTS_DIR
from bench.plots import svg_of

_DOCS = Path(__file__).parents[1] / "docs"
_PAGE = _DOCS / "performance.md"
_PLOTS_DIR = _DOCS / "plots"
_BEGIN = "<!-- results: written by `python -m bench.page` -->\n"
_END = "<!-- end of results -->\n"


def main() -> int:
    """Write the page with its plots, and return the exit code."""
    results = _read("latest")
    apart = {name: _read(name) for name in PROGRAMS if (RESULTS_DIR / f"{name}.json").exists()}
    parts = [header(results)]
    parts += [program.show(results[name]) for name, program in PROGRAMS.items() if name in results]
    shown = "\n".join(parts)
    blocks = [f"```text\n{shown}\n```\n"]
    if apart:
        blocks.append(
            "Measured apart from these, on the same machine, for as long as the answer needs:\n"
        )
        text = "\n".join(PROGRAMS[name].show(one) for name, one in apart.items()).lstrip()
        blocks.append(f"```text\n{text}\n```\n")
    blocks.append(_plots({**results, **apart}))
    before, _, rest = _PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    page = "\n".join([f"{before}{_BEGIN}", *blocks, f"{_END}{after}"])
    _PAGE.write_text(page, encoding="utf-8")
    return 0


def _read(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((RESULTS_DIR / f"{name}.json").read_text(encoding="utf-8"))
    return read


def _plots(results: dict[str, Any]) -> str:
    """Draw the plots, and return the lines that show them."""
    _PLOTS_DIR.mkdir(exist_ok=True)
    for old in _PLOTS_DIR.glob("*.svg"):
        old.unlink()
    lines: list[str] = []
    for name, program in PROGRAMS.items():
        if name not in results or not hasattr(program, "plots"):
            continue
        for plot in program.plots(results[name]):
            (_PLOTS_DIR / f"{plot.name}.svg").write_text(svg_of(plot), encoding="utf-8")
            lines.append(f"![{plot.title}](plots/{plot.name}.svg)\n")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
