"""Files of JSON as somebody else wrote them: rows of data sets, predictions, reports."""

import codecs
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from looper.errors import BadInput

NAME_CHARACTERS = 100
"""Of a name that an error repeats: whoever wrote the file chose its length."""
BYTE_ORDER_MARK = "\ufeff"
"""Stands before every file that some editors write, so also within files that were joined."""
FOREIGN_MARKS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
"""UTF-32 first: its mark begins with that of UTF-16."""
ANEW = "Correct it, or get the file again."
GZIP_MARK = b"\x1f\x8b"
UNPACKED_BYTES = 2 << 30
"""Of a file, packed or not: a few packed MiB can hold more than any memory."""
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""Half a character in JSON, alone or beside its other half."""
Entries = list[tuple[int, Any]]
"""Each with its number from 1, of its line where the file is no list; where it cannot be read, the ValueError that says why."""


def read_entries(path: Path, fix: str, *, any_text: bool = False) -> tuple[Any, Entries]:
    """What a file holds as a whole, and its entries: those of one JSON list, one JSON object by itself, or JSON lines; the whole of
    lines is None. The file may be packed by gzip and begin with a byte order mark, whatever it is called. With `any_text` bytes that
    are no UTF-8 and halves of characters are kept, as a patch may hold them. `fix` says how a person names another. Raises BadInput."""
    text = read_text(path, fix, any_text=any_text)
    whole = parsed(text)
    begin = text.lstrip().partition("\n")[0].strip()
    if isinstance(whole, list):
        found = list(enumerate(whole, 1))
    elif isinstance(whole, dict):
        found = [(text[: text.index("{")].count("\n") + 1, whole)]
    elif isinstance(whole, ValueError) and (begin == "{" or begin.startswith("[")):
        raise BadInput(f"{path}: {whole}. {ANEW}")
    else:
        whole = None
        # Only a line feed ends a line: other breaks of Unicode stand unescaped inside of strings.
        found = [
            (number, parsed(line.lstrip(BYTE_ORDER_MARK)))
            for number, line in enumerate(text.split("\n"), 1)
            if line.strip(" \t\r")
        ]
    if not any_text and _HALF.search(text):
        found = [(number, _without_halves(value)) for number, value in found]
    return whole, found


def read_text(path: Path, fix: str, *, any_text: bool = False) -> str:
    """As `read_entries`."""
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} is no regular file. {fix}")
        data = path.read_bytes()
    except OSError as error:
        if not os.path.lexists(path) and isinstance(error, FileNotFoundError):
            raise BadInput(f"The file {path} does not exist. {fix}") from error
        raise BadInput(f"{path} cannot be read: {error.strerror}. {fix}") from error
    if data.startswith(GZIP_MARK):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
                data = stream.read(UNPACKED_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(
                f"{path} cannot be unpacked: {str(error).rstrip('.')}. Get the file again."
            ) from error
    if len(data) > UNPACKED_BYTES:
        raise BadInput(f"{path} has more than {UNPACKED_BYTES >> 30} GiB. {fix}")
    for encoding, marks in FOREIGN_MARKS.items():
        if data.startswith(marks):
            raise BadInput(f"{path} is written in {encoding}. Write it in UTF-8.")
    if b"\0" in data[:4]:
        raise BadInput(f"{path} begins with NUL bytes, as text in UTF-16 does. Write it in UTF-8.")
    try:
        return data.decode("utf-8", "surrogateescape" if any_text else "strict").lstrip(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(
            f"{path}, line {line}: the byte {data[error.start]:#04x} is no text in UTF-8. Write it in UTF-8."
        ) from error


def read_folder(folder: Path, fix: str) -> list[Path]:
    """What lies in it, by name. Raises BadInput."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise BadInput(f"{folder} cannot be read: {error.strerror}. {fix}") from error


def parsed(text: str) -> Any:
    """What a JSON text holds, or the ValueError that says why it cannot be used."""
    try:
        return json.loads(text, strict=False, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        return ValueError(f"not JSON: {error}")
    except ValueError as error:
        return error
    except RecursionError:
        return ValueError("not JSON that can be read: too deeply nested")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError where a name stands in an object twice: readers differ on which one holds."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{quoted(twice)} stands in one object twice")
    return found


def _without_halves(value: Any) -> Any:
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return ValueError("it holds a lone surrogate, half a character, which no file can hold")
    return value


def quoted(name: str) -> str:
    return f"{json.dumps(name[:NAME_CHARACTERS])}{'…' if len(name) > NAME_CHARACTERS else ''}"
