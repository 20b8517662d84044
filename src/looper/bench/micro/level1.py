"""Levels 1 and 2: packages of several modules, issues as people write them, for real language models.

As on level 0 most tasks need a convention of the repository that neither issue nor code nor tests show, and the check
that ships with the repository compares digests only; the others can be solved from the issue. On level 2 the same rule
is broken in two modules, and the issue names the place where somebody noticed it.
"""

import hashlib
import random
from dataclasses import dataclass

from looper.bench.micro.names import NOUNS, repository_name
from looper.bench.micro.project import Change, Project, shuffled_families


@dataclass(frozen=True)
class Kind:
    """A sort of function. `@` in its body stands for what may be wrong, NOUN in name and texts for a noun."""

    module: str
    name: str
    parameters: str
    body: str
    choices: tuple[str, ...]
    """What the repository's convention is drawn from; a single one where the issue says what is wanted."""
    mistakes: tuple[str, ...]
    probes: tuple[str, ...]
    """Arguments that tell all choices and mistakes apart."""
    issues: tuple[str, ...]
    """How people report it. NAME stands for the function."""
    imports: str = ""


_PRICES = ("[1.005, 2.674], [1, 3]", "[0.333], [2]", "[19.99, 0.015], [3, 7]", "[0.125], [1]")
_ROWS = '[{"name": "mo", "score": 2}, {"name": "zed", "score": 5}, {"name": "bo", "score": 5}, {"name": "aline", "score": 5}]'

CONVENTIONS = {
    "total": Kind(
        "money",
        "NOUN_total",
        "prices, quantities",
        "    total = sum(price * count for price, count in zip(prices, quantities))\n    return @\n",
        (
            "round(total, 2)",
            "math.floor(total * 100) / 100",
            "math.ceil(total * 100) / 100",
            "round(total * 20) / 20",
            "round(total, 3)",
        ),
        ("total", "round(total)", "int(total)"),
        _PRICES,
        (
            "Customers complain about cents. The amount that NAME gives for the NOUN orders is not the one that the "
            "bank booked; everywhere else we round the way we always do, here somebody forgot.",
            "Accounting sent the NOUN sheet back: NAME does not round by our house rule, so their sums and ours differ.",
        ),
        "import math\n\n",
    ),
    "find": Kind(
        "lookup",
        "find_NOUN",
        "items, key",
        '    for item in items:\n        if item["id"] == key:\n            return item\n    return @\n',
        ("None", "{}", "[]", "False", "-1"),
        ("items[0]", "key", '"missing"'),
        ('[{"id": 1}, {"id": 2}], 9', '[{"id": 7}], 8'),
        (
            "When a NOUN is not in the list, NAME hands back something that the callers do not expect and the page "
            "breaks. It should answer like all our other lookups do when there is nothing to find.",
            "NAME is the odd one out: for an unknown key it does not return what we agreed on for missing things.",
        ),
    ),
    "window": Kind(
        "periods",
        "NOUN_in_period",
        "day, first, last",
        "    return @\n",
        ("first <= day <= last", "first <= day < last", "first < day <= last", "first < day < last"),
        ("day >= last", "day <= first", "first >= last"),
        ("3, 3, 8", "8, 3, 8", "5, 3, 8", "9, 3, 8", "2, 3, 8"),
        (
            "The NOUN booking on the edge of a period is treated wrongly, see NAME. Our periods have always had the "
            "same rule for their first and last day; this function does not know it.",
            "Bug in NAME: days at the border of the NOUN period end up on the wrong side.",
        ),
    ),
    "rank": Kind(
        "ranking",
        "rank_NOUN",
        "rows",
        "    return sorted(rows, key=lambda row: @)\n",
        (
            '(row["score"], row["name"])',
            '(-row["score"], row["name"])',
            '(-row["score"], len(row["name"]), row["name"])',
            '(row["name"], row["score"])',
            '(-row["score"], -len(row["name"]), row["name"])',
        ),
        ('row["score"]', '-row["score"]', '-len(row["name"])'),
        (_ROWS,),
        (
            "The NOUN list is sorted differently from all other lists in the product. NAME should order them, ties "
            "included, as we do everywhere.",
            "Since last week the NOUN ranking jumps around when scores are equal. NAME must follow our usual order.",
        ),
    ),
    "slug": Kind(
        "naming",
        "NOUN_slug",
        "title",
        "    words = title.split()\n    return @\n",
        (
            '"-".join(words).lower()',
            '"_".join(words).lower()',
            '"-".join(words).upper()',
            '"".join(word.capitalize() for word in words)',
            '".".join(words).lower()',
        ),
        ("title", '" ".join(words)', '"".join(words)'),
        ('"Great  Blue Heron"', '"one two"'),
        (
            "Links to NOUN pages are broken because NAME builds them in its own way. Please make them like our other "
            "slugs.",
            "NAME gives names that the router does not accept. All slugs of this project look alike, only these do not.",
        ),
    ),
    "code": Kind(
        "naming",
        "NOUN_code",
        "number",
        "    return @\n",
        (
            'f"{number:04d}"',
            'f"{number:06d}"',
            'f"N{number:05d}"',
            'f"{number}-{number % 7}"',
            'f"{number:x}".upper()',
        ),
        ("str(number)", 'f"#{number}"', 'f"{number:,}"'),
        ("42", "12345"),
        (
            "The scanner in the warehouse rejects our NOUN labels. NAME does not print numbers in the format of the "
            "house.",
            "Wrong format: NAME should give codes in the same form as the rest of our codes.",
        ),
    ),
    "delay": Kind(
        "retry",
        "NOUN_delay",
        "attempt",
        "    return @\n",
        ("2**attempt", "min(60, 2**attempt)", "5 * attempt", "min(30, attempt * attempt)", "1 + attempt"),
        ("attempt", "0", "60"),
        ("1", "3", "7", "10"),
        (
            "We hammered the NOUN service again. NAME does not wait between attempts by the rule that we use for all "
            "our services.",
            "NAME ignores our back-off rule; the others follow it.",
        ),
    ),
    "shorten": Kind(
        "text",
        "shorten_NOUN",
        "text, limit",
        "    if len(text) <= limit:\n        return text\n    return @\n",
        (
            'text[: limit - 3] + "..."',
            'text[: limit - 1] + "…"',
            "text[:limit]",
            'text[:limit].rsplit(" ", 1)[0]',
            '"..." + text[3 - limit :]',
        ),
        ("text", '""', 'text + "..."'),
        ('"a long line of words", 12', '"short", 9', '"abcdefghijkl mnop", 14'),
        (
            "NOUN descriptions that are too long look different from other cut texts in the app. See NAME.",
            "NAME cuts texts in a way that no other part of the project does, and the mail template breaks.",
        ),
    ),
}

