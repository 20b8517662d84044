"""Where each key of a TOML text stands, so that a mistake is named by line and column."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""The keys that lead to a value from the top, with the places of items in arrays, from 0."""

BARE = re.compile(r"[A-Za-z0-9_-]+")
BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'',
    re.DOTALL,
)
PLAIN = re.compile(r"[^,\]}\n#]*")


@dataclass(frozen=True)
class Position:
    """Line and column of a key, both from 1."""

    line: int
    column: int


def places(text: str) -> dict[Path, Position]:
    """Of every key, table and item of an array of a text that is valid TOML."""
    return _Reader(text).read()


def nearest(known: Mapping[Path, Position], path: Sequence[str | int]) -> Position | None:
    """Where a value stands, or the innermost of the tables around it that is written; None where none is."""
    return next(
        (known[tuple(path[:size])] for size in range(len(path), 0, -1) if tuple(path[:size]) in known), None
    )


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.found: dict[Path, Position] = {}
        self.items: dict[Path, int] = {}
        """Tables so far of every array of tables."""
        self.lines = [0, *(each.end() for each in re.finditer(r"\n", text))]

    def read(self) -> dict[Path, Position]:
        table: Path = ()
        while self._blank():
            table = self._header() if self.text[self.at] == "[" else self._pair(table)
        return self.found

    def _blank(self) -> bool:
        """Whether anything is left after blanks and comments."""
        self._read(BLANK)
        return self.at < len(self.text)

    def _read(self, what: re.Pattern[str]) -> str:
        """What stands here, and goes behind it."""
        found = what.match(self.text, self.at)
        assert found is not None, "no valid TOML"
        self.at = found.end()
        return found.group()

    def _note(self, path: Path, at: int) -> None:
        line = bisect_right(self.lines, at)
        self.found.setdefault(path, Position(line, at - self.lines[line - 1] + 1))

    def _key(self) -> Iterator[tuple[str, int]]:
        """The parts of a dotted key, and where each begins."""
        while self._blank():
            begun = self.at
            yield (self._read(STRING)[1:-1] if self.text[begun] in "\"'" else self._read(BARE)), begun
            self._blank()
            if self.text[self.at] != ".":
                return
            self.at += 1

    def _header(self) -> Path:
        several = self.text.startswith("[[", self.at)
        self.at += 1 + several
        path: Path = ()
        parts = list(self._key())
        for number, (word, begun) in enumerate(parts):
            path = (*path, word)
            last = number == len(parts) - 1
            self._note(path, begun)
            if last and several:
                self.items[path] = self.items.get(path, 0) + 1
            if path in self.items:
                path = (*path, self.items[path] - 1)
                self._note(path, begun)
        self.at += 1 + several
        return path

    def _pair(self, table: Path) -> Path:
        """Reads a key with its value; gives the table again."""
        path = table
        for word, begun in self._key():
            path = (*path, word)
            self._note(path, begun)
        self.at += 1  # The sign between them.
        self._value(path)
        return table

    def _value(self, path: Path) -> None:
        self._blank()
        match self.text[self.at]:
            case '"' | "'":
                self._read(STRING)
            case "[":
                self._inside("]", path)
            case "{":
                self._inside("}", path)
            case _:
                self._read(PLAIN)

    def _inside(self, end: str, path: Path) -> None:
        """Items of an array, or pairs of a table within a line."""
        self.at += 1
        number = 0
        while self._blank() and self.text[self.at] != end:
            if self.text[self.at] == ",":
                self.at += 1
            elif end == "]":
                self._note((*path, number), self.at)
                self._value((*path, number))
                number += 1
            else:
                self._pair(path)
        self.at += 1
