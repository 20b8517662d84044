"""Hashes of a run's plan and of its seal as they stand elsewhere, where the owner of the run folder cannot change them later."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

from looper.records.base import Record


class SignedPart(StrEnum):
    PLAN = "plan"
    """Before the data: what is to be decided, and how, cannot be written anew once they are there."""
    SEAL = "seal"
    """At the end: all records."""

    @property
    def file(self) -> str:
        return "manifest.jsonl" if self is SignedPart.PLAN else "seals.jsonl"


_LINE = re.compile(
    rf"^looper-(?P<part>{'|'.join(SignedPart)}) (?P<run>\S+) (?P<sha256>[0-9a-f]{{64}}) (?P<when>\S+)$",
    re.MULTILINE,
)


class Signature(Record):
    """What a part of a run was when somebody put its hash elsewhere."""

    part: SignedPart
    run: str
    """Name of the run folder."""
    sha256: str
    """Of the part's file as it was then."""
    when: str
    """UTC, ISO 8601: when the plan was signed; of a seal, when the last of them was made."""

    def line(self) -> str:
        return f"looper-{self.part.value} {self.run} {self.sha256} {self.when}"

    @property
    def tag(self) -> str:
        """A name that no other signature has; a seal's is that of its run."""
        kind = "" if self.part is SignedPart.SEAL else f"{self.part.value}-"
        return f"{kind}{self.run}-{self.sha256[:12]}"


def signatures_in(text: str) -> list[Signature]:
    """Every one that stands in a text, in order; other lines are nobody's business."""
    return [Signature.model_validate(found.groupdict()) for found in _LINE.finditer(text)]


def signature_of(part: SignedPart, folder: Path, when: str) -> Signature:
    return Signature(part=part, run=folder.name, sha256=_hashes(folder / part.file)[-1], when=when)


def _hashes(path: Path) -> list[str]:
    """Of the file up to the end of each of its lines: a run that went on after it was signed has more seals."""
    digest, found = hashlib.sha256(), []
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        digest.update(line)
        found.append(digest.hexdigest())
    return found


def signed_amiss(folder: Path, signatures: Mapping[str, list[Signature]], where: str) -> Iterator[str]:
    """What of a run is not what was signed, in words."""
    for one in signatures.get(folder.name, []):
        if one.sha256 not in _hashes(folder / one.part.file):
            yield f"its {one.part.value} is not the one of {one.when} whose hash stands in {where}"
