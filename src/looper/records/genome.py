"""Programs that are written anew from their specification each generation, and what the rig saw of them."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from looper.records.base import Count, Record


class RigStage(StrEnum):
    """Of the rig, in the order in which they are gone through; the first that fails ends it."""

    PARSE = "parse"
    """The reply holds files that lie inside."""
    MANIFEST = "manifest"
    BUILD = "build"
    SYNTAX = "syntax"
    TESTS = "tests"
    IMPORT = "import"
    START = "start"
    PUBLIC = "public vectors"
    ACCEPTANCE = "acceptance vectors"
    REPRODUCTION = "reproduction"


class EntryPoint(Record):
    """How a program is used: commands in its root. An empty one is not tried."""

    run: str
    """With arguments of a vector behind it."""
    build: str = ""
    test: str = ""
    module: str = ""
    """Imported by name."""
    start: str = ""


class Vector(Record):
    """One thing that a program must do."""

    name: str
    args: tuple[str, ...] = ()
    stdin: str = ""
    stdout: str
    """Compared without blanks at its end."""


class Reproduction(Record):
    """What a program that makes programs must do: its child is put through vectors of its own."""

    run: str
    """Command that writes the grandchild into the folder `child`."""
    entry: EntryPoint
    vectors: Annotated[tuple[Vector, ...], Field(min_length=1)]


class Failure(Record):
    """One thing that went wrong in a stage."""

    test: str
    error: Annotated[str, Field(max_length=500)]
    file: str = ""
    line: int | None = None


class Diagnostics(Record):
    """What the author of the next try is told."""

    stage: RigStage
    summary: str
    exit_code: int | None = None
    failures: tuple[Failure, ...] = ()
    stdout_tail: str = ""
    """100 lines at most."""


class Rigged(Record):
    """What the rig says of one program."""

    viable: bool
    failed: RigStage | None
    checks: dict[RigStage, str]
    """What each stage that was gone through saw, in a line."""
    passed: dict[RigStage, int]
    """Of the stages that count: what was measured; one that was not tried is absent."""
    diagnostics: Diagnostics | None
    same_as_parent: float | None = None
    """Share of the vectors' inputs to which parent and child say the same; None without a parent."""


class Manifest(Record):
    """What a program is made of, written by trusted code; any mismatch is refused before anything runs."""

    layout: int = 1
    generation: int
    parent: Count
    genome_hash: str
    artifact_hash: str
    """Over sorted paths: the path's bytes, a zero byte, the content."""
    model: str
    seed: int
    prompt_tokens: Count
    completion_tokens: Count
    files: tuple[str, ...]
    entry: EntryPoint


class Mode(StrEnum):
    """How a child is written."""

    WHOLE = "whole"
    """From the specification alone."""
    PATCH = "patch"
    """As changed files on top of the parent."""


class Birth(Record):
    """One generation: one reply that was asked for, and what came of it."""

    generation: Annotated[int, Field(gt=0)]
    mode: Mode
    parent: Count
    """Generation of the last viable one; 0 for none."""
    genome_hash: str
    lineage: str
    model: str
    seed: int
    retry: Count
    """So many failed before it in a row."""
    prompt_tokens: Count
    completion_tokens: Count
    infra: str = ""
    """What the outside world did wrong; then there is no verdict, and it is in no rate."""
    manifest: Manifest | None
    rigged: Rigged | None


class Mutation(Record):
    """One section of a genome was changed."""

    genome_hash: str
    parent_hash: str
    section: str
    reason: str
    diff: str
    inherited: bool
    """Whether it is what the next generations are written from."""
