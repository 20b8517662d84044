"""An experiment as it is registered before any data: arms, limits, tasks, and what a run of it is made of.

A plan is frozen before its first cell, and its run is named by a hash over it. So a field that is added is left out of the JSON
where it says nothing (`unsaid`), or plans of earlier versions would be others. How a file becomes a plan stands in
`experiment/plans`.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from looper.records.base import Misplaced, Positive, PositiveFloat, Record, Unit, content_hash, unsaid
from looper.records.learning import Experience, Learning, Source, Treatment
from looper.records.memory import Remembering
from looper.records.model import ModelSpec
from looper.records.strategy import Strategy
from looper.records.trajectory import TOOL_NAMES, Guard, ModelIdentity, ToolName


class GuardSettings(Record):
    """When the loop steps in. None switches a guard off."""

    repeat_nudge: Annotated[Positive | None, Unit("times")] = 2
    """The same action with the same result for so many times: a hint is added."""
    repeat_refuse: Annotated[Positive | None, Unit("times")] = 3
    """The same action with the same result for so many times: it is not executed any more."""
    repeat_stop: Annotated[Positive | None, Unit("times")] = 5
    """The same action with the same result for so many times: the rollout ends as stalled."""
    read_only_nudge: Annotated[Positive | None, Unit("steps")] = 12
    """Steps in a row that only read, after which a hint is added."""
    no_progress_stop: Annotated[Positive | None, Unit("steps")] = 15
    """Steps in a row without a change of the tree, once there is one; ends as stalled, the patch is judged."""
    verification_nudge: Annotated[Positive | None, Unit("commands")] = 4
    """Commands in a row without a change of the tree, once there is one, after which a hint is added."""
    no_action_stop: Annotated[Positive | None, Unit("replies")] = 4
    """Replies in a row without an executable action, after which the rollout ends."""
    refuse_empty_done: bool = True
    """`done` with an empty patch is refused once."""
    check_python: bool = True
    """A Python file that no longer compiles after a change is reported at once."""
    confirm_shrink: bool = True
    """A write that loses more than half of a file needs a confirmation."""


class PruningSettings(Record):
    """How a conversation is cut when it no longer fits."""

    mode: Literal["none", "oldest_observations"] = "oldest_observations"
    """Whether the oldest observations are shortened, or nothing is, and a rollout ends where its context is full."""
    keep_last: Annotated[Positive, Unit("observations")] = 4
    """Observations at the end that are never shortened: the content in use."""
    target_share: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Share of the budget to shrink to, so that pruning is rare and the cached prefix lives long."""


class Scaffold(Record):
    """All that surrounds the model: prompt, tools, guards, pruning. An experimental factor."""

    name: Annotated[str, Field(examples=["full"])]
    """Of the scaffold, as it is shown."""
    system: Annotated[str, Field(examples=["Fix the issue."])]
    """The system message."""
    task: Annotated[str, Field(examples=["{memory}{issue}"])]
    """Template of the first user message; holds `{issue}`, and may hold `{memory}` and `{tests}`, the command of the
    repository's own tests."""
    memory: Annotated[str, Field(examples=["Earlier work here:\n{items}\n"])] = ""
    """Template around a memory block; holds `{items}`."""
    tools: tuple[ToolName, ...] = TOOL_NAMES
    """What the agent can call."""
    terse: bool = False
    """Observations without headers and advice, for models that were trained on them."""
    output_cap_bytes: Positive = 10_000
    """Longest tool output shown; beyond it head and tail are kept and the cut is named."""
    read_cap_lines: Positive = 400
    """Most lines of a file that one `read` shows."""
    tolerant_edits: bool = True
    """An old text that stands nowhere exactly is looked for without its indentation."""
    guards: GuardSettings = GuardSettings()
    """When the loop steps in."""
    pruning: PruningSettings = PruningSettings()
    """How a conversation is cut when it no longer fits."""

    @model_validator(mode="after")
    def _templates_have_their_fields(self) -> "Scaffold":
        if "{issue}" not in self.task:
            raise ValueError("task: the template must hold {issue}")
        if self.memory and ("{items}" not in self.memory or "{memory}" not in self.task):
            raise ValueError("memory: needs {items}, and {memory} in task")
        return self


