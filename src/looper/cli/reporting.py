"""What `looper report` does."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from looper.errors import BadInput
from looper.views.markdown import name_of, named_blocks, with_runs
from looper.views.runs import RunView, read_run, run_folders


def report(runs: Path, wanted: Sequence[str], file: Path) -> Iterator[str]:
    """Write the newest finished run of each experiment into the file; what was done, in words. Raises BadInput."""
    if not file.is_file():
        raise BadInput(f"There is no file {file}. Make it, or name another one with --file.")
    text = file.read_text("utf-8")
    newest = _newest(runs)
    for name in wanted:
        if not any(key.split()[0] == name for key in newest):
            raise BadInput(f"No run of {name} below {runs}. Begin with: looper run {name}")
    known = named_blocks(text)
    chosen = [run for key, run in newest.items() if (key.split()[0] in wanted if wanted else key in known)]
    for key in known:
        if key not in newest and (not wanted or key.split()[0] in wanted):
            yield f"{key}: no run below {runs}, left as it is"
    written = with_runs(text, chosen)
    if written != text:
        temporary = file.with_name(file.name + ".writing")
        temporary.write_text(written, "utf-8")
        temporary.replace(file)
    for run in chosen:
        state = "" if run.finished == run.planned else f", unfinished, {run.finished} of {run.planned} cells"
        yield f"{name_of(run)}: {run.folder.name}{state}"


def _newest(runs: Path) -> dict[str, RunView]:
    """By experiment and profile: the newest finished run, or the newest where none is finished."""
    found: dict[str, RunView] = {}
    for folder in run_folders(runs):
        run = read_run(folder)
        known = found.get(name_of(run))
        if known is None or run.finished == run.planned or known.finished < known.planned:
            found[name_of(run)] = run
    return found
