"""One run as a page.

The page is one HTML file that needs nothing else, made again byte for byte by the same version of the code, which is how a report
is checked. Nothing is worked out here: figures and sentences come from `findings` and `figures`, drawings from `plots`.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from looper.errors import FileRefused
from looper.journal import replace_file
from looper.metrics.claim import metric_name
from looper.metrics.paired import repository_of, task_of
from looper.metrics.registered import DECIDED
from looper.records.base import grouped
from looper.records.learning import Treatment
from looper.records.plan import Contrast, Metric
from looper.records.text import counted
from looper.records.verdict import Outcome
from looper.untrusted import read_untrusted
from looper.views import plots
from looper.views.board import arm_colours, over_the_sequence
from looper.views.figures import tables
from looper.views.findings import (
    COLUMNS,
    EXPLORATORY,
    NOT_MEASURED,
    arm_rows,
    asked_text,
    before_lines,
    by_themselves,
    contrast_lines,
    control_lines,
    damage_lines,
    failed_arm_lines,
    finding_text,
    hypothesis_text,
    measured_lines,
    nothing_registered,
    percent,
    registered_rows,
    scope_line,
    standing_of,
    stop_lines,
    stratified_lines,
    treatment_lines,
    unfinished_text,
)
from looper.views.runs import RunView, by_task

NAME = "report.html"
PAGE_BYTES = 1 << 28
_WRITTEN_BY = re.compile(r'<meta name="generator" content="looper ([0-9a-f]*)">')


@dataclass(frozen=True)
class Flip:
    name: str
    gained: list[str]
    lost: list[str]


def write_page(run: RunView, by: str) -> Path:
    """The page, and its drawings as files beside it; where the page lies. `by` is the version of the code that writes."""
    figures = _figures(run)
    for drawing in _drawings(run):
        drawing.unlink()
    for figure, _, _ in figures:
        plots.save(figure, run.folder / "plots")
    path = run.folder / NAME
    replace_file(path, page(run, figures, by).encode())
    return path


def _drawings(run: RunView) -> list[Path]:
    return [path for ending in ("svg", "png") for path in (run.folder / "plots").glob(f"[!.]*.{ending}")]


@dataclass(frozen=True)
class PageLook:
    """What comes of holding the page of a run against its records."""

    amiss: tuple[str, ...] = ()
    unchecked: str = ""


def look_at_page(run: RunView, by: str) -> PageLook:
    """Whether page and drawings are what the records say: made again by the same version of the code."""
    path = run.folder / NAME
    try:
        there = read_untrusted(path, PAGE_BYTES).decode("utf-8", "replace")
    except FileRefused as error:
        return PageLook((f"{error}",)) if path.exists() else PageLook()
    writer = _WRITTEN_BY.search(there)
    if writer is None or writer[1] != by:
        which = "an earlier version" if writer is None else f"another version ({writer[1]})"
        return PageLook(
            unchecked=f"{NAME}: {which} of the code wrote it; looper report {run.folder.name} writes it anew"
        )
    figures = _figures(run)
    amiss = [] if there == page(run, figures, by) else [NAME]
    for figure, _, _ in figures:
        for ending, drawn in (("svg", plots.on_white(figure).encode()), ("png", plots.as_png(figure))):
            drawing = run.folder / "plots" / f"{figure.name}.{ending}"
            if drawing.is_file() and drawing.read_bytes() != drawn:
                amiss.append(f"plots/{drawing.name}")
    names = {f"{figure.name}.{ending}" for figure, _, _ in figures for ending in ("svg", "png")}
    others = sorted(path.name for path in _drawings(run) if path.name not in names)
    said = [f"{name} is not what the records say" for name in amiss]
    return PageLook((*said, *(f"plots/{name} is no drawing of this run" for name in others)))


def page(run: RunView, figures: "Sequence[tuple[plots.Figure, str, str]] | None" = None, by: str = "") -> str:
    """The run as one HTML file that needs nothing else."""
    from looper.views.web.templating import static_file, template

    if figures is None:
        figures = _figures(run)
    plan, worked, before = run.manifest.plan, tables(run), before_lines(run)
    besides = [*measured_lines(run), *stratified_lines(run)] if before else []
    if run.finished == run.planned and not before:
        besides = [
            scope_line(run)
        ]  # What differences are about is said of a run that registers nothing, too.
    shown = [(figure.name, head, plots.inline(figure), figure.alt, note) for figure, head, note in figures]
    sections = [
        ("verdict", "Findings"),
        ("deviations", "Deviations"),
        ("arms", "Arms"),
        *((name, head) for name, head, *_ in shown),
        ("tasks", "Tasks"),
        ("flips", "Flips"),
        ("transfer", "Transfer"),
        *((table.name, table.head) for table in worked),
        ("controls", "Controls"),
        ("provenance", "Provenance"),
    ]
    return template("report").render(
        by=by,
        stylesheet=static_file("looper.css").decode(),
        title=f"{plan.experiment} {plan.profile}: {plan.title}",
        subtitle=f"{run.folder.name}, {run.ended.date().isoformat()}, {counted(len(run.tasks), 'task')}, factor: {plan.factor}",
        hypothesis=hypothesis_text(plan),
        sections=sections,
        before=before,
        registered=registered_rows(run),
        besides=besides,
        unfinished=nothing_registered(run),
        deviations=_deviations(run),
        columns=COLUMNS,
        rows=arm_rows(run),
        figures=shown,
        grid=_grid(run),
        tasks=run.tasks,
        flips=_flips(run),
        transfer=_transfer(run),
        tables=worked,
        controls=[*control_lines(run), *treatment_lines(run)],
        contrasts=contrast_lines(run),
        by_themselves=by_themselves(run),
        provenance=_provenance(run),
        plan=json.dumps(json.loads(plan.to_json()), indent=1, ensure_ascii=False),
    )


def _deviations(run: RunView) -> list[str]:
    missing = run.planned - run.finished
    errors = sum(run.figures(arm.name).infra_errors for arm in run.manifest.plan.arms)
    return [
        *([f"still to do: {missing} of {counted(run.planned, 'cell')}"] if missing else []),
        *([f"ended outside of the agent, without a verdict: {counted(errors, 'cell')}"] if errors else []),
        *(f"the gate {found.gate.value} was passed over: {found.reason}" for found in run.overrides),
        *(f"the gate {gate.value} is only measured in this plan" for gate in run.manifest.plan.measured_only),
        *stop_lines(run),
        *failed_arm_lines(run),
        *damage_lines(run),
    ]


def _figures(run: RunView) -> list[tuple[plots.Figure, str, str]]:
    """Drawings with their heads and notes; none where there is nothing to draw."""
    found = []
    in_points = [
        *_registered_rows(run, lambda contrast: contrast.metric.is_share),
        *_exploratory_rows(run),
    ]
    over = run.finished == run.planned
    if in_points:
        note = (
            "Filled: registered before the data, with the interval that decides it, whose level stands with the finding. Hollow: "
            "a pilot's, which decides nothing, or exploratory, an arm against base that no plan registered, 95 % by itself. "
            if over
            else f"{nothing_registered(run)} Hollow, 95 % by itself. "
        )
        note += f"The unit is the {run.unit.value}."
        drawn = plots.forest(in_points, unit="points: of tasks resolved, or of the share that is named")
        found.append((drawn, "Differences", note))
    nats = _registered_rows(run, lambda contrast: not contrast.metric.is_share)
    if nats:
        note = (
            "Registered before the data, with the interval that decides it. Hollow: a pilot's, which decides nothing."
            if over
            else f"{nothing_registered(run)} Hollow, 95 % by itself."
        )
        drawn = plots.forest(nats, "forest_nats", "nats per token", 3)
        found.append((drawn, "Differences in likelihood", note))
    curves = {
        arm.name: shares
        for arm in run.manifest.plan.arms
        if arm.name not in run.failed_arms and (shares := over_the_sequence(run, arm.name))
    }
    if curves and max(map(len, curves.values())) > 1:
        note = "An arm that learns on the way would climb away from base; one that learned before would lie above it from the first task on."
        found.append((plots.curves(curves, arm_colours(run)), "Over the sequence", note))
    points = {}
    for arm in run.manifest.plan.arms:
        figures = run.figures(arm.name)
        if figures.resolved.value is not None and None not in (
            figures.prompt_tokens,
            figures.completion_tokens,
        ):
            tokens = (figures.prompt_tokens or 0) + (figures.completion_tokens or 0)
            points[arm.name] = tokens, figures.resolved.value
    if points:
        found.append((plots.cost(points, arm_colours(run)), "Cost against score", ""))
    return found


def _registered_rows(run: RunView, wanted: Callable[[Contrast], bool]) -> list[plots.Interval]:
    """Of every registered contrast that was measured, whichever arms it compares. While the run is unfinished nothing is decided, so
    its interval is that of one difference by itself."""
    rows, over = [], run.finished == run.planned
    for found in run.registered:
        contrast, difference = found.contrast, found.difference
        if difference is None or not wanted(contrast):
            continue
        of = "" if contrast.metric is Metric.RESOLVED else f", {metric_name(contrast.metric)}"
        interval = found.interval if over else difference.interval()
        bare = "" if interval else ", no interval"
        low, high = interval or (difference.difference, difference.difference)
        scale = 100 if contrast.metric.is_share else 1
        rows.append(
            plots.Interval(
                f"{contrast.name}{of}{asked_text(contrast)}{bare}, {finding_text(run, found)}",
                scale * difference.difference,
                scale * low,
                scale * high,
                emphasis=over and found.finding in DECIDED,
            )
        )
    return rows


def _exploratory_rows(run: RunView) -> list[plots.Interval]:
    """Arms against base that no plan registered."""
    return [
        plots.Interval(
            f"{arm} − {base}{unfinished_text(run)}",
            100 * one.difference,
            100 * low,
            100 * high,
            emphasis=False,
        )
        for arm, base, one in run.contrasts
        if one is not None and arm not in run.failed_arms and standing_of(run, arm, base) == EXPLORATORY
        for low, high in [one.interval()]
    ]


def _grid(run: RunView) -> list[tuple[str, list[tuple[str, str]]]]:
    names = [*(arm.name for arm in run.manifest.plan.arms), *run.choice_names]
    found = []
    for name in names:
        outcomes = by_task(run.outcomes(name).items())
        found.append((name, [_mark(task, outcomes.get(task, [])) for task in run.tasks]))
    return found


def _mark(task: str, resolved: Sequence[bool]) -> tuple[str, str]:
    if not resolved:
        return "", f"{task}: no verdict"
    mark = "y" if all(resolved) else "p" if any(resolved) else "n"
    return mark, f"{task}: {sum(resolved)} of {len(resolved)}"


def _flips(run: RunView) -> list[Flip]:
    """Of what was registered of resolved tasks, and of every arm against base."""
    registered = [
        (contrast.arm, contrast.against)
        for contrast in run.manifest.plan.contrasts
        if contrast.metric is Metric.RESOLVED and not contrast.through
    ]
    found = []
    for arm, against in dict.fromkeys([*registered, *((arm, base) for arm, base, _ in run.contrasts)]):
        ours, theirs = run.outcomes(arm), run.outcomes(against)
        common = [where for where in ours if where in theirs]
        if not common or {arm, against} & run.failed_arms.keys():
            continue
        found.append(
            Flip(
                f"{arm} − {against} ({standing_of(run, arm, against)}){unfinished_text(run)}",
                [where for where in common if ours[where] and not theirs[where]],
                [where for where in common if theirs[where] and not ours[where]],
            )
        )
    return found


def _transfer(run: RunView) -> dict[str, Any] | None:
    """Share resolved by repository learned in and repository worked on, over arms with one plainly trained adapter for each.
    The arms of a plan fill few places; the others were not measured."""
    repos = sorted({repository_of(task) for task in run.tasks})
    places: dict[tuple[str, str], list[bool]] = {}
    for arm in run.manifest.plan.arms:
        learning = arm.learning
        if learning is None or learning.treatment is not Treatment.ADAPTER or learning.strategy is not None:
            continue
        if learning.model_copy(update={"elsewhere": False}) != type(learning)(treatment=Treatment.ADAPTER):
            continue
        for where, resolved in run.outcomes(arm.name).items():
            repo = repository_of(task_of(where))
            learned = repos[(repos.index(repo) + 1) % len(repos)] if learning.elsewhere else repo
            places.setdefault((learned, repo), []).append(resolved)
    if not places:
        return None
    base = _by_repo(run)
    rows = [(name, *(_share(places.get((name, repo))) for repo in repos)) for name in repos]
    cells = sum(map(len, places.values()))
    return {
        "columns": ["learned in \\ worked on", *repos],
        "rows": [("nothing (base)", *(_share(base.get(repo)) for repo in repos)), *rows],
        "note": f"Sparse by design: {len(places)} of {len(repos) ** 2} places were measured, with {counted(cells, 'cell')}; all of them "
        f"would take {round(cells / len(places) * len(repos) ** 2)}.",
    }


def _by_repo(run: RunView) -> dict[str, list[bool]]:
    """Outcomes of base."""
    base = run.manifest.plan.learners_base.name
    return grouped(
        (repository_of(task_of(where)), resolved) for where, resolved in run.outcomes(base).items()
    )


def _share(outcomes: Sequence[bool] | None) -> str:
    if not outcomes:
        return "not measured"
    return f"{percent(fmean(outcomes))} of {len(outcomes)}"


def _energy(run: RunView) -> str:
    if run.energy_j is None:
        return (
            "not measured (no counter of this machine could be read, or the run took more than one process)"
        )
    return f"{run.energy_j / 1000:.1f} kJ, of the whole machine"


def _provenance(run: RunView) -> list[tuple[str, str]]:
    manifest = run.manifest
    models = sorted({f"{found.backend}: {found.known_as}" for found in manifest.models.values()})
    judged = sum(verdict.outcome is not Outcome.CANCELLED for verdict in run.verdicts)
    return [
        ("run", run.folder.name),
        ("hash of all that it is made of", manifest.run_hash()),
        ("ended", run.ended.isoformat(timespec="seconds")),
        ("code", manifest.code_version),
        ("tasks", manifest.tasks_hash),
        ("models", "; ".join(models)),
        ("environments", ", ".join(manifest.environments) or NOT_MEASURED),
        ("sandbox", manifest.sandbox),
        ("seeds", ", ".join(map(str, manifest.plan.seeds))),
        ("energy", _energy(run)),
        ("cells", f"{run.finished} of {run.planned}, {counted(judged, 'verdict')}"),
    ]
