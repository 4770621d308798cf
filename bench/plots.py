"""Rates as bars, drawn as SVG: to be seen in a page, in the light and in the dark.

A bar is as long as its median; the line across its end goes from the lowest to the highest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.figures import Figure

_WIDTH = 760
_LABEL_WIDTH = 290
_NUMBER_WIDTH = 90
_ROW_HEIGHT = 26
_BAR_HEIGHT = 15
_TITLE_HEIGHT = 34
_FOOT_HEIGHT = 8

# Colours that stand out from white and from near black alike.
_OURS = "#2f9e6e"
_OTHERS = "#8a97a8"
_TEXT = "#7a8594"
_SPREAD = "#c2553a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Some rates beside each other.

    Attributes:
        name: Of the file, without its ending.
        title: What the bars are of, with their unit.
        bars: By label, from top to bottom; none is below zero.
        ours: Labels of what is measured; the others are what it is measured by.
    """

    name: str
    title: str
    bars: Mapping[str, Figure]
    ours: Sequence[str]


def svg_of(plot: Plot) -> str:
    """Return the plot as the text of an SVG file."""
    height = _TITLE_HEIGHT + _ROW_HEIGHT * len(plot.bars) + _FOOT_HEIGHT
    longest = max(figure.highest for figure in plot.bars.values()) or 1
    scale = (_WIDTH - _LABEL_WIDTH - _NUMBER_WIDTH) / longest
    rows = [
        _row(label, figure, y=_TITLE_HEIGHT + _ROW_HEIGHT * number, scale=scale, plot=plot)
        for number, (label, figure) in enumerate(plot.bars.items())
    ]
    words = "; ".join(f"{label}: {figure.median:,.0f}" for label, figure in plot.bars.items())
    opening = _element(
        "svg",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_WIDTH} {height}",
        width=_WIDTH,
        height=height,
        role="img",
        font_family="system-ui, sans-serif",
        font_size=13,
    )
    return "\n".join(
        [
            f"{opening[:-2]}>",
            f"<title>{escape(plot.title)}</title>",
            f"<desc>{escape(words)}</desc>",
            _text(plot.title, x=0, y=18, font_weight=600),
            *rows,
            "</svg>\n",
        ]
    )


def _row(label: str, figure: Figure, *, y: int, scale: float, plot: Plot) -> str:
    middle = y + _ROW_HEIGHT // 2
    lowest, end, highest = (
        _LABEL_WIDTH + scale * value for value in (figure.lowest, figure.median, figure.highest)
    )
    bar = _element(
        "rect",
        x=_LABEL_WIDTH,
        y=middle - _BAR_HEIGHT / 2,
        width=max(end - _LABEL_WIDTH, 1.0),
        height=_BAR_HEIGHT,
        fill=_OURS if label in plot.ours else _OTHERS,
    )
    spread = _element(
        "line", x1=lowest, x2=highest, y1=middle, y2=middle, stroke=_SPREAD, stroke_width=2
    )
    return "\n".join(
        [
            _text(label, x=_LABEL_WIDTH - 8, y=middle + 4, text_anchor="end"),
            bar,
            spread,
            _text(f"{figure.median:,.0f}", x=highest + 8, y=middle + 4),
        ]
    )


def _text(text: str, **attributes: object) -> str:
    return f"{_element('text', fill=_TEXT, **attributes)[:-2]}>{escape(text)}</text>"


def _element(name: str, **attributes: object) -> str:
    """Return an element without content; numbers are rounded to a tenth."""
    shown = " ".join(
        f'{key.replace("_", "-")}="{round(value, 1) if isinstance(value, float) else value}"'
        for key, value in attributes.items()
    )
    return f"<{name} {shown}/>"
