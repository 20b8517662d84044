"""Runs as tables for a terminal."""

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from looper.records.text import counted
from looper.views.concurrency import concurrency_lines
from looper.views.findings import (
    COLUMNS,
    begun_rows,
    by_themselves,
    contrast_lines,
    control_lines,
    damage_lines,
    override_lines,
    registered_lines,
    stop_lines,
    stratified_lines,
    treatment_lines,
)
from looper.views.runs import RunView

WIDE = 10_000
"""Columns in which any table fits."""


def run_table(run: RunView) -> RenderableType:
    """Arms with their figures, contrasts with intervals, and what the controls say."""
    plan = run.manifest.plan
    title = f"{plan.experiment} {plan.profile}: {plan.title}, {counted(len(run.tasks), 'task')}, sandbox {run.manifest.sandbox}"

    def against_base(run: RunView) -> list[str]:
        lines = contrast_lines(run)
        return [f"{by_themselves(run)}:", *lines] if lines else []

    parts = (
        override_lines,
        stop_lines,
        registered_lines,
        stratified_lines,
        against_base,
        control_lines,
        treatment_lines,
        concurrency_lines,
        damage_lines,
    )
    place = Text(str(run.folder), no_wrap=True, overflow="ignore")
    return Group(
        Text(title), _Arms(begun_rows(run)), place, *(Text(line) for part in parts for line in part(run))
    )


@dataclass(frozen=True)
class _Arms:
    """A table where it fits; else a paragraph for each arm, since a table that is too wide would lose names and figures."""

    rows: list[tuple[str, ...]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table()
        for name in COLUMNS:
            table.add_column(name, justify="left" if name == "arm" else "right")
        for row in self.rows:
            table.add_row(*row)
        if Measurement.get(console, options.update(max_width=WIDE), table).maximum <= options.max_width:
            yield table
            return
        for arm, *figures in self.rows:
            said = (f"{name} {figure}" for name, figure in zip(COLUMNS[1:], figures, strict=True))
            yield Text(f"{arm}: {', '.join(said)}")
