"""What a node needs to run cells and does not have, as the run's process and the node speak of it."""

from collections import Counter
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from looper.records.base import Count, Record, content_hash


class ContentKind(StrEnum):
    """What is asked for by a name."""

    ADAPTER = "adapter"
    """By its id."""
    MODEL = "model"
    """Weights for MLX, as the plan names them."""
    ROWS = "rows"
    """Of a suite."""
    VALIDATIONS = "validations"
    """Of a suite's tasks, as the run's machine found them."""
    TREES = "trees"
    """Base trees of a repository's tasks, by `SUITE:REPO`."""


def _below(path: str) -> str:
    if PurePosixPath(path).is_absolute() or {"", ".", ".."} & {*path.split("/")} or "\0" in path:
        raise ValueError(f"{path} is no path below a folder")
    return path


class ContentFile(Record):
    """One file."""

    path: Annotated[str, AfterValidator(_below)]
    """Below its folder, with forward slashes."""
    size_bytes: Count
    sha256: str


class Content(Record):
    """A folder, or one file, by what it holds."""

    files: tuple[ContentFile, ...]
    """Empty where the run's machine does not have it either."""
    is_file: bool = False
    """Whether it is one file and no folder."""

    @model_validator(mode="after")
    def _each_has_its_place(self) -> Self:
        found = Counter(PurePosixPath(file.path) for file in self.files)
        for path, times in found.items():
            if times > 1 or not found.keys().isdisjoint(path.parents):
                raise ValueError(f"{path} stands where another file does")
        return self

    @property
    def digest(self) -> str:
        return content_hash(self)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


class Wanted(Record):
    """What a node asks the run's process for: what there is, or a piece of one of its files."""

    kind: ContentKind
    name: str
    path: str = ""
    """A file of what there is; empty to be told what there is, which is a `Content`."""
    offset: Count = 0
    """Bytes."""
