"""Runs as sections of a Markdown file, between markers, so that they can be written again from the records."""

import re

from looper.records.history import History
from looper.records.text import counted
from looper.views.concurrency import concurrency_lines
from looper.views.figures import behaviour, likelihoods
from looper.views.findings import (
    COLUMNS,
    before_lines,
    begun_rows,
    by_themselves,
    contrast_lines,
    control_lines,
    damage_lines,
    override_lines,
    result_lines,
    stop_lines,
    stratified_lines,
    treatment_lines,
)
from looper.views.history import history_lines
from looper.views.runs import RunView
from looper.views.show import markdown_table

_MARK = re.compile(r"<!--\s*looper\s+report\s+[^\s>]+\s+[^\s>]+\s*-->", re.IGNORECASE)
_BLOCK = re.compile(r"<!-- looper report (?P<name>\S+ \S+) -->\n.*?<!-- end of (?P=name) -->", re.DOTALL)


def name_of(run: RunView) -> str:
    """As a marker names it: results of other repositories than the plan's stand beside those of the plan."""
    return run.manifest.plan.name


def named_blocks(text: str) -> list[str]:
    """What the file has blocks for, in order."""
    return [found["name"] for found in _BLOCK.finditer(text)]


def unread_marks(text: str) -> list[str]:
    """What looks like the beginning of a block and is none, as one with a blank too many."""
    read = [f"<!-- looper report {name} -->" for name in named_blocks(text)]
    return [mark for mark in _MARK.findall(text) if mark not in read]


def block_of(text: str, name: str) -> str | None:
    """The block of an experiment and profile, markers included."""
    return next((found[0] for found in _BLOCK.finditer(text) if found["name"] == name), None)


def with_history(text: str, name: str, found: History) -> str:
    """The text with the block of earlier experiments written anew; at the end where it has none."""
    return with_block_at_end(text, f"history {name}", history_block(name, found), found.title)


def history_block(name: str, found: History) -> str:
    """Everything that is known of earlier experiments, between the markers of this file of them."""
    return "\n".join(
        [f"<!-- looper report history {name} -->", *history_lines(found), f"<!-- end of history {name} -->"]
    )


def with_block_at_end(text: str, name: str, block: str, title: str) -> str:
    """The text with the block written anew in its place; under a title at the end where it has none."""
    old = block_of(text, name)
    if old is not None:
        return text.replace(old, block)
    before = f"{text.rstrip()}\n\n## " if text else "# "
    return f"{before}{title}\n\n{block}\n"


def run_block(run: RunView) -> str:
    """Everything that the records say, between the markers of this experiment and profile."""
    name = name_of(run)
    return "\n".join(
        [
            f"<!-- looper report {name} -->",
            *_provenance(run),
            "",
            *markdown_table(COLUMNS, begun_rows(run)),
            *_sections(run),
            *_tables(run),
            f"<!-- end of {name} -->",
        ]
    )


def _provenance(run: RunView) -> list[str]:
    plan = run.manifest.plan
    day = run.ended.date().isoformat()
    controls = {arm.name for arm in plan.every_arm if arm.model.is_control}
    models = sorted({found.known_as for name, found in run.manifest.models.items() if name not in controls})
    seeds = ", ".join(map(str, plan.seeds))
    lines = [
        f"{day}, `{run.folder.name}`: {counted(len(run.tasks), 'task')}, {'seed' if len(plan.seeds) == 1 else 'seeds'} {seeds}, {', '.join(models) or 'no model'}, code "
        f"{run.manifest.code_version}, sandbox {run.manifest.sandbox}.",
    ]
    if run.finished < run.planned:
        lines.append(f"UNFINISHED: {run.finished} of {counted(run.planned, 'cell')}.")
    lines += [f"{line}." for line in stop_lines(run)]
    lines += [f"{line}." for line in override_lines(run)]
    return lines


def _sections(run: RunView) -> list[str]:
    lines: list[str] = []
    for head, found in (
        ("Registered before the data:", before_lines(run)),
        ("Registered results:", [*result_lines(run), *stratified_lines(run)]),
        (
            f"{by_themselves(run)}:",
            contrast_lines(run),
        ),
        (
            "Controls and provenance:",
            [*control_lines(run), *treatment_lines(run), *concurrency_lines(run), *damage_lines(run)],
        ),
    ):
        if found:
            lines += ["", head, "", *(f"- {line}" for line in found)]
    return lines


def _tables(run: RunView) -> list[str]:
    """How the arms worked, and what they find likely; the page has more."""
    lines = []
    for table in (behaviour(run), likelihoods(run)):
        if table.rows:
            lines += [
                "",
                f"{table.head}. {table.note}",
                "",
                *markdown_table(table.columns, table.rows),
            ]
    return lines
