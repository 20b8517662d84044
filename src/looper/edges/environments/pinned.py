"""Environments of old repositories: an interpreter by version, packages from a frozen list, built once and shared.

`of` gives a task's environment, made when it is first asked for; `needed` says beforehand what will have to be made. A folder is named
after its content, made by one process at a time, and checked each time against the records of its packages.
"""

import contextlib
import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from looper.edges.access import share, shared_folder
from looper.edges.environments.beside import grafted_site, stamped_site
from looper.edges.environments.compiled import compiled_modules, native_hash
from looper.edges.environments.installed import ODD, damage, differing, packages_of
from looper.edges.environments.interpreters import answer_of, find_interpreter, get_interpreter
from looper.edges.environments.known import Recipe, expected_cost, missing_programs, recipe_of, unserved
from looper.edges.environments.single_flight import SingleFlight
from looper.edges.environments.uv import run_uv
from looper.errors import BadInput, EnvironmentBroken
from looper.journal import replace_file
from looper.protocols import Environment, Environments
from looper.records.base import content_hash, grouped
from looper.records.environment import Cost, NeededEnvironment
from looper.records.task import Task
from looper.records.text import counted

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Base:
    """A virtual environment with the packages of one list."""

    target: Path
    identity: str

    @property
    def python(self) -> Path:
        return self.target / "bin" / "python"


