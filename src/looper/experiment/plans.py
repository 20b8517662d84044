"""The text of an experiment file → the plan that runs, with every mistake named by file, line, column and key.

A file is read in three steps: its text with the place of every key, then the tables as they may be written, where units are said
and profiles are laid over each other, then the frozen plan. Errors of every step are told by the key that the person wrote.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import date, time
from functools import partial
from itertools import count
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from looper.agent.scaffold import packaged_scaffold
from looper.errors import BadInput, one_line, possible
from looper.experiment.claims import PlanSettings, UnresolvedExpression, plainly
from looper.experiment.coherence import faults
from looper.experiment.plan_errors import PlanLayers, PlanText, did_you_mean, named, problems
from looper.experiment.toml_positions import Path as Keys
from looper.records.base import DIMENSIONLESS, Misplaced, Positive, Unit, grouped
from looper.records.learning import SPLITS, Experience, Learning, Treatment
from looper.records.model import BACKENDS, ModelSpec
from looper.records.plan import (
    Arm,
    ArmName,
    ArmRole,
    Choice,
    Contrast,
    Expect,
    Gate,
    Limits,
    LimitsChange,
    Metric,
    Plan,
    Price,
    Sampling,
    Scaffold,
    TaskSelection,
)
from looper.untrusted import parsed_toml

T = TypeVar("T", bound=BaseModel)
LARGEST = 10**15
"""Of a number in a plan, whatever it measures."""
SEEDS_APART = 1000
"""Between the seeds of a plan under one master seed and under the next."""
NANO_FORMS = ("small", "8bit", "4bit", "3bit", "2bit")
OVERSEER = "overseer"
NAMED_BACKENDS = tuple(name for name in BACKENDS if name != "predictions")


@dataclass(frozen=True)
class Holds:
    """In an annotation: the keys of a table that is read later, when what it changes is known."""

    kind: type[BaseModel]
    changes: str
    """The key that names what is changed, so that no other key is needed."""
    changed: str
    """What that key means."""
    example: str
    complete: bool
    """Whether there has to be every required key where nothing is named to be changed."""


SCAFFOLD = Holds(
    Scaffold,
    "base",
    "The packaged scaffold that the table changes, `full` or `terse`; the profile's own where it is left out.",
    "terse",
    complete=False,
)


class _Closed(BaseModel):
    """A table of a plan's file. A key without a description is that of the same name in the record that is made of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    record: ClassVar[type[BaseModel]]


def _not_blank(text: str) -> str:
    if not text.strip():
        # As of an empty one.
        raise PydanticCustomError("string_too_short", "must not be empty")
    return text


Sentence = Annotated[str, Field(min_length=1), AfterValidator(_not_blank)]
LONGEST_NAME = 64
"""Characters of an arm's name."""


class _ArmText(_Closed):
    record = Arm

    name: Annotated[ArmName, Field(max_length=LONGEST_NAME, examples=["memory"])]
    """Small letters, digits and underscores; 64 of them at most, since files and columns are named by it."""
    role: ArmRole
    model: Annotated[str | None, Field(examples=["ollama:qwen2.5-coder:7b"])] = None
    """Written as a profile's; `overseer` for the profile's overseer. None for the profile's model."""
    adapted: StrictBool = False
    """Its model carries the adapter that `--adapter` or the profile names."""
    scaffold: Annotated[str | dict[str, Any] | None, SCAFFOLD, Field(examples=["terse"])] = None
    """All that surrounds the model: a packaged scaffold by name, or a table with what differs. None for the profile's."""
    temperature: Annotated[float | None, DIMENSIONLESS, Field(examples=[0.7])] = None
    """Of sampling; 0 for the likeliest token. None for the profile's."""
    sampling: Sampling | None = None
    """How else the next token is drawn. None for the profile's. Not beside `learning`: set it in the profile, for every arm."""
    repetition: Annotated[int, DIMENSIONLESS] = 0
    only_seeds: Annotated[Positive | None, Unit("seeds"), Field(examples=[1])] = None
    limits: LimitsChange | None = None
    learning: Learning | None = None
    agent: Annotated[str, Field(examples=["9f2c…"])] = ""
    reason: Annotated[str, Field(examples=["how often it differs from base by chance"])] = ""


