"""The breaks that scripts/check_mutations.py makes are breaks of the code as it is, and its sweep counts what happened."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "check_mutations.py")))


def test_every_break_finds_its_place_in_the_code(script: SimpleNamespace) -> None:
    assert len(script.BREAKS) >= 20
    assert [found.name for found in script.BREAKS if not script.fits(found)] == []


def test_every_break_names_tests_that_exist(script: SimpleNamespace) -> None:
    assert all(
        (ROOT / "tests" / test.partition("::")[0]).exists() for found in script.BREAKS for test in found.tests
    )


def test_every_survivor_that_is_explained_is_one_of_the_code_as_it_is(script: SimpleNamespace) -> None:
    lines = script.EXPLAINED.read_text("utf-8").splitlines()
    for line in lines:
        survivor, _, why = line.rpartition(" # ")
        file, _, old = survivor.partition(" -> ")[0].split(": ", 2)
        assert why and old in " ".join((ROOT / file).read_text("utf-8").split()), line
    assert len(set(lines)) == len(lines)


def test_a_sample_is_its_seed_s_and_its_beginning_is_a_smaller_one(script: SimpleNamespace) -> None:
    places = [script.Place("src/looper/agent/loop.py", line, "AddNot", 0) for line in range(1000)]
    first = script.drawn(places, 100, 1)
    assert first == script.drawn(places, 100, 1) != script.drawn(places, 100, 2)
    assert len(set(first)) == 100 and first[:20] == script.drawn(places, 20, 1)
    assert script.drawn(places, None, 1) == places


def test_a_break_is_shown_to_the_tests_that_run_its_line_fastest_first(
    script: SimpleNamespace, tmp_path: Path
) -> None:
    module = tmp_path / "module.py"
    module.write_text("LIMIT = 1\ndef f():\n    return LIMIT\ndef g():\n    return 2\n", "utf-8")
    seconds = {"slow": 9.0, "fast": 0.1, "other": 1.0, "starts the program": 0.5}
    ran = {1: ["starts the program"], 3: ["slow", "fast"], 5: ["other"]}
    covered = script.Coverage(seconds, {str(module): ran})

    def shown(line: int) -> list[str]:
        return covered.tests_of(script.Place(str(module), line, "NumberReplacer", 0))

    assert shown(3) == ["fast", "slow"]
    assert shown(1) == ["fast", "other", "slow"], "run on import, it matters where the file is used"
    by_folder = script.Coverage({"tests/agent/b": 2.0, "tests/agent/a": 1.0, "tests/bench/c": 1.0}, {})
    unseen = script.Place("src/looper/agent/loop.py", 1, "AddNot", 0)
    assert by_folder.tests_of(unseen) == ["tests/agent/a", "tests/agent/b"], "all of its folder"


@pytest.mark.parametrize(
    ("body", "outcome", "named"),
    [
        ("def test_it():\n    assert True", "survived", ""),
        ("def test_it():\n    assert 1 == 2", "killed", "FAILED tests/test_it.py::test_it - assert 1 == 2"),
        ("import nothing_of_this_name\ndef test_it(): ...", "killed", ""),
        ("def test_it():\n    while True: ...", "timeout", "out of work"),
        ("import time\ndef test_it():\n    time.sleep(1000)", "timeout", "out of time"),
    ],
    ids=["passes", "fails", "is not imported", "loops", "waits"],
)
def test_what_pytest_does_is_what_is_counted(
    script: SimpleNamespace, tmp_path: Path, body: str, outcome: str, named: str
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(body, "utf-8")
    patience = 2 if named == "out of time" else 100
    # Enough for pytest to start in, and to no purpose where the test never ends.
    work = 4 if named == "out of work" else 15
    assert script._asked(tmp_path, ["tests/test_it.py::test_it"], patience, work) == (outcome, named)


def test_the_score_stands_with_and_without_what_is_explained(
    script: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def one(line: int, outcome: str, by: str = "") -> object:
        place = script.Place("src/looper/agent/loop.py", line, "AddNot", line)
        return script.Tried(place, outcome, f"if {line}:", f"if not {line}:", by, 1.0)

    done = [one(1, "killed", "FAILED x"), one(2, "killed"), one(3, "timeout"), one(4, "survived")]
    explained = {done[3].survivor: "it is the same"}
    assert script.told_of(done, explained, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "loop.py:4: AddNot: if 4: -> if not 4: # it is the same" in printed
    assert "agent: 3 of 4 noticed, 75.0% (95 % 30.1% to 95.4%); without those explained 3 of 3" in printed
    assert "1 ran out of time and 1 could not be imported" in printed
    assert script.told_of(done, {}, tmp_path) == 1
    assert "1 of them not explained" in capsys.readouterr().out


def test_what_was_tried_is_read_again(script: SimpleNamespace, tmp_path: Path) -> None:
    place = script.Place("src/looper/agent/loop.py", 1, "AddNot", 0)
    first = script.Attempts(tmp_path / "tried.jsonl")
    one = first.add("key", script.Tried(place, "survived", "a", "b", "", 1.0))
    first.close()
    again = script.Attempts(tmp_path / "tried.jsonl")
    assert again.known == {"key": one}
    again.close()


@pytest.mark.parametrize(
    "context",
    [
        "test_it.Class.test_one",
        "tests.x.test_it.Class.test_one",
        "tests/x/test_it.py::Class::test_one[a (b)] (call)",
        "tests/x/test_it.py::Class::test_one (setup)|test_other.helper",
    ],
)
def test_a_context_names_its_test(script: SimpleNamespace, context: str) -> None:
    assert script._test_of(context, Path("tests/x/test_it.py")) == "tests/x/test_it.py::Class::test_one"
