"""`python -m bench.page`: write what the last run has shown into docs/performance.md."""

import json
import sys
from pathlib import Path

from bench.__main__ import PROGRAMS, header
from bench.figures import RESULTS_DIR

_PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_BEGIN = "<!-- results: written by `python -m bench.page` -->\n"
_END = "<!-- end of results -->\n"


def main() -> int:
    """Write the page and return the exit code."""
    results = json.loads((RESULTS_DIR / "latest.json").read_text(encoding="utf-8"))
    parts = [header(results)]
    parts += [program.show(results[name]) for name, program in PROGRAMS.items() if name in results]
    before, _, rest = _PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    shown = "\n".join(parts)
    _PAGE.write_text(f"{before}{_BEGIN}\n```text\n{shown}\n```\n\n{_END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