class _ProfileText(_Closed):
    record = Plan

    model: Annotated[str, Field(examples=["nano"])]
    """`nano` (embedded), `nano:small`, `nano:4bit`, `gold`, `noop`, `expert` (scripted, of micro's level 1), `mlx:FOLDER`,
    `ollama:NAME`, `openai:NAME@URL`, `vllm:NAME@URL`, `anthropic:NAME` or `scripted:FILE`. Several servers of one model: `NAME@URL,URL`."""
    overseer: Annotated[str | None, Field(examples=["ollama:qwen2.5-coder:7b"])] = None
    """Model of the arms with oversight that look on; None for the profile's model."""
    adapter: Annotated[str | None, Field(examples=["3f2a91c04d5e6b78"])] = None
    """Id of an adapter that was trained here (looper adapter list), for the arms that carry one."""
    scaffold: Annotated[str | dict[str, Any], SCAFFOLD, Field(examples=["full"])]
    """All that surrounds the model: a packaged scaffold by name, or a table with what differs."""
    temperature: Annotated[float, Field(ge=0, examples=[0.7]), DIMENSIONLESS]
    """Of sampling; 0 for the likeliest token."""
    sampling: Sampling | None = None
    """How else the next token is drawn; left out, nothing is cut off and nothing punished."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1, examples=[[0, 1, 2]]), Unit("seeds")]
    order: Literal["parallel", "sequence"]
    arms: Annotated[tuple[str, ...], Field(examples=[["base", "memory"]])] = ()
    """Names of the arms that this profile runs; empty for all."""
    attempts: Annotated[Positive, Unit("attempts")] = 3
    tasks: TaskSelection
    """Which tasks of which suite."""
    limits: Limits
    """What every arm may spend on one task."""
    experience: Experience | None = None
    price: Price | None = None
    discordance: Annotated[float, Field(gt=0, le=1), Unit("share")] = 0.3
    spread: Annotated[float, Field(ge=0, le=1), Unit("share")] = 0.1


UNITS = {True: ("points", 100.0), False: ("nats", 1.0)}
"""By whether a metric is a share: in what its differences are written, and how many of it are 1."""


PLAIN = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


def _measured(value: Any, info: ValidationInfo) -> float:
    """`"10 points"` or `"0.2 nats"`: a difference in the unit of its metric, which nobody has to guess, in plain digits."""
    unit, whole = UNITS[info.data.get("metric", Metric.RESOLVED).is_share]
    number, _, said = str(value).partition(" ")
    example = "10 points" if whole > 1 else "0.2 nats"
    if not isinstance(value, str) or said != unit:
        raise ValueError(
            f'must say its unit, as in "{example}", found {json.dumps(value, default=str, ensure_ascii=False)}'
        )
    if not PLAIN.fullmatch(number):
        raise ValueError(
            f'must be written in plain digits, as in "{example}", found {json.dumps(value, ensure_ascii=False)}'
        )
    return float(number) / whole


_SAID = Unit("points or nats per token")


class _ContrastText(Contrast):
    margin: Annotated[float, Field(gt=0, lt=1, examples=["10 points"]), BeforeValidator(_measured), _SAID] = (
        0.1
    )
    """In the metric's unit, a tenth of a point or more; what is less than this is taken for nothing. Of a metric in nats it has to be said
    where it is what is asked."""
    expected: Annotated[
        float, Field(gt=0, lt=1, examples=["10 points"]), BeforeValidator(_measured), _SAID
    ] = 0.1
    """In the metric's unit, a tenth of a point or more; the difference that the plan means to see. Of resolve rates more than 30 points are taken for 30 in the power."""

    @model_validator(mode="after")
    def _margin_is_said_in_nats(self) -> "_ContrastText":
        bounded = self.expect is not Expect.MORE
        if bounded and not self.metric.is_share and "margin" not in self.model_fields_set:
            raise ValueError(
                f'margin: is missing; what is taken for nothing in {self.metric.value} has to be said, as in "0.2 nats"'
            )
        return self


def _no_power(gates: Any) -> Any:
    if isinstance(gates, list | tuple) and Gate.POWER in gates:
        raise ValueError(
            "a plan that is too small stays a pilot: power is no gate to be only measured. Leave it out, or raise tasks, "
            "repositories or seeds"
        )
    return tuple(gates) if isinstance(gates, list) else gates


def _names_are_short(choices: tuple[Choice, ...]) -> tuple[Choice, ...]:
    """As those of arms, which they stand beside."""
    for at, found in enumerate(choices):
        if len(found.name) > LONGEST_NAME:
            raise Misplaced(f"takes {LONGEST_NAME} characters or fewer, found {len(found.name)}", at, "name")
    return choices


