"""What tests that were written here see of a product's results."""

import collections
import datetime
import decimal
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from looper.bench import runners

SOURCE = Path(runners.__file__).with_name("looper_plain.py")


def _loaded() -> Any:
    spec = importlib.util.spec_from_file_location("looper_plain", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plain = _loaded().plain


class Loose(str):
    """Equal to every text with the same letters."""

    def __eq__(self, other: object) -> bool:
        return sorted(self) == sorted(str(other))

    def __hash__(self) -> int:
        return 0


class Quiet(int):
    """Says nothing of what it is equal to."""


class Always:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __contains__(self, item: object) -> bool:
        return True

    def __len__(self) -> int:
        return 10**6


class Meta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return True


class Made(int, metaclass=Meta): ...


Pair = collections.namedtuple("Pair", "a b")
OWN = [
    None, True, 3, 1.5, 2j, "a", b"a", bytearray(b"a"), range(3), [1, [2]], (1, "a"), {1, 2}, frozenset({1}), {"a": [1]},
    collections.OrderedDict(a=1), collections.Counter("aab"), collections.deque([1, 2], 3), {"a": 1}.keys(), decimal.Decimal("1.5"),
    datetime.date(2020, 1, 1), datetime.timedelta(1), Quiet(3), collections.defaultdict(int, a=1),
]  # fmt: skip


@pytest.mark.parametrize("value", OWN, ids=lambda value: type(value).__name__)
def test_what_python_s_own_types_hold_is_seen_as_it_is(value: object) -> None:
    assert plain(value) == value and type(plain(value)) is type(value)


@pytest.mark.parametrize(
    "value",
    [Loose("ab"), Always(), Made(3), lambda: Always(), Always],
    ids=("text", "object", "number", "function", "class"),
)
def test_what_is_of_the_product_s_own_kind_is_equal_to_itself_alone(value: object) -> None:
    for seen in (plain(value), *plain([value]), *plain((value,)), plain({"a": value})["a"]):
        assert not any(seen == other for other in ("ab", "ba", 3, None, [], Always))
        assert not hasattr(type(seen), "__contains__") and not hasattr(type(seen), "__len__")


def test_what_one_of_python_s_own_types_holds_of_the_product_s_is_no_more_than_that() -> None:
    for holding in (collections.deque([Always()]), collections.OrderedDict(a=Always()), {"a": Always()}):
        assert plain(holding) not in (collections.deque([1]), collections.OrderedDict(a=1), {"a": 1})
    assert plain({"a": Always()}.values()) != [1] and list(plain(iter([Always()])))[0] != 1
    assert plain({"a": Loose("ab")}.items()) != {"a": "ba"}.items()
    assert plain(Pair(1, 2)) != (1, 2), "a class of the product's own shows itself as it likes"


TESTS = """
import math
from {module} import {names}


def equal(found, wanted):
    assert found == wanted


{test}
"""
WAYS = {
    "in a helper": "def test_f():\n    equal(f(2), 4)\n",
    "in a loop": "def test_f():\n    for given, wanted in ((1, 1), (2, 4)):\n        assert f(given) == wanted\n",
    "after another statement": "def test_f():\n    if f(1) is None:\n        return\n    assert f(2) == 4\n",
    "with a name": "def test_f():\n    wanted = 2 + 2\n    assert f(2) == wanted\n",
    "in a container": "def test_f():\n    assert 4 in g(2)\n",
    "by its size": "def test_f():\n    assert len(g(2)) > 1\n",
    "nearly": "def test_f():\n    assert math.isclose(f(2), 4)\n",
    "in a function": "def test_f():\n    from product import f as found\n    assert found(2) == 4\n",
}
HOSTILE = (
    "class E:\n    __eq__ = __contains__ = __gt__ = lambda self, other: True\n    __len__ = lambda self: 9\n"
    + (
        "def f(x): return E()\ndef g(x): return E()\nimport math\nmath.isclose = lambda *given, **named: True\n"
    )
)
RIGHT = "def f(x): return x * x\ndef g(x): return [x * x, 0]\n"


@pytest.mark.parametrize("way", WAYS)
def test_however_a_test_compares_an_object_that_equals_everything_does_not_pass(
    tmp_path: Path, way: str
) -> None:
    assert _outcomes(tmp_path / "right", RIGHT, WAYS[way]) == {"passed"}
    said = _outcomes(tmp_path / "hostile", HOSTILE, WAYS[way])
    assert "tampered" in said or "passed" not in said


def test_things_of_the_product_are_handed_back_to_it_and_its_functions_too(tmp_path: Path) -> None:
    product = "class P:\n    def __init__(self, x): self.x = x\ndef f(ps): return sum(p.x for p in ps)\ndef g(h, x): return h(x)\n"
    test = "def test_f():\n    p = P(3)\n    p.x += 1\n    assert p.x == 4 and f([p, P(1)]) == 5 and g(f, [p]) == 4\n"
    assert _outcomes(tmp_path / "things", product, test, names="P, f, g") == {"passed"}


UNITTEST = """
import unittest


class A(unittest.TestCase):
    def test_f(self):
        for given in (1, 2):
            with self.subTest(given=given):
                self.assertEqual(f(given), given * given)
"""


def test_subtests_pass_and_fail_as_they_are(tmp_path: Path) -> None:
    assert _outcomes(tmp_path / "right", RIGHT, UNITTEST) == {"passed"}
    assert _outcomes(tmp_path / "wrong", "def f(x): return 0\ndef g(x): return 0\n", UNITTEST) == {"failed"}


def _outcomes(tree: Path, product: str, test: str, names: str = "f, g") -> set[str]:
    """What the runner reports of the test, `tampered` among it."""
    (tree / "tests").mkdir(parents=True)
    (tree / "product.py").write_text(product)
    (tree / "tests" / "test_a.py").write_text(TESTS.format(module="product", names=names, test=test))
    report = tree.with_name(f"{tree.name}.report")
    report.write_text("key")
    argv = [
        sys.executable,
        "-B",
        str(SOURCE.with_name("run_pytest.py")),
        str(report),
        "--bare",
        "tests/test_a.py",
    ]
    environment = {**os.environ, "LOOPER_MODULE_PATH": str(tree), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    subprocess.run(argv, cwd=tree, env=environment, capture_output=True, timeout=60)
    words = [
        line.split(" ", 2)[2].strip("[]").replace('"', "").split(",")
        for line in report.read_text().splitlines()
    ]
    return {found[1] for found in words if found[0] == "test"} | {
        found[0] for found in words if found[0] == "tampered"
    }
