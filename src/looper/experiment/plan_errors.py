"""What is wrong with a file that a person wrote: where it stands, in plain words, with what would be right.

pydantic finds the mistakes; what it says of them is replaced by a place in the file and words for a person, with the nearest name
where one was mistyped.
"""

import difflib
import json
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ValidationError

from looper.experiment.toml_positions import Path, Position, nearest, places
from looper.records.base import Misplaced

SHOWN = 40
"""Characters of a wrong value that are shown."""
TYPES = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table",
    "model": "a table",
    "enum": "a word",
}
"""By the first part of pydantic's name for a mistake."""
BOUNDS = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "too_short": "needs {min_length} or more of them",
    "too_long": "takes {max_length} of them or fewer",
    "string_too_short": "must not be empty",
    "string_too_long": "takes {max_length} characters or fewer",
    "finite_number": "must be a finite number",
    "int_from_float": "must be a whole number",
}
PATTERNS = {
    r"^[a-z][a-z0-9_]*$": "must be small letters, digits and underscores, a letter first",
    r"^[A-Z]{3}$": "must be three capital letters, as USD",
    r"^(bm25|ollama:.+)$": "must be bm25 or ollama:MODEL",
}
"""What a text must be like, in words."""
PROPOSED = re.compile(r"\b(?:[Ll]ower|[Rr]aise|[Ss]et) it to (\d+(?:\.\d+)?)")
"""In a message: the number that a key could have."""


@dataclass(frozen=True)
class PlanText:
    """One file, or the part of it below some keys."""

    source: str
    """Name of the file, as it is shown."""
    text: str
    below: Path = ()
    shared: str = ""
    """Name of the profile of all plans that this is; empty for a file of the plan's author."""

    @cached_property
    def places(self) -> dict[Path, Position]:
        return places(self.text)

    def where(self, path: Path) -> str | None:
        """`FILE:LINE:COLUMN` of the very key; None where the file does not have it."""
        found = self.places.get((*self.below, *path))
        return f"{self.source}:{found.line}:{found.column}" if found else None

    def near(self, path: Path) -> str:
        """The same of what is written of the tables around it; the file alone where nothing is."""
        found = nearest(self.places, (*self.below, *path))
        return f"{self.source}:{found.line}:{found.column}" if found else self.source

    def table(self, path: Path) -> str:
        """The header of the table at some keys, in which profile it would be where the file does not have that one, and the file."""
        at = (*self.below, *path)
        if not at:
            return f"the top of {self.source}"
        if self.below and self.where(()) is None:
            profile = self.below[-1]
            lacks = f' (below [profiles.{profile}] with like = "{profile}", which {self.source} lacks)'
            return f"[{'.'.join(map(str, at))}]{lacks}"
        return f"[{'.'.join(map(str, at))}] of {self.source}"

    def to_write(self, path: Path, value: str) -> str:
        """A key that the file does not have, and where in it the key can be written."""
        lines = self.text.splitlines()
        for size in range(len(path) - 1, 0, -1):
            at = (*self.below, *path[:size])
            found = self.places.get(at)
            # A table that a pair began, in braces or by dotted keys, cannot have a header as well.
            if found and not lines[found.line - 1].lstrip().startswith("["):
                key = ".".join(map(str, path[size:]))
                return f"{key}{value} in the table {at[-1]} of {self.source}, line {found.line}"
        table = self.table(path[:-1])
        return f"{path[-1]}{value} {'under' if table.startswith('[') else 'at'} {table}"