class ExperimentText(_Closed):
    record = Plan

    title: Annotated[Sentence, Field(examples=["What a memory is worth"])]
    hypothesis: Annotated[
        Sentence, Field(examples=["Lessons from earlier tasks of a repository help there."])
    ]
    factor: Annotated[Sentence, Field(examples=["whether lessons are in the prompt"])]
    arms: Annotated[tuple[_ArmText, ...], Field(min_length=1)]
    contrasts: tuple[_ContrastText, ...] = ()
    choices: Annotated[tuple[Choice, ...], AfterValidator(_names_are_short)] = ()
    measured_only: Annotated[
        tuple[Literal[Gate.DATA, Gate.ACTION], ...], BeforeValidator(_no_power), Field(examples=[["action"]])
    ] = ()
    asserts: Annotated[tuple[str, ...], Field(examples=[["memory.temperature == base.temperature"]])] = ()
    """What sentences claim of the settings in words, as comparisons: `wide.rank == narrow.rank`."""
    profiles: Annotated[
        dict[str, dict[str, Any]],
        Holds(
            _ProfileText,
            "like",
            "Name of a shared profile (micro, demo, swe, controls) that the table changes; then no other key is required.",
            "micro",
            complete=True,
        ),
    ] = {}
    """What the arms run on, by name: models, tasks, limits."""


def parse_model(text: str) -> ModelSpec:
    """A model as a profile's `model` is written. Raises BadInput."""
    backend, _, rest = text.partition(":")
    traits = next((BACKENDS[name] for name in NAMED_BACKENDS if name == backend), None)
    if traits is None:
        *most, last = [name for name in NAMED_BACKENDS if BACKENDS[name].named in ("maybe", "never")]
        raise BadInput(
            f'"{text}" names no model. {possible(backend, NAMED_BACKENDS, "There are")} A name follows after a colon but for '
            f"{', '.join(most)} and {last}."
        )
    mark = traits.address_after
    name, found, url = rest.partition(mark) if mark else (rest, "", "")
    url = f"{mark[1:]}{url}" if found else ""
    if backend == "nano" and name not in ("", *NANO_FORMS):
        raise BadInput(
            f'"{text}": the embedded model comes as nano, of half the width, or with fewer bits: {", ".join(NANO_FORMS)}.'
        )
    if traits.named in (("never",) if name else ("always", "file")):
        raise BadInput(f'"{text}": {backend} takes {"no name" if name else f"a name, {backend}:NAME"}.')
    if not mark and "@http" in name:
        raise BadInput(
            f'"{text}": {backend} has no server at an address. Name the model alone, {backend}:NAME.'
        )
    spec = ModelSpec.model_validate({"backend": backend, "name": name, "base_url": url})
    if found:
        _must_be_addresses(text, spec.addresses, BACKENDS[spec.backend].key)
    return spec


def _must_be_addresses(text: str, addresses: Sequence[str], key: str) -> None:
    """Raises BadInput where one of a model's servers has no address that can be used, or that of another."""
    places = dict[tuple[str, int | None, str], str]()
    for address in addresses:
        try:
            parts = urlsplit(address)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise _no_address(text, address, str(error)) from error
        if parts.scheme not in ("http", "https") or not host or any(sign.isspace() for sign in address):
            raise _no_address(
                text, address, "write http://HOST:PORT, and several with commas and no space between them"
            )
        if parts.username is not None:
            raise _no_address(
                text.replace(address, "…"),
                f"{parts.scheme}://…@{host}",
                f"leave the key out, for addresses are recorded. {f'Set {key} to it' if key else 'No key is sent'}",
            )
        place = "127.0.0.1" if host == "localhost" else host, port, parts.path.rstrip("/").removesuffix("/v1")
        if place in places:
            raise BadInput(
                f'"{one_line(text)}": {places[place]} and {address} are one server. Name every server once.'
            )
        places[place] = address


def _no_address(text: str, address: str, why: str) -> BadInput:
    return BadInput(f'"{one_line(text)}": "{one_line(address)}" is no address that can be used: {why}.')


_DOTTED = re.compile(r"\b[a-z_]+(?:\.[a-z_]+)+\b")
"""Keys of a profile, as sentences name them."""