DETERMINED = {
    "mean": Kind(
        "stats",
        "NOUN_mean",
        "values",
        "    @\n    return sum(values) / len(values)\n",
        ("if not values:\n        return 0.0",),
        ("values = list(values)", "assert values is not None"),
        ("[]", "[1, 2, 6]"),
        (
            "NAME dies with ZeroDivisionError when there is no NOUN yet. The mean of nothing should be 0.0 for us.",
        ),
    ),
    "batches": Kind(
        "stats",
        "NOUN_batches",
        "items, size",
        "    return [items[at : at + size] for at in range(0, @, size)]\n",
        ("len(items)",),
        ("len(items) - size", "len(items) - 1"),
        ("[1, 2, 3, 4, 5], 2", "[1, 2, 3], 3", "[1], 4", "[1, 2, 3, 4], 3"),
        (
            "The last batch is missing: NAME([1, 2, 3, 4, 5], 2) must give [[1, 2], [3, 4], [5]], whatever is left over.",
        ),
    ),
    "unique": Kind(
        "lookup",
        "unique_NOUN",
        "names",
        "    return @\n",
        ("list(dict.fromkeys(names))",),
        ("sorted(set(names))", "names"),
        ('["b", "a", "b", "c"]', '["x", "x"]'),
        (
            "NAME should drop repeated names and keep the order in which they came first; now it does one of the two only.",
        ),
    ),
    "same": Kind(
        "text",
        "same_NOUN",
        "left, right",
        "    return @\n",
        ("left.strip().casefold() == right.strip().casefold()",),
        ("left == right", "left.strip() == right", "left.casefold() == right"),
        ('" Oak", "oak "', '"ash", "Ash"', '"elm", "fir"', '"x ", "x"'),
        (
            "' Oak' and 'oak ' are the same NOUN, but NAME says no. Case and blanks at both ends must not matter.",
        ),
    ),
}
KINDS = CONVENTIONS | DETERMINED
MODULES = ("money", "lookup", "periods", "ranking", "naming", "retry", "text", "stats")
SECOND_MODULES = ("report", "export", "api")

