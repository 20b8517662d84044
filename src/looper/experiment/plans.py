"""The text of an experiment file → the plan that runs, with every mistake named by file, line and field."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from looper.agent.scaffold import packaged_scaffold
from looper.errors import BadInput
from looper.records.learning import SPLITS, Experience, Learning, Treatment
from looper.records.model import Backend, ModelSpec
from looper.records.plan import (
    Arm,
    ArmRole,
    Choice,
    Contrast,
    Gate,
    Limits,
    Plan,
    Positive,
    Price,
    Scaffold,
    TaskSelection,
)

T = TypeVar("T", bound=BaseModel)
SEEDS_APART = 1000
"""Between the seeds of a plan under one master seed and under the next."""
NANO_FORMS = ("small", "8bit", "4bit", "3bit", "2bit")
OVERSEER = "overseer"
BACKENDS = tuple(name for name in get_args(Backend) if name != "predictions")


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _ArmText(_Closed):
    name: str
    role: ArmRole
    model: str | None = None
    adapted: bool = False
    """Its model carries the adapter that the command or the profile names."""
    scaffold: str | dict[str, Any] | None = None
    temperature: float | None = None
    repetition: int = 0
    only_seeds: Positive | None = None
    learning: Learning | None = None
    agent: str = ""


class _ProfileText(_Closed):
    model: str
    overseer: str | None = None
    """Model of the arms with oversight that look on; None for the profile's model."""
    adapter: str | None = None
    """Id of an adapter that was trained here, for the arms that carry one."""
    scaffold: str | dict[str, Any]
    temperature: Annotated[float, Field(ge=0)]
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    order: Literal["parallel", "sequence"]
    arms: tuple[str, ...] = ()
    """Names of the arms that this profile runs; empty for all."""
    attempts: Positive = 3
    tasks: TaskSelection
    limits: Limits
    experience: Experience | None = None
    price: Price | None = None


class _ExperimentText(_Closed):
    title: str
    hypothesis: str
    factor: str
    arms: Annotated[tuple[_ArmText, ...], Field(min_length=1)]
    contrasts: tuple[Contrast, ...] = ()
    choices: tuple[Choice, ...] = ()
    measured_only: tuple[Gate, ...] = ()
    profiles: dict[str, dict[str, Any]] = {}
    """Whole ones, or `like` and the name of a shared profile with what differs from it."""


def parse_model(text: str) -> ModelSpec:
    """`nano`, `nano:small`, `nano:4bit`, `gold`, `noop`, `mlx:FOLDER`, `ollama:NAME`, `openai:NAME@URL`, `anthropic:NAME`, `scripted:FILE`."""
    backend, _, rest = text.partition(":")
    if backend not in BACKENDS:
        raise BadInput(
            f'"{text}" names no model. Use nano, or one of these with a name after a colon: {", ".join(BACKENDS)}.'
        )
    # Models of Anthropic may have an @ in their names.
    mark = "@" if backend in ("openai", "ollama") else "@http"
    name, found, url = (
        rest.partition(mark) if backend in ("openai", "ollama", "anthropic") else (rest, "", "")
    )
    url = f"http{url}" if found == "@http" else url
    if backend == "nano" and name not in ("", *NANO_FORMS):
        raise BadInput(
            f'"{text}": the embedded model comes as nano, of half the width, or with fewer bits: {", ".join(NANO_FORMS)}.'
        )
    if backend != "nano" and bool(name) == (backend in ("gold", "noop")):
        raise BadInput(f'"{text}": {backend} takes {"no name" if name else f"a name, {backend}:NAME"}.')
    return ModelSpec.model_validate({"backend": backend, "name": name, "base_url": url})