@dataclass(frozen=True)
class Written:
    plan: Plan
    chosen: str
    """Name of the profile, as a command has it."""
    experiment: PlanLayers
    profile: PlanLayers
    places: Mapping[str, Sequence[int]]
    """Of the plan's arms, choices and contrasts: which of the file's they are."""
    without_adapter: tuple[str, ...] = ()
    """Arms that carry an adapter and are left out of the plan, since none is named yet."""

    def where(self, *path: str | int) -> str:
        """`FILE:LINE:COLUMN` of a key of the plan, `arms`, `contrasts` and `choices` by their number in the plan; of other keys
        as a profile has them, also where an arm leaves one to its profile."""
        layers, key = self._found(path)
        return layers.where(key)

    def said(self, wrong: str, *path: str | int) -> str:
        """What is wrong with a key, behind its place and its name. Of a key that only a profile of all plans has, the place is that of
        another key that `wrong` names and the plan's author wrote, where there is one, and what to write follows."""
        layers, key = self._found(path)
        others = [tuple(name.split(".")) for name in _DOTTED.findall(wrong)]
        return (
            f"{layers.where(key, *others)}: {layers.from_the_top(key, key)}{wrong}{layers.to_set(key, wrong)}"
        )

    def all_said(self, wrong: Iterable[tuple[Keys, str]]) -> list[str]:
        """Each as `said`. What is said of one key alike of several arms, in whose name it begins, is said of them together."""
        arms = [arm.name for arm in self.plan.arms]
        told = [
            (path, whole, next((name for name in arms if whole.startswith((f"{name} ", f"{name}: "))), ""))
            for path, whole in wrong
        ]
        # By where a key stands, since several arms can leave one to their profile.
        alike = grouped(
            ((self._found(path)[1], whole.removeprefix(name)), (path, name)) for path, whole, name in told
        )
        found = []
        for (_, rest), ((path, first), *others) in alike.items():
            more = ", ".join(name for _, name in others if name)
            found.append(self.said(f"{first}{f' (as well as {more})' if more else ''}{rest}", *path))
        return found

    def _found(self, path: Keys) -> tuple[PlanLayers, Keys]:
        """The files that have a key of the plan, and the key as they have it."""
        key = _in_file(self.places, path)
        match key:
            case ("arms", int(), str(name)) if not self.experiment.has(key) and self.profile.has((name,)):
                return self.profile, (name,)
        of_experiment = path[0] in (*self.places, "title", "hypothesis", "factor", "asserts", "measured_only")
        return (self.experiment if of_experiment else self.profile), key


def plan_from_text(experiment: str, text: str, source: str, profile: str | None, **options: Any) -> Plan:
    """The plan alone of `written_plan`, whose options it takes."""
    return written_plan(experiment, text, source, profile, **options).plan


