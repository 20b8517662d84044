"""Runs as tables for a terminal."""

from rich.console import Group, RenderableType
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


def run_table(run: RunView) -> RenderableType:
    """Arms with their figures, contrasts with intervals, and what the controls say."""
    plan = run.manifest.plan
    title = f"{plan.experiment} {plan.profile}: {plan.title}, {counted(len(run.tasks), 'task')}, sandbox {run.manifest.sandbox}"
    table = Table()
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "arm" else "right")
    for row in begun_rows(run):
        table.add_row(*row)

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
    return Group(Text(title), table, place, *(Text(line) for part in parts for line in part(run)))
