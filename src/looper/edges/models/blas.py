"""Finding an OpenBLAS: MLX's Linux CPU build brings a reference BLAS that is some 30 times slower."""

import sys
from functools import cache
from pathlib import Path

_PLACES = (
    "/usr/lib/*/openblas-pthread/libopenblas.so.0",
    "/usr/lib/*/openblas-openmp/libopenblas.so.0",
    "/usr/lib/*/libopenblas.so.0",
    "/usr/lib64/libopenblasp.so.0",
    "/usr/lib64/libopenblas.so.0",
    "/usr/lib/libopenblas.so.0",
)


@cache
def find_openblas() -> Path | None:
    """A system library to preload; None where there is none, or none is needed."""
    if sys.platform != "linux":
        return None
    for pattern in _PLACES:
        found = sorted(Path("/").glob(pattern.lstrip("/")))
        if found:
            return found[0]
    return None
