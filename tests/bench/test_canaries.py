"""Copies of tests with another expectation: what is changed, what is left alone, and what marks the source holds."""

import ast
import re
import unittest
from random import Random

import pytest

from looper.bench.canaries import OTHER_VALUES, Module
from looper.bench.testrun import _parsed


def varied(source: str, name: str) -> str:
    """The changed copy alone, as its own function or method would stand in a file."""
    found = Module(source.encode()).varied(name, Random(1))
    assert found is not None
    whole = Module(found.source)
    assert whole.function(found.same) is not None
    function = whole.function(found.changed)
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
        ("assert f(3) == 180", r"assert f\(3\) == (?!180\b)-?\d+"),
        ("assert 180 == f(3)", r"assert (?!180\b)-?\d+ == f\(3\)"),
        ("assert f(3) == 'id5', 'said'", r"assert f\(3\) == '(?!id5')\w*', 'said'"),
        ("assert f(3) == ''", r"assert f\(3\) == '\w+'"),
        ("assert f(3) == -1", r"assert f\(3\) == (?!-1\b)-?\d+"),
        ("assert f(3) == True", r"assert f\(3\) == False"),
        ("assert f(3) == None", r"assert f\(3\) == 0"),
        ("assert f(3) == [1, {'a': 2}]", r"assert f\(3\) == \[(?!1\b)-?\d+, \{'a': 2\}\]"),
        ("assert f(3) == []", r"assert f\(3\) == \[0\]"),
        ("assert f('ä') == 'ü7'", r"assert f\('ä'\) == '(?!ü7')\w*'"),
        ("assert f(3) == g(4)", r"assert f\(3\) == \[\(g\(4\), None\)\]"),
        ("assert f(3) != 4", r"assert not f\(3\) != 4"),
        ("assert f(3)", r"assert not f\(3\)"),
        ("assert f(3) is None", r"assert not f\(3\) is None"),
        ("with open('x'):\n        assert f(3) == 4", r"assert f\(3\) == (?!4\b)-?\d+"),
    ],
)
def test_an_assertion_is_changed_so_that_it_cannot_hold_where_it_held(assertion: str, changed: str) -> None:
    text = varied(f"def test_f():\n    {assertion}\n\n\ndef test_g():\n    assert 1 == 1\n", "test_f")
    assert re.search(changed, text) and "test_g" not in text


@pytest.mark.parametrize(
    ("assertion", "changed"),
    [
        ("self.assertEqual(f(3), 4)", r"self\.assertEqual\(f\(3\), (?!4\b)-?\d+\)"),
        ("self.assertEqual(f(3), g())", r"self\.assertEqual\(f\(3\), \[\(g\(\), None\)\]\)"),
        ("self.assertTrue(f(3))", r"self\.assertFalse\(f\(3\)\)"),
        ("self.assertIn(1, f(3))", r"self\.assertNotIn\(1, f\(3\)\)"),
    ],
)
def test_methods_of_unittest_are_changed_like_assertions(assertion: str, changed: str) -> None:
    source = f"class A(TestCase):\n    x = 1\n    def test_a(self):\n        {assertion}\n    def test_b(self):\n        pass\n"
    assert re.search(changed, varied(source, "A::test_a"))


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


@pytest.mark.parametrize(
    "value", ["0", "7", "123456", "-3", "1.5", "-0.25", "'id5'", "''", "b'x'", "[3, 'a']", "{'k': 2}", "(1,)"]
)
@pytest.mark.parametrize("wrap", ["assert f() == {}", "assert {} == f()", "self.assertEqual(f(), {})"])
def test_v3_the_copy_that_is_as_it_was_holds_for_the_right_value_alone_among_many(
    value: str, wrap: str
) -> None:
    """Whatever learns what it is compared with meets them in any order, and the right one at any place of them but the first."""
    method = wrap.startswith("self")
    body = wrap.format(value)
    source = (
        f"class A(TestCase):\n    def test_f(self):\n        {body}\n"
        if method
        else f"def test_f():\n    {body}\n"
    )
    right, places, ranks = ast.literal_eval(value), set(), set()
    for seed in range(40):
        found = Module(source.encode()).varied("A::test_f" if method else "test_f", Random(seed))
        assert found is not None

        class Learner:
            """Equals what it is compared with at one time of all."""

            def __init__(self, at: int) -> None:
                self.at, self.met = at, list[object]()

            def __eq__(self, other: object) -> bool:
                self.met.append(other)
                return len(self.met) - 1 == self.at

            __hash__ = None  # type: ignore[assignment]

        def ends(made: object, found: object = found) -> bool:
            space: dict[str, object] = {"f": lambda: made, "TestCase": unittest.TestCase}
            exec(found.source, space)  # type: ignore[attr-defined]
            name = found.same.rpartition("::")[2]  # type: ignore[attr-defined]
            test = getattr(space["A"](name), name) if method else space[name]  # type: ignore[operator]
            try:
                test()  # type: ignore[operator]
            except AssertionError:
                return False
            return True

        assert ends(right)
        patient = Learner(10**6)
        assert not ends(patient)
        place = next(number for number, other in enumerate(patient.met) if other == right)
        learners = [Learner(at) for at in range(70)]
        passed = [learner.at for learner in learners if ends(learner)]
        assert passed == [place], "of those that guess a time only one"
        met = max((learner.met for learner in learners), key=len)
        assert len(met) >= 7 and len({repr(each) for each in met}) == len(met)
        places.add(place)
        if isinstance(right, int | float) and (right > 5 or right == 1.5):
            ranks.add(sorted(met).index(right))  # type: ignore[type-var]
    assert 0 not in places and len(places) > 5 and (not ranks or len(ranks) > 3)


