"""Every run on one terminal screen, from the same projection as the pages."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from looper.errors import as_called
from looper.views.findings import percent
from looper.views.live import go_on_lines, nodes_text
from looper.views.runs import no_run
from looper.views.show import duration, harmless, shortened

COLOURS = {"running": "green", "stalled": "red", "stopped": "yellow", "finished": "dim"}
BAR = 20
"""Characters."""
NODES = 4
"""Machines that are named in a line; the others are counted."""


def screen(status: Mapping[str, Any], height: int, runs_folder: Path) -> RenderableType:
    """What fits into so many lines of 80 characters: the newest run with its arms, the runs before it, what cannot be read."""
    runs = list(reversed(status["runs"]))
    if not runs:
        return Text(as_called(no_run(runs_folder)))
    height -= bool(runs[0]["pilot"]) + bool(runs[0]["nodes"])  # Which take a line of their own.
    parts: list[RenderableType] = [*_head(runs[0]), _arms(runs[0], max(3, height - 12))]
    rest = runs[1 : max(2, height - 8 - min(len(runs[0]["arms"]), height - 12))]
    if rest:
        parts.append(Text())
        parts += [_line(run) for run in rest]
    # A line is cut at its end: names come first, and where all runs lie is known.
    unreadable = [harmless(said.replace(f"{runs_folder}/", "")) for said in status["unreadable"]]
    parts += [Text(said, style="red", overflow="ellipsis", no_wrap=True) for said in unreadable]
    return Group(*parts)


def _head(run: Mapping[str, Any]) -> Iterator[Text]:
    yield _line(run)
    words = [f"process {run['writer']}" if run["writer"] else "not running"]
    if run["left_s"] is not None:
        about, low, high = map(duration, run["left_s"])
        words.append(f"about {about} left ({low} to {high})")
    if run["writer"]:
        words.append(f"last record {duration(run['quiet_s'])} ago")
    if run["tokens"]:
        words.append(f"{shortened(run['tokens'])} tokens")
    if run["damaged_records"]:
        words.append(f"{run['damaged_records']} damaged records")
    yield Text(", ".join(words), style="dim")
    if run["pilot"]:
        yield Text(harmless(run["pilot"]), style="yellow")
    if machines := nodes_text(run, NODES):
        yield Text(machines, style="dim", no_wrap=True, overflow="ellipsis")
    for line in go_on_lines(run):
        yield Text(harmless(line), style="yellow" if line in run["stopped_by"] else "dim")


def _line(run: Mapping[str, Any]) -> Text:
    share = run["finished"] / run["planned"] if run["planned"] else 0.0
    filled = round(BAR * share)
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{run['run'][:30]:30} ")
    line.append("━" * filled, style="green").append("━" * (BAR - filled), style="dim")
    line.append(f" {run['finished']:>5}/{run['planned']:<5} ")
    line.append(run["standing"], style=COLOURS[run["standing"]])
    return line


def _arms(run: Mapping[str, Any], most: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("arm", "resolved", "of", "rate", "infra", "out of time"):
        table.add_column(name, justify="left" if name == "arm" else "right", no_wrap=True)
    for arm in run["arms"][:most]:
        rate = percent(arm["resolved"] / arm["attempted"]) if arm["attempted"] else "–"
        table.add_row(
            arm["arm"][:28],
            *(str(arm[key]) for key in ("resolved", "attempted")),
            rate,
            *(str(arm[key]) for key in ("infra_errors", "time_limits")),
        )
    if len(run["arms"]) > most:
        table.add_row(f"and {len(run['arms']) - most} more")
    return table