def plan_from_text(
    experiment: str,
    text: str,
    source: str,
    profile: str,
    *,
    profile_text: str | None = None,
    shared: Mapping[str, str] = MappingProxyType({}),
    model: str | None = None,
    limit: int | None = None,
    master_seed: int | None = None,
    split: str | None = None,
    adapter: str | None = None,
) -> Plan:
    """Resolve an experiment under a profile of its own, under a `shared` one (texts by name), or under `profile_text` from
    another file.

    `model` takes the place of the profile's model, `adapter` of the adapter that it names, `limit` of its number of tasks,
    `master_seed` of the embedded suite's seed, moving the plan's seeds along, `split` (a letter of SPLITS) of how tasks are divided;
    all become part of the plan, and the split of its profile's name.
    Raises BadInput that lists every problem.
    """
    file = _validated(_ExperimentText, _toml(text, source), text, source)
    own = {
        name: _profile(found, shared, text, source, ("profiles", name))
        for name, found in file.profiles.items()
    }
    if profile_text is not None:
        chosen = _profile(_toml(profile_text, profile), shared, profile_text, profile)
    elif profile in own:
        chosen = own[profile]
    elif profile in shared:
        chosen = _profile({"like": profile}, shared, text, source, ("profiles", profile))
    else:
        there = ", ".join(dict.fromkeys([*file.profiles, *shared]))
        raise BadInput(f'{source} has no profile "{profile}". It has: {there}; or name a TOML file with one.')
    if model is not None:
        chosen = chosen.model_copy(update={"model": model})
    if adapter is not None:
        if not any(arm.adapted for arm in file.arms):
            raise BadInput(
                f"{experiment} has no arm that carries an adapter; capability has: looper run capability."
            )
        chosen = chosen.model_copy(update={"adapter": adapter})
    if limit is not None:
        chosen = chosen.model_copy(update={"tasks": chosen.tasks.model_copy(update={"limit": limit})})
    if master_seed is not None:
        chosen = chosen.model_copy(
            update={
                "tasks": chosen.tasks.model_copy(update={"suite_seed": master_seed}),
                "seeds": tuple(SEEDS_APART * master_seed + seed for seed in chosen.seeds),
            }
        )
    if split is not None:
        if chosen.experience is None or not any(arm.learning for arm in file.arms):
            raise BadInput(f"Nothing is learned in {experiment} {profile}, so there is nothing to split.")
        chosen = chosen.model_copy(update={"experience": _divided(chosen.experience, split)})
        profile = f"{Path(profile).stem}-{split}"
    arms = _chosen_arms(file, chosen, source)
    here = {arm.name for arm in arms}
    # A profile that leaves an arm out leaves out what is chosen from it, and the contrasts of both.
    choices = tuple(found for found in file.choices if set(found.of) <= here)
    here |= {found.name for found in choices}
    _names_exist(file, source)
    try:
        return Plan(
            experiment=experiment,
            profile=profile,
            title=file.title,
            hypothesis=" ".join(file.hypothesis.split()),
            factor=file.factor,
            selection=chosen.tasks,
            seeds=chosen.seeds,
            arms=tuple(_arm(arm, chosen) for arm in arms),
            choices=choices,
            measured_only=file.measured_only,
            contrasts=tuple(found for found in file.contrasts if set(found.arms) <= here),
            limits=chosen.limits,
            order=chosen.order,
            experience=chosen.experience,
            attempts=chosen.attempts,
            price=chosen.price,
        )
    except ValidationError as error:
        raise BadInput(_problems(error, text, source)) from error


def _divided(experience: Experience, split: str) -> Experience:
    if split not in SPLITS:
        there = ", ".join(SPLITS)
        raise BadInput(f'There is no split "{split}". There are: {there}; all runs one after the other.')
    how, seed = SPLITS[split]
    return experience.model_copy(update={"split": how, "split_seed": seed})


def _names_exist(file: _ExperimentText, source: str) -> None:
    arms = {arm.name for arm in file.arms}
    named = {
        "choices": ({name for found in file.choices for name in found.of}, arms),
        "contrasts": (
            {name for found in file.contrasts for name in found.arms},
            arms | {found.name for found in file.choices},
        ),
    }
    for part, (names, known) in named.items():
        if names - known:
            raise BadInput(f"{source}, {part}: there is no arm {', '.join(sorted(names - known))}.")


