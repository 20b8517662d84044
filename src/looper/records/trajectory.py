"""Everything that was said and done in one rollout.

An action is what the parser made of a reply, a step is that with what came back, a trajectory the end of it all. Steps are durable
one by one, so a rollout can be gone on with; what a trajectory says must follow from its steps, which audits check.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from looper.records.base import Count, Positive, Record, Seconds, unsaid


class Bash(Record):
    """Run a shell command in the workspace."""

    tool: Literal["bash"] = "bash"
    command: str


class Read(Record):
    """Show a file, or its lines `start` to `end` (from 1, both included)."""

    tool: Literal["read"] = "read"
    path: str
    start: int | None = None
    end: int | None = None


class Edit(Record):
    """Replace the one place where `old` stands; an empty `new` deletes it."""

    tool: Literal["edit"] = "edit"
    path: str
    old: str
    new: str
    occurrence: int | None = None
    """Which of several places, from 1; None where there must be one only."""


class Write(Record):
    """Make or replace a whole file."""

    tool: Literal["write"] = "write"
    path: str
    content: str
    confirm_shrink: bool = False
    """Says that losing more than half of an existing file is meant."""


class Done(Record):
    """End the rollout."""

    tool: Literal["done"] = "done"
    message: str = ""


Action = Annotated[Bash | Read | Edit | Write | Done, Field(discriminator="tool")]
ToolName = Literal["bash", "read", "edit", "write", "done"]
TOOL_NAMES: tuple[ToolName, ...] = ("bash", "read", "edit", "write", "done")


class ReplyProblem(StrEnum):
    """Why a reply holds no action that could be executed."""

    NO_ACTION = "no_action"
    UNCLOSED = "unclosed"
    SEVERAL_ACTIONS = "several_actions"
    TEXT_AFTER_ACTION = "text_after_action"
    FENCED_ACTION = "fenced_action"
    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    """The reply was cut at the output limit; nothing of it is executed."""


class ObservationKind(StrEnum):
    """What became of a step."""

    OK = "ok"
    REFUSED = "refused"
    """The tool or a guard did not do what was asked, and said why."""
    PROBLEM = "problem"
    """The reply held no action that could be executed."""
    TIMEOUT = "timeout"
    END = "end"


class Observation(Record):
    """What the model is told after its step."""

    kind: ObservationKind
    text: str
    exit_code: int | None = None
    """Of a shell command; None where none ran, or where it was killed."""
    omitted_bytes: Count = 0
    """Output that was cut from the middle of `text`."""
    tolerant: bool = False
    """An edit was made whose old text was found by its words only, with other indentation."""


class FinishReason(StrEnum):
    """Why the model stopped."""

    STOP = "stop"
    LENGTH = "length"


MOST_TOKENS = 10**12
"""Of a reply, or of a whole rollout: a number beyond it, or below nought, counts nothing."""


def _believable(count: object) -> object:
    return None if isinstance(count, int) and not 0 <= count <= MOST_TOKENS else count


Tokens = Annotated[int | None, BeforeValidator(_believable)]
"""None where nobody counted, and where what is recorded is no count."""


class Usage(Record):
    """Tokens of one reply, prompt and completion apart.

    `prompt_tokens` and `completion_tokens` come from the one counter named in `counted_by`, so that arms can be
    compared; what the backend itself reported stands beside it, absent where it reported nothing.
    """

    prompt_tokens: Tokens
    completion_tokens: Tokens
    counted_by: str
    """The tokenizer that counted, or `none` for models without tokens."""
    backend_prompt_tokens: Tokens = None
    backend_completion_tokens: Tokens = None
    processed_prompt_tokens: Tokens = None
    """Prompt tokens that were computed rather than taken from a cache."""


class Reply(Record):
    """One answer of a model, raw."""

    text: str
    thinking: str = ""
    """Reasoning that the backend delivered apart from the text."""
    finish_reason: FinishReason
    usage: Usage
    wall_s: Seconds
    retries: Count = 0
    """Infrastructure faults survived before this reply arrived."""
    waited_s: Seconds = 0.0
    """Time lost to them; it does not count against the task's limit."""
    overseen: bool = False
    """An overseer stepped in: this is not what the agent said first."""
    in_flight: Positive | None = None
    """Requests of the run on their way to the model's server when this one was asked, itself among them; None where nobody counted. On a
    cluster no process sees those of others: there, attempts of the run under way at that server, which may be running a command."""
    server: Annotated[Positive | None, Field(exclude_if=unsaid)] = None
    """Which of the model's servers answered, from 1 in the plan's order; None where it has one."""


