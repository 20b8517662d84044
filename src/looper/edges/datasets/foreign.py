"""Runs of other harnesses → attempts: mini-swe-agent (a folder of trajectories, or its `preds.json`), OpenHands (its
`output.jsonl`), and predictions with the report of SWE-bench.

`looper import` calls `read_foreign` and compares what it gives by the statistics of our own runs. Whatever is not as these harnesses
write it becomes BadInput that names file and line.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from looper.edges.datasets.json_files import NAME_CHARACTERS, parsed, quoted, read_entries, read_text
from looper.errors import BadInput, one_line
from looper.records.foreign import ForeignAttempt, ForeignRun

FIX = "Name a folder of mini-swe-agent, an output.jsonl of OpenHands, or predictions."


def read_foreign(source: str) -> ForeignRun:
    """`PATH` or `PATH=REPORT`, the report being SWE-bench's. Raises BadInput, naming file and line."""
    path, report = _path_and_report(source)
    found = _folder(path) if os.path.isdir(path) else _file(path)
    if not found.attempts:
        said = found.unread[0] if found.unread else f"{path} holds no attempts."
        raise BadInput(said if FIX in said else f"{said} {FIX}")
    names = [attempt.instance_id for attempt in found.attempts]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput(
            f"{path}: {one_line(twice, NAME_CHARACTERS)} is there twice; one attempt for each task can be compared."
        )
    return found if report is None else _with_report(found, report)


def _path_and_report(source: str) -> tuple[Path, Path | None]:
    """Paths may hold the sign that stands between the two."""
    if os.path.exists(source):
        return Path(source), None
    signs = [at for at, sign in enumerate(source) if sign == "="]
    splits = [(Path(source[:at]), Path(source[at + 1 :])) for at in signs if os.path.exists(source[:at])]
    if not splits:
        raise BadInput(
            f"There is no file or folder {source[: signs[0]] if signs else source}. Name what another harness wrote, PATH or PATH=REPORT: "
            "looper import --help"
        )
    return next((split for split in splits if os.path.isfile(split[1])), splits[-1])


