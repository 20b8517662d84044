"""JSON objects as somebody else wrote them."""

import json
from collections.abc import Sequence
from typing import Any

NAME_CHARACTERS = 100
"""Of a name that an error repeats: whoever wrote the file chose its length."""


def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object, for `object_pairs_hook`. Raises ValueError where a name stands in it twice: readers differ on which one holds."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{quoted(name)} stands in one object twice")
        found[name] = value
    return found


def quoted(name: str) -> str:
    """For one line of an error."""
    return f"{json.dumps(name[:NAME_CHARACTERS])}{'…' if len(name) > NAME_CHARACTERS else ''}"