def _profile(
    found: dict[str, Any], shared: Mapping[str, str], text: str, source: str, at: tuple[str, ...] = ()
) -> _ProfileText:
    """A profile as it stands, or over the shared one that it names; `at` are the keys that lead to it."""
    like = found.get("like")
    own = {key: value for key, value in found.items() if key != "like"}
    if like is not None:
        if like not in shared:
            known = ", ".join(shared) or "none"
            raise BadInput(
                f"{source}, {'.'.join((*at, 'like'))}: there is no shared profile {like!r}. There are: {known}."
            )
        own = _merged(_toml(shared[like], f"profiles/{like}.toml"), own)
    return _validated(_ProfileText, own, text, source, at)


def _chosen_arms(file: _ExperimentText, profile: _ProfileText, source: str) -> list[_ArmText]:
    names = [arm.name for arm in file.arms]
    unknown = [name for name in profile.arms if name not in names]
    if unknown:
        raise BadInput(f"{source} has no arm {', '.join(unknown)}. It has: {', '.join(names)}.")
    return [arm for arm in file.arms if not profile.arms or arm.name in profile.arms]


def _arm(arm: _ArmText, profile: _ProfileText) -> Arm:
    """An arm as written, with the profile's model, scaffold, temperature and overseer where it names none. The model
    `overseer` is the profile's."""
    learning = arm.learning
    overseer = parse_model(profile.overseer) if profile.overseer else None
    if learning is not None and learning.treatment is Treatment.OVERSIGHT and learning.overseer is None:
        learning = learning.model_copy(update={"overseer": overseer})
    model = parse_model(arm.model or profile.model) if arm.model != OVERSEER else overseer
    if model is None:
        raise BadInput(f"{arm.name}: its model is the overseer, so the profile needs one: overseer = NAME.")
    if arm.adapted and not profile.adapter:
        raise BadInput(
            f"{arm.name}: carries an adapter, so name one: --adapter ID. See them with: looper adapter list."
        )
    if arm.adapted:
        model = model.model_copy(update={"adapter": profile.adapter})
    return Arm(
        name=arm.name,
        role=arm.role,
        model=model,
        scaffold=scaffold_of(arm.scaffold or profile.scaffold, profile.scaffold),
        temperature=profile.temperature if arm.temperature is None else arm.temperature,
        repetition=arm.repetition,
        only_seeds=arm.only_seeds,
        learning=learning,
        agent=arm.agent,
    )


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
        key: None if value == "off" else value for key, value in changes.get("guards", {}).items()
    }
    return Scaffold.model_validate(_merged(base.model_dump(), changes))


def _merged(base: Any, change: Any) -> Any:
    """Tables are merged key by key, at any depth; everything else is replaced."""
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    return {**base, **{key: _merged(base.get(key), value) for key, value in change.items()}}


def _toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{source} is not valid TOML: {error}.") from error


def _validated(kind: type[T], data: dict[str, Any], text: str, source: str, below: tuple[str, ...] = ()) -> T:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise BadInput(_problems(error, text, source, below)) from error


def _problems(error: ValidationError, text: str, source: str, below: tuple[str, ...] = ()) -> str:
    """Every problem of one input in one line: file, line, field, what is wrong."""
    found = []
    for problem in error.errors():
        place = (*below, *problem["loc"])
        field = ".".join(map(str, place))
        said = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"]
        line = _line_of(place, text)
        found.append(f"{source}{f', line {line}' if line else ''}{f', {field}' if field else ''}: {said}")
    return "; ".join(found)


def _line_of(location: tuple[int | str, ...], text: str) -> int | None:
    """The line where the innermost named key of a location stands; None where it is missing from the text.

    Keys of the tables on the way are looked for in order, so that the same key elsewhere is not taken for it.
    """
    at, found = 0, None
    for part in location:
        if isinstance(part, int):
            continue
        pattern = re.compile(
            rf"^\s*(?:\[+[^\]\n]*\b{re.escape(part)}\b[^\]\n]*\]+|{re.escape(part)}\s*=)", re.MULTILINE
        )
        match = pattern.search(text, at)
        if match is None:
            return found if part != location[-1] else None
        at, found = match.start(), text.count("\n", 0, match.end()) + 1
    return found
