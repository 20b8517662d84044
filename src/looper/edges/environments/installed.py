"""Whether what is installed still is what the records of its packages say: what is lost or changed fails tests of any patch."""

import contextlib
import csv
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from looper.records.text import listed

ODD = "odd"
"""Key of a mark: files that differed from their packages' records as soon as they were installed, for some packages say it wrong."""
OF_UV = ("_virtualenv.py", "_virtualenv.pth")
"""Beside the packages in every virtual environment that uv makes, and in no record."""
LOCK = ".lock"
"""What uv leaves where it was told to install into a folder."""
RECORDS = "*.dist-info/RECORD"
SHOWN = 3


def packages_of(environment: Path) -> Path:
    return next(environment.glob("lib/python*/site-packages"), environment / "lib")


def damage(packages: Path, mark: Path, names: Iterable[str]) -> str:
    """What is lost, added or changed in a folder with the packages of these names, name or name==version, since its `mark` was written;
    in words, empty where nothing is. Reads the packages' records and the list of files, and no file. Byte code counts for nothing."""
    try:
        odd = json.loads(mark.read_bytes()).get(ODD, [])
        written_ns = mark.stat().st_mtime_ns
    except (OSError, ValueError, AttributeError):
        return f"{mark.name} cannot be read"
    there = {_plain(record.parent.name.partition("-")[0]) for record in packages.glob(RECORDS)}
    if lost := {_plain(name.partition("==")[0]) for name in names} - there:
        return f"{min(lost)} is not installed"
    found = sorted(set(differing(packages, written_ns)) - set(odd))
    return f"{listed(found, SHOWN)} not as installed" if found else ""


def differing(packages: Path, written_ns: int | None = None) -> list[str]:
    """Files below a folder of packages that are not there, of another size or no package's, or that were written after a time."""
    there = dict(_files(packages))
    recorded = dict(_recorded(packages))
    return [
        path
        for path in there.keys() | recorded.keys()
        if path not in there
        or (path not in recorded and path not in OF_UV)
        or recorded.get(path) not in (None, there[path].st_size)
        or (written_ns is not None and there[path].st_mtime_ns > written_ns)
    ]


def _plain(name: str) -> str:
    """As all of a package's spellings are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every file below a folder but byte code, by its path there."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with contextlib.suppress(FileNotFoundError), os.scandir(folder / below) as entries:
            for entry in entries:
                path = f"{below}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting += [] if entry.name == "__pycache__" else [f"{path}/"]
                elif not path.endswith(".pyc") and path != LOCK:
                    with contextlib.suppress(FileNotFoundError):
                        yield path, entry.stat()


def _recorded(packages: Path) -> Iterator[tuple[str, int | None]]:
    """Files that the packages' records name, and their sizes where these are said. A record that cannot be read names nothing."""
    for record in packages.glob(RECORDS):
        with (
            contextlib.suppress(OSError, UnicodeDecodeError, csv.Error),
            record.open(encoding="utf-8", newline="") as stream,
        ):
            for row in csv.reader(stream):
                if len(row) == 3 and _is_below(row[0]):
                    yield row[0], int(row[2]) if row[2].isdecimal() else None


def _is_below(path: str) -> bool:
    """Scripts lie beside the packages, and byte code comes and goes."""
    return not path.startswith(("/", "..")) and not path.endswith(".pyc")
