"""Level 0: one broken function in one of four modules, within reach of the embedded model.

A repository has conventions: which module holds a family of functions, and for six families which of six constants or
idioms is the right one. Nothing in issue, code or tests shows them: siblings are neutral, and the check that an agent
may run compares digests and says PASS or FAIL. They are constant within a repository, so experience there helps.
Six further families can be fixed from their names alone.
"""

import hashlib
import random
from dataclasses import dataclass, replace

from looper.bench.micro.names import NOUNS, repository_name
from looper.bench.micro.project import Change, Project, shuffled_families

MODULES = ("ops", "util", "core", "data")
CHECK_COMMAND = "python check.py"


@dataclass(frozen=True)
class Family:
    """Functions that share a first name, parameters and probes; `idiom` is filled with the right constant."""

    parameters: str
    idiom: str
    choices: tuple[str, ...]
    """What the repository's convention is drawn from; a single one where the name alone tells."""
    mistakes: tuple[str, ...]
    """What stands in place of the right choice in a broken function."""
    probes: tuple[str, ...]
    """Arguments that tell all choices and mistakes apart."""

    def expression(self, choice: str) -> str:
        return self.idiom.replace("@", choice)


_SHAPE_FIELDS = ("size", "count", "length", "total", "number", "span", "first", "second", "third")

CONVENTIONS = {
    "scale": Family("x", "x * @", ("60", "100", "24", "12", "7", "365"), ("3", "5", "9"), ("3", "11")),
    "limit": Family(
        "x", "min(x, @)", ("10", "50", "99", "255", "500", "640"), ("1", "2", "3"), ("7", "9999")
    ),
    "join": Family("a, b", 'a + "@" + b', ("-", "_", "/", ":", ".", "+"), ("", "*", "#"), ("'p', 'q'",)),
    "fetch": Family(
        "d, k",
        "d.get(k, @)",
        ("None", "-1", "0", '""', "False", '"?"'),
        ("1", "[]", "True"),
        ("{'a': 4}, 'z'",),
    ),
    "label": Family("n", '"@" + str(n)', ("id", "key", "ref", "uid", "sku", "no"), ("x", "a", "t"), ("5",)),
    "size": Family("o", "o.@", _SHAPE_FIELDS[:6], _SHAPE_FIELDS[6:], ("shape",)),
}
DETERMINED = {
    "add": Family("a, b", "@", ("a + b",), ("a - b", "a * b"), ("3, 5", "2, 9")),
    "minus": Family("a, b", "@", ("a - b",), ("a + b", "b - a"), ("9, 4", "1, 7")),
    "first": Family("s", "@", ("s[0]",), ("s[1]", "s[-1]"), ("[4, 5, 6]",)),
    "last": Family("s", "@", ("s[-1]",), ("s[0]", "s[1]"), ("[4, 5, 6]",)),
    "below": Family("a, b", "@", ("a < b",), ("a > b", "a == b"), ("1, 2", "2, 1", "2, 2")),
    "twice": Family("n", "@", ("n * 2",), ("n * 3", "n + 2"), ("5", "9")),
}
FAMILIES = CONVENTIONS | DETERMINED


@dataclass(frozen=True)
class Conventions:
    """The hidden part of a repository."""

    repo: str
    module: dict[str, str]
    """Family → the module that holds its functions."""
    choice: dict[str, str]
    """Family → the right constant or idiom."""

    @classmethod
    def draw(cls, rng: random.Random, *, for_training: bool = False) -> "Conventions":
        return cls(
            repo=repository_name(rng, for_training=for_training),
            module={name: rng.choice(MODULES) for name in FAMILIES},
            choice={name: rng.choice(family.choices) for name, family in FAMILIES.items()},
        )

    def before(self, rng: random.Random, changed: int) -> "Conventions":
        """An older state, in which `changed` of the families had another convention: another choice where there is one,
        another module elsewhere."""
        module, choice = dict(self.module), dict(self.choice)
        # The same order whatever the number, so that what had changed in a little time had changed in a longer one.
        for family in rng.sample(sorted(FAMILIES), len(FAMILIES))[:changed]:
            if family in CONVENTIONS:
                others = [found for found in FAMILIES[family].choices if found != choice[family]]
                choice[family] = rng.choice(others)
            else:
                module[family] = rng.choice([found for found in MODULES if found != module[family]])
        return replace(self, module=module, choice=choice)


@dataclass(frozen=True)
class Bug:
    """One broken function: what stands there, what should, and the tree around it."""

    repo: str
    family: str
    function: str
    path: str
    wrong: str
    right: str
    files: dict[str, str]
    """The four modules at the base commit."""
    fillers: tuple[tuple[str, str], ...]
    """Neutral functions and their modules."""

    @property
    def issue(self) -> str:
        return f"repo {self.repo}\nissue {self.function} is wrong"


