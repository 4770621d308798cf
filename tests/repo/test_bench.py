"""The benchmarks are all run, in the sizes they know, and the page says what each one asks."""

import importlib
import inspect
import re
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

from tests.repo.checkout import ROOT

# By name, for mypy checks what tests import, and benchmarks are not typed that strictly.
BENCH = importlib.import_module("bench.__main__")
PROGRAMS = BENCH.PROGRAMS

PAGE = (ROOT / "docs" / "performance.md").read_text()


def test_every_program_is_run() -> None:
    programs = {
        path.stem
        for path in (ROOT / "bench").glob("*.py")
        if re.search(r"^NAME = ", path.read_text(), re.MULTILINE)
    }

    assert PROGRAMS.keys() == programs


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_takes_the_sizes_that_a_full_run_gives_it(program: ModuleType) -> None:
    sizes = getattr(program, "FULL_SIZES", {})

    taken = inspect.signature(program.run).parameters

    assert sizes.keys() <= taken.keys()
    assert all(parameter.default is not inspect.Parameter.empty for parameter in taken.values())


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_page_says_what_a_program_asks(name: str) -> None:
    assert f"| `{name}` |" in PAGE
    only_full = getattr(PROGRAMS[name], "NEEDS_FULL", False)
    assert ("`make bench-full` only" in _row(name)) == only_full


def test_a_program_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert BENCH.main(["--full", "no_such_program"]) == 2

    assert "no such program: no_such_program" in capsys.readouterr().err


def test_a_peer_has_nothing_of_ours() -> None:
    for path in (ROOT / "bench" / "peers").rglob("*.py"):
        imported = re.findall(r"^\s*(?:from|import) ([\w.]+)", path.read_text(), re.MULTILINE)

        ours = [
            name
            for name in imported
            if name.partition(".")[0] in {"orderkeep", "tests"}
            or (name.startswith("bench") and not name.startswith("bench.peers."))
        ]

        assert ours == [], path


def _row(name: str) -> str:
    return next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))


def test_a_plot_shows_every_bar_and_whose_it_is() -> None:
    plots = importlib.import_module("bench.plots")
    figure = importlib.import_module("bench.figures").Figure
    plot = plots.Plot(
        name="some",
        title="Orders per second, <many> SKUs",
        bars={
            "a & b": figure(median=50.0, lowest=40.0, highest=60.0),
            "ours": figure(median=1_200.4, lowest=1_100.0, highest=1_300.0),
        },
        ours=["ours"],
    )

    drawing = ET.fromstring(plots.svg_of(plot))  # noqa: S314 (our own)

    namespace = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in drawing.iter(f"{namespace}text")]
    assert texts == ["Orders per second, <many> SKUs", "a & b", "50", "ours", "1,200"]
    bars = [element.attrib for element in drawing.iter(f"{namespace}rect")]
    assert float(bars[1]["width"]) / float(bars[0]["width"]) == pytest.approx(24.0, rel=0.01)
    assert bars[0]["fill"] != bars[1]["fill"]
    highest = [float(element.attrib["x2"]) for element in drawing.iter(f"{namespace}line")]
    assert max(highest) < float(drawing.attrib["width"])


def test_the_page_shows_the_plots_that_are_there_and_no_others() -> None:
    shown = set(re.findall(r"]\(plots/([\w-]+)\.svg\)", PAGE))

    assert shown == {path.stem for path in (ROOT / "docs" / "plots").glob("*.svg")}
    assert shown
