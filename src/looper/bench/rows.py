"""What rows of SWE-bench and of SWE-Bench-CL share: shapes of fields, lists written as text, files and targets of patches."""

import ast
import io
import json
import os
import re
import tokenize
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from looper.errors import NOT_PYTHON
from looper.records.task import Runner

OWN_RUNNERS = {"django/django": Runner.DJANGO, "sympy/sympy": Runner.SYMPY}
_SHAPES = {
    "instance_id": re.compile(r"\w[\w.-]*"),
    "repo": re.compile(r"\w[\w.-]*/\w[\w.-]*"),
    "base_commit": re.compile(r"[0-9a-f]{40}"),
    **dict.fromkeys(("created_at", "problem_statement", "patch", "test_patch"), re.compile(".*", re.DOTALL)),
}
"""Folders and commands are named by the first three."""
VERSION_CHARACTERS = 100
"""Of a version; tables and errors show it."""
NAME_BYTES = 200
"""Of a task's id: a file's name has at most 255, and other words are put to it."""
LONGEST_NAME_BYTES = 255
"""Of a file, on any file system that is in use."""
_FILE = re.compile(r"^diff --git a/.* b/(.*)$", re.MULTILINE)
_DATA_FILES = (".json", ".png", ".csv", ".txt", ".md", ".jpg", ".jpeg", ".pkl", ".yml", ".yaml", ".toml")


def must_have_its_shapes(fields: Mapping[str, Any]) -> None:
    """Raises KeyError or ValueError."""
    for name, shape in _SHAPES.items():
        if not isinstance(fields[name], str) or not shape.fullmatch(fields[name]):
            raise ValueError(f"{name} is not what SWE-bench has there")
    if len(fields["instance_id"].encode()) > NAME_BYTES:
        raise ValueError(f"instance_id has more than {NAME_BYTES} bytes, and files are named by it")


def moment(said: str) -> datetime:
    """When a row says that its task was made, in UTC, which it also means where it names no zone. Raises ValueError."""
    try:
        when = datetime.fromisoformat(said)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"created_at is {said[:40]!r}, which is no date and time as ISO 8601 writes them"
        ) from error


def environment_of(repo: str, version: Any) -> str:
    """Its key, without a version where a row says none. Raises ValueError."""
    said = "" if version is None else str(version)
    plain = version is None or (isinstance(version, str | int | float) and not isinstance(version, bool))
    if not plain or not said.isprintable() or len(said) > VERSION_CHARACTERS:
        raise ValueError("version is no text or number that can be shown in a line")
    return f"{repo}@{said}"


def must_name_a_task(name: str) -> None:
    """Files and commands are named by it. Raises ValueError, without the name where it cannot be shown."""
    if not name or not name.isprintable():
        raise ValueError("task_id is empty, or holds a character that cannot be printed")
    if not re.match(r"[^\W_]", name) or len(name.encode()) > NAME_BYTES:
        raise ValueError(
            f"task_id is {name[:40]!a}; it must begin with a letter or a digit and have at most {NAME_BYTES} bytes"
        )


def listed(fields: dict[str, Any], name: str) -> tuple[str, ...]:
    """A list of texts, as such or written as text: JSON, as SWE-bench has it, Python, or numpy. Raises KeyError, or ValueError
    for anything else."""
    value = fields[name]
    if isinstance(value, str):
        for read in (json.loads, _python_list):
            try:
                value = read(value)
                break
            except (TypeError, *NOT_PYTHON):
                continue
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} is no list of texts")
    if any("\0" in item for item in value):
        raise ValueError(f"{name} holds a NUL, which no name of a file or a test has")
    try:
        "".join(value).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds half a character, which no name of a file or a test has") from error
    return tuple(value)


def _python_list(text: str) -> Any:
    """As Python reads it; numpy prints no commas, and Python makes one text of two that have none between them."""
    value = ast.literal_eval(text)
    if not isinstance(value, list):
        return value
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    texts = [ast.literal_eval(token.string) for token in tokens if token.type == tokenize.STRING]
    return texts if all(isinstance(item, str) for item in value) else value


def files_of_patch(patch: str) -> tuple[str, ...]:
    """Files that a patch of git's names, as they are called after it."""
    return tuple(sorted(set(_FILE.findall(patch))))


def targets_of(test_patch: str, runner: Runner) -> tuple[str, ...]:
    """What the official harness runs: every file of the test patch that is no data file; dotted labels for django. Read from the
    text as that harness reads it, since no tree is there yet. Raises ValueError for what is no name."""
    files = [path for path in files_of_patch(test_patch) if not path.endswith(_DATA_FILES)]
    if any("\0" in path for path in files):
        raise ValueError("test_patch names a file with a NUL in it")
    if any(len(os.fsencode(part)) > LONGEST_NAME_BYTES for path in files for part in path.split("/")):
        raise ValueError(f"test_patch names a file whose name has more than {LONGEST_NAME_BYTES} bytes")
    if runner is Runner.DJANGO:
        return tuple(re.sub(r"\.py$", "", path.removeprefix("tests/")).replace("/", ".") for path in files)
    return tuple(files)
