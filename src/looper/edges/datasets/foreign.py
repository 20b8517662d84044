"""Runs of other harnesses → attempts: mini-swe-agent (a folder of trajectories, or its `preds.json`), OpenHands (its
`output.jsonl`), and predictions with the report of SWE-bench."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from looper.errors import BadInput
from looper.records.foreign import ForeignAttempt, ForeignRun


def read_foreign(source: str) -> ForeignRun:
    """`PATH` or `PATH=REPORT`, the report being SWE-bench's. Raises BadInput, naming file and line."""
    text, _, report = source.partition("=")
    path = Path(text)
    if not path.exists():
        raise BadInput(f"There is no {path}.")
    found = _mini_swe_agent_folder(path) if path.is_dir() else _file(path)
    if not found.attempts:
        raise BadInput(f"{path} holds no attempts.")
    names = [attempt.instance_id for attempt in found.attempts]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput(f"{path}: {twice} is there twice; one attempt for each task can be compared.")
    return found if not report else _with_report(found, Path(report))


def _json(path: Path, text: str, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        where = f"{path}, line {line}" if line else str(path)
        raise BadInput(f"{where}: not JSON: {error}.") from error


def _mini_swe_agent_folder(path: Path) -> ForeignRun:
    attempts, model = [], ""
    for file in sorted(path.rglob("*.traj.json")):
        found = _json(file, file.read_text("utf-8"))
        info = _mapping(found, file).get("info") or {}
        stats = info.get("model_stats") or {}
        model = model or str(((info.get("config") or {}).get("model") or {}).get("model_name") or "")
        attempts.append(
            ForeignAttempt(
                instance_id=str(found.get("instance_id") or file.name.removesuffix(".traj.json")),
                patch=info.get("submission") or "",
                ended=str(info.get("exit_status") or ""),
                steps=stats.get("api_calls"),
                cost=stats.get("instance_cost"),
            )
        )
    if not attempts and (path / "preds.json").is_file():
        return _file(path / "preds.json")
    return ForeignRun(name=path.name, harness="mini-swe-agent", model=model, attempts=tuple(attempts))


def _file(path: Path) -> ForeignRun:
    text = path.read_text("utf-8", "surrogateescape")
    if path.suffix == ".json":
        found = _json(path, text)
        rows = list(found.values()) if isinstance(found, dict) else found
        lines = [(number, _mapping(row, path)) for number, row in enumerate(rows, 1)]
    else:
        lines = [
            (number, _mapping(_json(path, line, number), path, number))
            for number, line in enumerate(text.splitlines(), 1)
            if line.strip()
        ]
    if lines and "test_result" in lines[0][1]:
        attempts = tuple(_openhands(row, path, number) for number, row in lines)
        config = (lines[0][1].get("metadata") or {}).get("llm_config") or {}
        return ForeignRun(
            name=path.parent.name or path.stem,
            harness="OpenHands",
            model=str(config.get("model") or ""),
            attempts=attempts,
        )
    attempts = tuple(_prediction(row, path, number) for number, row in lines)
    model = str(lines[0][1].get("model_name_or_path") or "") if lines else ""
    return ForeignRun(name=path.stem, harness="predictions", model=model, attempts=attempts)


def _mapping(found: Any, path: Path, line: int | None = None) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise BadInput(
            f"{path}{f', line {line}' if line else ''}: an object is wanted, not {type(found).__name__}."
        )
    return found


def _openhands(row: Mapping[str, Any], path: Path, line: int) -> ForeignAttempt:
    patch = (row.get("test_result") or {}).get("git_patch") or row.get("git_patch") or ""
    report, metrics = row.get("report") or {}, row.get("metrics") or {}
    return ForeignAttempt(
        instance_id=_id(row, path, line),
        patch=patch,
        ended=str(row.get("error") or ""),
        steps=sum(_is_action(event) for event in row.get("history") or []) or None,
        cost=metrics.get("accumulated_cost"),
        resolved=report.get("resolved"),
    )


def _is_action(event: Any) -> bool:
    return isinstance(event, dict) and event.get("source") == "agent" and "action" in event


def _prediction(row: Mapping[str, Any], path: Path, line: int) -> ForeignAttempt:
    if "model_patch" not in row:
        raise BadInput(f"{path}, line {line}: without model_patch; this is no prediction of SWE-bench.")
    return ForeignAttempt(instance_id=_id(row, path, line), patch=row["model_patch"] or "")


def _id(row: Mapping[str, Any], path: Path, line: int) -> str:
    if not row.get("instance_id"):
        raise BadInput(f"{path}, line {line}: without instance_id.")
    return str(row["instance_id"])


def _with_report(found: ForeignRun, path: Path) -> ForeignRun:
    """The verdicts of SWE-bench's report; a task that it could not judge has none."""
    if not path.is_file():
        raise BadInput(f"There is no report {path}.")
    report = _mapping(_json(path, path.read_text("utf-8")), path)
    if "resolved_ids" not in report:
        raise BadInput(f"{path}: without resolved_ids; this is no report of SWE-bench.")
    resolved = set(report["resolved_ids"])
    judged = resolved | set(report.get("unresolved_ids") or []) | set(report.get("empty_patch_ids") or [])
    return found.model_copy(
        update={
            "attempts": tuple(
                attempt.model_copy(update={"resolved": attempt.instance_id in resolved})
                if attempt.instance_id in judged
                else attempt
                for attempt in found.attempts
            )
        }
    )
