"""Makes each thing once, whatever comes of it: what failed for one task fails for the next, after minutes each time."""

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from looper.edges.environments.uv import advice
from looper.errors import EnvironmentBroken, JournalError

T = TypeVar("T")
_ONCE = " It is not tried again before the next command."


class SingleFlight:
    """Who asks for what is being made waits for it; who asks for something else does not. For several threads."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, threading.Lock] = {}
        self._made: dict[Hashable, Any] = {}
        self._guard = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Raises EnvironmentBroken, the first time and again without another try."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._made:
                self._made[key] = _tried(make)
            found = self._made[key]
        if isinstance(found, EnvironmentBroken):
            # A new one for each who asks: an error that is raised twice gathers the traces of both.
            raise EnvironmentBroken(str(found)) from found
        return found  # type: ignore[no-any-return]


def _tried(make: Callable[[], T]) -> T | EnvironmentBroken:
    try:
        return make()
    except EnvironmentBroken as error:
        # What it is made of may have failed before it.
        return EnvironmentBroken(f"{str(error).removesuffix(_ONCE)}{_ONCE}")
    except (OSError, JournalError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        return EnvironmentBroken(f"{said}. {advice(said)}".rstrip() + _ONCE)