def written_plan(
    experiment: str,
    text: str,
    source: str,
    profile: str | None,
    *,
    profile_text: str | None = None,
    shared: Mapping[str, str] = MappingProxyType({}),
    model: str | None = None,
    limit: int | None = None,
    master_seed: int | None = None,
    split: str | None = None,
    adapter: str | None = None,
    adapter_named: Callable[[str], str] = str,
    only: Sequence[str] = (),
) -> Written:
    """Resolve an experiment under a profile of its own, under a `shared` one (texts by name), or under `profile_text` from
    another file. None for the file's only profile, or `micro`.

    `model` takes the place of the profile's model, `adapter` of the adapter that it names, by
    an id that `adapter_named` knows from its beginning, `limit` of its number of tasks,
    `master_seed` of the embedded suite's seed, moving the plan's seeds along, `split` (a letter of SPLITS) of how tasks are divided;
    all become part of the plan, and the split of its profile's name. `only` are the arms that are to run, empty for all. Where no
    adapter is named, arms that carry one are left out of the plan, as a profile leaves arms out, if they are not to run, or if one can
    be trained on what other arms of the plan gather; `without_adapter` names them.
    Raises BadInput that lists every problem.
    """
    whole, asked = PlanLayers((PlanText(source, text),)), profile
    data = _toml(text, source)
    if not is_plan(text) and {"tasks", "like"} & data.keys():
        raise BadInput(
            f"{source} is a profile, and a plan is asked for. Name a plan beside it: looper run PLAN --profile {source}"
        )
    file = _validated(ExperimentText, data, whole)
    own = {
        name: _profile(found, shared, PlanText(source, text, ("profiles", name)))
        for name, found in file.profiles.items()
    }
    if profile is None:
        profile = _usual_profile(file, source)
    name = profile
    if profile_text is not None:
        if is_plan(profile_text):
            raise BadInput(
                f"{profile} is a plan, and --profile takes a profile. Run the plan: looper run {profile}"
            )
        chosen, layers = _profile(_toml(profile_text, profile), shared, PlanText(profile, profile_text))
    elif profile in own:
        chosen, layers = own[profile]
    elif profile in shared:
        chosen, layers = _profile({"like": profile}, shared, PlanText(source, text, ("profiles", profile)))
    else:
        there = possible(profile, [*file.profiles, *shared])
        raise BadInput(f'{source} has no profile "{profile}". {there} Or name a TOML file with one.')
    if adapter is not None and not any(arm.adapted for arm in file.arms):
        raise BadInput(
            f"{experiment} has no arm that carries an adapter; capability has: looper run capability."
        )
    of_tasks = {"limit": limit, "suite_seed": master_seed}
    changes: dict[str, Any] = {
        "model": model,
        "adapter": adapter,
        "tasks": chosen.tasks.model_copy(update=_given(of_tasks)),
    }
    if master_seed is not None:
        changes["seeds"] = tuple(SEEDS_APART * master_seed + seed for seed in chosen.seeds)
    if split is not None:
        if chosen.experience is None or not any(arm.learning for arm in file.arms):
            raise BadInput(f"Nothing is learned in {experiment} {profile}, so there is nothing to split.")
        changes["experience"] = _divided(chosen.experience, split)
        profile = f"{Path(profile).stem}-{split}"
    changed = chosen.model_copy(update=_given(changes))
    if changed.adapter not in (None, TO_COME):
        with _at(layers, ("adapter",)) if adapter is None else nullcontext():
            changed = changed.model_copy(update={"adapter": adapter_named(changed.adapter)})
    _names_exist(file, changed, whole, layers)
    chosen_arms = [at for at, arm in enumerate(file.arms) if not changed.arms or arm.name in changed.arms]
    lacking = [at for at in chosen_arms if file.arms[at].adapted and not changed.adapter]
    learned = [file.arms[at].learning for at in chosen_arms if at not in lacking]
    gathers = any(learning is not None and learning.needs_experience for learning in learned)
    left_out = [at for at in lacking if gathers or (only and file.arms[at].name not in only)]
    arms = [at for at in chosen_arms if at not in left_out]
    here = {file.arms[at].name for at in arms}
    # A profile that leaves an arm out leaves out what is chosen from it, and the contrasts of both.
    choices = [at for at, found in enumerate(file.choices) if set(found.of) <= here]
    here |= {file.choices[at].name for at in choices}
    contrasts = [at for at, found in enumerate(file.contrasts) if set(found.arms) <= here]
    places = {"arms": arms, "choices": choices, "contrasts": contrasts}
    made = _Making(changed, model is not None, whole, layers)
    try:
        plan = Plan(
            experiment=experiment,
            profile=profile,
            title=file.title,
            hypothesis=" ".join(file.hypothesis.split()),
            factor=file.factor,
            selection=changed.tasks,
            seeds=changed.seeds,
            arms=tuple(made.arm(file.arms[at], at) for at in arms),
            choices=tuple(file.choices[at] for at in choices),
            measured_only=file.measured_only,
            contrasts=tuple(Contrast(**dict(file.contrasts[at])) for at in contrasts),
            unasked=tuple(
                f"{found.arm} − {found.against}"
                for at, found in enumerate(file.contrasts)
                if at not in contrasts
            ),
            limits=changed.limits,
            order=changed.order,
            experience=changed.experience,
            attempts=changed.attempts,
            price=changed.price,
            discordance=changed.discordance,
            spread=changed.spread,
            master_seed=master_seed or 0,
        )
    except ValidationError as error:
        both = PlanLayers((*whole.texts, *layers.texts))
        raise BadInput(problems(error, data, Plan, both, partial(_in_file, places))) from error
    written = Written(plan, name, whole, layers, places, tuple(file.arms[at].name for at in left_out))
    _means_what_it_says(written, file)
    if left_out:  # What is wrong with arms that lack their adapter is said before others have worked for it.
        written_plan(
            experiment,
            text,
            source,
            asked,
            profile_text=profile_text,
            shared=shared,
            model=model,
            limit=limit,
            master_seed=master_seed,
            split=split,
            adapter=TO_COME,
        )
    return replace(written, plan=_spoken(written))


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def _usual_profile(file: ExperimentText, source: str) -> str:
    """The profile where none is named. Raises BadInput where a file has several and none of them is micro."""
    if "micro" in file.profiles or not file.profiles:
        return "micro"
    if len(file.profiles) > 1:
        raise BadInput(f"{source} has several profiles. Name one: --profile {' or '.join(file.profiles)}.")
    return next(iter(file.profiles))


