"""The hash of a run's seal as it stands elsewhere, where the owner of the run folder cannot change it later."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from looper.records.base import Record

_LINE = re.compile(r"^looper-seal (?P<run>\S+) (?P<sha256>[0-9a-f]{64}) (?P<ended>\S+)$", re.MULTILINE)


class Signature(Record):
    """What the seals of a run were when somebody put their hash elsewhere."""

    run: str
    """Name of the run folder."""
    sha256: str
    """Of seals.jsonl as it was then."""
    ended: str
    """UTC, ISO 8601: when the last of them was made."""

    def line(self) -> str:
        return f"looper-seal {self.run} {self.sha256} {self.ended}"


def signatures_in(text: str) -> list[Signature]:
    """Every one that stands in a text, in order; other lines are nobody's business."""
    return [Signature(**found.groupdict()) for found in _LINE.finditer(text)]


def signature_of(folder: Path, ended: str) -> Signature:
    """Of the seals that a run has now."""
    return Signature(run=folder.name, sha256=_hashes(folder)[-1], ended=ended)


def _hashes(folder: Path) -> list[str]:
    """Of seals.jsonl up to the end of each of its lines: a run that went on after it was signed has more of them."""
    path, digest, found = folder / "seals.jsonl", hashlib.sha256(), []
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        digest.update(line)
        found.append(digest.hexdigest())
    return found


def signed_amiss(folder: Path, signatures: Mapping[str, list[Signature]], where: str) -> Iterator[str]:
    """What of the seals of a run is not what was signed, in words."""
    hashes = _hashes(folder)
    for one in signatures.get(folder.name, []):
        if one.sha256 not in hashes:
            yield f"its seal is not the one of {one.ended} whose hash stands in {where}"