@dataclass(frozen=True)
class PlanLayers:
    """Files that make one table together, what counts first at the beginning."""

    texts: tuple[PlanText, ...]

    def where(self, path: Path, *others: Path) -> str:
        """The very key in the first file of the plan's author that has it, else the first of the other keys that one has, else the tables
        around it. A profile of all plans is nothing to be changed for one of them."""
        own = [text for text in self.texts if not text.shared] or self.texts
        for key in (path, *others, *(path[:size] for size in range(len(path) - 1, 0, -1))):
            for text in own:
                if found := text.where(key):
                    return found
        return own[0].near(())

    def has(self, path: Path) -> bool:
        """Whether the very key is in one of the files."""
        return any(text.where(path) for text in self.texts)

    def named(self, path: Path) -> str:
        """Keys as they begin a message, from the top of the first file."""
        return self.from_the_top((*self.texts[0].below, *path), path)

    def from_the_top(self, shown: Path, path: Path) -> str:
        """Keys as they are shown at the beginning of a message, and the profile of all plans that has what is said of them."""
        found = self._shared(path)
        origin = f", from the profile {found.shared} of all plans" if found and path else ""
        return f"{named(shown).removesuffix(': ')}{origin}: " if shown else ""

    def to_set(self, path: Path, wrong: str) -> str:
        """What to write, and where, for a key that only a profile of all plans has; with the number that `wrong` proposes."""
        found = self._shared(path)
        if found is None or any(len(key) > len(path) and key[: len(path)] == path for key in found.places):
            return ""
        proposed = PROPOSED.search(wrong)
        value = f" = {proposed[1]}" if proposed else ""
        return f"; to set it, write {self.texts[0].to_write(path, value)}"

    def _shared(self, path: Path) -> PlanText | None:
        """The profile of all plans that has a key, where there is a file of the plan's author and that does not have it."""
        has = next((text for text in self.texts if text.where(path)), None)
        return has if path and has is not None and has.shared and not self.texts[0].shared else None


def problems(
    error: ValidationError,
    data: object,
    kind: Any,
    layers: PlanLayers,
    moved: Callable[[Path], Path] = lambda path: path,
) -> str:
    """Every problem of one input: place, key, what is wrong, what would be right. `data` is what was read; None where it is not at
    hand. `moved` gives the keys of the file for those of the input."""
    said: dict[Path, list[str]] = {}
    places = [problem["loc"] for problem in error.errors()]
    for problem in error.errors():
        # Of a list only the items that are right count.
        if problem["type"] == "too_short" and any(
            len(loc) > len(problem["loc"]) and loc[: len(problem["loc"])] == problem["loc"] for loc in places
        ):
            continue
        field, words = moved(_path(problem, data)), plain_words(problem, kind)
        if words not in said.setdefault(field, []):
            said[field].append(words)
    found: list[str] = []
    # Keys that are missing have the place of their table, which is told once, behind what is written there and wrong.
    missing: dict[tuple[str, str], list[str]] = {}
    for field, told in said.items():
        place, one = layers.where(field), whose(field, data)
        if told == ["is missing"]:
            missing.setdefault((place, one), []).append(layers.named(field).removesuffix(": "))
        else:
            wrong = " or ".join(told)
            found.append(f"{place}: {layers.named(field)}{wrong}{one}{layers.to_set(field, wrong)}")
    for (place, one), names in missing.items():
        found.append(f"{place}: {', '.join(names)}: {'are' if len(names) > 1 else 'is'} missing{one}")
    return "; ".join(found)


def whose(path: Path, data: object) -> str:
    """Of keys that count the arms, choices or contrasts, from 0 on: which one is meant, as a person calls it; else empty."""
    match path:
        case (str(part), int(number), *rest) if rest and isinstance(data, dict):
            parts = data.get(part)
            one = parts[number] if isinstance(parts, list | tuple) and number < len(parts) else None
            if isinstance(one, dict) and (called := one.get("name") or one.get("arm")):
                return f" ({part}.{number} is {called})"
    return ""


def named(path: Path) -> str:
    """A path as it begins a message."""
    return f"{'.'.join(map(str, path))}: " if path else ""