class Limits(Record):
    """What every arm of a plan may spend on one task, but for arms whose limits are what is asked about."""

    steps: Annotated[Positive, Unit("steps"), Field(examples=[30])]
    """Replies of the model in one rollout."""
    output_tokens: Annotated[Positive, Field(examples=[4096])]
    """Longest reply."""
    context_tokens: Annotated[Positive, Field(examples=[32768])]
    """Longest prompt with its reply: the model's window."""
    total_tokens: Annotated[Positive | None, Field(examples=[20_000])] = None
    """Completion tokens of a whole rollout; None for no such limit."""
    wall_s: Annotated[PositiveFloat, Field(examples=[1200.0])]
    """Time of a whole rollout, without time that the machine slept."""
    command_s: Annotated[PositiveFloat, Field(examples=[120.0])]
    """Time of one shell command of the agent."""
    verify_s: Annotated[PositiveFloat, Field(examples=[900.0])]
    """Time of one run of a task's tests."""
    memory_mb: Positive = 1024
    """Address space of one process in the sandbox."""
    gpus: Annotated[PositiveFloat | None, Unit("GPUs"), Field(exclude_if=unsaid, examples=[0.25])] = None
    """What a cell takes of a cluster node's GPUs, where its model runs in a process of the cell's own (mlx): with 0.25 a node with one GPU works on
    four cells at once. None for nothing; no part of it counts on one machine."""


class LimitsChange(Record):
    """Where an arm's limits differ from the plan's; None for as there. What judges, and the window of the model, are the same for all."""

    steps: Annotated[Positive | None, Unit("steps"), Field(examples=[16])] = None
    """Replies of the model in one rollout."""
    output_tokens: Annotated[Positive | None, Field(examples=[1024])] = None
    """Longest reply."""
    total_tokens: Annotated[Positive | None, Field(examples=[20_000])] = None
    """Completion tokens of a whole rollout."""
    wall_s: Annotated[PositiveFloat | None, Field(examples=[600.0])] = None
    """Time of a whole rollout, without time that the machine slept."""
    command_s: Annotated[PositiveFloat | None, Field(examples=[60.0])] = None
    """Time of one shell command of the agent."""

    def of(self, limits: Limits) -> Limits:
        return limits.model_copy(update=self.model_dump(exclude_none=True))


class Sampling(Record):
    """How the next token is drawn from what a model computes, beside the temperature. The defaults cut nothing off and punish nothing:
    servers have others of their own, so each is sent with every request."""

    top_k: Annotated[int, Field(ge=0, examples=[40]), Unit("tokens")] = 0
    """Only the so many likeliest tokens; 0 for all."""
    top_p: Annotated[float, Field(gt=0, le=1, examples=[0.95]), Unit("probability")] = 1.0
    """Only the likeliest tokens that make up this much together; 1 for all."""
    min_p: Annotated[float, Field(ge=0, lt=1, examples=[0.05]), Unit("share")] = 0.0
    """Only tokens at least so likely, as a share of the likeliest one's probability; 0 for all."""
    repeat_penalty: Annotated[float, Field(gt=0, examples=[1.1]), Unit("factor")] = 1.0
    """By which a token is made less likely that stands among the last 64, or with vLLM anywhere before; 1 for none. Harmful to an agent
    that has to copy text exactly."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2, examples=[0.5]), Unit("nats")] = 0.0
    """Taken from a token that stands among these."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, examples=[0.5]), Unit("nats")] = 0.0
    """Taken from a token for each time that it stands among these."""


AS_COMPUTED = Sampling()
"""Nothing cut off, nothing punished."""


class ArmRole(StrEnum):
    """What an arm is for, so that renaming or reordering arms changes no number."""

    BASE = "base"
    """What the others are compared with."""
    AGAIN = "again"
    """Base a second time: its difference from base is the floor of any claim."""
    CONTROL = "control"
    """Shows what a difference from base is not about."""
    TREATMENT = "treatment"
    """What the experiment is about; without `learning` it differs from base in one thing."""
    EXPERIENCE = "experience"
    """Gathers what other arms learn from; never compared."""


