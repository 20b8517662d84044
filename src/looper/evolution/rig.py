"""The mechanical judge of a whole program: stages in order, no model, each in the sandbox on a copy that the program cannot reach.

The stages come in a fixed order and stop at the first that fails, whose diagnostics go back to whoever wrote the program. A program
that fails has a result; where the rig itself could not look there is none, and that is raised.
"""

import ast
import contextlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from looper.errors import NOT_PYTHON, BadInput, FileRefused
from looper.evolution.genome import Acceptance, Genome
from looper.protocols import CommandResult, Shell
from looper.records.base import content_hash
from looper.records.genome import Diagnostics, EntryPoint, Failure, Manifest, Rigged, RigStage, Vector
from looper.records.text import counted
from looper.untrusted import read_untrusted

SECONDS = {
    RigStage.BUILD: 300.0,
    RigStage.TESTS: 120.0,
    RigStage.IMPORT: 30.0,
    RigStage.START: 30.0,
    RigStage.PUBLIC: 10.0,
    RigStage.ACCEPTANCE: 10.0,
    RigStage.REPRODUCTION: 60.0,
}
TAIL_LINES = 100
FILE_BYTES = 16 << 20
"""Largest file of a program that is read."""
NEWEST_LAYOUT = 1


@dataclass(frozen=True)
class Rig:
    copied: Callable[[Path], AbstractContextManager[Shell]]
    """A copy of a program that commands may write to, made anew each time."""
    before: str = ""
    """Command that builds a copy, before anything else is done with it."""


class _Failed(Exception):
    def __init__(self, diagnostics: Diagnostics) -> None:
        super().__init__(diagnostics.summary)
        self.diagnostics = diagnostics


def artifact_hash(files: dict[str, bytes]) -> str:
    """Over sorted paths; so neither order nor place of the files matters."""
    return content_hash(*(path.encode() + b"\0" + content for path, content in sorted(files.items())))


def inside(path: str) -> bool:
    """Whether a path names a file below the root, and none that decides how others are read."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and "\0" not in path and not {"..", ".git"} & set(parts)


def rigged(
    rig: Rig, folder: Path, manifest: Manifest, genome: Genome, acceptance: Acceptance, parent: Path | None
) -> Rigged:
    """What the rig says of the program in `folder`. Raises InfrastructureError where it could not look, which is no verdict."""
    checks: dict[RigStage, str] = {}
    passed: dict[RigStage, int] = {}
    diagnostics: Diagnostics | None = None
    try:
        for stage, look in _stages(rig, folder, manifest, genome, acceptance):
            count, said = look()
            if count is None:
                continue
            checks[stage], passed[stage] = said, count
    except _Failed as failed:
        diagnostics = failed.diagnostics
        checks[diagnostics.stage] = diagnostics.summary
    built = replace(rig, before=genome.entry.build)
    same = _same(built, folder, parent, genome.entry, acceptance) if diagnostics is None and parent else None
    return Rigged(
        viable=diagnostics is None,
        failed=diagnostics.stage if diagnostics else None,
        checks=checks,
        passed=passed,
        diagnostics=diagnostics,
        same_as_parent=same,
    )


Look = Callable[[], tuple[int | None, str]]
"""How much of a stage passed, None for not tried, and what was seen. Raises _Failed."""


def _stages(
    rig: Rig, folder: Path, manifest: Manifest, genome: Genome, acceptance: Acceptance
) -> Iterator[tuple[RigStage, Look]]:
    entry = genome.entry
    bare, rig = rig, replace(rig, before=entry.build)
    yield RigStage.MANIFEST, lambda: _manifest(folder, manifest, genome)
    yield RigStage.BUILD, lambda: _command(bare, folder, RigStage.BUILD, entry.build)
    yield RigStage.SYNTAX, lambda: _syntax(folder)
    yield RigStage.TESTS, lambda: _command(rig, folder, RigStage.TESTS, entry.test)
    imported = f"python -c {shlex.quote(f'import {entry.module}')}" if entry.module else ""
    yield RigStage.IMPORT, lambda: _command(rig, folder, RigStage.IMPORT, imported)
    yield RigStage.START, lambda: _command(rig, folder, RigStage.START, entry.start)
    yield RigStage.PUBLIC, lambda: _vectors(rig, folder, RigStage.PUBLIC, entry, genome.vectors)
    yield RigStage.ACCEPTANCE, lambda: _vectors(rig, folder, RigStage.ACCEPTANCE, entry, acceptance.vectors)
    yield RigStage.REPRODUCTION, lambda: _reproduces(rig, folder, acceptance)


def read_files(folder: Path) -> dict[str, bytes]:
    """Regular files below a folder, by their paths, without those that are larger than any file of a program."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(FileRefused):
                found[path.relative_to(folder).as_posix()] = read_untrusted(path, FILE_BYTES)
    return found


def _manifest(folder: Path, manifest: Manifest, genome: Genome) -> tuple[int, str]:
    if manifest.layout > NEWEST_LAYOUT:
        raise BadInput(
            f"The manifest has layout {manifest.layout}, and this version of Looper reads {NEWEST_LAYOUT}. Update Looper."
        )
    files = read_files(folder)
    for what, wanted, found in (
        ("files", manifest.files, tuple(files)),
        ("artifact", manifest.artifact_hash, artifact_hash(files)),
        ("genome", manifest.genome_hash, genome.hash),
        ("entry", manifest.entry, genome.entry),
    ):
        if wanted != found:
            raise _Failed(
                Diagnostics(stage=RigStage.MANIFEST, summary=f"the {what} is not what the manifest says")
            )
    return len(files), f"{counted(len(files), 'file is', 'files are')} what the manifest says"


