"""Writes docs/experiments.md: what every plan in experiments/ says. What came of it stands in docs/results.

python scripts/write_experiments_doc.py
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from looper.experiment.plans import plan_from_text
from looper.records.plan import Arm, Expect, Metric, Plan

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "experiments.md"
EXPECTED = {
    Expect.MORE: "more",
    Expect.SAME: "the same, within {margin:.0f} points",
    Expect.NOT_MORE: "not more by {margin:.0f} points",
    Expect.NOT_LESS: "not less by {margin:.0f} points",
}
HEAD = """# Experiments

Written from the plans in `experiments/` by `python scripts/write_experiments_doc.py`; change those, not this. A plan says what is
asked, in which arms, what will be compared and what its author makes of each outcome, before there are data; the run folder is named by
the hash of all that. What a run shows Looper says itself, of the contrast and its result, and quotes the author's sentence beside it.
No result stands here. `looper plan exp09` says what a run takes and what it could see, `looper run exp09` runs
it on the embedded default, the profile `micro` of many small repositories, in an hour to a night on two cores; `--profile demo` in
minutes, with too few tasks to decide anything; `--profile swe --model mlx:FOLDER` on real issues; `looper report exp09 --results docs/results` writes what came of it
to `docs/results/exp09.md`. All results in one table, and what is known by them: [LEARNINGS.md](../LEARNINGS.md).

All are decided alike. All that a plan registers, differences and margins, is one family at 0.05 (Holm); a difference is tested
two-sided, a margin by two one-sided tests, and the interval beside a decision is the one that decides it. The unit is the repository
where every arm that learns has learned for each repository by itself, and the tasks are worth ten repositories of one size or more that nobody
picked by name: then a plan speaks of repositories like these. Else it is the task, and the plan speaks of less: of these repositories as they
were learned here, where they are fewer, unlike in size or named; of what was learned this once, where a strategy or an adapter that was
there before serves them all; of tasks like these of these repositories, where nothing is learned. A plan with less than 80 % of a chance to show its primary contrast is a pilot: its figures are estimates, and decide
nothing. How such decisions err is simulated in [statistics.md](statistics.md). The stop rule is to run every cell: nothing that
was registered is said before the last one has its end, and less than 95 % of verdicts conclude nothing, nor
does a difference of resolve rates that the cells without a verdict could turn, had they all gone for one arm and against the other.
"""


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    TARGET.write_text(text(), "utf-8")


def text() -> str:
    shared = {
        path.stem: path.read_text("utf-8") for path in sorted((ROOT / "experiments/profiles").glob("*.toml"))
    }
    parts = [HEAD]
    for path in sorted((ROOT / "experiments").glob("exp*.toml")):
        plan = plan_from_text(path.stem, path.read_text("utf-8"), path.name, "micro", shared=shared)
        parts.append("\n".join(_section(plan)))
    return "\n".join(parts).rstrip() + "\n"


def _section(plan: Plan) -> Iterator[str]:
    yield f"## {plan.experiment}: {plan.title}"
    yield ""
    yield f"**Hypothesis**: {plan.hypothesis}"
    yield ""
    yield f"**Factor**: {plan.factor}."
    yield ""
    yield "| arm | role | what it has been through, or what it is |"
    yield "|---|---|---|"
    base = next(arm for arm in plan.arms if arm.role.value == "base")
    for arm in plan.arms:
        yield f"| `{arm.name}` | {arm.role.value} | {_what(arm, base)} |"
    for choice in plan.choices:
        yield f"| `{choice.name}` | choice | one of {', '.join(choice.of)}, by {choice.by.value} |"
    yield ""
    yield "| registered | expected | the author's sentence where shown | where refuted | where open |"
    yield "|---|---|---|---|---|"
    for number, found in enumerate(plan.contrasts):
        what = "" if found.metric is Metric.RESOLVED else f", {found.metric.value.replace('_', ' ')}"
        expected = EXPECTED[found.expect].format(margin=100 * found.margin)
        mark = "**primary** " if number == 0 else ""
        yield f"| {mark}{found.name}{what} | {expected} | {found.shown} | {found.refuted} | {found.open} |"
    yield ""
    page = f"results/{plan.experiment}.md"
    written = (TARGET.parent / page).is_file()
    yield f"Results: [{page}]({page})." if written else "No run of it is written down yet."
    yield ""


def _what(arm: Arm, base: Arm) -> str:
    """The arm's difference from base, in the words of the plan file."""
    if arm.learning is not None:
        said = arm.learning.model_dump(mode="json", exclude_unset=True)
        return ", ".join(_said(key, value) for key, value in said.items())
    if arm.model != base.model:
        return f"model {arm.model.backend}{f':{arm.model.name}' if arm.model.name else ''}"
    if arm.scaffold != base.scaffold:
        ours, theirs = arm.scaffold.model_dump(mode="json"), base.scaffold.model_dump(mode="json")
        changed = [
            f"{key}.{name} {_plain(value)}" if isinstance(theirs[key], dict) else f"{key} {_plain(ours[key])}"
            for key in ours
            if ours[key] != theirs[key]
            for name, value in (ours[key].items() if isinstance(ours[key], dict) else [("", None)])
            if not isinstance(theirs[key], dict) or theirs[key][name] != value
        ]
        return ", ".join(changed)
    if arm.limits != base.limits and arm.limits is not None:
        return ", ".join(
            f"limits.{name} {value:g}" for name, value in arm.limits.model_dump(exclude_none=True).items()
        )
    return "nothing" if arm.role.value == "base" else f"nothing, repetition {arm.repetition}"


def _said(key: str, value: object) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{name} {_plain(found)}" for name, found in value.items())
        return f"{key} ({inner})" if inner else key
    return str(value) if key == "treatment" else f"{key} {_plain(value)}"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(found)}" for name, found in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "off" if value is None else str(value)


if __name__ == "__main__":
    main()
