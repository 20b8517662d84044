"""Text as it can be sent: to a server, to another process, to a tokenizer."""

from collections.abc import Mapping
from typing import Any

from looper.records.text import joined


def sendable(value: Any) -> Any:
    """The same with nothing in its texts that cannot be encoded, or that ends a text early in a server written in C.

    Halves of a character that stand together become the character; a lone half, which models and tools do emit, and NUL
    become the replacement character. What is on record stays as it was said.
    """
    match value:
        case str():
            return joined(value, "replace").replace("\0", "\ufffd")
        case Mapping():
            return {key: sendable(part) for key, part in value.items()}
        case list() | tuple():
            return [sendable(part) for part in value]
        case _:
            return value
