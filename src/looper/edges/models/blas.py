"""A fast BLAS for MLX's Linux CPU build, which brings the reference one: products of matrices take it some 25 times as long.

SciPy's wheel holds an OpenBLAS under names of its own. A process that has imported MLX can put it in the place of the one function
that costs: the address that MLX's library calls is exchanged in its table of foreign functions. Nothing has to be installed for that,
and every machine with the same SciPy computes with the same library.
"""

import ctypes
import importlib.util
import sys
from functools import cache
from pathlib import Path

BIND_NOW = {"LD_BIND_NOW": "1"}
"""For the environment of a process that binds OpenBLAS: addresses are in the table from the beginning, not from the first call on."""
_PRODUCT = "cblas_sgemm"
_READ, _WRITE = 1, 2


@cache
def find_openblas() -> Path | None:
    """SciPy's own OpenBLAS; None where there is none, or none is needed."""
    spec = importlib.util.find_spec("scipy") if sys.platform == "linux" else None
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parents[1] / "scipy.libs"
    return next(iter(sorted(folder.glob("libscipy_openblas-*.so"))), None)


def bind_openblas() -> bool:
    """Let MLX multiply by SciPy's OpenBLAS from now on; whether it does. Not where another BLAS was preloaded, nor where there is
    none to bind."""
    library = find_openblas()
    if library is None:
        return False
    tables, reference = [], ""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, *_, path = line.split(maxsplit=5)
        if path.endswith("/libmlx.so") and rights[0] == "r" and rights[2] != "x":
            begin, end = (int(each, 16) for each in span.split("-"))
            tables.append((begin, end - begin, _READ | (_WRITE if rights[1] == "w" else 0)))
        elif "/mlx_cpu.libs/libblas-" in path:
            reference = path
    if not reference:
        return False
    slow = _address(ctypes.CDLL(reference), _PRODUCT)
    fast = _address(ctypes.CDLL(str(library)), f"scipy_{_PRODUCT}")
    return any([_exchange(*table, slow, fast) for table in tables])


def _address(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0


def _exchange(begin: int, size: int, rights: int, old: int, new: int) -> bool:
    """One address for another in a part of this process's memory, which is made writable for as long."""
    word = ctypes.sizeof(ctypes.c_void_p)
    at = ctypes.string_at(begin, size).find(old.to_bytes(word, sys.byteorder))
    if at < 0 or at % word:
        return False
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    where, length = ctypes.c_void_p(begin), ctypes.c_size_t(size)
    if protect(where, length, _READ | _WRITE) != 0:
        return False
    ctypes.c_void_p.from_address(begin + at).value = new
    protect(where, length, rights)
    return True
