"""The breaks that scripts/check_mutations.py makes are breaks of the code as it is."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_break_finds_its_place_in_the_code() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "check_mutations.py"))
    assert len(script["BREAKS"]) >= 20
    assert [found.name for found in script["BREAKS"] if not script["fits"](found)] == []


def test_every_break_names_tests_that_exist() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "check_mutations.py"))
    assert all(
        (ROOT / "tests" / test.partition("::")[0]).exists()
        for found in script["BREAKS"]
        for test in found.tests
    )


def test_every_survivor_that_is_explained_is_one_of_the_code_as_it_is() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "check_mutations.py"))
    lines = script["EXPLAINED"].read_text("utf-8").splitlines()
    for line in lines:
        survivor, _, why = line.rpartition(" # ")
        file, _, old = survivor.partition(" -> ")[0].split(": ", 2)
        assert why and old in " ".join((ROOT / file).read_text("utf-8").split()), line
    assert len(set(lines)) == len(lines)