class PinnedEnvironments:
    """Builds what is missing under `folder`, one folder per content: interpreter version and packages."""

    def __init__(
        self, folder: Path, say: Say, tree_of: Callable[[Task], Path] = lambda task: _no_tree(task)
    ) -> None:
        """`tree_of` gives the files of a task's base commit, for repositories that have to be compiled."""
        self._folder, self._say, self._tree_of = folder, say, tree_of
        self._once = SingleFlight()
        self._natives: dict[Path, str] = {}

    def of(self, task: Task) -> Environment:
        """Raises EnvironmentBroken, or BadInput for a repository whose environments are not known."""
        recipe = recipe_of(task.environment)
        base = self.base(recipe)
        mark, tree = recipe.mark(task), None
        if not mark and recipe.compiled:
            tree = self._tree_of(task)
            # Not by SingleFlight, which keeps a fault that would pass.
            mark = self._natives.get(tree) or native_hash(tree)
            self._natives[tree] = mark
        return self._once.get(
            (recipe.key, mark),
            lambda: self._environment(recipe, base, mark, self._site(recipe, base, mark, tree)),
        )

    def _environment(self, recipe: Recipe, base: _Base, mark: str, site: Path) -> Environment:
        release = str(site).removesuffix(".site")
        variables = {
            name: value.replace("{site}", str(site)).replace("{release}", release)
            for name, value in recipe.variables.items()
        }
        # What tests find on the system is a part of what a verdict was made with.
        missing = missing_programs(recipe.repo)
        parts = (mark, *missing) if missing else (mark,)
        return Environment(
            content_hash(base.identity, *parts)[:16] if any(parts) else base.identity,
            base.python,
            (base.target, *_behind(base.python)),
            variables,
        )

    def base(self, recipe: Recipe) -> _Base:
        """The interpreter with the packages of a recipe, for all versions that have the same. Raises EnvironmentBroken."""
        return self._once.get((recipe.python, recipe.lock), lambda: self._base(recipe))

    def release(self, recipe: Recipe, version: str) -> Path:
        """The folder with the compiled modules of a release. Raises EnvironmentBroken."""
        base = self.base(recipe)
        return self._once.get(("release", base, version), lambda: self._release(recipe, base, version))

    def needed(self, tasks: Sequence[Task]) -> list[NeededEnvironment]:
        """The environments of tasks, in their order. Raises BadInput for a repository whose environments are not known."""
        recipes = ((task, recipe_of(task.environment)) for task in tasks)
        groups = grouped(((each.python, each.lock), (task, each)) for task, each in recipes)
        return [self._needed(group) for group in groups.values()]

    def _needed(self, group: Sequence[tuple[Task, Recipe]]) -> NeededEnvironment:
        task, recipe = group[0]
        releases = {each.mark(of) for of, each in group if each.graft} - {""}
        parts = [
            recipe.packages,
            *((f"{recipe.graft['name']}=={version}",) for version in sorted(releases)),
        ]
        try:
            python = find_interpreter(recipe.python, self._pythons)
            target = self._named(recipe, python) if python else None
        except EnvironmentBroken:
            target = None
        marks = (
            [target / "complete.json", *(_mark(target, recipe, each) for each in sorted(releases))]
            if target
            else []
        )
        return NeededEnvironment(
            lock=recipe.lock,
            repo=task.repo,
            python=recipe.python,
            tasks=len(group),
            compiled=sum(bool(each.compiled) and not each.mark(of) for of, each in group),
            ready=target is not None
            and not self._damage(recipe, target)
            and not any(_release_damage(recipe, mark) for mark in marks[1:]),
            expected=_sum([expected_cost(recipe.python, packages) for packages in parts]),
            measured=_sum([_read_cost(mark) for mark in marks]),
        )

    @property
    def _pythons(self) -> Path:
        return self._folder / "pythons"

    def _named(self, recipe: Recipe, python: Path) -> Path:
        exact = _said_by(python, "import sys; print(sys.version)")
        identity = content_hash(exact, *sorted(recipe.packages))[:16]
        return self._folder / f"{recipe.repo.replace('/', '__')}-{identity}"

    def _base(self, recipe: Recipe) -> _Base:
        shared_folder(self._folder)
        python = self._once.get(
            recipe.python, lambda: get_interpreter(recipe.python, self._pythons, self._say)
        )
        target = self._named(recipe, python)
        with self._alone(target.name):
            if damaged := self._damage(recipe, target):
                self._build(recipe, target, python, damaged if (target / "complete.json").exists() else "")
        return _Base(target, target.name.rpartition("-")[2])

    def _damage(self, recipe: Recipe, target: Path) -> str:
        """Why an environment is not the one that its folder is named after; empty where it is."""
        if found := damage(packages_of(target), target / "complete.json", recipe.packages):
            return found
        python = target / "bin" / "python"
        try:
            same = self._named(recipe, python) == target
        except (EnvironmentBroken, OSError):
            same = False
        return "" if same else f"{python} is not the interpreter that it was made with"

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Other processes that would make the same wait."""
        with (self._folder / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _build(self, recipe: Recipe, target: Path, interpreter: Path, damaged: str) -> None:
        """In place, because a virtual environment does not survive a move; the mark at the end makes it count."""
        what = f"the environment {recipe.lock}"
        if damaged:
            self._say(f"{what} is damaged ({damaged}), and made anew")
        self._say(
            f"building {what} of {recipe.key} ({counted(len(recipe.packages), 'package')}, {interpreter})"
        )
        begun = time.monotonic()
        lock, log = (self._folder / f"{target.name}.{end}" for end in ("txt", "log"))
        python = target / "bin" / "python"
        with _whole(target):
            log.unlink(missing_ok=True)
            lock.write_text("\n".join(recipe.packages) + "\n")
            run_uv(["venv", "--python", interpreter, target], log, f"Building {what}")
            odd = _installed(
                ("--no-deps", "--python", python, "-r", lock),
                lambda: packages_of(target),
                log,
                f"Building {what}",
                damaged=bool(damaged),
            )
            installed = run_uv(["pip", "freeze", "--python", python], log, f"Building {what}").split()
            if set(installed) != set(recipe.packages):
                other = ", ".join(sorted(set(installed) ^ set(recipe.packages)))
                raise EnvironmentBroken(
                    f"Building {what} installed other packages than its list has: {other}."
                )
            share(target)
            cost = _cost(target, begun)
            done = {"key": recipe.key, **cost.model_dump(), "packages": recipe.packages, ODD: odd}
            replace_file(target / "complete.json", json.dumps(done, indent=1).encode() + b"\n")
        self._say(f"built {what}: {cost.mib} MiB in {cost.seconds} s")

    def _site(self, recipe: Recipe, base: _Base, mark: str, tree: Path | None) -> Path:
        """The folder that stands on the module path after a tree; the environment itself where nothing has to."""
        if tree is not None:
            with self._alone(f"{base.target.name}-{mark}"):
                found = compiled_modules(
                    base.target / "compiled",
                    tree,
                    base.python,
                    recipe.compiled["command"],
                    f"the modules of {recipe.key}",
                    self._say,
                )
                return grafted_site(found, tuple(recipe.compiled["packages"]))
        if mark and recipe.stamped:
            return stamped_site(base.target, recipe.stamped["name"], recipe.stamped["module"], mark)
        if mark:
            return grafted_site(self.release(recipe, mark), tuple(recipe.graft["packages"]))
        return base.target

    def _release(self, recipe: Recipe, base: _Base, version: str) -> Path:
        """A release wheel for the interpreter of an environment, in a folder of its own."""
        done = _mark(base.target, recipe, version)
        release, what = done.with_suffix(""), f"{recipe.graft['name']} {version}"
        with self._alone(f"{base.target.name}-{release.name}"):
            if damaged := _release_damage(recipe, done):
                self._say(f"unpacking {what} for its compiled modules")
                begun, log = time.monotonic(), self._folder / f"{base.target.name}-{release.name}.log"
                with _whole(release):
                    wanted = ("--no-deps", "--only-binary", ":all:", "--target", release)
                    odd = _installed(
                        ("--python", base.python, *wanted, what.replace(" ", "==")),
                        lambda: release,
                        log,
                        f"Unpacking the compiled modules of {what}",
                        damaged=bool(damaged) and done.exists(),
                    )
                    share(release.parent)
                    cost = _cost(release, begun).model_dump()
                    replace_file(done, json.dumps({**cost, ODD: odd}).encode() + b"\n")
        return release


def _mark(target: Path, recipe: Recipe, version: str) -> Path:
    """The file beside an unpacked release that makes it count."""
    return target / "releases" / f"{recipe.graft['name']}-{version}.complete"


def _release_damage(recipe: Recipe, mark: Path) -> str:
    """Why an unpacked release is not as it was unpacked; empty where it is."""
    return damage(mark.with_suffix(""), mark, (recipe.graft["name"],))


def _installed(
    asked: Sequence[str | Path], packages: Callable[[], Path], log: Path, what: str, *, damaged: bool
) -> list[str]:
    """Install into a new folder; what differs there from the packages' own records. From the index alone where something was damaged, or
    differs: uv's cache has its files in common with what was installed from it. Raises EnvironmentBroken."""
    alone = ["--no-cache", "--reinstall"]
    run_uv(["pip", "install", *(alone if damaged else []), *asked], log, what)
    found = differing(packages())
    if found and not damaged:
        run_uv(["pip", "install", *alone, *asked], log, what)
        found = differing(packages())
    return sorted(found)


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Made anew, or not there: half of one would hold the room that it failed for want of."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _cost(folder: Path, begun: float) -> Cost:
    size = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_symlink())
    return Cost(mib=size >> 20, seconds=round(time.monotonic() - begun, 1))