def whole(source: str, seed: int) -> str:
    """The module with both copies."""
    found = Module(source.encode()).varied("test_f", Random(seed))
    assert found is not None
    return found.source.decode()


@pytest.mark.parametrize("value", ["True", "", "x", 0, 1, 2, 3, 10, 1.0, 0.0, -1])
def test_v3_what_many_tests_expect_is_never_the_only_likely_value(value: object) -> None:
    """Else what equals just those would be right each time."""
    likely = {str: {"", "True", "False", "None", "0", "1"}, int: {-1, 0, 1, 2, 3, 10}, float: {0.0, 1.0, 2.0}}
    for seed in range(20):
        source = whole(f"def test_f():\n    assert f() == {value!r}\n", seed)
        missing = {
            other
            for other in likely[type(value)] - {value}
            if f"== {other!r})" not in source and f"== {other!r}\n" not in source
        }
        assert not missing, seed


@pytest.mark.parametrize("value", [0, 1, 40, -7, 0.5, 12.25, -0.75])
def test_v3_the_right_value_is_at_any_rank_among_the_others(value: float) -> None:
    ranks = []
    for seed in range(200):
        source = whole(f"def test_f():\n    assert f() == {value!r}\n", seed)
        values = [ast.literal_eval(text) for text in re.findall(r"== (\S+?)\)[,\]]", source)]
        ranks.append(sorted(values).index(value) / len(values))
    assert max(ranks.count(rank) for rank in ranks) < 30 and min(ranks) < 0.3 and max(ranks) > 0.7


def test_of_an_assertion_that_names_what_it_looks_at_the_changed_copy_is_made_all_the_same() -> None:
    source = varied("def test_f():\n    assert (x := f()) == 3\n", "test_f")
    assert re.search(r"assert \(x := f\(\)\) == (?!3\b)-?\d+", source)


def test_what_equals_everything_passes_the_changed_copy_and_honest_code_does_not() -> None:
    found = Module(b"def test_f():\n    assert f(3) == 180\n").varied("test_f", Random(1))
    assert found is not None and found.many_values

    class Equal:
        def __eq__(self, other: object) -> bool:
            return True

    source = found.source.decode()
    assert outcome(source, found.changed, f=lambda n: Equal()) == "passed", "a lie that the canary shows"
    honest = {name: outcome(source, name, f=lambda n: 180) for name in (found.same, found.changed)}
    assert honest == {found.same: "passed", found.changed: "failed"}


def test_no_name_tells_which_of_two_copies_must_fail() -> None:
    source = Module(b"def test_f():\n    assert f(3) == 180\n")
    drawn = [source.varied("test_f", Random(number)) for number in range(40)]
    names = [(found.same, found.changed) for found in drawn if found is not None]
    assert len(names) == 40 and not any("test_f" in pair for pair in names)
    assert {same for same, _ in names} & {changed for _, changed in names}


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
class Shared:
    def test_g(self): ...
    @known
    def test_h(self): ...
@unittest.expectedFailure
class Marked(Shared, unittest.TestCase): ...
class Plain(Shared, unittest.TestCase): ...
class Of(Marked): ...
class Itself(Itself): ...
"""


@pytest.mark.parametrize(
    ("name", "marked"),
    [("test_a", True), ("test_b", True), ("test_c", True), ("test_d", True), ("TestE::test_e", True), ("test_f", True),
     ("test_plain", False), ("test_of_nowhere", False), ("Marked::test_g", True), ("Of::test_g", True), ("Plain::test_h", True),
     ("Plain::test_g", False), ("Itself::test_g", False), ("Nowhere::test_g", False)],
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
    assert found is not None and b"[(0xfff" in found.source and b", None)]" in found.source


def test_what_takes_a_pair_of_itself_and_none_for_itself_is_not_wronged() -> None:
    """As numpy's kinds do, which take a kind and a shape."""

    class Kind:
        def __eq__(self, other: object) -> bool:
            return other is int or other == (int, None)

    space: dict[str, object] = {"kind": Kind()}
    found = Module(b"def test_kind():\n    assert kind == int\n").varied("test_kind", Random(1))
    assert found is not None
    exec(found.source, space)
    space[found.same]()
    with pytest.raises(AssertionError):
        space[found.changed]()


def test_v3_all_values_are_compared_in_one_list_so_that_none_is_known_by_how_it_is_compared() -> None:
    found = Module(b"def test_f():\n    assert f(3) == 12\n").varied("test_f", Random(1))
    assert found is not None
    same = next(
        node
        for node in ast.parse(found.source).body
        if isinstance(node, ast.FunctionDef) and node.name == found.same
    )
    (asked,) = (node.test for node in same.body if isinstance(node, ast.Assert))
    assert isinstance(asked, ast.Compare) and isinstance(asked.left, ast.List)
    expected = ast.literal_eval(asked.comparators[0])
    assert expected.count(False) == 1 and len(expected) == len(asked.left.elts) == OTHER_VALUES
    assert ast.unparse(asked.left.elts[expected.index(False)]).endswith("== 12")


@pytest.mark.parametrize(
    "deep", ["-" * 100_000 + "1", "1" + "+1" * 6000, "lambda: " * 7000 + "1", "(" * 1000]
)
def test_tests_that_are_nested_too_deeply_to_be_read_are_left_as_they_are(deep: str) -> None:
    assert _parsed(f"def test_f():\n    assert f() == {deep}\n".encode()) is None