ArmName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Arm(Record):
    """What is compared: a model with its scaffold and its sampling."""

    name: ArmName
    """Small letters, digits and underscores."""
    role: ArmRole
    """What the arm is for."""
    model: ModelSpec
    scaffold: Scaffold
    temperature: Annotated[float, Field(ge=0)]
    sampling: Annotated[Sampling | None, Field(exclude_if=unsaid)] = None
    """How else the next token is drawn; None for the defaults of each key."""
    repetition: Annotated[int, Field(ge=0)] = 0
    """Feeds the sampling seed: arms with equal configuration and another repetition are repeats of each other."""
    only_seeds: Positive | None = None
    """Run with the first so many seeds of the plan: what is the same with every seed needs no more. None for all."""
    limits: Annotated[LimitsChange | None, Field(exclude_if=unsaid)] = None
    """Where it may spend more or less on a task than the profile says: the factor of an arm that does not learn."""
    learning: Learning | None = None
    """What it has been through before its tasks; None for nothing. An arm that learns differs from base in that alone: `model`,
    `scaffold`, `temperature`, `sampling` and `limits` beside it are refused where they are not base's, and are set in the profile."""
    agent: str = ""
    """Version of the agent's own source that works, by the hash of its tree; empty for the one that is installed."""
    reason: str = ""
    """Why it is there, where no contrast is about it."""

    @property
    def has_overseer(self) -> bool:
        return self.learning is not None and self.learning.has_overseer

    @property
    def own_learning(self) -> Learning:
        """`learning` of an arm that has been through something."""
        assert self.learning is not None
        return self.learning

    @property
    def treatment(self) -> Treatment | None:
        return self.learning.treatment if self.learning is not None else None

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter is made for it."""
        return self.treatment is not None and self.treatment.is_adapter

    @property
    def remembers(self) -> Remembering | None:
        return self.learning.remembers if self.learning is not None else None

    @property
    def strategy(self) -> Strategy | None:
        return self.learning.strategy if self.learning is not None else None

    def config_hash(self) -> str:
        """Of everything that can change what the arm does; name and role are labels."""
        learning = self.learning or ""
        own = tuple(part for part in (self.agent, self.limits, self.sampling) if part)
        return content_hash(
            self.model, self.scaffold, repr(self.temperature), str(self.repetition), learning, *own
        )


class Expect(StrEnum):
    """What a contrast is registered to show."""

    MORE = "more"
    """The first arm resolves more."""
    SAME = "same"
    """The arms differ by less than the margin, either way."""
    NOT_MORE = "not_more"
    """The first arm does not resolve more by the margin."""
    NOT_LESS = "not_less"
    """The first arm does not resolve less by the margin."""


class Metric(StrEnum):
    """What a contrast compares, by seed and task."""

    RESOLVED = "resolved"
    """Whether the task's tests pass."""
    VALID_ACTIONS = "valid_actions"
    """Share of a rollout's steps with an action that could be read."""
    INTERVENTIONS = "interventions"
    """Share of a rollout's steps in which an overseer put its own action in the place of the agent's."""
    ANSWERS = "answers_supported"
    """Share of the questions about a success whose answer, which is trained on, says what the records know; of the last round."""
    TARGET_TESTS = "f2p_fraction"
    """Share of FAIL_TO_PASS tests that pass."""
    FILE_RECALL = "file_recall"
    """Share of the files that gold changes which the patch changes too."""
    ACTION_LOG_LIKELIHOOD = "action_log_likelihood"
    """Of successful actions at tasks of the evaluation, under what the arm works with: nats per token."""
    RETENTION = "retention"
    """Log likelihood of what a strategy's batches taught, after the last of them: nats per token."""
    FORGETTING = "forgetting.standard"
    """By how much the log likelihood of what a batch taught falls from its highest, from its own turn on, to the end: nats
    per token. The last batch has none."""

    @property
    def is_share(self) -> bool:
        """Whether differences are points of a share; nats per token otherwise."""
        return self not in (Metric.ACTION_LOG_LIKELIHOOD, Metric.RETENTION, Metric.FORGETTING)


