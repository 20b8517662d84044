"""What is sent and what is answered: the shapes of /openapi.json."""

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[int, Field(gt=0, lt=10**9)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{6,64}$")]
RunName = Annotated[str, Path(description="Name of a run folder.")]


class RequestBody(BaseModel):
    """A body. What it does not know it refuses."""

    model_config = ConfigDict(extra="forbid")


class Spawn(RequestBody):
    """A contract to be carried out."""

    program_md: Annotated[str, Field(min_length=1, max_length=60_000)]
    parent_generation: Annotated[int, Field(ge=0, lt=10**9)] | None = None
    source: Literal["cli", "user"] = "cli"
    request: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    """Asking twice with the same is asking once."""


class Decide(RequestBody):
    """A generation, and the hash of what was looked at."""

    generation: Number
    candidate_hash: Hash


class Halt(RequestBody):
    """The hash of the run that is meant."""

    run_hash: Hash


class Chat(RequestBody):
    """A message to the prime."""

    message: Annotated[str, Field(min_length=1, max_length=20_000)]


class Fault(BaseModel):
    """What is wrong, and what helps."""

    kind: str
    message: str
    hint: str


class Refusal(BaseModel):
    """Every answer that is no success."""

    error: Fault


class Spawned(BaseModel):
    """A generation that has begun."""

    generation: int
    branch: str
    lab: str
    status: Literal["spawned"]


class Decided(BaseModel):
    """What became of a decision."""

    generation: int
    status: str
    commit: str
    evidence: str


class Halted(BaseModel):
    """A run that was told to stop."""

    run: str
    status: Literal["stopping"]
    goes_on_with: str


class Answer(BaseModel):
    """What the prime said at the end of its turn."""

    status: Literal["completed"]
    response: str


class Login(BaseModel):
    """A link that logs in one browser, once."""

    link: str


STATUSES = (400, 401, 403, 404, 405, 408, 409, 411, 413, 415, 422, 502, 503)
REFUSALS: dict[int | str, dict[str, Any]] = {status: {"model": Refusal} for status in STATUSES}