def _in_file(places: Mapping[str, Sequence[int]], path: Keys) -> Keys:
    """The keys of an arm, a choice or a contrast of a plan in the file, which may have more of them."""
    match path:
        case (str(part), int(number), *rest) if part in places:
            return (part, places[part][number], *rest)
    return path


def _means_what_it_says(written: Written, file: ExperimentText) -> None:
    """Raises BadInput that names every part of a plan that cannot be what it is called, and every claim that is not so."""
    found = written.all_said(faults(written.plan))
    settings = PlanSettings(written.plan)
    present = {arm.name for arm in written.plan.arms} | {choice.name for choice in written.plan.choices}
    for number, claim in enumerate(file.asserts):
        about = set(re.findall(r"([A-Za-z_]\w*)\s*\.", claim))
        known = [*(arm.name for arm in file.arms), *(choice.name for choice in file.choices)]
        if unknown := sorted(about - set(known)):
            near = did_you_mean(unknown[0], known)
            found.append(written.said(f'there is no arm "{unknown[0]}"{near}', "asserts", number))
            continue
        # Of arms that the profile leaves out nothing is claimed.
        if not about <= present:
            continue
        try:
            sides = settings.sides(claim)
            if not settings.value(claim):
                values = " against ".join(map(plainly, sides))
                found.append(written.said(f"{claim} is not so: {values}", "asserts", number))
        except UnresolvedExpression as error:
            found.append(written.said(str(error), "asserts", number))
    if found:
        raise BadInput("; ".join(found))


SENTENCES = {"arms": ("reason",), "choices": ("reason",), "contrasts": ("shown", "refuted", "open")}
"""Keys with sentences, by the part of a plan that has them."""


def _spoken(written: Written) -> Plan:
    """The plan with every sentence filled in. Raises BadInput that names every one that cannot be."""
    plan, settings, wrong = written.plan, PlanSettings(written.plan), []

    def filled(sentence: str, *path: str | int, contrast: Contrast | None = None) -> str:
        try:
            return settings.filled(sentence, contrast)
        except UnresolvedExpression as error:
            wrong.append(written.said(str(error), *path))
            return sentence

    spoken: dict[str, Any] = {
        key: filled(getattr(plan, key), key) for key in ("title", "hypothesis", "factor")
    }
    for part, keys in SENTENCES.items():
        spoken[part] = []
        for number, found in enumerate(getattr(plan, part)):
            contrast = found if isinstance(found, Contrast) else None
            said = {key: filled(getattr(found, key), part, number, key, contrast=contrast) for key in keys}
            spoken[part].append(found.model_copy(update=said))
        spoken[part] = tuple(spoken[part])
    if wrong:
        raise BadInput("; ".join(wrong))
    return plan.model_copy(update=spoken)


def _divided(experience: Experience, split: str) -> Experience:
    if split not in SPLITS:
        there = ", ".join(SPLITS)
        raise BadInput(f'There is no split "{split}". There are: {there}; all runs one after the other.')
    how, seed = SPLITS[split]
    return experience.model_copy(update={"split": how, "split_seed": seed})


def _free(name: str, taken: Sequence[str]) -> str:
    """A name that none has."""
    return next(each for number in count(2) if (each := f"{name}_{number}") not in taken)


