"""Where experiments are found, and what was asked for with them.

`looper run` and `looper plan` share `RunOptions`; `load_written` finds the experiment and its profile and has `experiment/plans` make
a plan of both. The command that goes on with a run is put together here too.
"""

import contextlib
import difflib
import os
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from looper.cli.settings import Settings
from looper.cli.wiring import adapter_store
from looper.errors import BadInput, FileRefused, JournalError, possible, quoted
from looper.experiment.new_plan import new_plan
from looper.experiment.plans import Written, adapter_needed, is_plan, written_plan
from looper.journal import read_stream
from looper.records.learning import SPLITS
from looper.records.plan import Gate, Override
from looper.records.session import Session
from looper.untrusted import current_folder, named_text
from looper.views.runs import run_folders


@dataclass(frozen=True)
class RunOptions:
    """What `looper run` or `looper plan` was asked for; None for what the plan says."""

    experiment: str
    profile: str | None = None
    """None for the only one of the plan's file, or micro."""
    model: str | None = None
    arms: tuple[str, ...] = ()
    """Empty for all."""
    limit: int | None = None
    workers: int | None = None
    fresh: bool = False
    sandbox: str = "auto"
    engine: str = "local"
    share_machine: bool = False
    master_seed: int | None = None
    overrides: tuple[Override, ...] = ()
    split: str | None = None
    """Letter of a division of the tasks."""
    adapter: str | None = None
    """Id, or the beginning of it, for arms that carry an adapter."""
    data: str | None = None
    mirrors: Path | None = None
    run: str | None = None
    """The run to go on with, as a person names it."""

    def of_each_split(self) -> "Iterator[RunOptions]":
        """The same for each way to divide the tasks, where all are asked for; else these."""
        for each in SPLITS if self.split == "all" else [self.split]:
            yield replace(self, split=each)

    def going_on(self, run: str) -> str:
        """The command that goes on with a run, by the name of its folder: as this one, but never from the beginning."""
        return self._command("--run", run)

    def again(self) -> str:
        """The command that does what this one was to do, but never begins a new run beside one that can go on."""
        return self.going_on(self.run) if self.run else self._command()

    def anew(self) -> str:
        """The command that begins a new run, and goes on with none."""
        return self._command("--fresh")

    def _command(self, *ending: str) -> str:
        one_by_one: list[tuple[str, object]] = [
            ("--profile", self.profile),
            ("--model", self.model),
            *(("--arm", arm) for arm in self.arms),
            ("--limit", self.limit),
            ("--workers", self.workers),
            ("--sandbox", None if self.sandbox == "auto" else self.sandbox),
            ("--engine", None if self.engine == "local" else self.engine),
            ("--master-seed", self.master_seed),
            ("--split", self.split),
            ("--adapter", self.adapter),
            *(("--override", f"{found.gate.value}={found.reason}") for found in self.overrides),
            ("--data", self.data),
            ("--mirrors", self.mirrors),
        ]
        given = [str(word) for pair in one_by_one if pair[1] is not None for word in pair]
        return shlex.join(
            ["looper", "run", self.experiment, *given, *["--share-machine"] * self.share_machine, *ending]
        )


def parse_override(text: str) -> Override:
    """`GATE=REASON`. Raises BadInput."""
    gate, _, reason = text.partition("=")
    if gate == Gate.POWER:
        raise BadInput(
            f"--override {text}: a plan that is too small stays a pilot, whatever the reason. Raise its tasks, repositories or seeds."
        )
    gates = [found.value for found in Gate if found is not Gate.POWER]
    if gate not in gates or not reason.strip():
        raise BadInput(
            f'--override {text}: name a gate and a reason, as in --override data="a pilot". Gates: {", ".join(gates)}.'
        )
    return Override(gate=Gate(gate), reason=reason.strip())


def experiments_folders() -> list[Path]:
    """Where experiment files are looked for: the current folder's, the source tree's, the installed package's."""
    package = Path(__file__).resolve().parents[1]
    return [Path("experiments"), package.parents[1] / "experiments", package / "experiments"]


def _plans_in(folder: Path) -> Iterator[Path]:
    for path in folder.glob("*.toml"):
        with contextlib.suppress(BadInput, OSError):
            if is_plan(named_text(path)):
                yield path


def plan_files() -> list[str]:
    """Plans of the current folder."""
    return sorted(str(path) for path in _plans_in(Path()))


def profiles_for(experiment: str | None) -> list[str]:
    """Names of the profiles that a plan may run under, its own first; of no plan that is there, those of all plans."""
    path = registered().get(experiment or "", Path(experiment or ""))
    own: list[str] = []
    with contextlib.suppress(BadInput, OSError, tomllib.TOMLDecodeError):
        own = [*tomllib.loads(named_text(path)).get("profiles", {})]
    return list(dict.fromkeys([*own, *shared_profiles()]))


def registered() -> dict[str, Path]:
    """Plans that a name is enough for."""
    return {
        path.stem: path
        for folder in reversed(experiments_folders())
        for path in sorted(folder.glob("*.toml"))
    }


