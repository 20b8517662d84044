"""Where Looper keeps its things: the only reader of its environment variables."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from looper.errors import BadInput
from looper.records.plan import FUNCTION_SUITES


@dataclass(frozen=True)
class Settings:
    """Folders and files that are the user's to choose."""

    state: Path
    """Suites, environments, exports, adapters and others; `looper cache du` says what of it comes back by itself. LOOPER_HOME."""
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

    def key_of(self, backend: str) -> str:
        """Of whoever serves a model; empty where that asks for none or none is set."""
        return {"openai": self.openai_key, "anthropic": self.anthropic_key}.get(backend, "")

    @property
    def adapters(self) -> Path:
        return self.state / "adapters"

    @property
    def models(self) -> Path:
        """Models for MLX by name: what `looper model add` made, and the embedded one with fewer bits."""
        return self.state / "models"

    @property
    def file_digests(self) -> Path:
        """Hashes of weights that were read whole once."""
        return self.state / "file_digests.json"

    @property
    def validations(self) -> Path:
        """What `looper bench validate` found."""
        return self.state / "validations"


def settings() -> Settings:
    """Raises BadInput."""
    state = _place(os.environ.get("LOOPER_HOME") or _default_state())
    return Settings(
        state=state,
        runs=_place(os.environ.get("LOOPER_RUNS") or "runs"),
        swe_data=os.environ.get("LOOPER_SWE_DATA", ""),
        swe_bench_data=os.environ.get("LOOPER_SWE_BENCH_DATA", ""),
        functions={name: os.environ.get(f"LOOPER_{name.upper()}", "") for name in FUNCTION_SUITES},
        workspaces=_place(os.environ.get("LOOPER_WORKSPACES") or state / "workspaces"),
        mirrors=_place(os.environ.get("LOOPER_MIRRORS") or state / "mirrors"),
        openai_key=os.environ.get("OPENAI_API_KEY", "").strip(),
        anthropic_key=os.environ.get("ANTHROPIC_API_KEY", "").strip(),
    )


def _default_state() -> Path:
    if os.geteuid() == 0:
        # Commands run as nobody, who cannot look into root's home.
        return Path("/var/cache/looper")
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "looper"


def _place(named: str | Path) -> Path:
    """Raises BadInput for a home that nobody has, and for what is relative to a folder that is gone."""
    try:
        return Path(named).expanduser().absolute()
    except RuntimeError as error:
        raise BadInput(
            f"{named} is below a home folder that the system does not know. Set HOME, or LOOPER_HOME to a whole path."
        ) from error
    except FileNotFoundError as error:
        raise BadInput(
            f"The current folder is gone, and {named} is meant from there. Go to another."
        ) from error
