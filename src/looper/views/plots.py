"""Figures of a run, drawn by matplotlib, as SVG text that takes its colours from the page around it.

The same drawing is the same file, so that a page can be made again and compared. Colours of text and axes are placeholders until
the SVG is put into a page, whose theme gives them.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.views.findings import percent

INK, FAINT = "#010203", "#040506"
"""Stand for the page's own text colours until the SVG is written."""
COLOURS = (
    "#3b76c4", "#c4623b", "#3b9b6d", "#9a5bb5", "#b08d23", "#4aa3b0", "#b54a74", "#7a7a7a",
    "#5856b8", "#8c6239", "#6b8e23", "#d0473f", "#c06fb0", "#2f7f8f",
)  # fmt: skip
"""Of arms, in the order of the plan; three times as bright or as dark as the page in either theme."""
ROW_INCHES = 0.32


@dataclass(frozen=True)
class Interval:
    """One row of a forest plot; all rows in one unit."""

    name: str
    difference: float
    low: float
    high: float
    emphasis: bool
    """Registered before the data, and decided."""


@dataclass(frozen=True)
class Figure:
    """A drawing and what it shows, in words for those who cannot see it."""

    name: str
    svg: str
    alt: str
    canvas: Any
    """matplotlib's own, to be drawn in another form."""


def forest(
    rows: Sequence[Interval], name: str = "forest", unit: str = "points of resolve rate", digits: int = 1
) -> Figure:
    """Differences with their intervals; those that were registered and are decided are filled."""
    figure, axes = _empty(7.2, 0.9 + ROW_INCHES * len(rows))
    for at, row in enumerate(reversed(rows)):
        axes.plot([row.low, row.high], [at, at], color=INK, linewidth=1.6, solid_capstyle="butt")
        axes.plot(
            [row.difference],
            [at],
            "o",
            color=INK,
            markerfacecolor=INK if row.emphasis else "none",
            markersize=6,
        )
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(unit)
    said = "; ".join(
        f"{row.name} {row.difference:+.{digits}f}"
        + (f" ({row.low:+.{digits}f} to {row.high:+.{digits}f})" if row.low < row.high else "")
        for row in rows
    )
    return _done(name, figure, f"Differences in {unit}: {said}")


def curves(shares: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> Figure:
    """Share resolved of the first n tasks, for each arm, in its colour."""
    figure, axes = _empty(7.2, 3.4)
    for number, (name, values) in enumerate(shares.items()):
        style = "-" if number < len(COLOURS) else "--"
        axes.plot(
            range(1, len(values) + 1),
            [100 * value for value in values],
            style,
            color=colours[name],
            linewidth=1.4,
            label=name,
        )
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("tasks, in the order of the sequence")
    axes.set_ylabel("percent resolved so far")
    axes.set_ylim(-2, 102)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8)
    last = ", ".join(f"{name} {percent(values[-1])}" for name, values in shares.items() if values)
    return _done("curves", figure, f"Share resolved over the sequence; at its end: {last}")


def cost(points: Mapping[str, tuple[float, float]], colours: Mapping[str, str]) -> Figure:
    """Tokens of a rollout against the share resolved, a point for each arm, in its colour."""
    figure, axes = _empty(7.2, 3.2)
    for number, (name, (tokens, share)) in enumerate(points.items()):
        marker = "o" if number < len(COLOURS) else "s"
        axes.plot([tokens], [100 * share], marker, color=colours[name], markersize=6, label=name)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8)
    axes.set_xlabel("tokens of a rollout, prompt and completion (mean)")
    axes.set_ylabel("percent resolved")
    axes.margins(x=0.15, y=0.15)
    said = "; ".join(
        f"{name} {tokens:.0f} tokens, {percent(share)}" for name, (tokens, share) in points.items()
    )
    return _done("cost", figure, f"Cost against score: {said}")


def _empty(width: float, height: float) -> tuple[Any, Any]:
    """A figure without a window system, and its axes."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure as Canvas

    # Text stays text, so that it can be read aloud, searched and coloured by the page.
    rcParams["svg.fonttype"] = "none"
    # The same drawing is the same file.
    rcParams["svg.hashsalt"] = "looper"
    figure = Canvas(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)
    return figure, axes


def _done(name: str, figure: Any, alt: str) -> Figure:
    for legend in (axes.get_legend() for axes in figure.axes):
        if legend is not None:
            for text in legend.get_texts():
                text.set_color(INK)
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Figure(name, text.getvalue(), alt, figure)


def inline(figure: Figure) -> str:
    """The drawing as part of a page: its ink is the page's, its ids are its own."""
    svg = figure.svg[figure.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace(INK, "currentColor").replace(FAINT, "var(--faint)")
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{figure.name}-", svg)
    svg = re.sub(
        r' width="[\d.]+pt" height="[\d.]+pt"| height="[\d.]+pt"| width="[\d.]+pt"', "", svg, count=2
    )
    return svg.replace("<svg", f'<svg role="img" aria-labelledby="{figure.name}-alt"', 1)


def save(figure: Figure, folder: Path) -> None:
    """The drawing in black on white, as an SVG and a PNG file of its own."""
    folder.mkdir(exist_ok=True)
    (folder / f"{figure.name}.png").write_bytes(as_png(figure))
    (folder / f"{figure.name}.svg").write_text(on_white(figure), "utf-8")


def as_png(figure: Figure) -> bytes:
    drawn = io.BytesIO()
    figure.canvas.savefig(drawn, format="png", dpi=150, facecolor="white")
    return drawn.getvalue()


def on_white(figure: Figure) -> str:
    """The drawing as a file of its own: the ink that stands for the page's colours is nearly black itself."""
    return figure.svg.replace(INK, "#222222").replace(FAINT, "#999999")