class Contrast(Record):
    """A comparison that is registered before there are data, with what its author makes of each outcome: a sentence that is quoted
    beside the claim, which Looper makes itself of what is compared and of how it came out."""

    arm: Annotated[str, Field(examples=["memory"])]
    """The first of the two: an arm, or a choice."""
    against: Annotated[str, Field(examples=["base"])]
    """The second."""
    through: Annotated[tuple[str, ...], Field(examples=[["memory_2"]])] = ()
    """Arms between the two, from `against` on, where a dose rises from arm to arm: what is compared is then the rise of a
    straight line through all of them, from `against` to `arm`."""
    exercised: Annotated[tuple[Guard, ...], Field(examples=[["repeated_action"]])] = ()
    """Of what differs: one of these has to fire in `arm`, or in `against`, for a difference to mean anything."""
    expect: Expect = Expect.MORE
    """What it is registered to show."""
    metric: Metric = Metric.RESOLVED
    """What is compared."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """In the metric's unit, 0.1 being ten points of a share; what is less than this is taken for nothing."""
    expected: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """In the metric's unit; the difference that the plan means to see. Of resolve rates no more than 30 points are counted on: with a
    larger one the power is still that of 30 points."""
    shown: Annotated[str, Field(examples=["Lessons from here help."])]
    """The author's sentence where it came out as expected, quoted beside Looper's claim: that there is a difference, or, of a bound,
    that it is less than `{margin}`. Of three words or more."""
    refuted: Annotated[str, Field(examples=["Lessons from here harm."])]
    """The author's sentence where the opposite was shown, quoted beside Looper's claim. Of three words or more."""
    open: Annotated[str, Field(examples=["Whether lessons help is open: more tasks are needed."])]
    """The author's sentence where the run could not tell, quoted beside Looper's claim. Of three words or more; `Undecided.` is enough."""

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms and choices that it takes, by rising dose where there is one."""
        return (self.against, *self.through, self.arm)

    @property
    def name(self) -> str:
        along = f", as a line through {len(self.arms)} arms" if self.through else ""
        return f"{self.arm} − {self.against}{along}"


class Chooser(StrEnum):
    """How one of several attempts is picked; none of them looks at hidden tests, but for the last."""

    MAJORITY = "majority"
    """The patch that most attempts made, the earliest of equals; no patch only where nobody made one."""
    CHECKED = "checked"
    """The earliest whose own last command, after its last change, ended well; the earliest patch where none did."""
    LIKELIEST = "likeliest"
    """The patch whose actions base finds likeliest, by the token."""
    RANDOM = "random"
    """One of them by chance."""
    ANY = "any"
    """One that is resolved, where there is one: the ceiling of every chooser, and no result."""


class Choice(Record):
    """An arm that runs nothing: from the attempts of other arms at a task it takes one, and pays for all."""

    name: Annotated[ArmName, Field(examples=["best_of_2"])]
    """Small letters, digits and underscores, and no arm's."""
    of: Annotated[tuple[str, ...], Field(min_length=2, examples=[["base", "base_again"]])]
    """Names of arms."""
    by: Chooser
    """How the attempt is picked."""
    reason: Annotated[str, Field(examples=["what two attempts are worth"])] = ""
    """Why it is there, where no contrast is about it."""


class Price(Record):
    """What a model costs, for a million tokens."""

    input: Annotated[float, Field(ge=0, examples=[3.0]), Unit("currency per million tokens")]
    """Of prompt tokens."""
    output: Annotated[float, Field(ge=0, examples=[15.0]), Unit("currency per million tokens")]
    """Of completion tokens."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    """Three letters (ISO 4217)."""

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """In its currency."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


FunctionSuite = Literal["humaneval", "mbpp"]
"""Of single functions, whose rows are a file."""
FUNCTION_SUITES: tuple[FunctionSuite, ...] = get_args(FunctionSuite)
PlainSuite = Literal["micro", FunctionSuite]
"""Of repositories that were written for Looper, whose tests call functions with plain data and compare what they give."""
PLAIN_SUITES: tuple[str, ...] = get_args(PlainSuite)
RealSuite = Literal["swe-bench-cl", "swe-bench"]
REAL_SUITES: tuple[RealSuite, ...] = get_args(RealSuite)
"""Of issues of real repositories, whose tests take minutes and may not tell right from wrong on a machine."""
Suite = Literal[PlainSuite, RealSuite]
SUITES: tuple[Suite, ...] = get_args(Suite)


class Isolation(StrEnum):
    """Where tests run."""

    SHARED = "shared"
    """In the process that has the product, as everywhere in the field."""
    PROCESS = "process"
    """In a process, a sandbox and a tree of their own, which the product cannot reach; values cross a pipe as plain data."""