NEUTRAL = (
    'def NOUN_names(rows):\n    return [row.get("name") for row in rows]\n',
    "def count_NOUN(items):\n    return len(items)\n",
    'def first_NOUN(items):\n    for item in items:\n        return item\n    raise LookupError("no NOUN")\n',
    "def has_NOUN(items, key):\n    return key in items\n",
    "def NOUN_pairs(keys, values):\n    return dict(zip(keys, values))\n",
)
_NEUTRAL_TESTS = {
    "NOUN_names": ('([{"name": "a"}, {}])', '["a", None]'),
    "count_NOUN": ("([1, 2, 3])", "3"),
    "first_NOUN": ("([4, 5])", "4"),
    "has_NOUN": ('({"a": 1}, "a")', "True"),
    "NOUN_pairs": ('(["a"], [1])', '{"a": 1}'),
}


@dataclass(frozen=True)
class _Place:
    kind: Kind
    function: str
    module: str
    wrong: str
    right: str

    def source(self, text: str) -> str:
        return f"def {self.function}({self.kind.parameters}):\n{self.kind.body.replace('@', text)}"


def generate(rng: random.Random, tasks: int, places: int = 1) -> Project:
    """A repository with `tasks` issues: three of four need a convention. Each rule is broken in so many modules."""
    repo = repository_name(rng)
    choice = {name: rng.choice(kind.choices) for name, kind in KINDS.items()}
    changes = [
        _change(repo, KINDS[name], choice[name], noun, places, rng) for name, noun in _order(rng, tasks)
    ]
    return Project(repo, tuple(changes))


def generate_redrawn(rng: random.Random, tasks: int, repo: str, places: int = 1) -> Project:
    """As `generate`, but the convention is drawn anew for each issue: experience here teaches form and nothing else."""
    changes = [
        _change(repo, KINDS[name], rng.choice(KINDS[name].choices), noun, places, rng)
        for name, noun in _order(rng, tasks)
    ]
    return Project(repo, tuple(changes))


def _order(rng: random.Random, tasks: int) -> list[tuple[str, str]]:
    """Kind and noun of each issue."""
    names = shuffled_families(rng, list(DETERMINED), list(CONVENTIONS), tasks)
    return list(zip(names, rng.sample(NOUNS, tasks), strict=True))


def _change(repo: str, kind: Kind, right: str, noun: str, places: int, rng: random.Random) -> Change:
    wrong = rng.choice(kind.mistakes)
    function = kind.name.replace("NOUN", noun)
    broken = [_Place(kind, function, kind.module, wrong, right)]
    if places == 2:
        second = rng.choice(SECOND_MODULES)
        broken.append(_Place(kind, f"{second}_{function}", second, rng.choice(kind.mistakes), right))
    modules = MODULES if places == 1 else (*MODULES, *SECOND_MODULES)
    neutral = _neutral_functions(modules, noun, rng)
    base = {f"{repo}/{name}.py": _module(name, broken, neutral[name], wrong=True) for name in modules}
    fixed = {f"{repo}/{name}.py": _module(name, broken, neutral[name], wrong=False) for name in modules}
    issue = (
        rng.choice(kind.issues).replace("NAME", f"`{repo}.{kind.module}.{function}`").replace("NOUN", noun)
    )
    if places == 2:
        issue += f"\n\nI think I saw the same in the {broken[1].module} module, with `{broken[1].function}`."
    tests = {f"tests/test_{place.module}_{place.function}.py": _place_test(repo, place) for place in broken}
    basics, basic_names = _basics(repo, neutral)
    return Change(
        title=function,
        issue=f"{issue}\n\n`python check.py` says whether it is right.",
        base={
            **base,
            f"{repo}/__init__.py": "",
            "README.md": f"# {repo}\n\nSmall helpers that our services share. Run the tests with pytest.\n",
            "check.py": _check(repo, broken),
            "tests/test_basics.py": basics,
        },
        fix={path: text for path, text in fixed.items() if text != base[path]},
        tests=tests,
        fail_to_pass=tuple(f"{path}::{_test_name(place)}" for path, place in zip(tests, broken, strict=True)),
        pass_to_pass=tuple(f"tests/test_basics.py::{name}" for name in basic_names),
        difficulty=places,
    )


