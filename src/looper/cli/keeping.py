"""What lies on this disk: runs, adapters and caches, listed, measured and removed.

For `looper runs`, `looper cache` and `looper adapter rm`. Nothing is removed that somebody is working with, or that records name;
what is lost with it is said before.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.cli.options import json_line, the_run
from looper.cli.settings import Settings
from looper.cli.wiring import adapter_store, must_be_idle, process_folders, sweep_workspaces, workspaces_of
from looper.errors import BadInput, InfrastructureError, RunBusy
from looper.journal import RunLock, holder_of
from looper.records.text import counted
from looper.untrusted import folders_below, remove_tree
from looper.views.lineage import adapters_of
from looper.views.live import described, go_on_lines
from looper.views.runs import RunView, find_run, no_run, read_run, read_runs, run_folders
from looper.views.show import harmless

BY_ITSELF = {
    "suites": "the embedded suites, written again when a run needs them",
    "environments": "interpreters and packages of tasks, built again when a run needs them",
    "served_adapters": "adapters as other servers read them, written again when a run needs them",
    "exports": "base trees of tasks, made again from generated repositories or mirrors when a run needs them",
    "workspaces": "working trees of runs",
    "processes": "locks of processes that run cells for another machine",
    "verdicts": "verdicts on real tasks, judged again when a run needs them",
    "fetched": "what runs of other machines needed here, fetched again when they need it",
    "packs": "base trees as nodes fetch them, packed again when they need them",
    "teaching": "plans of experts, written again by: looper model teach",
}
"""Parts of the state folder that the next run makes again."""
ONLY_BY_HAND = {
    "mirrors": "clones of repositories; again with: looper bench fetch",
    "adapters": "trained here; one by one: looper adapter rm",
    "models": "made of GGUF files or taught; again with: looper model add, looper model teach",
    "validations": "what was found of real tasks; again with: looper bench validate",
    "serve": "what people decided on the pages",
}
"""Parts that nobody makes again unasked."""
OF_ALL = "read"
"""The place below the workspaces in which nobody works."""


def disk_bytes(folder: Path) -> int:
    """What a folder takes on the disk, a file with several names once."""
    total, seen = 0, set[tuple[int, int]]()
    for _, entries in folders_below(str(folder)):
        for entry in entries:
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if status.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total


def size_text(size: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1e3:.0f} kB"


def _about(run: RunView) -> dict[str, Any]:
    now = described(run)
    plan = run.manifest.plan
    return {
        "run": run.folder.name,
        "experiment": plan.experiment,
        "profile": plan.profile,
        "title": plan.title,
        "state": now["standing"],
        "finished": run.finished,
        "planned": run.planned,
        "begun": run.sessions[0].begun if run.sessions else None,
        "bytes": disk_bytes(run.folder),
        "writer": run.writer,
        **{key: now[key] for key in ("goes_on_with", "stopped_by", "stops_again", "passes_over_with")},
        "damage": now["damage"],
        "models": list(dict.fromkeys(model.name for model in run.manifest.models.values())),
        "arms": [arm.name for arm in plan.arms],
        "folder": str(run.folder.absolute()),
    }


def _begun(run: dict[str, Any]) -> str:
    return run["begun"][:16].replace("T", " ") if run["begun"] else "not known"


def list_lines(runs: Path, *, as_json: bool) -> Iterator[str]:
    """Every run in a line, the one that was begun last at the end."""
    unreadable: list[str] = []
    found = [_about(run) for run in read_runs(runs, unreadable.append)]
    if as_json:
        yield json_line({"runs": found, "unreadable": unreadable})
        return
    if not found and not unreadable:
        yield no_run(runs)
    rows = [("run", "experiment", "profile", "state", "cells", "begun (UTC)", "size")] if found else []
    rows += [
        (
            *(run[key] for key in ("run", "experiment", "profile", "state")),
            f"{run['finished']}/{run['planned']}",
            _begun(run),
            size_text(run["bytes"]),
        )
        for run in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
    yield from (f"{run['run']}: {line}" for run in found for line in run["damage"][:1])
    yield from unreadable


def show_lines(runs: Path, wanted: str | None, *, as_json: bool) -> Iterator[str]:
    run = _about(the_run(runs, wanted))
    if as_json:
        yield json_line(run)
        return
    yield f"{run['run']}: {harmless(run['title'])}"
    yield f"plan: {run['experiment']} {run['profile']}, arms {', '.join(run['arms'])}"
    yield f"model: {', '.join(run['models'])}"
    running = f" in process {run['writer']}" if run["writer"] else ""
    yield f"state: {run['state']}{running}, {run['finished']} of {counted(run['planned'], 'cell')}, begun {_begun(run)} UTC"
    yield from run["damage"]
    yield from go_on_lines(run)
    yield f"folder: {run['folder']}, {size_text(run['bytes'])}"


def du_lines(runs: Path, *, as_json: bool) -> Iterator[str]:
    """The size of each run folder, the largest first, and of all; a folder that cannot be read has a size too."""
    sizes = {folder.name: disk_bytes(folder) for folder in run_folders(runs)}
    largest = dict(sorted(sizes.items(), key=lambda found: -found[1]))
    yield from _size_lines(largest, as_json=as_json)


def _size_lines(sizes: dict[str, int], *, as_json: bool) -> Iterator[str]:
    if as_json:
        yield json_line({"bytes": sizes, "total": sum(sizes.values())})
        return
    for name, size in sizes.items():
        yield f"{size_text(size):>9}  {name}"
    yield f"{size_text(sum(sizes.values())):>9}  in all"


def removable(runs: Path, names: Sequence[str]) -> list[Path]:
    """The folders of runs that may be removed. Raises BadInput for what is no run, RunBusy for one that is running."""
    found = list(dict.fromkeys(find_run(runs, name, by_experiment=False).absolute() for name in names))
    for folder in found:
        # A folder elsewhere may hold anything beside a file of that name.
        if folder not in [path.absolute() for path in run_folders(runs)]:
            read_run(folder)
        if (writer := holder_of(folder)) is not None:
            raise RunBusy(
                f"{folder.name} is running in process {writer}, and nothing was removed. Stop it (Ctrl-C), then remove it."
            )
    return found


def lost_lines(folders: Sequence[Path]) -> Iterator[str]:
    for folder in folders:
        size = size_text(disk_bytes(folder))
        try:
            run = read_run(folder)
        except BadInput:
            yield f"{folder.name}: its records cannot be read, {size}"
            continue
        yield (
            f"{folder.name}: {counted(len(run.trajectories), 'rollout')} and {counted(len(run.verdicts), 'verdict')}, "
            f"{run.finished} of {counted(run.planned, 'cell')}, {size}"
        )
    yield "Lost for good: rollouts are had again only by running again. Adapters and pages in docs/results stay."


def remove_runs(folders: Sequence[Path], settings: Settings) -> Iterator[str]:
    """Raises RunBusy where one is running by now, InfrastructureError for what cannot be removed."""
    for folder in folders:
        size, lock = disk_bytes(folder), RunLock(folder)
        with contextlib.closing(lock):
            sweep_workspaces(folder, settings)
            _remove(folder)
        yield f"{folder.name} is removed, {size_text(size)}"


def _remove(folder: Path) -> None:
    remove_tree(folder)
    if os.path.lexists(folder):
        raise InfrastructureError(
            f"{folder} could not be removed completely. See who owns what is left: ls -la {folder}"
        )


def remove_adapters(wanted: Sequence[str], settings: Settings, *, force: bool) -> Iterator[str]:
    """Raises BadInput for what is no adapter, and for one that a run or another adapter names, unless by force."""
    kept = adapter_store(settings)
    found = list(dict.fromkeys(kept.named(name) for name in wanted))
    for adapter in () if force else found:
        if users := list(_users(adapter, found, settings)):
            raise BadInput(
                f"{adapter} is named by {'; '.join(users[:3])}{'; …' if len(users) > 3 else ''}, whose origin could not be shown without "
                f"it. Remove it all the same: looper adapter rm {adapter} --force"
            )
    for adapter in found:
        size = disk_bytes(kept.folder(adapter))
        _remove(kept.folder(adapter))
        yield f"{adapter} is removed, {size_text(size)}"


def _users(adapter: str, going: Sequence[str], settings: Settings) -> Iterator[str]:
    """Runs and other adapters whose records name an adapter, or could."""
    unreadable: list[str] = []
    for run in read_runs(settings.runs, unreadable.append):
        if adapter in adapters_of(run):
            yield f"the run {run.folder.name}"
    yield from (f"perhaps a run that cannot be read ({said})" for said in unreadable)
    kept = adapter_store(settings)
    for name in kept.ids():
        with contextlib.suppress(BadInput):
            if name not in going and adapter in ((card := kept.load(name)).start, *card.parts):
                yield f"the adapter {name}"


@dataclass(frozen=True)
class StatePart:
    name: str
    folder: Path
    by_itself: bool
    """Whether the next run makes it again."""
    what: str


def parts(settings: Settings) -> list[StatePart]:
    """All that is there; the unknown stays for whoever put it there."""
    elsewhere = {"workspaces": settings.workspaces, "mirrors": settings.mirrors}
    known = [*BY_ITSELF, *ONLY_BY_HAND]
    with contextlib.suppress(OSError):
        known += sorted({path.name for path in settings.state.iterdir() if path.is_dir()} - {*known})
    return [
        StatePart(
            name, folder, name in BY_ITSELF, (BY_ITSELF | ONLY_BY_HAND).get(name, "not known to Looper")
        )
        for name in known
        if (folder := elsewhere.get(name, settings.state / name)).is_dir()
    ]


def cache_lines(settings: Settings, *, as_json: bool) -> Iterator[str]:
    found = {part: disk_bytes(part.folder) for part in parts(settings)}
    if as_json:
        rows = [
            {"name": part.name, "folder": str(part.folder), "bytes": size, "by_itself": part.by_itself}
            for part, size in found.items()
        ]
        yield json_line({"folder": str(settings.state), "parts": rows, "total": sum(found.values())})
        return
    for part, size in found.items():
        back = "comes back by itself" if part.by_itself else "does not come back by itself"
        yield f"{size_text(size):>9}  {part.name}: {part.what}; {back}"
    yield f"{size_text(sum(found.values())):>9}  in all, below {settings.state}"


def cleanable(settings: Settings, names: Sequence[str]) -> list[StatePart]:
    """What may be removed of what is named, or of all. Raises BadInput for what does not come back by itself."""
    for name in names:
        if name not in BY_ITSELF:
            raise BadInput(f'"{name}" does not come back by itself. Choose of: {", ".join(BY_ITSELF)}.')
    return [part for part in parts(settings) if part.by_itself and (not names or part.name in names)]


def clean(settings: Settings, chosen: Sequence[StatePart], say: Callable[[str], None]) -> Iterator[str]:
    """Remove what the next run makes again: trees of runs that are dead, and, where nobody could be at work with them, the others."""
    yield from _sweep_dead(settings) if any(part.name == "workspaces" for part in chosen) else ()
    others = [part for part in chosen if part.name != "workspaces"]
    if others and (why := _at_work(settings)):
        say(f"{', '.join(part.name for part in others)}: left as they are, {why}")
        return
    for part in others:
        size = disk_bytes(part.folder)
        if part.name == "fetched":
            try:
                must_be_idle(part.folder)
            except BadInput as error:
                say(f"fetched: left as it is, {error}")
                continue
        _remove(part.folder)
        yield f"{part.name} is removed, {size_text(size)}"


def _sweep_dead(settings: Settings) -> Iterator[str]:
    swept, size = 0, 0
    for folder in _lock_folders(settings):
        place = workspaces_of(folder, settings)
        if place.is_dir() and holder_of(folder) is None:
            with contextlib.suppress(RunBusy), contextlib.closing(RunLock(folder)):
                size += disk_bytes(place)
                sweep_workspaces(folder, settings)
                swept += 1
    yield f"workspaces: working trees of {counted(swept, 'dead run')} removed, {size_text(size)}"


def _lock_folders(settings: Settings) -> list[Path]:
    """Whose locks are held by who works in a place below the workspaces: of runs, and of processes that run cells of others."""
    return [*run_folders(settings.runs), *sorted(process_folders(settings).glob("*"))]


def _at_work(settings: Settings) -> str:
    """Why somebody may be using what is to be removed; empty where nobody can be."""
    for folder in _lock_folders(settings):
        if (writer := holder_of(folder)) is not None:
            return f"{folder.name} is running in process {writer}"
    known = {workspaces_of(folder, settings) for folder in _lock_folders(settings)}
    with contextlib.suppress(OSError):
        for place in sorted(settings.workspaces.iterdir()):
            if place.name != OF_ALL and place not in known:
                return f"a run of another folder may be working in {place}. End it, or remove that, and clean again"
    return ""