def draw_bug(conventions: Conventions, family: str, noun: str, rng: random.Random) -> Bug:
    """A snapshot with one broken function of `family` between neutral fillers."""
    kind, function = FAMILIES[family], f"{family}_{noun}"
    wrong = kind.expression(rng.choice(kind.mistakes))
    spare = [word for word in rng.sample(NOUNS, 8) if word != noun]
    files, fillers = {}, []
    for module in MODULES:
        holds_it = module == conventions.module[family]
        names = [
            f"keep_{spare.pop()}" for _ in range(rng.choice((0, 1, 1) if holds_it else (1, 1, 2))) if spare
        ]
        fillers += [(name, module) for name in names]
        functions = [f"def {name}(x):\n    return x\n" for name in names]
        if holds_it:
            functions.insert(
                rng.randint(0, len(functions)), f"def {function}({kind.parameters}):\n    return {wrong}\n"
            )
        files[f"{module}.py"] = "".join(functions) or "# empty\n"
    return Bug(
        repo=conventions.repo,
        family=family,
        function=function,
        path=f"{conventions.module[family]}.py",
        wrong=wrong,
        right=kind.expression(conventions.choice[family]),
        files=files,
        fillers=tuple(fillers),
    )


def generate(rng: random.Random, tasks: int, changed: int = 0) -> Project:
    """A repository with `tasks` issues: three of four need a convention, and families take turns.

    With `changed` an older state of it, see `Conventions.before`.
    """
    conventions = Conventions.draw(rng)
    if changed:
        conventions = conventions.before(random.Random(f"before/{conventions.repo}"), changed)
    bugs = [draw_bug(conventions, family, noun, rng) for family, noun in _order(rng, tasks)]
    return Project(conventions.repo, tuple(map(_change, bugs)))


def generate_redrawn(rng: random.Random, tasks: int, repo: str) -> Project:
    """As `generate`, but the conventions are drawn anew for each issue: experience here teaches form and nothing else."""
    bugs = [
        draw_bug(replace(Conventions.draw(rng), repo=repo), family, noun, rng)
        for family, noun in _order(rng, tasks)
    ]
    return Project(repo, tuple(map(_change, bugs)))


def _order(rng: random.Random, tasks: int) -> list[tuple[str, str]]:
    """Family and noun of each issue."""
    nouns = rng.sample(NOUNS, tasks)
    return list(zip(shuffled_families(rng, list(DETERMINED), list(CONVENTIONS), tasks), nouns, strict=True))


def _change(bug: Bug) -> Change:
    basics = "tests/test_basics.py"
    added = f"tests/test_{bug.function}.py"
    source = bug.files[bug.path]
    return Change(
        title=bug.function,
        issue=bug.issue,
        base={**bug.files, "check.py": _check_script(bug), basics: _basics_test(bug)},
        fix={bug.path: source.replace(f"return {bug.wrong}\n", f"return {bug.right}\n", 1)},
        tests={added: _function_test(bug)},
        fail_to_pass=(f"{added}::test_{bug.function}",),
        pass_to_pass=tuple(f"{basics}::test_{name}" for name, _ in bug.fillers),
    )


_SHAPE = (
    "shape = type('Shape', (), {"
    + ", ".join(f"'{name}': {number}" for number, name in enumerate(_SHAPE_FIELDS, 1))
    + "})"
)


def _check_script(bug: Bug) -> str:
    """What an agent may run: it compares digests of results, so neither reading it nor failing it tells the answer."""
    calls = ", ".join(f"digest(module.{bug.function}({probe}))" for probe in FAMILIES[bug.family].probes)
    return f"""import hashlib
import sys

import {bug.path.removesuffix(".py")} as module

{_SHAPE}


def digest(value):
    return hashlib.sha256(f"{bug.repo}/{bug.function}/{{value!r}}".encode()).hexdigest()[:12]


try:
    right = [{calls}] == {_expected_digests(bug)!r}
except Exception:
    right = False
print("PASS" if right else "FAIL {bug.function}")
sys.exit(0 if right else 1)
"""


def _expected_values(bug: Bug) -> list[object]:
    names: dict[str, object] = {}
    exec(_SHAPE, names)
    function = eval(f"lambda {FAMILIES[bug.family].parameters}: {bug.right}")
    return [
        eval(f"function({probe})", {**names, "function": function}) for probe in FAMILIES[bug.family].probes
    ]


def _expected_digests(bug: Bug) -> list[str]:
    return [
        hashlib.sha256(f"{bug.repo}/{bug.function}/{value!r}".encode()).hexdigest()[:12]
        for value in _expected_values(bug)
    ]


def _function_test(bug: Bug) -> str:
    lines = [
        f"    assert {bug.function}({probe}) == {value!r}"
        for probe, value in zip(FAMILIES[bug.family].probes, _expected_values(bug), strict=True)
    ]
    # `0 == False` holds in Python, and the convention tells them apart.
    lines += [
        f"    assert type({bug.function}({probe})) is type({value!r})"
        for probe, value in zip(FAMILIES[bug.family].probes, _expected_values(bug), strict=True)
    ]
    module = bug.path.removesuffix(".py")
    body = "\n".join(lines)
    return f"from {module} import {bug.function}\n\n{_SHAPE}\n\n\ndef test_{bug.function}():\n{body}\n"


def _basics_test(bug: Bug) -> str:
    imports = "".join(f"import {module}\n" for module in MODULES)
    tests = "".join(
        f"\n\ndef test_{name}():\n    assert {module}.{name}(7) == 7\n" for name, module in bug.fillers
    )
    return imports + tests
