"""Lines that are put where whoever owns the run folders cannot change them later: a file elsewhere, or annotated tags of a git
repository, which git signs where its owner has told it to.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from looper.errors import BadInput
from looper.untrusted import named_text

TAGS = "looper-seal/"


def texts_at(place: Path) -> str:
    """Everything that was put there; nothing where there is no file yet. Raises BadInput."""
    if place.is_dir():
        return _git(place, "for-each-ref", "--format=%(contents)", f"refs/tags/{TAGS}")
    return named_text(place) if place.exists() else ""


def put_at(place: Path, lines: Mapping[str, str]) -> None:
    """Add lines, by the names that tags get. Raises BadInput."""
    if place.is_dir():
        for name, line in lines.items():
            _git(place, "tag", "--annotate", "--message", line, f"{TAGS}{name}")
        return
    try:
        with place.open("a", encoding="utf-8") as stream:
            stream.write("".join(f"{line}\n" for line in lines.values()))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise BadInput(f"{place} cannot be written: {error.strerror}. Name another place.") from error


def _git(repository: Path, *words: str) -> str:
    """With the user's own configuration: the tag is theirs, under their name and key."""
    command = ["git", "-C", str(repository), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise BadInput(f"git cannot be run: {error}. Name a file in place of the repository.") from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        raise BadInput(
            f"{repository}: git {words[0]} refused: {said.rstrip('.')}. Name a repository of yours with a commit, or a file."
        )
    return done.stdout