def _plans_of_runs(runs: Path, name: str) -> Iterator[str]:
    """Plan files that runs of an experiment were begun with, the last at the end, as they are named from here."""
    for folder in run_folders(runs):
        if not folder.name.startswith(f"{name}-"):
            continue
        with contextlib.suppress(JournalError, FileRefused, OSError, ValueError):
            for session in read_stream(folder, "sessions", Session):
                file = [*shlex.split(session.command), "", "", ""][2]
                path = file if session.where in ("", current_folder()) else os.path.join(session.where, file)
                if Path(path).stem == name and os.path.isfile(path):
                    yield path


def find_experiment(name: str, runs: Path) -> Path:
    """Raises BadInput that suggests names like the one asked for, and the files of runs below `runs`."""
    if name.endswith(".toml"):
        path = Path(name)
        if path.exists():
            return path
        if not path.parent.is_dir():
            raise BadInput(
                f"There is no experiment file {path}, and no folder {path.parent} in {current_folder()}. Go to the folder that has it, or "
                "name it from here."
            )
        there = sorted(map(str, _plans_in(path.parent)))
        near = difflib.get_close_matches(str(path), there, n=3, cutoff=0.6)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise BadInput(f"There is no experiment file {path}. {hint}Write one: looper new {path}")
    known = registered()
    if name in known:
        return known[name]
    if Path(name).is_file():
        raise BadInput(f"{name} is a file and no plan: a plan is a TOML file, whose name ends in .toml.")
    own = sorted(str(path) for path in _plans_in(Path()) if path.stem == name)
    own = list(dict.fromkeys([*own, *_plans_of_runs(runs, name)]))
    if name and Path(name).is_dir():
        own = sorted(map(str, _plans_in(Path(name))))
        what = f"{name} is a folder, and a plan is a TOML file or a name"
    else:
        what = f'There is no experiment "{name}"'
    # What a name leads to: itself, or the file beside the user.
    typed = {Path(file).stem: file for file in plan_files()} | {other: other for other in known}
    near = [*own, *(typed[other] for other in typed if name and other.startswith(name))][:3]
    near = near or [typed[other] for other in difflib.get_close_matches(name, typed, n=3, cutoff=0.4)]
    hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(known) or 'none'}."
    raise BadInput(f"{what}. {hint} One of your own: looper new mine.toml")


def shared_profiles() -> dict[str, str]:
    """Texts of the profiles that experiments build on, by name."""
    return {
        path.stem: named_text(path)
        for folder in reversed(experiments_folders())
        for path in sorted((folder / "profiles").glob("*.toml"))
    }


def begin_plan(path: Path) -> None:
    """Write the file of a new plan that runs as it is. Raises BadInput where there is a file already, or none can be."""
    if path.suffix != ".toml":
        raise BadInput(f"{path}: a plan is a TOML file. Name it {path.name or 'mine'}.toml.")
    text = new_plan(tomllib.loads(shared_profiles()["micro"]))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise BadInput(f"{path} exists already and is left as it is. Name another file.") from error
    except OSError as error:
        raise BadInput(
            f"{path} cannot be written: {error.strerror}. Name a file in a folder that is there."
        ) from error


def load_written(options: RunOptions, settings: Settings, *, whole: bool = True) -> Written:
    """The plan that is asked for, and where its settings are written. Raises BadInput where an arm that is to run has no adapter yet;
    without `whole` only where it is named."""
    path = find_experiment(options.experiment, settings.runs)
    profile, profile_text = options.profile, None
    if profile is not None and profile.endswith(".toml"):
        if not Path(profile).exists():
            raise BadInput(f"There is no profile file {profile}.")
        profile_text = named_text(Path(profile))
    elif profile is not None and os.path.isfile(profile):
        raise BadInput(
            f"--profile {profile}: that is a file and no profile, which is a TOML file, whose name ends in .toml."
        )
    text = named_text(path)
    written = written_plan(
        path.stem,
        text,
        path.name if path.parent.name == "experiments" else str(path),
        profile,
        profile_text=profile_text,
        shared=shared_profiles(),
        model=options.model,
        limit=options.limit,
        master_seed=options.master_seed,
        split=options.split,
        adapter=options.adapter,
        adapter_named=adapter_store(settings).named,
        only=options.arms,
    )
    names = [*(arm.name for arm in written.plan.arms), *written.without_adapter]
    unknown = [name for name in options.arms if name not in names]
    if unknown and written.without_adapter:
        # Where no arm is left out, the plan alone says which it has.
        raise BadInput(
            f"The plan has no arm {quoted(unknown)}. {possible(unknown[0], names)} To carry an adapter, of which none is named: "
            f"{', '.join(written.without_adapter)}."
        )
    wanted = options.arms or written.without_adapter if whole else options.arms
    if lacking := [name for name in written.without_adapter if name in wanted]:
        raise BadInput(f"{adapter_needed(lacking)} {how_to_train(options, written)}")
    return written


def how_to_train(options: RunOptions, written: Written) -> str:
    """The commands, in their order, by which a plan trains an adapter on what its other arms gather, and then carries it."""
    asked, plan = replace(options, profile=written.chosen, fresh=False, run=None), written.plan
    others = replace(asked, arms=tuple(arm.name for arm in plan.arms))
    return (
        f"To train one on what the other arms gather: {others.again()}; then looper train {plan.experiment}, which prints its ID; then "
        f"{replace(asked, arms=(), adapter='ID').again()}"
    )
