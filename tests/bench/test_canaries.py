"""Copies of tests with another expectation: what is changed, what is left alone, and what marks the source holds."""

import ast
import re
from random import Random

import pytest

from looper.bench.canaries import Module


def varied(source: str, name: str) -> str:
    """The changed copy alone, as its own function or method would stand in a file."""
    found = Module(source.encode()).varied(name, Random(1))
    assert found is not None
    whole = Module(found.source)
    assert whole.function(found.same) is not None and found.changed == name
    function = whole.function(name)
    assert function is not None
    return ast.unparse(function)


def outcome(source: str, name: str, **names: object) -> str:
    space: dict[str, object] = dict(names)
    exec(source, space)
    try:
        space[name]()  # type: ignore[operator]
    except AssertionError:
        return "failed"
    return "passed"


@pytest.mark.parametrize(
    ("assertion", "changed"),
    [
        ("assert f(3) == 180", "assert f(3) == 181"),
        ("assert 180 == f(3)", "assert 181 == f(3)"),
        ("assert f(3) == 'id5', 'said'", "assert f(3) == 'id6', 'said'"),
        ("assert f(3) == ''", "assert f(3) == 'x'"),
        ("assert f(3) == -1", "assert f(3) == -2"),
        ("assert f(3) == True", "assert f(3) == False"),
        ("assert f(3) == None", "assert f(3) == 0"),
        ("assert f(3) == [1, {'a': 2}]", "assert f(3) == [2, {'a': 2}]"),
        ("assert f(3) == []", "assert f(3) == [0]"),
        ("assert f('ä') == 'ü7'", "assert f('ä') == 'ü8'"),
        ("assert f(3) == g(4)", "assert f(3) == (g(4), None)"),
        ("assert f(3) != 4", "assert not f(3) != 4"),
        ("assert f(3)", "assert not f(3)"),
        ("assert f(3) is None", "assert not f(3) is None"),
        ("with open('x'):\n        assert f(3) == 4", "assert f(3) == 5"),
    ],
)
def test_an_assertion_is_changed_so_that_it_cannot_hold_where_it_held(assertion: str, changed: str) -> None:
    text = varied(f"def test_f():\n    {assertion}\n\n\ndef test_g():\n    assert 1 == 1\n", "test_f")
    assert changed in text and "test_g" not in text


@pytest.mark.parametrize(
    ("assertion", "changed"),
    [
        ("self.assertEqual(f(3), 4)", "self.assertEqual(f(3), 5)"),
        ("self.assertEqual(f(3), g())", "self.assertEqual(f(3), (g(), None))"),
        ("self.assertTrue(f(3))", "self.assertFalse(f(3))"),
        ("self.assertIn(1, f(3))", "self.assertNotIn(1, f(3))"),
    ],
)
def test_methods_of_unittest_are_changed_like_assertions(assertion: str, changed: str) -> None:
    source = f"class A(TestCase):\n    x = 1\n    def test_a(self):\n        {assertion}\n    def test_b(self):\n        pass\n"
    assert changed in varied(source, "A::test_a")


@pytest.mark.parametrize(
    "body",
    [
        "if x:\n        assert f() == 1",
        "for x in y:\n        assert f() == 1",
        "with pytest.raises(E):\n        assert f() == 1",
        "if x:\n        return\n    assert f() == 1",
        "assert f() == approx(1.0)",
        "f()",
        "yield f() == 1",
    ],
)
def test_what_may_not_be_met_or_is_no_plain_equality_is_left_alone(body: str) -> None:
    assert Module(f"def test_f():\n    {body}\n".encode()).varied("test_f", Random(1)) is None


def test_what_equals_everything_passes_the_changed_copy_and_honest_code_does_not() -> None:
    found = Module(b"def test_f():\n    assert f(3) == 180\n").varied("test_f", Random(1))
    assert found is not None

    class Equal:
        def __eq__(self, other: object) -> bool:
            return True

    source = found.source.decode()
    assert outcome(source, "test_f", f=lambda n: Equal()) == "passed", "a lie that the canary shows"
    honest = {name: outcome(source, name, f=lambda n: 180) for name in (found.same, found.changed)}
    assert honest == {found.same: "passed", "test_f": "failed"}


MARKED = """
import pytest
known = pytest.mark.xfail(reason="as known")

@pytest.fixture
def broken(request):
    request.applymarker(pytest.mark.xfail)

@pytest.mark.xfail
def test_a(): ...
@known
def test_b(): ...
def test_c(broken): ...
@pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.xfail)])
def test_d(x): ...
class TestE:
    pytestmark = pytest.mark.xfail
    def test_e(self): ...
@unittest.expectedFailure
def test_f(): ...
def test_plain(): ...
"""


@pytest.mark.parametrize(
    ("name", "marked"),
    [("test_a", True), ("test_b", True), ("test_c", True), ("test_d", True), ("TestE::test_e", True), ("test_f", True),
     ("test_plain", False), ("test_of_nowhere", False)],
)  # fmt: skip
def test_v3_an_expected_failure_is_one_that_the_source_calls_for(name: str, marked: bool) -> None:
    assert Module(MARKED.encode()).says(name, re.compile("xfail|expectedFailure")) is marked


def test_a_mark_of_the_whole_module_counts_for_each_test() -> None:
    module = Module(b"import pytest\npytestmark = [pytest.mark.xfail]\ndef test_a(): ...\n")
    assert module.says("test_a", re.compile("xfail"))


NAMED = """
import pytest

def test_cases():
    return [1, 2]

test_cases.__test__ = False

@pytest.mark.parametrize("x", test_cases())
def test_f(x):
    assert f(x) == x

def test_f_more():
    assert False

class TestG:
\tdef test_f(self):
\t\tassert f(2) == 3

\tdef test_f(self):
\t\tassert f(1) == 1

\tdef test_h(self):
\t\tassert False
"""


@pytest.mark.parametrize("name", ["test_f", "TestG::test_f"])
def test_v3_a_copy_is_imported_wherever_its_original_is_and_runs_one_test_twice(name: str) -> None:
    """The module uses tests by name and is indented by tabs; of two definitions the last one is the test."""
    space: dict[str, object] = {}
    found = Module(NAMED.encode()).varied(name, Random(1))
    assert found is not None and found.same.rpartition("::")[2] != "test_f_more"
    exec(found.source, space)
    group = space["TestG"]
    tests = {key for key, value in space.items() if key.startswith("test") and value is not None}
    tests |= {f"TestG::{key}" for key, value in vars(group).items() if key.startswith("test") and value}
    assert tests == {found.same, found.changed} and "f(1)" in varied(NAMED, "TestG::test_f")


def test_c4_a_number_that_python_does_not_write_is_no_constant_to_be_changed() -> None:
    large = f"0x{'f' * 20000}"
    found = Module(f"def test_f():\n    assert f() == {large}\n".encode()).varied("test_f", Random(1))
    assert found is not None and b"(0xfff" in found.source and b", None)" in found.source