def _syntax(folder: Path) -> tuple[int, str]:
    failures = []
    files = {path: content for path, content in read_files(folder).items() if path.endswith(".py")}
    for path, content in files.items():
        try:
            ast.parse(content)
        except NOT_PYTHON as error:
            line = error.lineno if isinstance(error, SyntaxError) else None
            failures.append(Failure(test=path, error=str(error)[:500], file=path, line=line))
    if failures:
        raise _Failed(
            Diagnostics(
                stage=RigStage.SYNTAX,
                summary=f"{failures[0].file} does not parse: {failures[0].error}",
                failures=tuple(failures),
            )
        )
    return len(files), f"{counted(len(files), 'module parses', 'modules parse')}"


def _command(rig: Rig, folder: Path, stage: RigStage, command: str) -> tuple[int | None, str]:
    if not command:
        return None, ""
    done = _run(rig, folder, stage, command)
    if done.exit_code != 0:
        summary = f"`{command}` {f'was killed: {done.killed_by}' if done.killed_by else f'ended with {done.exit_code}'}"
        raise _Failed(_diagnosed(stage, summary, done))
    return 1, f"`{command}` ended with 0"


def _vectors(
    rig: Rig, folder: Path, stage: RigStage, entry: EntryPoint, vectors: Sequence[Vector]
) -> tuple[int | None, str]:
    """All of them, whatever the first one says."""
    if not vectors:
        return None, ""
    failures = []
    for vector in vectors:
        said = _answer(rig, folder, stage, entry, vector)
        if said != vector.stdout.rstrip():
            # Of what decides nobody is told what was asked or wanted.
            shown = (
                f"{' '.join(vector.args)}: {vector.stdout!r} was wanted, and came {said!r}"
                if stage is RigStage.PUBLIC
                else "another answer was wanted"
            )
            failures.append(
                Failure(test=vector.name if stage is RigStage.PUBLIC else "hidden", error=shown[:500])
            )
    good = len(vectors) - len(failures)
    if failures:
        raise _Failed(
            Diagnostics(
                stage=stage, summary=f"{good} of {len(vectors)} {stage.value} hold", failures=tuple(failures)
            )
        )
    return good, f"{good} of {len(vectors)} hold"


def _answer(rig: Rig, folder: Path, stage: RigStage, entry: EntryPoint, vector: Vector) -> str:
    command = " ".join([entry.run, *(shlex.quote(word) for word in vector.args)])
    done = _run(rig, folder, stage, f"printf %s {shlex.quote(vector.stdin)} | {command}")
    return (
        done.text().rstrip()
        if done.exit_code == 0
        else f"[{done.killed_by or f'exit code {done.exit_code}'}]"
    )


def _reproduces(rig: Rig, folder: Path, acceptance: Acceptance) -> tuple[int | None, str]:
    wanted = acceptance.reproduction
    if wanted is None:
        return None, ""
    failures = []
    for vector in wanted.vectors:
        # The grandchild is made and run in one go: what a child leaves behind elsewhere is not what it made.
        run = " ".join([wanted.entry.run, *(shlex.quote(word) for word in vector.args)])
        command = f"mkdir child && {wanted.run} > /dev/null && cd child && printf %s {shlex.quote(vector.stdin)} | {run}"
        done = _run(rig, folder, RigStage.REPRODUCTION, command)
        if done.exit_code != 0 or done.text().rstrip() != vector.stdout.rstrip():
            failures.append(Failure(test="hidden", error="the grandchild gave another answer"))
    if failures:
        good = len(wanted.vectors) - len(failures)
        raise _Failed(
            Diagnostics(
                stage=RigStage.REPRODUCTION,
                summary=f"of what its child must do {good} of {len(wanted.vectors)} hold",
                failures=tuple(failures),
            )
        )
    return len(wanted.vectors), f"its child does all {len(wanted.vectors)}"


def _same(rig: Rig, folder: Path, parent: Path, entry: EntryPoint, acceptance: Acceptance) -> float:
    same = sum(
        _answer(rig, folder, RigStage.ACCEPTANCE, entry, vector)
        == _answer(rig, parent, RigStage.ACCEPTANCE, entry, vector)
        for vector in acceptance.vectors
    )
    return same / len(acceptance.vectors)


def _run(rig: Rig, folder: Path, stage: RigStage, command: str) -> CommandResult:
    script = f"{{ {rig.before}; }} >&2 && {command}" if rig.before else command
    with rig.copied(folder) as shell:
        return shell.exec(script, SECONDS[stage], env={"PYTHONHASHSEED": "0"})


def _diagnosed(stage: RigStage, summary: str, done: CommandResult) -> Diagnostics:
    tail = "\n".join(done.text().splitlines()[-TAIL_LINES:])
    return Diagnostics(stage=stage, summary=summary, exit_code=done.exit_code, stdout_tail=tail)
