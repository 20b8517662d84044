"""What every record is: frozen, closed to unknown keys, and hashable by content."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticSerializationError

Key = TypeVar("Key")
Value = TypeVar("Value")
SCHEMA_VERSION = 1
"""Version of the record shapes. Each journal line carries it, so that a newer line is kept unread, not dropped."""


@dataclass(frozen=True)
class Unit:
    """In an annotation: what a number counts or is measured in, where the end of its name does not say so (`_s`, `_mb`, `_bytes`)."""

    name: str


DIMENSIONLESS = Unit("dimensionless")
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""That something took, by a clock that only goes forward."""
Share = Annotated[float, Field(ge=0, le=1)]


def grouped(pairs: Iterable[tuple[Key, Value]]) -> dict[Key, list[Value]]:
    """By key everything that comes with it, both in the order of their coming."""
    found: dict[Key, list[Value]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def unsaid(value: object) -> bool:
    """For `exclude_if` of a field that records of earlier versions do not have: where it says nothing, a record is written, and has the
    hash, that it had without the field."""
    return value is None


class Misplaced(ValueError):
    """A record whose parts do not fit together. `at` are the keys that lead to the part that is to blame, numbers for places in a list."""

    def __init__(self, said: str, *at: str | int) -> None:
        super().__init__(said)
        self.at = at


class Record(BaseModel):
    """A fact that crosses a boundary or reaches the disk. Changing one means making another."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    def to_json(self) -> bytes:
        """One JSON object without line breaks.

        Any text and any float survives: lone surrogates become escapes, NaN and infinities become strings.
        """
        try:
            return self.model_dump_json().encode()
        except PydanticSerializationError:
            return json.dumps(self.model_dump(mode="python"), default=str).encode()

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Raises pydantic.ValidationError where the text is not this record."""
        try:
            return cls.model_validate_json(data)
        except ValidationError:
            # The fast path refuses the escapes of lone surrogates; the slow one says what else is wrong.
            return cls.model_validate(json.loads(data))


def content_hash(*parts: Record | bytes | str) -> str:
    """SHA-256 over the parts in order, as 64 hexadecimal digits; parts cannot run into each other."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.to_json() if isinstance(part, Record) else part
        data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()
