"""What every training process does around its training: a request file in, events on standard output, an outcome file out."""

import contextlib
import json
import os
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from looper.errors import BadInput
from looper.records.training import MeasuringRequest, TrainingRequest

Request: TypeAdapter[TrainingRequest | MeasuringRequest] = TypeAdapter(TrainingRequest | MeasuringRequest)


def serve(
    folder: Path, work: Callable[[TrainingRequest | MeasuringRequest, "IO[str]"], dict[str, Any]]
) -> None:
    """Let `work` carry out the request in `folder`, with a stream for events; it ends when this process's parent does.

    `outcome.json` holds what it returns and the process's highest memory, or under `error` what is wrong with the request.
    """
    request = Request.validate_json((folder / "request.json").read_bytes())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Libraries draw their progress on standard output; ours is for events alone.
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        outcome = work(request, events)
    except BadInput as error:
        outcome = {"error": str(error)}
    outcome["peak_memory_bytes"] = peak_memory_bytes()
    temporary = folder / "outcome.tmp"
    temporary.write_text(json.dumps(outcome))
    temporary.replace(folder / "outcome.json")


def peak_memory_bytes() -> int:
    """Highest resident memory of this program. On Linux `ru_maxrss` also knows what the parent held when it started this
    process, so a small child of a large parent would be called large."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return said_by_kernel("/proc/self/status", "VmHWM:") or (peak if sys.platform == "darwin" else peak << 10)


def said_by_kernel(file: str, field: str) -> int:
    """Bytes, of a field in KiB; 0 where this system has no such file or field."""
    with contextlib.suppress(OSError):
        for line in Path(file).read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) << 10
    return 0


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)