def _names_exist(file: ExperimentText, profile: _ProfileText, whole: PlanLayers, layers: PlanLayers) -> None:
    """Raises BadInput for names of arms, in choices, contrasts and the profile, that no arm has."""
    arms = [arm.name for arm in file.arms]
    if twice := next((at for at, name in enumerate(arms) if name in arms[:at]), None):
        path: Keys = ("arms", twice, "name")
        first = whole.where(("arms", arms.index(arms[twice]), "name"))
        raise BadInput(
            f"{whole.where(path)}: {whole.named(path)}names of arms must differ, and arm {twice + 1} of the file is called {arms[twice]} as arm "
            f'{arms.index(arms[twice]) + 1} is ({first}). Rename one, as in name = "{_free(arms[twice], arms)}"'
        )
    any_of = [*arms, *(found.name for found in file.choices)]
    asked: list[tuple[PlanLayers, Keys, str, list[str]]] = [
        *(
            (whole, ("choices", at, "of", number), name, arms)
            for at, choice in enumerate(file.choices)
            for number, name in enumerate(choice.of)
        ),
        *(
            (whole, ("contrasts", at, *keys), name, any_of)
            for at, found in enumerate(file.contrasts)
            for keys, name in (
                (("arm",), found.arm),
                (("against",), found.against),
                *((("through", number), each) for number, each in enumerate(found.through)),
            )
        ),
        *((layers, ("arms", number), name, arms) for number, name in enumerate(profile.arms)),
    ]
    wrong = [
        f"{where.where(path)}: {where.named(path)}there is no arm {name}{did_you_mean(name, known) or '.'} There are: {', '.join(known)}"
        for where, path, name, known in asked
        if name not in known
    ]
    if wrong:
        raise BadInput("; ".join(wrong))


def _profile(
    found: dict[str, Any], shared: Mapping[str, str], own: PlanText
) -> tuple[_ProfileText, PlanLayers]:
    """A profile as it stands, or over the shared one that it names, and the files that it comes from."""
    like = found.get("like")
    data = {key: value for key, value in found.items() if key != "like"}
    layers = PlanLayers((own,))
    if like is not None:
        if like not in shared:
            known = list(shared)
            raise BadInput(
                f"{layers.where(('like',))}: {layers.named(('like',))}there is no shared profile {like!r}"
                f"{did_you_mean(str(like), known) or '.'} There are: {', '.join(known) or 'none'}."
            )
        name = f"profiles/{like}.toml"
        text, usual = PlanText(name, shared[like], shared=like), _toml(shared[like], name)
        # By itself first: what is wrong with it is no mistake of this plan.
        _validated(_ProfileText, usual, PlanLayers((text,)))
        layers, data = PlanLayers((own, text)), _merged(usual, data)
    return _validated(_ProfileText, data, layers), layers


TO_COME = 16 * "0"
"""In place of the id of an adapter that is still to be trained."""


def adapter_needed(arms: Sequence[str]) -> str:
    """That these arms carry an adapter, of which none is named."""
    carry = "carries" if len(arms) == 1 else "carry"
    return f"{' and '.join(arms)}: {carry} an adapter, so name one: --adapter ID. See them with: looper adapter list."


@dataclass(frozen=True)
class _Making:
    profile: _ProfileText
    model_was_asked_for: bool
    """On the command line, so that no file is to blame."""
    whole: PlanLayers
    layers: PlanLayers

    def arm(self, arm: _ArmText, at: int) -> Arm:
        """An arm as written, with the profile's model, scaffold, temperature and overseer where it names none. The model
        `overseer` is the profile's."""
        learning, profile = arm.learning, self.profile
        overseer = None
        if profile.overseer is not None:
            with _at(self.layers, ("overseer",)):
                overseer = parse_model(profile.overseer)
        if learning is not None and learning.treatment is Treatment.OVERSIGHT and learning.overseer is None:
            learning = learning.model_copy(update={"overseer": overseer})
        with self._of("model", arm.model, at):
            model = (
                overseer
                if arm.model == OVERSEER
                else parse_model(profile.model if arm.model is None else arm.model)
            )
            if model is None:
                raise BadInput(
                    f"{arm.name}: its model is the overseer, so the profile needs one: overseer = NAME."
                )
        if arm.adapted and not profile.adapter:
            raise BadInput(adapter_needed([arm.name]))
        if arm.adapted:
            model = model.model_copy(update={"adapter": profile.adapter})
        with self._of("scaffold", arm.scaffold, at):
            scaffold = scaffold_of(arm.scaffold or profile.scaffold, profile.scaffold)
        return Arm(
            name=arm.name,
            role=arm.role,
            model=model,
            scaffold=scaffold,
            temperature=profile.temperature if arm.temperature is None else arm.temperature,
            sampling=profile.sampling if arm.sampling is None else arm.sampling,
            repetition=arm.repetition,
            only_seeds=arm.only_seeds,
            limits=arm.limits,
            learning=learning,
            agent=arm.agent,
            reason=" ".join(arm.reason.split()),
        )

    @contextmanager
    def _of(self, key: str, written: object, at: int) -> Iterator[None]:
        """A mistake in what an arm says, or the profile where it says nothing, is named with its place."""
        if key == "model" and written is None and self.model_was_asked_for:
            yield
        elif written is None:
            with _at(self.layers, (key,)):
                yield
        else:
            with _at(self.whole, ("arms", at, key)):
                yield