class Guard(StrEnum):
    """A check of the agent loop that fired at a step."""

    REPEATED_ACTION = "repeated_action"
    READ_ONLY_STREAK = "read_only_streak"
    VERIFICATION_LOOP = "verification_loop"
    NO_PROGRESS = "no_progress"
    PREMATURE_DONE = "premature_done"
    SHRINKING_WRITE = "shrinking_write"
    FENCE_REMOVED = "fence_removed"
    BROKEN_PYTHON = "broken_python"
    CONTEXT_PRUNED = "context_pruned"


class StopReason(StrEnum):
    """Why a rollout ended."""

    DONE = "done"
    STEP_LIMIT = "step_limit"
    TIME_LIMIT = "time_limit"
    TOKEN_LIMIT = "token_limit"
    STALLED = "stalled"
    NO_ACTION = "no_action"
    CONTEXT_FULL = "context_full"
    REFUSED = "refused"
    """The model or its server would not answer what the conversation had become."""
    CRASHED = "crashed"
    """The agent's own code ended without a word, which only a candidate's does."""
    UNUSABLE = "unusable"
    """What was said or made cannot be handled (a tree too large to be read); the last observation says why."""
    IMPORTED = "imported"
    """There was no rollout here: the patch came from a file."""


class Step(Record):
    """One turn: the reply, the action read from it, and what came of it."""

    cell: str
    attempt: Positive
    index: Positive
    """From 1."""
    reply: Reply
    action: Action | None
    problem: ReplyProblem | None
    observation: Observation
    guards: tuple[Guard, ...]
    memory: tuple[str, ...] = ()
    """Ids of the memory items that were told with this observation."""
    stop_reason: StopReason | None
    """Set on the last step, where the step itself ended the rollout."""
    context_tokens: Count | None
    """Length of the prompt of this step, by the model's own tokenizer."""
    pruned_messages: Count
    """Messages that were shortened to fit this step's prompt."""
    tree: str
    """Hash of the workspace after the step."""
    wall_s: Seconds


class ModelIdentity(Record):
    """Which model answered, as exactly as its backend can say."""

    backend: str
    backend_version: str
    name: str
    digest: str
    """Content hash of the weights, or what the backend gives in its place; never empty."""
    adapter: str = ""
    """Content hash of the adapter on top of them; empty for none."""
    quantisation: str
    context_tokens: int | None
    """The window that the backend was told to use; None for models without one."""
    sampler: Annotated[str | None, Field(exclude_if=unsaid)] = None
    """What of the sampling the backend cannot be told, in words; None where it does as it is told."""

    @property
    def known_as(self) -> str:
        """Name and the beginning of its digest, with what is not known of how it draws."""
        return f"{self.name} {self.digest[:12]}{f' ({self.sampler})' if self.sampler else ''}"


class Trajectory(Record):
    """The end of one rollout: what it produced and under which conditions. Its steps are records of their own."""

    cell: str
    attempt: Positive
    instance_id: str
    arm: str
    arm_hash: str
    seed: int
    code_version: str
    run_hash: str = ""
    """Of the manifest of the run that it is part of, so that no plan changes without its rollouts; empty where no run made it."""
    prompt_hash: str
    """Of the messages that stood before the first reply."""
    memory: tuple[str, ...] = ()
    """Ids of the memory items that were told, at the start or on the way."""
    memory_candidates: Count = 0
    """Items that could have been."""
    memory_tokens: Tokens = 0
    """Of all that was told from memory, by the model's own tokenizer; None where it has none."""
    model: ModelIdentity
    environment: str
    sandbox: str
    workspace_clean_state: str
    """Hash of the tree before the first step; equal to the base tree's."""
    steps: Count
    stop_reason: StopReason
    stop_cause: str = ""
    """What the model's server said, where it was that which ended the rollout: class and words."""
    patch: str
    patch_hash: str
    patch_at_limit: bool
    """A patch that exists although the rollout was ended from outside."""
    flagged_paths: tuple[str, ...]
    """Entries of the final tree that a patch cannot hold (links that leave the tree, devices, repositories)."""
    patch_error: str = ""
    """Why the final tree could not be compared with its base, so that there is no patch; empty where it could."""
    prompt_tokens: Tokens
    completion_tokens: Tokens
    guards: dict[Guard, Positive]
    wall_s: Seconds
    model_s: Seconds
    in_flight: float | None = None
    """Median over its replies of the requests on their way to the model's server; None where nobody counted."""
    servers: Annotated[tuple[Positive, ...] | None, Field(exclude_if=unsaid)] = None
    """Which of its model's servers answered, in the order of their first replies, or the one that it began with where none came; None where
    the model has one."""

    @property
    def tokens(self) -> int | None:
        """Of prompts and replies together; None where they were not counted."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens
