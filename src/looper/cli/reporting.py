"""What `looper report` does, and `looper report --verify`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from looper.cli.plans import experiments_folders
from looper.cli.settings import Settings
from looper.cli.verifying import Signed, Verifier, sign_seals, signed_at
from looper.cli.wiring import code_version
from looper.errors import BadInput, NotAsRecorded
from looper.journal import replace_file
from looper.untrusted import named_text
from looper.views.history import read_history
from looper.views.markdown import block_of, name_of, named_blocks, run_block, with_history, with_runs
from looper.views.runs import RunView, read_runs
from looper.views.web.page import write_page


def report(runs: Path, wanted: Sequence[str], file: Path) -> Iterator[str]:
    """Write the newest finished run of each experiment into the file; what was done, in words. Raises BadInput."""
    if not file.is_file():
        raise BadInput(f"There is no file {file}. Make it, or name another one with --file.")
    text = named_text(file)
    unreadable: list[str] = []
    newest = _newest(read_runs(runs, unreadable.append))
    yield from unreadable
    past = history_files()
    for name in wanted:
        if name != "history" and not any(key.split()[0] == name for key in newest):
            raise BadInput(f"No run of {name} below {runs}. Begin with: looper run {name}")
    known = named_blocks(text)
    if not wanted and not known:
        raise BadInput(f"{file} has no block of a run yet, so name experiments: looper report exp00")
    chosen = [run for key, run in newest.items() if (key.split()[0] in wanted if wanted else key in known)]
    for key in known:
        if key not in newest and not key.startswith("history ") and (not wanted or key.split()[0] in wanted):
            yield f"{key}: no run below {runs}, left as it is"
    written = with_runs(text, chosen)
    for name, path in past.items():
        if "history" in wanted or (not wanted and f"history {name}" in known):
            written = with_history(written, name, read_history(path))
            yield f"history {name}: {path.name}"
    if written != text:
        replace_file(file, written.encode())
    for run in chosen:
        state = "" if run.finished == run.planned else f", unfinished, {run.finished} of {run.planned} cells"
        yield f"{name_of(run)}: {run.folder.name}{state}"
        yield f"{name_of(run)}: {write_page(run, code_version())}"


def history_files() -> dict[str, Path]:
    """Results of earlier experiments, by name."""
    folders = (folder / "history" for folder in reversed(experiments_folders()))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def _newest(runs: Sequence[RunView]) -> dict[str, RunView]:
    """By experiment and profile: the newest finished run, or the newest where none is finished."""
    found: dict[str, RunView] = {}
    for run in runs:
        known = found.get(name_of(run))
        if known is None or run.finished == run.planned or known.finished < known.planned:
            found[name_of(run)] = run
    return found


def verify(
    settings: Settings, wanted: Sequence[str], file: Path, *, strict: bool = False, sign: Path | None = None
) -> Iterator[str]:
    """Look at every run of the experiments, and at the blocks of the file; what does not fit, and what could not be looked at.

    Raises NotAsRecorded where anything does not fit, and with `strict` where anything was not looked at. `sign` is where hashes of seals
    were put.
    """
    unreadable: list[str] = []
    runs = read_runs(settings.runs, unreadable.append)
    chosen = [run for run in runs if not wanted or run.manifest.plan.experiment in wanted]
    text = named_text(file) if file.is_file() else ""
    signed = signed_at(sign) if sign is not None else None
    unseen = [
        *_blocks_without_runs(file, text, wanted, chosen),
        *_runs_without_blocks(file, text, chosen),
        *(f"{sign}: {name}, which was signed, is not here" for name in _gone(signed, wanted, runs)),
    ]
    if not chosen and not unreadable and not unseen:
        raise BadInput(f"No run of {', '.join(wanted) or 'anything'} below {settings.runs}.")
    found = len(unreadable)
    yield from unreadable
    verifier = Verifier(settings, signed)
    for run in chosen:
        lines, not_seen = verifier.look(run)
        block = block_of(text, name_of(run))
        if block is not None and f"`{run.folder.name}`" in block and block != run_block(run):
            lines.append(f"{file}: the block of {name_of(run)} is not what the records say")
        found += len(lines)
        yield from (f"{run.folder.name}: {line}" for line in lines)
        if not lines:
            yield f"{run.folder.name}: {len(run.verdicts)} verdicts, {len(run.trajectories)} rollouts, nothing amiss"
        unseen += [f"{run.folder.name}: {what}" for what in not_seen]
    yield from (f"not checked, {what}" for what in unseen)
    yield f"{len(chosen) + len(unreadable)} runs, {found} findings, {len(unseen)} not checked"
    if found:
        raise NotAsRecorded(
            f"{found} findings in {len(chosen) + len(unreadable)} runs: do not trust what they say."
        )
    if strict and unseen:
        raise NotAsRecorded(
            f"{len(unseen)} things could not be checked, and --strict takes that for a failure. Bring them here, or leave --strict out."
        )


def _blocks_without_runs(
    file: Path, text: str, wanted: Sequence[str], runs: Sequence[RunView]
) -> Iterator[str]:
    """Blocks that come from no run here, so that nothing can say whether they are true."""
    folders = {run.folder.name for run in runs}
    for name in named_blocks(text):
        if name.startswith("history ") or (wanted and name.split()[0] not in wanted):
            continue
        block = block_of(text, name) or ""
        if not any(f"`{folder}`" in block for folder in folders):
            yield f"{file}: the block of {name}: its run is not here"


def _runs_without_blocks(file: Path, text: str, runs: Sequence[RunView]) -> Iterator[str]:
    """Experiments with a finished run of which the file says nothing: never written, or taken out."""
    known = {*named_blocks(text)}
    for name in dict.fromkeys(name_of(run) for run in runs if run.finished == run.planned):
        if name not in known and not name.startswith("grade "):
            yield f"{file} has no block of {name}"


def _gone(signed: Signed | None, wanted: Sequence[str], runs: Sequence[RunView]) -> list[str]:
    """Runs that were signed and are not here."""
    here = {run.folder.name for run in runs}
    return [
        name
        for name in (signed.of if signed else {})
        if name not in here and (not wanted or name.split("-")[0] in wanted)
    ]


def sign_runs(settings: Settings, wanted: Sequence[str], place: Path) -> Iterator[str]:
    """Put the hashes of the seals of all runs of the experiments elsewhere. Raises BadInput."""
    runs = [run for run in read_runs(settings.runs) if not wanted or run.manifest.plan.experiment in wanted]
    if not runs:
        raise BadInput(f"No run of {', '.join(wanted) or 'anything'} below {settings.runs}.")
    return sign_seals(settings, runs, place)