@contextmanager
def _at(layers: PlanLayers, path: Keys) -> Iterator[None]:
    """What goes wrong in here is named with the place of a key."""
    try:
        yield
    except ValidationError as error:
        within = PlanLayers(tuple(replace(each, below=(*each.below, *path)) for each in layers.texts))
        raise BadInput(problems(error, None, Scaffold, within)) from error
    except BadInput as error:
        raise BadInput(f"{layers.where(path)}: {layers.named(path)}{error}") from error


def scaffold_of(chosen: str | dict[str, Any], usual: str | dict[str, Any]) -> Scaffold:
    """A packaged scaffold by name, or a table with `base` (else the profile's own) and what differs from it. `"off"` stands
    for a guard that never fires: TOML has no word for nothing."""
    if isinstance(chosen, str):
        return packaged_scaffold(chosen)
    changes = {key: value for key, value in chosen.items() if key != "base"}
    if "base" not in chosen and chosen is not usual:
        base = scaffold_of(usual, usual)
    else:
        base = packaged_scaffold(str(chosen.get("base", "full")))
    changes["guards"] = {
        # A guard that is true or false has no need of the word.
        key: None if value == "off" and not isinstance(getattr(base.guards, key, None), bool) else value
        for key, value in changes.get("guards", {}).items()
    }
    return Scaffold.model_validate_json(
        json.dumps(_merged(base.model_dump(mode="json"), changes)), strict=True
    )


def _merged(base: Any, change: Any) -> Any:
    """Tables are merged key by key, at any depth; everything else is replaced."""
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    return {**base, **{key: _merged(base.get(key), value) for key, value in change.items()}}


def is_plan(text: str) -> bool:
    """Whether a file is a plan, and neither a profile nor settings of something else."""
    try:
        data = parsed_toml(text)
    except tomllib.TOMLDecodeError:
        return False
    return "hypothesis" in data or any(isinstance(arm, dict) for arm in data.get("arms", ()))


_NOT_FINITE = re.compile(r"[=,\[]\s*([+-]?(?:inf|nan))\s*(?:[,\]}#]|$)", re.MULTILINE)
"""Numbers of TOML that measure nothing."""


def _toml(text: str, source: str) -> dict[str, Any]:
    def finite(written: str) -> float:
        if isfinite(number := float(written)):
            return number
        found = _NOT_FINITE.search(text)
        at = f":{text.count(chr(10), 0, found.start(1)) + 1}" if found else ""
        raise BadInput(f"{source}{at}: {written} is no number that a setting can have. Write a finite one.")

    try:
        data = parsed_toml(text, finite)
        _must_be_settings(data, PlanText(source, text))
        return data
    except tomllib.TOMLDecodeError as error:
        found = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
        at = f":{found[1]}:{found[2]}" if found else f":{text.count(chr(10)) + 1}"
        said = str(error)[: found.start()] if found else str(error)
        # The end of the line, in the reader's words.
        said = said.replace(r"Illegal character '\n'", "a text in quotes does not end on its line")
        raise BadInput(f"{source}{at}: this is not valid TOML: {said}.") from error


def _must_be_settings(value: object, text: PlanText, path: Keys = ()) -> None:
    """Raises BadInput for what TOML can hold and no key of a plan takes: dates and times, and numbers beyond all measures."""
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            _must_be_settings(each, text, (*path, key))
    elif isinstance(value, int | float) and abs(value) > LARGEST:
        raise BadInput(
            f"{text.near(path)}: {named(path)}{value:.3g} is larger than any setting can be. Write a smaller number."
        )
    elif isinstance(value, date | time):
        raise BadInput(
            f"{text.near(path)}: {named(path)}{value} is a date or a time, which no key takes. Put a text in quotes."
        )


def _validated(kind: type[T], data: dict[str, Any], layers: PlanLayers) -> T:
    """As JSON and strictly: there words stand for members and lists for tuples, and `true` is no number, nor a text true or false."""
    try:
        return kind.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise BadInput(problems(error, data, kind, layers)) from error
