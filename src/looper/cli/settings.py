"""Where Looper keeps its things: the only reader of its environment variables."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from looper.records.plan import FUNCTION_SUITES


@dataclass(frozen=True)
class Settings:
    """Folders and files that are the user's to choose."""

    state: Path
    """Suites, mirrors, environments, exports, workspaces: all can be deleted and come back. LOOPER_HOME."""
    runs: Path
    """Run folders. LOOPER_RUNS, else `runs` in the current folder."""
    swe_data: str
    """SWE-Bench-CL: a JSONL file or hub:NAME. LOOPER_SWE_DATA; empty where it is not set."""
    swe_bench_data: str
    """Rows in SWE-bench's shape: a file, a folder or hub:NAME. LOOPER_SWE_BENCH_DATA; empty where it is not set."""
    functions: Mapping[str, str]
    """Suites of single functions, in the same way, by name. LOOPER_HUMANEVAL, LOOPER_MBPP."""
    workspaces: Path
    """Where working trees are made and removed again. LOOPER_WORKSPACES, else below `state`. A file system in memory makes them
    ten times as fast, and has to hold as many as run side by side."""
    mirrors: Path
    """Bare mirrors of the benchmark's repositories. LOOPER_MIRRORS, else below `state`."""
    openai_key: str = field(repr=False)
    anthropic_key: str = field(repr=False)
    """OPENAI_API_KEY, ANTHROPIC_API_KEY; empty where they are not set. In no record and no message."""
    agents: Path | None = None
    """Versions of the agent's own source, by the hash of their trees, for arms that name one."""

    @property
    def adapters(self) -> Path:
        return self.state / "adapters"

    @property
    def validations(self) -> Path:
        """What `looper bench validate` found."""
        return self.state / "validations"


def settings() -> Settings:
    state = Path(os.environ.get("LOOPER_HOME") or _default_state()).expanduser().absolute()
    return Settings(
        state=state,
        runs=Path(os.environ.get("LOOPER_RUNS") or "runs").expanduser().absolute(),
        swe_data=os.environ.get("LOOPER_SWE_DATA", ""),
        swe_bench_data=os.environ.get("LOOPER_SWE_BENCH_DATA", ""),
        functions={name: os.environ.get(f"LOOPER_{name.upper()}", "") for name in FUNCTION_SUITES},
        workspaces=Path(os.environ.get("LOOPER_WORKSPACES") or state / "workspaces").expanduser().absolute(),
        mirrors=Path(os.environ.get("LOOPER_MIRRORS") or state / "mirrors").expanduser().absolute(),
        openai_key=os.environ.get("OPENAI_API_KEY", ""),
        anthropic_key=os.environ.get("ANTHROPIC_API_KEY", ""),
    )


def _default_state() -> Path:
    if os.geteuid() == 0:
        # Commands run as nobody, who cannot look into root's home.
        return Path("/var/cache/looper")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "looper"