class TaskSelection(Record):
    """Which tasks of which suite, before eligibility."""

    suite: Suite
    """The benchmark: `micro` is the embedded one, whose repositories are generated."""
    level: Annotated[int, Field(ge=0, le=2), Unit("level")] = 0
    """Of the embedded suite: how much a task asks for."""
    suite_seed: Annotated[int, Unit("seed")] = 0
    """Of the embedded suite: another seed gives other repositories."""
    repositories: Annotated[int, Field(gt=0, le=200), Unit("repositories")] = 8
    """Of the embedded suite: so many are made; the first of more are the same."""
    repos: Annotated[tuple[str, ...], Field(examples=[["django/django"]])] = ()
    """Names of repositories; empty for all."""
    tasks: Annotated[tuple[str, ...], Field(examples=[["django__django-11099"]])] = ()
    """Ids of tasks; empty for all."""
    skip: Annotated[int, Field(ge=0, examples=[15]), Unit("tasks")] = 0
    """So many first tasks of each repository are not evaluated: those that an adapter of `--adapter` was trained on."""
    per_repo: Annotated[Positive | None, Unit("tasks"), Field(examples=[6])] = None
    """At most so many tasks of each repository, in sequence order; None for all."""
    limit: Annotated[Positive | None, Unit("tasks"), Field(examples=[12])] = None
    """At most so many tasks in all, the first ones; None for all."""
    isolation: Isolation = Isolation.SHARED
    """How the tasks are judged; `process` for the embedded suite, whose tests hand over plain data."""

    @model_validator(mode="after")
    def _tests_can_run_apart(self) -> "TaskSelection":
        if self.isolation is Isolation.PROCESS and self.suite != "micro":
            raise ValueError(
                f'isolation: tests of {self.suite} call more of a product than its functions with plain data; leave it at "shared"'
            )
        return self


class Gate(StrEnum):
    """A check that decides whether an arm, or a run, may go on to what it is for."""

    DATA = "data"
    """Enough resolved tasks to learn from."""
    MEMORY = "memory"
    """An arm's memory has something to say to enough of its tasks; to none it is never enough."""
    ACTION = "action"
    """An adapter leaves valid actions nearly as frequent as base's, on held-out prompts and at work."""
    POWER = "power"
    """The tasks suffice to find the expected difference with 80 % power; a run with fewer is a pilot, for whatever reason."""