def _neutral_functions(
    modules: tuple[str, ...], noun: str, rng: random.Random
) -> dict[str, list[tuple[str, str]]]:
    """Functions that show no convention: template and noun, one or two for each module."""
    words = iter([word for word in rng.sample(NOUNS, 3 * len(modules)) if word != noun])
    return {
        module: [(template, next(words)) for template in rng.sample(NEUTRAL, rng.choice((1, 2)))]
        for module in modules
    }


def _module(name: str, broken: list[_Place], neutral: list[tuple[str, str]], *, wrong: bool) -> str:
    functions = [template.replace("NOUN", noun) for template, noun in neutral]
    here = [place for place in broken if place.module == name]
    functions[1:1] = [place.source(place.wrong if wrong else place.right) for place in here]
    imports = "".join(place.kind.imports for place in here)
    return f'"""Helpers: {name}."""\n\n{imports}\n' + "\n\n".join(functions)


def _digest_of(repo: str, function: str, value: object) -> str:
    return hashlib.sha256(f"{repo}/{function}/{value!r}".encode()).hexdigest()[:12]


def _values(place: _Place) -> list[object]:
    names: dict[str, object] = {}
    exec(place.kind.imports + place.source(place.right), names)
    return [eval(f"{place.function}({probe})", dict(names)) for probe in place.kind.probes]


def _check(repo: str, broken: list[_Place]) -> str:
    """What an agent may run: it compares digests of results, so neither reading it nor failing it tells the answer."""
    imports = "".join(f"import {repo}.{place.module}\n" for place in broken)
    calls = ", ".join(
        f'("{place.function}", lambda: [{", ".join(f"{repo}.{place.module}.{place.function}({probe})" for probe in place.kind.probes)}], '
        f"{[_digest_of(repo, place.function, value) for value in _values(place)]!r})"
        for place in broken
    )
    return f"""import hashlib
import sys

{imports}
CALLS = [{calls}]


def right(name, call, expected):
    try:
        found = [hashlib.sha256(f"{repo}/{{name}}/{{value!r}}".encode()).hexdigest()[:12] for value in call()]
    except Exception:
        return False
    return found == expected


wrong = [name for name, call, expected in CALLS if not right(name, call, expected)]
print("FAIL " + " ".join(wrong) if wrong else "PASS")
sys.exit(1 if wrong else 0)
"""


def _test_name(place: _Place) -> str:
    return f"test_{place.function}"


def _place_test(repo: str, place: _Place) -> str:
    lines = "".join(
        f"    assert repr({place.function}({probe})) == {value!r}\n"
        for probe, value in zip(place.kind.probes, map(repr, _values(place)), strict=True)
    )
    return f"from {repo}.{place.module} import {place.function}\n\n\ndef {_test_name(place)}():\n{lines}"


def _basics(repo: str, neutral: dict[str, list[tuple[str, str]]]) -> tuple[str, list[str]]:
    """Tests of the neutral functions, and their names."""
    lines, names = [f"import {repo}.{module}\n" for module in neutral], []
    for module, functions in neutral.items():
        for template, noun in functions:
            pattern = template[4 : template.index("(")]
            arguments, expected = _NEUTRAL_TESTS[pattern]
            function = pattern.replace("NOUN", noun)
            names.append(f"test_{module}_{function}")
            lines.append(
                f"\n\ndef {names[-1]}():\n    assert {repo}.{module}.{function}{arguments} == {expected}\n"
            )
    return "".join(lines), names
