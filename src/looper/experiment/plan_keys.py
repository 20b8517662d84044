"""Every key that a plan's file may have, read from the records that it becomes: for docs/plan.md and for a new file.

Keys are not listed anywhere: names, types, bounds and defaults are taken from the records, meanings from the texts below their
fields in the source. A key without such a text fails a test.
"""

import ast
import inspect
import json
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from looper.experiment.plans import ExperimentText, Holds
from looper.records.base import Record, Unit

UNITS = {
    "_s": "seconds",
    "_mb": "MiB",
    "_bytes": "bytes",
    "_tokens": "tokens",
    "_lines": "lines",
    "_share": "share",
}
"""By the end of a key's name."""
BOUNDS = {Gt: ("> {}", "gt"), Ge: ("≥ {}", "ge"), Lt: ("< {}", "lt"), Le: ("≤ {}", "le")}


@dataclass(frozen=True)
class Key:
    """One key of a table. Values are as they are written in TOML, empty for none."""

    name: str
    takes: str
    """Its type in words, with its bounds."""
    unit: str
    """Of a number."""
    required: bool
    default: str
    means: str
    values: tuple[tuple[str, str], ...]
    """What each of the values means that it can have; empty where any of its type will do."""
    example: str
    """Of tables none."""
    tables: tuple[tuple[type[BaseModel], Holds | None], ...] = ()
    """What its value is, or each of its values: one of these tables."""
    many: bool = False
    """Whether it is a list of tables."""


@dataclass(frozen=True)
class PlanTable:
    path: tuple[str, ...]
    """Keys that lead to it."""
    many: bool
    means: str
    keys: tuple[Key, ...]

    @property
    def header(self) -> str:
        return header(self.path, many=self.many)


def plan_tables() -> Iterator[PlanTable]:
    """The file itself, then each of its tables, before those that stand in it. `NAME` in a path is the file's to choose."""
    yield from _tables(ExperimentText, None, ())


def _tables(
    kind: type[BaseModel], holds: Holds | None, path: tuple[str, ...], *, many: bool = False
) -> Iterator[PlanTable]:
    found = keys(kind, holds)
    means = " ".join((inspect.getdoc(kind) or "").split()) if issubclass(kind, Record) else ""
    yield PlanTable(path, many, means, found)
    for key in found:
        below = (*path, key.name, *(("NAME",) if kind is ExperimentText and key.name == "profiles" else ()))
        for each, held in key.tables:
            yield from _tables(each, held, below, many=key.many)


@cache
def keys(kind: type[BaseModel], holds: Holds | None = None) -> tuple[Key, ...]:
    """Of a table that is read into a record; where it changes another one, first the key that names that."""
    means = {**meanings(getattr(kind, "record", kind)), **meanings(kind)}
    found = tuple(_key(name, field, means.get(name, "")) for name, field in kind.model_fields.items())
    if holds is None:
        return found
    changes = Key(holds.changes, "text", "", False, "", holds.changed, (), written(holds.example))
    return (changes, *(replace(key, required=key.required and holds.complete) for key in found))


@cache
def meanings(kind: type) -> dict[str, str]:
    """What stands below the fields of a record, or the members of an enumeration, in its source; by name."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if not each.__module__.startswith("looper."):
            continue
        (defined,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(defined, ast.ClassDef)
        for field, said in pairwise(defined.body):
            match field, said:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[name] = " ".join(text.split())
    return found


def _key(name: str, field: FieldInfo, means: str) -> Key:
    parts = list(_parts(field.annotation, field.metadata))
    named = {str(value): said for kind, _ in parts for value, said in _values(kind).items()}
    held = next((each for each in field.metadata if isinstance(each, Holds)), None)
    records = [kind for kind, _ in parts if isinstance(kind, type) and issubclass(kind, BaseModel)]
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    example = field.examples[0] if field.examples else None
    if isinstance(example, str) and isinstance(default, float):
        # Written with its unit, where it is kept as a number.
        default = example
    number = any(kind in (int, float) for kind, _ in parts)
    return Key(
        name,
        _type(field.annotation, parts, named, said_with_unit=number and isinstance(example, str)),
        _unit(name, parts) if number else "",
        field.is_required(),
        "{}"
        if isinstance(default, BaseModel)
        else ""
        if records or (not default and held)
        else written(default),
        means,
        tuple(named.items()),
        "" if records or (held and example is None) else written(_example(example, default, list(named))),
        tuple((kind, None) for kind in records) if held is None else ((held.kind, held),),
        many=bool(records) and typing.get_origin(field.annotation) is tuple,
    )


def _parts(annotation: Any, metadata: Sequence[Any] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The plain types that a type is made of, each with all that is said of it; nothing of None."""
    said = tuple(
        each for found in metadata for each in (found.metadata if isinstance(found, FieldInfo) else [found])
    )
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        yield from _parts(inside[0], (*inside[1:], *said))
    elif origin in (typing.Union, types.UnionType, tuple):
        for each in inside:
            if each not in (type(None), Ellipsis):
                yield from _parts(each, said)
    else:
        yield origin if origin is dict else annotation, said


def _values(kind: Any) -> dict[str, str]:
    if typing.get_origin(kind) is Literal:
        return {
            str(each): _values(type(each)).get(str(each), "") if isinstance(each, Enum) else ""
            for each in typing.get_args(kind)
        }
    if isinstance(kind, type) and issubclass(kind, Enum):
        said = meanings(kind)
        return {str(member.value): said.get(member.name, "") for member in kind}
    return {}


def _type(
    annotation: Any,
    parts: Sequence[tuple[Any, tuple[Any, ...]]],
    named: Mapping[str, str],
    *,
    said_with_unit: bool,
) -> str:
    words = []
    for kind, said in parts:
        bounds = ", ".join(
            shown.format(getattr(each, name))
            for each in said
            for bound, (shown, name) in BOUNDS.items()
            if isinstance(each, bound)
        )
        word = {int: "whole number", float: "number", bool: "true or false", str: "text", dict: "table"}.get(
            kind, ""
        )
        if said_with_unit:
            word, bounds = "number and unit, as text", ""
        words.append(f"{word or ('one of them' if named else 'table')}{f' {bounds}' if bounds else ''}")
    listed = typing.get_origin(annotation) is tuple
    found = " or ".join(dict.fromkeys(words)).replace(
        "one of them", "any of these" if listed else "one of these"
    )
    return f"list of {found.replace('table', 'tables')}" if listed and not named else found


def _unit(name: str, parts: Sequence[tuple[Any, tuple[Any, ...]]]) -> str:
    said = [each.name for _, found in parts for each in found if isinstance(each, Unit)]
    return said[0] if said else next((unit for end, unit in UNITS.items() if name.endswith(end)), "")


def _example(given: Any, default: Any, named: Sequence[str]) -> Any:
    """What is given; else of words another one than the default, since that needs no writing."""
    if given is not None:
        return given
    if isinstance(default, bool):
        return not default
    if named and not isinstance(default, tuple):
        return next((each for each in named if each != default), named[0])
    return default


def written(value: Any) -> str:
    """A value in TOML; empty for None, which is said by leaving the key out."""
    match value:
        case None:
            return ""
        case Enum():
            return written(value.value)
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return f"[{', '.join(map(written, value))}]"
        case dict():
            return f"{{ {', '.join(f'{key} = {written(found)}' for key, found in value.items())} }}"
        case bool():
            return str(value).lower()
    return repr(value)


def header(path: Sequence[str], *, many: bool) -> str:
    found = ".".join(path)
    return f"[[{found}]]" if many else f"[{found}]"