class Plan(Record):
    """An experiment under one profile, fully resolved."""

    experiment: str
    profile: str
    title: str
    """One line, as tables show it."""
    hypothesis: str
    """What is expected, before there are data."""
    factor: str
    """The one thing that the arms differ in."""
    selection: TaskSelection
    seeds: tuple[int, ...]
    """Each arm runs each task once with each of them."""
    arms: tuple[Arm, ...]
    """What is compared."""
    limits: Limits
    experience: Experience | None = None
    """How experience is gathered and what is made of it; None where no arm learns."""
    contrasts: tuple[Contrast, ...] = ()
    """Registered, the primary one first; everything else that a report shows is exploratory."""
    unasked: tuple[str, ...] = ()
    """Names of contrasts that the experiment registers, the primary one first, and this profile has not the arms for."""
    choices: tuple[Choice, ...] = ()
    """Arms that run nothing: each takes one of several arms' attempts at a task."""
    measured_only: tuple[Gate, ...] = ()
    """Gates that this plan asks to see the answer, and not to stop an arm."""
    order: Literal["parallel", "sequence"]
    """`parallel` runs cells side by side, arms alternating; `sequence` runs each arm's tasks one after the other, for arms that accumulate experience."""
    price: Price | None = None
    """What the model costs; None for models that cost nothing but time."""
    attempts: Positive = 3
    """Attempts of a cell that may end as infra_error before it is left without a verdict."""
    discordance: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of cells in which equal arms are taken to differ: with this, and with nothing that is measured, it is worked out before
    the data whether the plan is a pilot. Less than 0.3 needs a run here that shows it, and less than 0.05 is not taken."""
    spread: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Standard deviation of a true difference from repository to repository, likewise; nothing measures less than 0.1, which is the least."""
    master_seed: int = 0
    """Where it is not 0, other repositories and other seeds were asked for than those that the plan names."""

    @property
    def is_grading(self) -> bool:
        """Whether it only verifies patches that were made elsewhere."""
        return all(arm.model.backend == "predictions" for arm in self.arms)

    @property
    def name(self) -> str:
        """Experiment and profile; with other repositories than the plan's, `exp00 micro@1`."""
        return f"{self.experiment} {self.profile}{f'@{self.master_seed}' if self.master_seed else ''}"

    @model_validator(mode="after")
    def _arms_are_comparable(self) -> "Plan":
        names = [arm.name for arm in self.arms]
        for at, name in enumerate(names):
            if name in names[:at]:
                raise Misplaced(f"names must differ, found {', '.join(names)}", "arms", at, "name")
        bases = [arm for arm in self.arms if arm.role is ArmRole.BASE]
        if len(bases) > 1:
            raise Misplaced(
                f"one arm has the role base, found {len(bases)}", "arms", names.index(bases[1].name), "role"
            )
        for at, arm in enumerate(self.arms):
            if not bases and (arm.learning is not None or arm.role in (ArmRole.TREATMENT, ArmRole.AGAIN)):
                raise Misplaced(
                    f'no arm has the role base, which {arm.name} is compared with; write role = "base" in one, and leave it in the '
                    "profile's arms",
                    "arms",
                    at,
                    "role",
                )
            if arm.role is ArmRole.AGAIN:
                self._is_a_repeat(arm, at, bases[0])
            differs = [
                name
                for name in ("model", "scaffold", "temperature", "sampling", "limits", "agent")
                if bases and getattr(arm, name) != getattr(bases[0], name)
            ]
            if arm.role is ArmRole.TREATMENT and arm.learning is None and len(differs) != 1:
                raise Misplaced(
                    f"{arm.name} must differ from {bases[0].name} in one thing, found "
                    f"{', '.join(differs) or 'none'}",
                    "arms",
                    at,
                )
        self._learning_is_possible(bases)
        for at, choice in enumerate(self.choices):
            if unknown := [name for name in choice.of if name not in names]:
                raise Misplaced(f"there is no arm {', '.join(unknown)}", "choices", at, "of")
            if choice.name in names:
                raise Misplaced(f"the name {choice.name} is an arm's", "choices", at, "name")
        self._contrasts_name_what_is_there(names)
        return self

    def _is_a_repeat(self, arm: Arm, at: int, base: Arm) -> None:
        if arm.model_copy(update=_labels(base)).to_json() != base.to_json():
            raise Misplaced(f"{arm.name} must equal {base.name} in everything but its repetition", "arms", at)
        if arm.repetition == base.repetition:
            raise Misplaced(
                f"{arm.name} needs a repetition of its own, or it would copy {base.name}", "arms", at
            )

    def _contrasts_name_what_is_there(self, arms: list[str]) -> None:
        choices = [choice.name for choice in self.choices]
        for at, contrast in enumerate(self.contrasts):
            if len(set(contrast.arms)) < len(contrast.arms):
                raise Misplaced(f"{contrast.name} names an arm twice", "contrasts", at, "arm")
            for name in contrast.arms:
                if name not in (*arms, *choices):
                    raise Misplaced(f"there is no arm {name}", "contrasts", at)
                if contrast.metric is not Metric.RESOLVED and name in choices:
                    raise Misplaced(
                        f"{name} is a choice, which has no steps of its own to compare",
                        "contrasts",
                        at,
                        "metric",
                    )

    def _learning_is_possible(self, bases: list[Arm]) -> None:
        learners = self.learners
        if not learners:
            return
        needs = any(learning.needs_experience for *_, learning in learners)
        if needs and self.experience is None:
            first, arm, _ = learners[0]
            raise Misplaced(
                f"{arm.name} learns, so there must be, in the profile, an experience; or list the arms to run without it: arms = [...]",
                "arms",
                first,
                "learning",
            )
        for at, arm, learning in learners:
            plain = arm.model_copy(update={**_labels(bases[0]), "learning": None})
            base = bases[0]
            also = [name for name in Arm.model_fields if getattr(plain, name) != getattr(base, name)]
            if also:
                named = " and ".join([", ".join(also[:-1]), also[-1]] if also[1:] else also)
                raise Misplaced(
                    f"{arm.name} must differ from {base.name} in its learning only, and has another {named} too, so that no figure "
                    f"could tell which of them did it. Leave {named} out of {arm.name} and {base.name}, and set it in the profile for "
                    "every arm; or give it to an arm that does not learn",
                    "arms",
                    at,
                )
            if learning.treatment.is_adapter and self.experience and self.experience.training is None:
                raise Misplaced(
                    f"{arm.name} needs an adapter, so the experience needs its training",
                    "arms",
                    at,
                    "learning",
                )
            if learning.source is Source.GUIDED and self.overseen is None:
                raise Misplaced(
                    "guided experience needs an arm with oversight", "arms", at, "learning", "source"
                )
            if learning.overseen and self.overseen is None:
                raise Misplaced(
                    "to work under an overseer the plan needs an arm with oversight",
                    "arms",
                    at,
                    "learning",
                    "overseen",
                )
        seen: dict[str, str] = {}
        for at, arm, learning in learners:
            if (other := seen.setdefault(content_hash(learning), arm.name)) != arm.name:
                raise Misplaced(
                    f"two arms learn the same, {other} and {arm.name}; repeat base with the role again instead",
                    "arms",
                    at,
                    "learning",
                )

    @property
    def base(self) -> Arm | None:
        return next((arm for arm in self.arms if arm.role is ArmRole.BASE), None)

    @property
    def learners(self) -> tuple[tuple[int, Arm, Learning], ...]:
        """The arms that learn, each with its place among all arms and what it has been through."""
        return tuple((at, arm, arm.learning) for at, arm in enumerate(self.arms) if arm.learning is not None)

    @property
    def learners_base(self) -> Arm:
        """Base, of a plan that learns: such a plan always has one."""
        assert self.base is not None
        return self.base

    def made_from(self, arm: Arm) -> Arm | None:
        """The arm, plainly trained on the same source, whose adapters another one's are made from; None where there is none."""
        if arm.learning is None:
            return None
        plain = Learning(treatment=Treatment.ADAPTER, source=arm.learning.source)
        return next((other for other in self.arms if other.learning == plain), None)

    def seeds_of(self, arm: Arm) -> tuple[int, ...]:
        return self.seeds[: arm.only_seeds]

    def limits_of(self, arm: Arm) -> Limits:
        return self.limits if arm.limits is None else arm.limits.of(self.limits)

    @property
    def trains(self) -> tuple[Learning, ...]:
        """What the arms with adapters learn."""
        return tuple(learning for *_, learning in self.learners if learning.treatment.is_adapter)

    @property
    def retrievals(self) -> tuple[str, ...]:
        """Every way in which arms' memories are searched."""
        if self.experience is None:
            return ()
        asked = [
            how for *_, each in self.learners for how in (each.remembers, each.teacher) if how is not None
        ]
        return tuple(dict.fromkeys(self.experience.told(how).retrieval for how in asked))

    @property
    def model_specs(self) -> tuple[ModelSpec, ...]:
        overseers = [learning.overseer for *_, learning in self.learners if learning.overseer]
        return tuple(dict.fromkeys([*(arm.model for arm in self.arms), *overseers]))

    @property
    def compared_arms(self) -> tuple[Arm, ...]:
        """Those that a contrast is about, by themselves or as attempts of a choice."""
        named = {name for contrast in self.contrasts for name in contrast.arms}
        named |= {name for choice in self.choices if choice.name in named for name in choice.of}
        return tuple(arm for arm in self.arms if arm.name in named)

    @property
    def overseen(self) -> Arm | None:
        """The arm whose overseer also guides experience; None where no arm has one that sees."""
        seeing = (
            arm for _, arm, each in self.learners if each.treatment is Treatment.OVERSIGHT and not each.blind
        )
        return next(seeing, None)

    @property
    def matched_sources(self) -> tuple[Source, ...]:
        """Those of which the poorest says how many successes every arm learns from. Guided experience comes after them, and has what is
        left of this."""
        return tuple(source for source in self.sources if source is not Source.GUIDED)

    @property
    def sources(self) -> tuple[Source, ...]:
        used = {learning.source for *_, learning in self.learners if learning.needs_experience}
        return tuple(source for source in Source if source in used)

    def experience_arms(self, source: Source) -> tuple[Arm, ...]:
        """Base at work on the training tasks, once per sample."""
        base = self.base
        if base is not None and source is Source.GUIDED:
            base = base.model_copy(update={"learning": self.overseen.learning if self.overseen else None})
        if base is None or source is not Source.GOLD:
            return self._at_work(base, f"experience_{source.value}", 1)
        player = base.model_copy(update={"model": ModelSpec(backend="gold")})
        return self._at_work(player, f"experience_{source.value}", 1)[:1]

    def later_experience_arms(self, arm: Arm, number: int) -> tuple[Arm, ...]:
        """An arm that learns in rounds at work on the training tasks before its round `number`, from 2."""
        return self._at_work(arm, f"experience_{arm.name}_{number}", number)

    def all_experience(self, learners: Sequence[Arm] | None = None) -> tuple[tuple[Source, Arm], ...]:
        """Every arm that gathers experience, with where it works. Where only these `learners` learn, those that gather then."""
        of = self.arms if learners is None else learners
        learning = [(arm, arm.learning) for arm in of if arm.learning is not None]
        guided = any(found.source is Source.GUIDED for _, found in learning)
        sources = [source for source in self.sources if guided or source is not Source.GUIDED]
        first = [(source, arm) for source in sources for arm in self.experience_arms(source)]
        later = [
            (Source.OWN, found)
            for arm, how in learning
            for number in range(2, how.rounds + 1)
            for found in self.later_experience_arms(arm, number)
        ]
        return (*first, *later) if learning else ()

    def named_arms(self, names: Sequence[str]) -> list[Arm]:
        """Those of these names, all where none is named."""
        return [arm for arm in self.arms if not names or arm.name in names]

    @property
    def every_arm(self) -> tuple[Arm, ...]:
        """Those that are compared, then those that gather experience."""
        return (*self.arms, *(arm for _, arm in self.all_experience()))

    def _at_work(self, arm: Arm | None, name: str, number: int) -> tuple[Arm, ...]:
        if arm is None or self.experience is None:
            return ()
        return tuple(
            arm.model_copy(
                update={
                    "name": f"{name}_{sample}",
                    "role": ArmRole.EXPERIENCE,
                    "temperature": self.experience.temperature,
                    # Other sampling seeds than base and its repeats have.
                    "repetition": 1000 * number + sample,
                }
            )
            for sample in range(1, self.experience.samples + 1)
        )


