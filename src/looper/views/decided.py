"""What a run registered, with every figure that decides it, for programs that check the figures by other means."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from looper.metrics.claim import claim_of
from looper.metrics.design import design_of, power_at_interest, scope_of, too_small_for
from looper.metrics.paired import PairedDifference, rate_interval, repository_of
from looper.metrics.registered import Registered
from looper.records.plan import Expect
from looper.views.findings import UNFINISHED, registered_lines, stratified_lines
from looper.views.runs import RunView


def registered_text(run: RunView) -> str:
    """One JSON object on one line: figures at full precision, shares as shares, Looper's claims, what the plan's author wrote for those
    outcomes, and the lines as they are printed."""
    leaked = set(run.manifest.leaked)
    rest = replace(run, tasks=tuple(task for task in run.tasks if task not in leaked))
    found = {
        **_progress(run),
        **_decided(run),
        "printed": registered_lines(run),
        "without_leaked": _decided(rest) if 0 < len(rest.tasks) < len(run.tasks) else None,
        "printed_without_leaked": stratified_lines(run),
    }
    return json.dumps(found, ensure_ascii=False)


def report_data(run: RunView) -> dict[str, Any]:
    """What a report says in its first tables: arms and choices with their rates and intervals, contrasts as they were registered. A failed
    arm has no figures, a choice no rollouts of its own, and None stands where nothing was measured."""
    return {
        **_progress(run),
        "arms": [_arm(run, arm.name) for arm in run.manifest.plan.arms],
        "choices": [{"choice": name, **_rate(run.chosen(name), run)} for name in run.choice_names],
        "registered": _of_run(run, run.registered),
    }


def _progress(run: RunView) -> dict[str, Any]:
    return {"run": run.folder.name, "finished": run.finished, "planned": run.planned}


def _arm(run: RunView, name: str) -> dict[str, Any]:
    figures, failed = run.figures(name), name in run.failed_arms
    means = {
        "patched": figures.patched.value,
        "steps": figures.steps,
        "prompt_tokens": figures.prompt_tokens,
        "completion_tokens": figures.completion_tokens,
        "seconds": figures.seconds,
    }
    return {
        "arm": name,
        "failed": failed,
        "cells": figures.cells,
        "infra_errors": figures.infra_errors,
        **_rate({} if failed else run.outcomes(name), run),
        **(dict.fromkeys(means) if failed else means),
    }


def _rate(outcomes: Mapping[str, bool], run: RunView) -> dict[str, Any]:
    resolved = sum(outcomes.values())
    return {
        "resolved": resolved if outcomes else None,
        "attempted": len(outcomes) or None,
        "rate": resolved / len(outcomes) if outcomes else None,
        "interval": rate_interval(outcomes, run.unit) if outcomes else None,
    }


def registered_data(run: RunView, first: str, second: str) -> dict[str, Any] | None:
    """What was registered of two arms, whichever way round they are named, each contrast as it was registered; None where nothing was."""
    found = [each for each in run.registered if set(each.contrast.arms) == {first, second}]
    return _of_run(run, found) if found else None


def _decided(run: RunView) -> dict[str, Any]:
    design = design_of(run.manifest.plan, run.tasks)
    return {
        "tasks": design.tasks,
        "repositories": len(set(map(repository_of, run.tasks))),
        "seeds": design.seeds,
        "discordance": run.discordance(),
        "power": power_at_interest(run.manifest.plan, run.tasks),
        "failed_controls": sorted(run.failed_controls),
        **_of_run(run, run.registered),
    }


def _of_run(run: RunView, found: Sequence[Registered]) -> dict[str, Any]:
    plan = run.manifest.plan
    return {
        "unit": run.unit.value,
        "scope": scope_of(plan, run.tasks).value,
        "family": len(plan.contrasts),
        "pilot": run.pilot,
        "unfinished": run.finished < run.planned,
        "contrasts": [
            {
                "primary": each.contrast == plan.contrasts[0],
                "power": power_at_interest(plan, run.tasks, each.contrast),
                "pilot": too_small_for(plan, run.tasks, each.contrast),
                **_contrast(each, run.finished == run.planned),
            }
            for each in found
        ],
    }


def _contrast(found: Registered, over: bool) -> dict[str, Any]:
    """Absent figures are None, as those of a contrast that was not measured; what decides is absent until the run is over. `p` is of no
    difference, two-sided; `p_adjusted` of what was registered: of a contrast with a margin, that the difference lies beyond it."""
    difference = found.difference
    paired = difference if isinstance(difference, PairedDifference) else None
    return {
        "contrast": found.contrast.name,
        "metric": found.contrast.metric.value,
        "expect": found.contrast.expect.value,
        "margin": None if found.contrast.expect is Expect.MORE else found.contrast.margin,
        "pairs": difference.pairs if difference else None,
        "gains": paired.gains if paired else None,
        "losses": paired.losses if paired else None,
        "difference": difference.difference if difference else None,
        "unit": difference.unit.value if difference else None,
        "units": difference.units if difference else None,
        "effective": paired.effective if paired else None,
        "interval": found.interval if over else None,
        "confidence": found.confidence if over else None,
        "p": difference.p_value if difference else None,
        "p_adjusted": found.p_adjusted if over else None,
        "finding": found.finding.value if over else UNFINISHED,
        "claim": claim_of(found.contrast, found.finding) if over else "",
        "sentence": " ".join(found.sentence.split()) if over else "",
    }
