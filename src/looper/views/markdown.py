"""Runs as sections of a Markdown file, between markers, so that they can be written again from the records."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from looper.views.findings import (
    COLUMNS,
    NOT_MEASURED,
    arm_rows,
    contrast_lines,
    control_lines,
    damage_lines,
    registered_lines,
    treatment_lines,
)
from looper.views.runs import RunView

_BLOCK = re.compile(r"<!-- looper report (?P<name>\S+ \S+) -->\n.*?<!-- end of (?P=name) -->", re.DOTALL)


def name_of(run: RunView) -> str:
    """Experiment and profile, as a marker names them."""
    return f"{run.manifest.plan.experiment} {run.manifest.plan.profile}"


def named_blocks(text: str) -> list[str]:
    """What the file has blocks for, in order."""
    return [found["name"] for found in _BLOCK.finditer(text)]


def with_runs(text: str, runs: Sequence[RunView]) -> str:
    """The text with the block of each run written anew; runs without one get a section at the end."""
    for run in runs:
        block, name = run_block(run), name_of(run)
        if name in named_blocks(text):

            def written(found: "re.Match[str]", name: str = name, block: str = block) -> str:
                return block if found["name"] == name else found[0]

            text = _BLOCK.sub(written, text)
        else:
            text = f"{text.rstrip()}\n\n## {run.manifest.plan.experiment}: {run.manifest.plan.title}\n\n{block}\n"
    return text


def run_block(run: RunView) -> str:
    """Everything that the records say, between the markers of this experiment and profile."""
    name = name_of(run)
    return "\n".join(
        [
            f"<!-- looper report {name} -->",
            *_provenance(run),
            "",
            *_table(run),
            *_sections(run),
            *_behaviour(run),
            f"<!-- end of {name} -->",
        ]
    )


def _provenance(run: RunView) -> list[str]:
    plan = run.manifest.plan
    written = max(path.stat().st_mtime for path in run.folder.glob("*.jsonl"))
    day = datetime.fromtimestamp(written, UTC).date().isoformat()
    models = sorted(
        {
            f"{found.name} {found.digest[:12]}"
            for found in run.manifest.models.values()
            if found.backend != "scripted"
        }
    )
    seeds = ", ".join(map(str, plan.seeds))
    lines = [
        f"{day}, `{run.folder.name}`: {len(run.tasks)} tasks, seeds {seeds}, {', '.join(models) or 'no model'}, code "
        f"{run.manifest.code_version}, sandbox {run.manifest.sandbox}.",
    ]
    if run.finished < run.planned:
        lines.append(f"UNFINISHED: {run.finished} of {run.planned} cells.")
    lines += [
        f"The gate {found.gate.value} was overridden: {found.reason}." for found in run.manifest.overrides
    ]
    return lines


def _table(run: RunView) -> list[str]:
    return [
        "| " + " | ".join(COLUMNS) + " |",
        "|---|" + "---:|" * (len(COLUMNS) - 1),
        *("| " + " | ".join(row) + " |" for row in arm_rows(run)),
    ]


def _sections(run: RunView) -> list[str]:
    lines: list[str] = []
    for head, found in (
        ("Registered before the data:", registered_lines(run)),
        ("Every arm against base; what is not registered is exploratory:", contrast_lines(run)),
        ("Controls and provenance:", [*control_lines(run), *treatment_lines(run), *damage_lines(run)]),
    ):
        if found:
            lines += ["", head, "", *(f"- {line}" for line in found)]
    return lines


def _behaviour(run: RunView) -> list[str]:
    """How the arms that a model drives worked."""
    played = {arm.name for arm in run.manifest.plan.arms if arm.model.backend in ("gold", "noop")}
    found = {
        arm: rates for arm, rates in run.behaviour().items() if arm not in played | run.failed_arms.keys()
    }
    if not found:
        return []
    # What happened in no arm is left out.
    names = [
        name
        for name in next(iter(found.values()))[0]
        if any(rates[name].value for rates, _, _ in found.values())
    ]
    heads = ["arm", *(name.replace("_", " ") for name in names), "target tests passed", "tokens per resolved"]
    lines = ["", "How they worked, in percent:", "", f"| {' | '.join(heads)} |"]
    lines.append("|---|" + "---:|" * (len(heads) - 1))
    for arm, (rates, tests, tokens) in found.items():
        shares = [rates[name].value for name in names]
        values = [*(NOT_MEASURED if share is None else f"{100 * share:.1f}" for share in (*shares, tests))]
        values.append(NOT_MEASURED if tokens is None else f"{tokens:.0f}")
        lines.append(f"| {arm} | {' | '.join(values)} |")
    return lines