def _labels(arm: Arm) -> dict[str, object]:
    return {
        "name": arm.name,
        "role": arm.role,
        "repetition": arm.repetition,
        "only_seeds": arm.only_seeds,
        "reason": arm.reason,
    }


class Cell(Record):
    """One arm × seed × task."""

    arm: str
    seed: int
    instance_id: str

    @property
    def key(self) -> str:
        return f"{self.arm}/{self.seed}/{self.instance_id}"


def arm_of(cell: str) -> str:
    """The arm in the key of a cell, or of an attempt at it."""
    return cell.partition("/")[0]


def task_id_of(cell: str) -> str:
    return cell.split("/", 2)[-1]


class Override(Record):
    """A gate that was passed over."""

    gate: Gate
    reason: Annotated[str, Field(min_length=1)]


class LateOverride(Override):
    """One that was given where a run was gone on with that this gate had stopped: what was gathered stays, and the run is the same."""

    at: str
    """UTC, ISO 8601."""


class RunManifest(Record):
    """What a run is made of. Its hash names the run folder; a change of any part is another run."""

    plan: Plan
    code_version: str
    """Hash over the package's sources: a changed harness is another run."""
    tasks: tuple[str, ...]
    """Ids of the selected tasks, in order."""
    difficulty: dict[str, int] = Field(default_factory=dict)
    """Of each task that has one, 1 to 4 as in its record."""
    experience_tasks: dict[Source, tuple[str, ...]] = Field(default_factory=dict)
    """Ids of the tasks to learn from, by where they come from."""
    leaked: tuple[str, ...] = ()
    """Of the tasks those whose issue quotes half of their fix or more; figures are shown without them too."""
    drift: dict[Source, float] = Field(default_factory=dict)
    """Share of the files that matter now which have changed since the older experience, where that was measured."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Tasks that could have been learned from and were not, and why, by id."""
    overrides: tuple[Override, ...] = ()
    tasks_hash: str
    """Of the whole records of all tasks: changed data is another run."""
    models: dict[str, ModelIdentity]
    """By arm; of an arm whose overseer is another model, that too."""
    environments: tuple[str, ...]
    """Content hashes of the environments that the tasks run on."""
    sandbox: str
    """Backend that commands and verification run in."""

    def stops(self, gate: Gate) -> bool:
        """Whether a gate ends what does not pass it."""
        return gate not in self.plan.measured_only and all(found.gate is not gate for found in self.overrides)

    def run_hash(self) -> str:
        return content_hash(self)[:12]
