"""Where Looper keeps its things: the only reader of its environment variables."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from looper.errors import BadInput
from looper.records.content import ContentKind
from looper.records.model import BACKENDS
from looper.records.plan import FUNCTION_SUITES, REAL_SUITES

ROWS_FROM: Mapping[str, str] = {
    **{suite: f"LOOPER_{suite.upper().replace('-', '_')}_DATA" for suite in REAL_SUITES},
    "swe-bench-cl": "LOOPER_SWE_DATA",
    **{suite: f"LOOPER_{suite.upper()}" for suite in FUNCTION_SUITES},
}
"""The environment variable that says where the rows of a suite are; what is generated here has none."""


@dataclass(frozen=True)
class Settings:
    """Folders and files that are the user's to choose."""

    state: Path
    """Suites, environments, exports, adapters and others; `looper cache du` says what of it comes back by itself. LOOPER_HOME."""
    runs: Path
    """Run folders. LOOPER_RUNS, else `runs` in the current folder."""
    rows: Mapping[str, str]
    """Where the rows of each suite in `ROWS_FROM` are, by its name: a file, a folder or hub:NAME; empty where that is not set."""
    workspaces: Path
    """Where working trees are made and removed again. LOOPER_WORKSPACES, else below `state`. A file system in memory makes them
    ten times as fast, and has to hold as many as run side by side."""
    mirrors: Path
    """Bare mirrors of the benchmark's repositories. LOOPER_MIRRORS, else below `state`."""
    keys: Mapping[str, str] = field(repr=False)
    """Of whoever serves models, by backend, from the environment variable that its traits name; empty where that is not set. In no record and no
    message."""
    server_wait_s: float | None = None
    """How long a model server is waited for that cannot be reached. LOOPER_SERVER_WAIT_S; one that has answered before is waited for ten minutes
    at least, and one that never has, where this is not set, not at all."""
    runs_named: bool = False
    """Whether LOOPER_RUNS names where runs are."""
    agents: Path | None = None
    """Versions of the agent's own source, by the hash of their trees, for arms that name one."""
    fetched: Mapping[tuple[ContentKind, str], Path] = field(default_factory=dict)
    """What is not here and was fetched for the run of another machine, by its kind and its name there."""

    def key_of(self, backend: str) -> str:
        """Of whoever serves a model; empty where that asks for none or none is set."""
        return self.keys.get(backend, "")

    @property
    def runs_elsewhere(self) -> str:
        """How a person names another place for runs, by what named this one."""
        if self.runs_named:
            return "name another place with LOOPER_RUNS, which names this one"
        return "go to a folder that can be written to, or name one with LOOPER_RUNS: this one is in the working folder"

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
        own = self.state / "validations"
        return next(
            (place.parent for (kind, _), place in self.fetched.items() if kind is ContentKind.VALIDATIONS),
            own,
        )


def settings() -> Settings:
    """Raises BadInput."""
    state = _place(os.environ.get("LOOPER_HOME") or _default_state())
    return Settings(
        state=state,
        runs=_place(os.environ.get("LOOPER_RUNS") or "runs"),
        rows={suite: os.environ.get(variable, "") for suite, variable in ROWS_FROM.items()},
        workspaces=_place(os.environ.get("LOOPER_WORKSPACES") or state / "workspaces"),
        mirrors=_place(os.environ.get("LOOPER_MIRRORS") or state / "mirrors"),
        keys={
            name: os.environ.get(traits.key, "").strip() for name, traits in BACKENDS.items() if traits.key
        },
        runs_named=bool(os.environ.get("LOOPER_RUNS")),
        server_wait_s=_seconds("LOOPER_SERVER_WAIT_S"),
    )


def _seconds(variable: str) -> float | None:
    """None where it is not set. Raises BadInput for what is no number of seconds."""
    said = os.environ.get(variable, "").strip()
    if not said:
        return None
    try:
        seconds = float(said)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise BadInput(f"{variable}={said} is no number of seconds. Set it to one, as {variable}=300.")
    return seconds


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