def _read_cost(mark: Path) -> Cost | None:
    """What a mark says; nothing where it is not there or of a time when marks said nothing."""
    try:
        found = json.loads(mark.read_text("utf-8"))
        return Cost(mib=found["mib"], seconds=found["seconds"])
    except (OSError, ValueError, KeyError):
        return None


def _sum(costs: Sequence[Cost | None]) -> Cost | None:
    """Nothing where one is not known."""
    known = [cost for cost in costs if cost]
    if not known or len(known) < len(costs):
        return None
    return Cost(mib=sum(cost.mib for cost in known), seconds=round(sum(cost.seconds for cost in known), 1))


def _no_tree(task: Task) -> Path:
    raise BadInput(f"{task.repo} has to be compiled from its base tree, which is not at hand here.")


def _behind(python: Path) -> tuple[Path, ...]:
    """The installation that a virtual environment's interpreter belongs to, where it is no system folder."""
    base = python.resolve().parent.parent
    return () if base.is_relative_to("/usr") else (base,)


def _said_by(python: Path, program: str) -> str:
    found = answer_of([str(python), "-c", program])
    if found.why:
        raise EnvironmentBroken(f"{python} does not run: {found.why}. Install it again, or name another.")
    return found.said


class EnvironmentsBySuite:
    """Sends each task to the environments of its suite."""

    def __init__(self, harness: Environments, real: Environments) -> None:
        self._harness, self._real = harness, real

    def of(self, task: Task) -> Environment:
        """Raises as they do, and EnvironmentBroken where none is known."""
        if why := unserved(task):
            raise EnvironmentBroken(f"{task.environment.replace('@', ' ').strip()}: {why}.")
        return (self._harness if task.environment == "harness" else self._real).of(task)
