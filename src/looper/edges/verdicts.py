"""Verdicts of earlier runs: what was judged once under the same rules is not judged again."""

import os
import threading
from pathlib import Path

from looper.journal import replace_file
from looper.records.verdict import Verdict


class StoredVerdicts:
    """One file for each judgement, in folders by the first two letters of its key. Safe for several processes and threads: files
    are replaced whole, and equal keys have equal content."""

    def __init__(self, folder: Path, run: str) -> None:
        """`run` names this run in what other runs read."""
        self._folder, self._run = folder, run
        self._own: dict[str, Verdict] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Verdict | None:
        """Of this run, else of another one, whose name then stands before the cell. What cannot be read was never judged."""
        with self._lock:
            if key in self._own:
                return self._own[key]
        try:
            return Verdict.from_json(self._file(key).read_bytes())
        except (OSError, ValueError):
            return None

    def put(self, key: str, verdict: Verdict) -> None:
        with self._lock:
            self._own[key] = verdict
        path = self._file(key)
        os.makedirs(path.parent, exist_ok=True)
        replace_file(path, verdict.model_copy(update={"cell": f"{self._run}:{verdict.cell}"}).to_json())

    def _file(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
