"""transformers looks through some three thousand files of its own at each import, twice, for a table of their names that changes with
its version alone. That is half the start of a process that holds a model or trains one, so the table is kept beside those files."""

import contextlib
import marshal
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

_WHERE = "transformers.utils.import_utils"
Table = dict[Any, Any]


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(fullname, path, target) if fullname == _WHERE else None
        if found is not None and isinstance(found.loader, SourceFileLoader):
            found.loader = _Loader(found.loader.name, found.loader.path)
        return found


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        if look := vars(module).get("define_import_structure"):
            vars(module)["define_import_structure"] = partial(_kept, look)


def _kept(look: Callable[[str, str | None], Table], path: str, prefix: str | None = None) -> Table:
    """The table of a folder, or of the folder of a file; looked for where none of this version is kept, or none can be."""
    folder = Path(path) if os.path.isdir(path) else Path(path).parent
    if folder.name != "models":
        return look(path, prefix)
    version = getattr(sys.modules.get("transformers"), "__version__", "")
    place = folder / "__pycache__" / f"looper-{prefix}.{sys.implementation.cache_tag}"
    of = f"{version} {folder.stat().st_mtime_ns}"
    with contextlib.suppress(OSError, ValueError, EOFError, TypeError, LookupError):
        kept: tuple[str, Table] = marshal.loads(place.read_bytes())
        if kept[0] == of:
            return kept[1]
    found = look(path, prefix)
    part = place.with_name(f"{place.name}.{os.getpid()}")
    # Others own the packages, or keep no byte code beside them; or another version has a table of something else.
    with contextlib.suppress(OSError, ValueError):
        try:
            part.write_bytes(marshal.dumps((of, found)))
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
    return found


def quick_transformers() -> None:
    """Whatever imports transformers in this process from now on is told by the table that is kept."""
    if not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
