"""What a run registered, with every figure that decides it, for programs that check the figures by other means."""

import json
from dataclasses import replace
from typing import Any

from looper.metrics.design import design_of, power_at_interest
from looper.metrics.paired import PairedDifference, repository_of
from looper.metrics.registered import Registered
from looper.views.findings import registered_lines, stratified_lines
from looper.views.runs import RunView


def registered_text(run: RunView) -> str:
    """One JSON object on one line: figures at full precision, shares as shares, and the sentences as they are printed."""
    leaked = set(run.manifest.leaked)
    rest = replace(run, tasks=tuple(task for task in run.tasks if task not in leaked))
    return json.dumps(
        {
            "run": run.folder.name,
            "finished": run.finished,
            "planned": run.planned,
            **_decided(run),
            "printed": registered_lines(run),
            "without_leaked": _decided(rest) if 0 < len(rest.tasks) < len(run.tasks) else None,
            "printed_without_leaked": stratified_lines(run),
        },
        ensure_ascii=False,
    )


def _decided(run: RunView) -> dict[str, Any]:
    plan = run.manifest.plan
    design = design_of(plan, run.tasks)
    return {
        "tasks": design.tasks,
        "repositories": len(set(map(repository_of, run.tasks))),
        "seeds": design.seeds,
        "unit": run.unit.value,
        "discordance": run.discordance(),
        "power": power_at_interest(plan, run.tasks),
        "pilot": run.pilot,
        "failed_controls": sorted(run.failed_controls),
        "contrasts": [
            {"power": power_at_interest(plan, run.tasks, found.contrast), **_contrast(found)}
            for found in run.registered
        ],
    }


def _contrast(found: Registered) -> dict[str, Any]:
    """Absent figures are None, as those of a contrast that was not measured."""
    difference = found.difference
    paired = difference if isinstance(difference, PairedDifference) else None
    return {
        "contrast": found.contrast.name,
        "metric": found.contrast.metric.value,
        "expect": found.contrast.expect.value,
        "pairs": difference.pairs if difference else None,
        "gains": paired.gains if paired else None,
        "losses": paired.losses if paired else None,
        "difference": difference.difference if difference else None,
        "unit": difference.unit.value if difference else None,
        "units": difference.units if difference else None,
        "effective": paired.effective if paired else None,
        "interval": found.interval,
        "confidence": found.confidence,
        "p": difference.p_value if difference else None,
        "p_adjusted": found.p_adjusted,
        "finding": found.finding.value,
        "sentence": " ".join(found.sentence.split()),
    }