def did_you_mean(wrong: str, known: Sequence[str]) -> str:
    """`; did you mean X?`, or nothing."""
    near = difflib.get_close_matches(wrong, known, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _path(problem: Mapping[str, Any], data: object) -> Path:
    """Where a problem is, in what was written: without the names that pydantic gives to choices on the way."""
    found: list[str | int] = []
    here: Any = data
    for number, part in enumerate(problem["loc"]):
        inside = (isinstance(here, dict) and part in here) or (
            isinstance(here, list | tuple) and isinstance(part, int) and part < len(here)
        )
        if inside:
            here = here[part]
        elif data is not None and (number < len(problem["loc"]) - 1 or problem["type"] != "missing"):
            continue
        found.append(part)
    about = problem.get("ctx") or {}
    if problem["type"] == "union_tag_invalid":
        found.append(str(about["discriminator"]).strip("'"))
    error = about.get("error")
    if isinstance(error, Misplaced):
        found += error.at
    elif isinstance(error, ValueError) and isinstance(here, dict):
        # Records say which of their fields is wrong before a colon.
        field = str(error).partition(":")[0]
        found += [field] if field in here else []
    return tuple(found)


def plain_words(problem: Mapping[str, Any], kind: Any) -> str:
    """One of pydantic's problems with an input that was to be of a kind, without pydantic's words."""
    name, about = problem["type"], problem.get("ctx") or {}
    if name == "extra_forbidden":
        known = allowed(kind, problem["loc"][:-1])
        wrong = str(problem["loc"][-1])
        inside = [f"{table} = {{ {wrong} = … }}" for table in _tables_with(kind, problem["loc"][:-1], wrong)]
        near = did_you_mean(wrong, known) or (f"; write {' or '.join(inside)}." if inside else ".")
        return f"unknown key{near} Allowed here: {', '.join(known)}"
    if name == "missing":
        return "is missing"
    if name == "value_error":
        field, _, said = str(about.get("error", "")).partition(": ")
        return said if said and " " not in field else str(about.get("error", ""))
    value = problem.get("input")
    # As it is written in a file, not as Python has it.
    shown = "a table" if isinstance(value, dict) else json.dumps(value, ensure_ascii=False, default=str)
    found = f", found {shown if len(shown) <= SHOWN else shown[:SHOWN] + '…'}"
    if name in ("literal_error", "enum"):
        known = [each.strip(" '") for each in str(about["expected"]).replace(" or ", ", ").split(",")]
        return f"must be one of {', '.join(known)}{found}{did_you_mean(str(value), known)}"
    if name == "union_tag_invalid":
        known = [each.strip(" '") for each in str(about["expected_tags"]).split(",")]
        near = did_you_mean(str(about["tag"]), known)
        return f'must be one of {", ".join(known)}, found "{about["tag"]}"{near}'
    if name == "union_tag_not_found":
        return f"needs its {about['discriminator']}".replace("'", "")
    if name == "string_pattern_mismatch":
        plain = re.sub(r"\W+", "_", str(value)).strip("_").lower()
        fits = plain != value and re.search(str(about["pattern"]), plain)
        return f"{PATTERNS[about['pattern']]}{found}{f'; write {plain}' if fits else ''}"
    if name in BOUNDS:
        return BOUNDS[name].format(**about) + found
    if (first := name.partition("_")[0]) in TYPES:
        return f"must be {TYPES[first]}{found}"
    return f"cannot be used{found}"


def allowed(kind: Any, path: Sequence[str | int]) -> list[str]:
    """Names of the keys that a table at a path may have, by the type that it is read into."""
    kinds = list(_models(kind))
    for part in path:
        deeper = [
            found
            for each in kinds
            if isinstance(part, str) and (field := each.model_fields.get(part)) is not None
            for found in _models(field.annotation)
        ]
        tagged = [each for each in kinds if part in _names(each)]
        kinds = deeper or tagged or kinds
    return list(dict.fromkeys(name for each in kinds for name in each.model_fields))


def _tables_with(kind: Any, path: Sequence[str | int], wanted: str) -> list[str]:
    """Tables of the table at a path that have a key of this name, the wanted one being one table too high."""
    return [name for name in allowed(kind, path) if wanted in allowed(kind, (*path, name)) and name != wanted]


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    """Every record in a type."""
    if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) and issubclass(kind, BaseModel):
        yield kind
    for part in typing.get_args(kind):
        yield from _models(part)


def _names(kind: type[BaseModel]) -> tuple[object, ...]:
    """What the field `name` of one of several kinds of a record may hold."""
    field = kind.model_fields.get("name")
    return typing.get_args(field.annotation) if field is not None else ()