@contextmanager
def _shaped(where: str) -> Iterator[None]:
    """What is not as these harnesses write it becomes BadInput that says where."""
    try:
        yield
    except (AttributeError, TypeError, ValueError, RecursionError, OSError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise BadInput(f"{where}: not what it should hold: {one_line(said)}.") from error


def _json(path: Path) -> Any:
    """What a file holds as one object. Raises BadInput."""
    found = parsed(read_text(path, FIX, any_text=True))
    if isinstance(found, ValueError):
        raise BadInput(f"{path}: {found}.") from found
    return found


def _folder(path: Path) -> ForeignRun:
    """A file that cannot be read is named and leaves the others as they are."""
    attempts, unread, model = [], [], ""
    for file in sorted(path.rglob("*.traj.json")):
        try:
            with _shaped(str(file)):
                attempt, said = _mini_swe_agent(file)
        except BadInput as error:
            unread.append(str(error))
            continue
        attempts.append(attempt)
        model = model or said
    if not attempts and not unread and (path / "preds.json").is_file():
        return _file(path / "preds.json")
    return ForeignRun(
        name=path.name, harness="mini-swe-agent", model=model, attempts=tuple(attempts), unread=tuple(unread)
    )


def _mini_swe_agent(file: Path) -> tuple[ForeignAttempt, str]:
    """One attempt, and the name of its model."""
    found = _mapping(_json(file), file)
    info = found.get("info") or {}
    stats = info.get("model_stats") or {}
    attempt = ForeignAttempt(
        instance_id=str(found.get("instance_id") or file.name.removesuffix(".traj.json")),
        patch=info.get("submission") or "",
        ended=str(info.get("exit_status") or ""),
        steps=stats.get("api_calls"),
        cost=stats.get("instance_cost"),
    )
    return attempt, str(((info.get("config") or {}).get("model") or {}).get("model_name") or "")


def _file(path: Path) -> ForeignRun:
    whole, entries = read_entries(path, FIX, any_text=True)
    if isinstance(whole, dict) and "instance_id" not in whole and ".json" in path.suffixes:
        entries = list(enumerate(_by_id(whole, path), 1))
    lines = [(number, _mapping(row, path, number)) for number, row in entries]
    if lines and "test_result" in lines[0][1]:
        attempts = tuple(_openhands(row, path, number) for number, row in lines)
        return ForeignRun(
            name=path.parent.name or path.stem,
            harness="OpenHands",
            model=next((name for _, row in lines if (name := _openhands_model(row))), ""),
            attempts=attempts,
        )
    attempts = tuple(_prediction(row, path, number) for number, row in lines)
    model = (lines[0][1].get("model_name_or_path") or "") if lines else ""
    if not isinstance(model, str):
        raise BadInput(f"{path}, line {lines[0][0]}: model_name_or_path is no text.")
    return ForeignRun(name=path.stem, harness="predictions", model=model, attempts=attempts)


def _by_id(found: Mapping[str, Any], path: Path) -> list[Any]:
    for name, row in found.items():
        instance = row.get("instance_id", name) if isinstance(row, dict) else name
        if str(instance) != name:
            raise BadInput(
                f"{path}: what stands under {quoted(name)} is for {quoted(str(instance))}; one of the two names is wrong."
            )
    return list(found.values())


def _openhands_model(row: Mapping[str, Any]) -> str:
    """The first version writes `llm_config`, the second `llm`."""
    metadata = row.get("metadata")
    settings = [metadata.get(key) for key in ("llm_config", "llm")] if isinstance(metadata, dict) else []
    names = [found.get("model") for found in settings if isinstance(found, dict)]
    return str(next(filter(None, names), ""))


def _mapping(found: Any, path: Path, line: int | None = None) -> Mapping[str, Any]:
    if isinstance(found, ValueError):
        raise BadInput(f"{path}, line {line}: {found}. {FIX}") from found
    if not isinstance(found, dict):
        raise BadInput(
            f"{path}{f', line {line}' if line else ''}: an object is wanted, not {type(found).__name__}."
        )
    return found


def _openhands(row: Mapping[str, Any], path: Path, line: int) -> ForeignAttempt:
    with _shaped(f"{path}, line {line}"):
        return ForeignAttempt(
            instance_id=_id(row, path, line),
            patch=(row.get("test_result") or {}).get("git_patch") or row.get("git_patch") or "",
            ended=str(row.get("error") or ""),
            steps=sum(_is_action(event) for event in row.get("history") or []) or None,
            cost=(row.get("metrics") or {}).get("accumulated_cost"),
            resolved=(row.get("report") or {}).get("resolved"),
        )


def _is_action(event: Any) -> bool:
    return isinstance(event, dict) and event.get("source") == "agent" and "action" in event


def _prediction(row: Mapping[str, Any], path: Path, line: int) -> ForeignAttempt:
    if "model_patch" not in row:
        raise BadInput(f"{path}, line {line}: without model_patch; this is no prediction of SWE-bench.")
    with _shaped(f"{path}, line {line}"):
        return ForeignAttempt(instance_id=_id(row, path, line), patch=row["model_patch"] or "")


def _id(row: Mapping[str, Any], path: Path, line: int) -> str:
    if not row.get("instance_id"):
        raise BadInput(f"{path}, line {line}: without instance_id.")
    return str(row["instance_id"])


def _with_report(found: ForeignRun, path: Path) -> ForeignRun:
    """The verdicts of SWE-bench's report; a task that it could not judge has none."""
    if not os.path.isfile(path):
        raise BadInput(
            f"There is no report {path}. Name the JSON file that SWE-bench wrote of these patches, PATH=REPORT."
        )
    report = _mapping(_json(path), path)
    if "resolved_ids" not in report:
        raise BadInput(f"{path}: without resolved_ids; this is no report of SWE-bench.")
    with _shaped(str(path)):
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
