"""What `looper report` does, and `looper report --verify`.

`report` and `share` write tables and findings, `summarise` the table of all results, `verify` computes everything again and compares,
`sign_runs` puts hashes of seals elsewhere. What a run says comes from `views`; here is which runs and which pages.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from looper.cli.options import the_run
from looper.cli.plans import experiments_folders, registered
from looper.cli.settings import Settings
from looper.cli.verifying import SignedSeals, Verifier, sign_seals, signed_at
from looper.cli.wiring import code_version
from looper.errors import BadInput, NotAsRecorded
from looper.journal import replace_file
from looper.records.text import counted
from looper.untrusted import named_text
from looper.views.blocks import with_block
from looper.views.decided import report_data
from looper.views.findings import unfinished_text
from looper.views.history import read_history
from looper.views.markdown import history_block, name_of, run_block, with_history
from looper.views.results import HISTORY, SharedPages, not_checked, with_run, write_text
from looper.views.runs import RunView, no_run, read_runs
from looper.views.summary import LEARNINGS, SUMMARY, read_results, summary_lines
from looper.views.web.page import NAME, write_page


def report(runs: Path, wanted: Sequence[str], data: list[dict[str, Any]] | None = None) -> Iterator[str]:
    """Write each run into its own folder, as a page and as Markdown: the newest, or of what is wanted runs by their names, and of an
    experiment the newest of each profile. Which files, in words; `data` is given the figures of each. Raises BadInput."""

    def written(run: RunView) -> str:
        said = _in_its_folder(run)
        if data is not None:
            data.append({**report_data(run), "page": str(run.folder / NAME)})
        return said

    if not wanted:
        yield written(the_run(runs))
        return
    unreadable: list[str] = []
    every = read_runs(runs, unreadable.append)
    chosen = _chosen(runs, wanted, {name_of(run): run for run in every}, frozenset())
    yield from unreadable
    for run in chosen:
        yield from _newest_of(run, every, wanted, "all: looper runs list")
        yield written(run)


def _newest_of(
    run: RunView, every: Sequence[RunView], wanted: Sequence[str], all_of_them: str
) -> Iterator[str]:
    """That a run stands for an experiment that is wanted, where that has others."""
    name = name_of(run)
    alike = [other.folder.name for other in every if name_of(other) == name]
    if len(alike) > 1 and alike[-1] == run.folder.name and name.split()[0] in wanted:
        yield f"{run.folder.name}: the newest of {len(alike)} runs of {name}; {all_of_them}"


def _in_its_folder(run: RunView) -> str:
    written = (write_page(run, code_version()), write_text(run, code_version()))
    return f"{name_of(run)}: {written[0]} and {written[1].name}{unfinished_text(run)}"


def share(runs: Path, wanted: Sequence[str], pages: SharedPages) -> Iterator[str]:
    """Write runs into their folders, and into pages that they share: those that are wanted, or all that have a block there already, the newest finished one of
    each experiment and profile; what was done, in words. Raises BadInput."""
    known = pages.blocks()
    if pages.file is not None:
        pages.text(pages.file)  # Said before anything is read where it is no text.
    unreadable: list[str] = []
    every = read_runs(runs, unreadable.append)
    yield from unreadable
    if not wanted and not known:
        raise BadInput(
            f"{pages.file or pages.folder} has no block of a run yet, so name experiments: looper report exp00 "
            f"{f'--file {pages.file}' if pages.file else f'--results {pages.folder}'}"
        )
    chosen = {name_of(run): run for run in _chosen(runs, wanted, _newest(every), {HISTORY})}
    if not wanted:
        chosen = {key: run for key, run in _newest(every).items() if key in known}
    for key in known:
        if key not in chosen and key.split()[0] != HISTORY and (not wanted or key.split()[0] in wanted):
            yield f"{key}: no run below {runs}, left as it is in {pages.of(key)}"
    for name, path in history_files().items():
        key = f"{HISTORY} {name}"
        if HISTORY in wanted or (not wanted and key in known):
            page = pages.of(key)
            _write(page, with_history(pages.text(page), name, read_history(path)))
            yield f"{key}: {path.name}, in {page}"
    for run in chosen.values():
        page = pages.of(name_of(run))
        _write(page, with_run(pages.text(page), run))
        yield f"{name_of(run)}: {run.folder.name}{unfinished_text(run)}, in {page}"
        yield _in_its_folder(run)
        last = [other for other in every if name_of(other) == name_of(run)][-1]
        if last.folder != run.folder and last.finished < last.planned:
            yield (
                f"{name_of(run)}: {last.folder.name} was begun later and is not finished; what is written is of {run.folder.name}"
            )
    yield from _untold({name: run.folder.name for name, run in chosen.items()}, every)


def _untold(told: Mapping[str, str], runs: Sequence[RunView]) -> Iterator[str]:
    """Finished runs of experiments of which another one is written down: whoever runs a plan until it says something has some. `told`
    has the folder by experiment and profile."""
    for run in runs:
        name = name_of(run)
        if name in told and run.folder.name != told[name] and run.finished == run.planned:
            yield (
                f"{name}: {run.folder.name} ({counted(len(run.tasks), 'task')}, ended {run.ended:%Y-%m-%d %H:%M} UTC) is another finished run of "
                f"it, and nothing is written of that one; what is written is of {told[name]}"
            )


def _chosen(
    runs: Path, wanted: Sequence[str], newest: Mapping[str, RunView], others: Collection[str]
) -> list[RunView]:
    """Of what is wanted: runs by their own names, and of experiments the `newest`, by experiment and profile, where no run of it is named
    itself. `others` are names that are no runs. Raises BadInput for what is neither."""
    named = _named(runs, wanted, {*others, *(key.split()[0] for key in newest)})
    mine = {name_of(run) for run in named}
    return [
        *(run for key, run in newest.items() if key.split()[0] in wanted and key not in mine),
        *{run.folder: run for run in named}.values(),
    ]


def summarise(file: Path | None, pages: SharedPages) -> Iterator[str]:
    """Write all results of the pages into one table of LEARNINGS.md, or of the file. Raises BadInput where there are none, or no place for it."""
    target = file or LEARNINGS
    rows = read_results(pages.blocks())
    if not rows:
        raise BadInput(
            f"There is nothing in {pages.folder} yet. Begin with: looper report exp00 --results {pages.folder}"
        )
    new = file is not None and not file.exists()
    there = f"<!-- {SUMMARY} -->\n<!-- end of {SUMMARY} -->\n" if new else named_text(target)
    text = with_block(there, SUMMARY, summary_lines(rows), str(target))
    _write(target, text)
    yield f"{target}: rows in the table: {len(rows)}"


def _write(page: Path, text: str) -> None:
    if page.is_file() and named_text(page) == text:
        return
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"The folder {page.parent} cannot be made: {error.strerror}. Name another place."
        ) from error
    replace_file(page, text.encode())


def history_files() -> dict[str, Path]:
    folders = (folder / "history" for folder in reversed(experiments_folders()))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def _newest(runs: Sequence[RunView]) -> dict[str, RunView]:
    """For pages that runs share, by experiment and profile: the finished run that ended last, or the newest where none is finished."""
    found: dict[str, RunView] = {}
    # By what is recorded: a file that is touched is no newer.
    for run in sorted(runs, key=lambda run: run.ended):
        known = found.get(name_of(run))
        if known is None or run.finished == run.planned or known.finished < known.planned:
            found[name_of(run)] = run
    return found


def _named(runs: Path, wanted: Sequence[str], experiments: Collection[str]) -> list[RunView]:
    """Of what is wanted, the runs that are named themselves. Raises BadInput for what is neither that nor an experiment."""
    return [the_run(runs, name) for name in wanted if name not in experiments]


def verify(
    settings: Settings,
    wanted: Sequence[str],
    pages: SharedPages,
    *,
    strict: bool = False,
    sign: Path | None = None,
) -> Iterator[str]:
    """Look at the runs that `report` means by these names, at all where there is none, and at the written blocks with the runs that they
    come from; what does not fit, and what could not be looked at.

    Raises NotAsRecorded where anything does not fit, and with `strict` where anything was not looked at. `sign` is where hashes of seals
    were put.
    """
    if pages.file is not None and not pages.file.exists():
        raise BadInput(
            f"There is no file {pages.file} to verify. Write it: looper report exp00 --file {pages.file}"
        )
    unreadable: list[str] = []
    runs = read_runs(settings.runs, unreadable.append)
    written = pages.blocks()
    signed = signed_at(sign) if sign is not None else None
    experiments = {
        *(run.manifest.plan.experiment for run in runs),
        *(name.split()[0] for name in written if name in wanted or name.split()[0] in wanted),
        *(name.split("-")[0] for name in (signed.of if signed else ())),
    }
    named = _named(settings.runs, wanted, experiments)
    # A run that is named by its path has its block too, wherever it lies.
    names = {*wanted, *(name_of(run) for run in named)}
    blocks = {
        name: found
        for name, found in written.items()
        if not wanted or name in names or name.split()[0] in names
    }
    all_of_them = [run for run in runs if not wanted or run.manifest.plan.experiment in wanted] + named
    told = _written_of(blocks, [*runs, *named])
    newest = {name_of(run): run for run in runs}
    chosen = _chosen(settings.runs, wanted, newest, experiments) if wanted else runs
    there = {run.folder for run in chosen}
    chosen = [
        *(run for run in all_of_them if run.folder.name in told.values() and run.folder not in there),
        *chosen,
    ]
    unseen = [
        *not_checked(blocks, {run.folder.name for run in chosen}),
        *_not_written(blocks, all_of_them, pages),
        *_untold(told, all_of_them),
        *(f"{sign}: {name} was signed and is not here" for name in _gone(signed, wanted, runs)),
    ]
    if not chosen and not unreadable and not blocks and not unseen:
        raise BadInput(no_run(settings.runs))
    found = len(unreadable)
    yield from unreadable
    verifier = Verifier(settings, signed)
    for run in chosen:
        if newest.get(name_of(run)) is run:
            yield from _newest_of(run, runs, wanted, "all of them: looper report --verify")
        lines, not_seen = verifier.look(run)
        page, block = blocks.get(name_of(run), (None, ""))
        if f"`{run.folder.name}`" in block and block != run_block(run):
            lines.append(f"{page}: the block of {name_of(run)} is not what the records say")
        found += len(lines)
        yield from (f"{run.folder.name}: {line}" for line in lines)
        if not lines:
            yield f"{run.folder.name}: {counted(len(run.verdicts), 'verdict')}, {counted(len(run.trajectories), 'rollout')}, nothing wrong"
        unseen += [f"{run.folder.name}: {what}" for what in not_seen]
    for line in (
        *_history_amiss(blocks),
        *_blocks_amiss(blocks, {run.folder.name: run for run in [*runs, *named]}.values()),
        *pages.misplaced(),
        *_table_amiss(pages),
    ):
        found += 1
        yield line
    yield from (f"not checked, {what}" for what in unseen)
    yield f"{counted(len(chosen) + len(unreadable), 'run')}, {counted(found, 'finding')}, {len(unseen)} not checked"
    if found:
        raise NotAsRecorded(
            f"{counted(found, 'finding')} in {counted(len(chosen) + len(unreadable), 'run')}: do not trust what they say."
        )
    if strict and unseen:
        raise NotAsRecorded(
            f"{counted(len(unseen), 'thing')} could not be checked, and --strict takes that for a failure. Bring it here, or leave --strict out."
        )


def _written_of(blocks: Mapping[str, tuple[Path, str]], runs: Sequence[RunView]) -> dict[str, str]:
    """The run that is written down, by experiment and profile, where it is here."""
    return {
        name: run.folder.name
        for run in runs
        for name, (_, block) in blocks.items()
        if name == name_of(run) and f"`{run.folder.name}`" in block
    }


def _blocks_amiss(blocks: Mapping[str, tuple[Path, str]], runs: Collection[RunView]) -> Iterator[str]:
    """Blocks that say they come from a run of another experiment or profile."""
    for run in runs:
        for name, (page, block) in blocks.items():
            if name != name_of(run) and f"`{run.folder.name}`" in block.split("\n\n")[0]:
                yield f"{page}: the block of {name} says that it is of {run.folder.name}, which is a run of {name_of(run)}"


def _table_amiss(pages: SharedPages) -> Iterator[str]:
    """The table of all results, where it is written down, against the pages that it is made of."""
    text = named_text(LEARNINGS) if LEARNINGS.is_file() and pages.file is None else ""
    rows = read_results(pages.blocks())
    if f"<!-- {SUMMARY} -->" not in text:
        return
    if not rows:
        if with_block(text, SUMMARY, [], str(LEARNINGS)) != text:
            yield f"{LEARNINGS}: the table of all results is made of pages that are not in {pages.folder}"
        return
    if with_block(text, SUMMARY, summary_lines(rows), str(LEARNINGS)) != text:
        yield f"{LEARNINGS}: the table of all results is not what {pages.folder} says. Write it anew: {SUMMARY}"


def _not_written(
    blocks: Mapping[str, tuple[Path, str]], runs: Sequence[RunView], pages: SharedPages
) -> Iterator[str]:
    """Where pages are kept: registered experiments with a finished run of which nothing is written there, since it never was, or was
    taken out. A plan that is a file of somebody's own has no page unless one was made."""
    if not (pages.file or pages.folder).exists():
        return
    known = registered()
    for name in dict.fromkeys(name_of(run) for run in runs if run.finished == run.planned):
        experiment = name.partition(" ")[0]
        if name not in blocks and (experiment in known or pages.of(name).exists()):
            yield f"{pages.of(name)}: there is no block of {name}"


def _gone(signed: SignedSeals | None, wanted: Sequence[str], runs: Sequence[RunView]) -> list[str]:
    """Runs that were signed and are not here."""
    here = {run.folder.name for run in runs}
    return [
        name
        for name in (signed.of if signed else {})
        if name not in here and (not wanted or name.split("-")[0] in wanted)
    ]


def sign_runs(settings: Settings, wanted: Sequence[str], place: Path) -> Iterator[str]:
    """Put the hashes of the seals of the runs that `report` means by these names, of all where there is none, elsewhere. Raises BadInput."""
    runs = read_runs(settings.runs)
    newest = {name_of(run): run for run in runs}
    chosen = _chosen(settings.runs, wanted, newest, frozenset()) if wanted else runs
    if not chosen:
        raise BadInput(no_run(settings.runs))
    return sign_seals(settings, chosen, place)


def _history_amiss(blocks: dict[str, tuple[Path, str]]) -> Iterator[str]:
    for name, path in history_files().items():
        page, block = blocks.get(f"{HISTORY} {name}", (None, ""))
        if block and block != history_block(name, read_history(path)):
            yield f"{page}: the block of {HISTORY} {name} is not what {path.name} says"
