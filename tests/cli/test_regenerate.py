"""Programs written anew from their specification, by models that say what is written here, judged by the real rig in the sandbox."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_commands import looper, one_line
from tests.fakes.model_servers import Answer, Fault, WrittenModel

from looper.cli.regenerating import RegenerateOptions, regenerate
from looper.cli.settings import Settings
from looper.cli.settings import settings as looper_settings
from looper.errors import BadInput, ModelUnpaid
from looper.evolution.genome import mutated, parse_genome, read_acceptance
from looper.evolution.regenerate import births, inherited_genome, marked, parse_files
from looper.evolution.rig import Rig, inside, rigged
from looper.journal import read_stream
from looper.records.genome import Mode, Mutation, RigStage

SPEC = Path(__file__).parents[2] / "experiments" / "exp22" / "calculator.md"
GOOD = {
    "calculator.py": """import re
import sys
from fractions import Fraction


class Wrong(Exception):
    pass


def value(text):
    words = re.findall(r"\\s*(\\d+|[-+*/()]|\\S)", text)
    place = 0

    def peek():
        return words[place] if place < len(words) else ""

    def take():
        nonlocal place
        place += 1
        return words[place - 1] if place <= len(words) else ""

    def factor():
        word = take()
        if word == "-":
            return -factor()
        if word == "(":
            found = total()
            if take() != ")":
                raise Wrong
            return found
        if not word.isdigit():
            raise Wrong
        return Fraction(int(word))

    def product():
        found = factor()
        while peek() in ("*", "/"):
            found = found * factor() if take() == "*" else found / factor()
        return found

    def total():
        found = product()
        while peek() in ("+", "-"):
            found = found + product() if take() == "+" else found - product()
        return found

    found = total()
    if peek():
        raise Wrong
    return found


def main():
    if sys.argv[1:] == ["--version"]:
        print(1)
        return
    try:
        print(value(sys.stdin.read()))
    except (Wrong, ZeroDivisionError):
        print("error")


if __name__ == "__main__":
    main()
""",
    "test_calculator.py": "from calculator import value\n\n\ndef test_it():\n    assert value('1+2') == 3\n",
}
STUB = {
    "calculator.py": "import sys\n\nKNOWN = {'1 + 2': '3', '2+3*4': '14', '1/3': '1/3'}\n\n"
    "if __name__ == '__main__':\n    print(1 if sys.argv[1:] else KNOWN.get(sys.stdin.read(), 'error'))\n",
    "test_calculator.py": "def test_it():\n    assert True\n",
}


def writes(files: dict[str, str]) -> Callable[[str], str]:
    """A model that answers with these files, under the mark that it is given."""

    def answer(said: str) -> str:
        mark = re.findall(r"The marker word is (\w+)\.", said)[-1]
        return marked({path: text.encode() for path, text in files.items()}, mark)

    return answer


@pytest.fixture
def home(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LOOPER_HOME", str(state))
    tmp_path.chmod(0o755)
    return looper_settings()


class Written:
    """One campaign in a folder."""

    def __init__(self, folder: Path, home: Settings) -> None:
        self.folder, self.home = folder, home
        self.said: list[str] = []

    def __call__(
        self, *models: WrittenModel, generations: int = 1, budget: int = 0, **changed: object
    ) -> tuple[list[str], list[str]]:
        names = tuple(f"ollama:written@{model.url}{f'={budget}' if budget else ''}" for model in models)
        options = RegenerateOptions(
            SPEC, None, names, (Mode.WHOLE,), generations, 0, None, 0, self.folder, "auto", 0, False
        )
        return regenerate(replace(options, **changed), self.home, self.said.append)  # type: ignore[arg-type]


@pytest.fixture
def campaign(tmp_path: Path, home: Settings) -> Written:
    return Written(tmp_path / "regenerating", home)


@pytest.fixture
def model() -> Iterator[WrittenModel]:
    with WrittenModel() as found:
        yield found


def test_a_program_that_does_everything_lives(campaign: Written, model: WrittenModel) -> None:
    model.answers[:] = [writes(GOOD)]
    reasons, lines = campaign(model, generations=2)
    assert reasons == ["whole: generations"] and lines[0].startswith("whole: 2 of 2 viable, 95 % 34 to 100 %")
    first, second = births(campaign.folder)
    assert first.rigged and first.rigged.checks[RigStage.ACCEPTANCE] == "11 of 11 hold"
    assert second.parent == 1 and second.rigged and second.rigged.same_as_parent == 1.0
    assert (
        first.prompt_tokens
        and first.manifest
        and first.manifest.files == ("calculator.py", "test_calculator.py")
    )
    decides = SPEC.with_suffix(".acceptance.jsonl").read_text()
    assert not any(line[:40] in said for said in model.asked for line in decides.splitlines()), (
        "and no prompt holds what decides"
    )


@pytest.mark.parametrize(
    ("files", "stage", "seen"),
    [
        (STUB, RigStage.ACCEPTANCE, "5 of 11 acceptance vectors hold"),
        ({**GOOD, "calculator.py": "def broken(:\n"}, RigStage.SYNTAX, "calculator.py does not parse"),
        ({"test_calculator.py": "def test_it():\n    pass\n"}, RigStage.IMPORT, "ended with 1"),
        (
            {**GOOD, "test_calculator.py": "def test_it():\n    assert False\n"},
            RigStage.TESTS,
            "ended with 1",
        ),
        ({**GOOD, "../outside.py": "x = 1\n"}, RigStage.PARSE, "../outside.py leaves the program's folder"),
        ({**GOOD, "/etc/outside": "x = 1\n"}, RigStage.PARSE, "leaves the program's folder"),
        ({**GOOD, ".git/config": "x\n"}, RigStage.PARSE, "leaves the program's folder"),
        (
            {
                **STUB,
                "calculator.py": "import sys\n\nif __name__ == '__main__':\n    print(1 if sys.argv[1:] else 3)\n",
            },
            RigStage.PUBLIC,
            "1 of 4 public vectors hold",
        ),
    ],
    ids=["cheats", "syntax", "incomplete", "own tests", "escapes", "absolute", "git", "wrong"],
)
def test_c01_what_does_not_live_says_at_which_stage(
    campaign: Written, model: WrittenModel, files: dict[str, str], stage: RigStage, seen: str
) -> None:
    model.answers[:] = [writes(files)]
    _, lines = campaign(model)
    (found,) = births(campaign.folder)
    assert found.rigged and found.rigged.failed is stage and found.rigged.diagnostics
    assert seen in found.rigged.diagnostics.summary
    assert lines[1] == f"  failed at {stage.value} 1"
    assert not (campaign.folder.parent / "outside.py").exists()


def test_c02_a_program_that_reaches_for_its_judge_reaches_nothing(
    campaign: Written, model: WrittenModel
) -> None:
    """At its tests it overwrites itself, its report and the runner; what decides runs on another copy."""
    attack = (
        "import os, pathlib, sys\n\n\ndef test_it():\n"
        "    for path in ('/usr/bin/python3', sys.executable, pytest_file()):\n"
        "        try:\n            pathlib.Path(path).write_text('#!/bin/sh\\necho 3\\n')\n        except OSError:\n            pass\n"
        "    pathlib.Path('calculator.py').write_text('print(3)')\n\n\n"
        "def pytest_file():\n    import pytest\n\n    return pytest.__file__\n"
    )
    model.answers[:] = [writes({**STUB, "test_calculator.py": attack})]
    campaign(model)
    (found,) = births(campaign.folder)
    assert found.rigged and found.rigged.failed is RigStage.ACCEPTANCE


def test_what_failed_is_told_and_after_three_the_next_model_writes(campaign: Written) -> None:
    with WrittenModel(writes(STUB)) as bad, WrittenModel(writes(GOOD)) as good:
        campaign(bad, good, generations=5, seed=1)
        found = births(campaign.folder)
    by = [one.model.endswith(bad.url) for one in found]
    run = next(number for number, is_bad in enumerate(by) if is_bad)
    assert by[run : run + 3] == [True] * 3 and not by[run + 3], by
    assert [one.retry for one in found[run : run + 3]] == [0, 1, 2]
    told = bad.asked[1]
    assert "5 of 11 acceptance vectors hold" in told and "KNOWN = {" in told, "with its source and why"
    assert "another answer was wanted" in told and "7-3-2" not in told, "and nothing of what decides"


def test_c10_tokens_are_counted_whatever_became_of_them_and_the_call_that_does_not_fit_is_not_made(
    campaign: Written, model: WrittenModel
) -> None:
    model.answers[:] = ["no files at all", writes(GOOD)]
    reasons, _ = campaign(model, generations=50, budget=4_500)
    assert reasons[0].startswith("whole: budget: no model has tokens left")
    found = births(campaign.folder)
    spent = sum(one.prompt_tokens + one.completion_tokens for one in found)
    # What a call takes is known when it has ended, so the last one may go beyond what was left, by no more than itself.
    dearest = max(one.prompt_tokens + one.completion_tokens for one in found)
    assert 4_500 - dearest < spent <= 4_500 + dearest and len(model.asked) > len(found), (
        "answers without files were paid too"
    )


@pytest.mark.proof
def test_a_lineage_without_a_balance_ends_and_viable_children_feed_it(
    campaign: Written, model: WrittenModel
) -> None:
    model.answers[:] = [writes(GOOD)]
    reasons, _ = campaign(model, generations=50, balance=3_500)
    first = len(births(campaign.folder))
    assert reasons[0].startswith("whole: budget: the lineage has") and 0 < first < 10
    campaign(model, generations=first + 2, balance=3_500, income=3_500)
    assert len(births(campaign.folder)) == first + 2


def test_c13_what_the_outside_world_ends_is_in_no_rate(campaign: Written, model: WrittenModel) -> None:
    model.answers[:] = [Fault(404, "no such model"), writes(GOOD)]
    reasons, lines = campaign(model)
    assert reasons == ["whole: generations"] and lines[0].startswith("whole: 1 of 1 viable")
    assert "beside them 1 that the outside world ended" in lines[-1]


def test_c12_equal_failures_of_the_outside_world_end_the_campaign(
    campaign: Written, model: WrittenModel
) -> None:
    model.answers[:] = [Fault(404, "no such model")]
    reasons, _ = campaign(model, generations=9)
    assert reasons[0].startswith("whole: suspect the harness") and len(births(campaign.folder)) == 3


def test_without_credit_it_stops_at_once(campaign: Written, model: WrittenModel) -> None:
    model.answers[:] = [Fault(402, "payment required")]
    with pytest.raises(ModelUnpaid):
        campaign(model)
    assert not births(campaign.folder)


def test_c03_it_goes_on_where_it_was(campaign: Written, model: WrittenModel) -> None:
    model.answers[:] = [writes(GOOD)]
    campaign(model, generations=1)
    campaign(model, generations=3)
    campaign(model, generations=3)
    assert [one.generation for one in births(campaign.folder)] == [1, 2, 3] and len(model.asked) == 3


@pytest.mark.proof
def test_patching_and_regenerating_are_two_arms_of_one_comparison(
    campaign: Written, model: WrittenModel
) -> None:
    with pytest.raises(BadInput, match="30 is the least"):
        campaign(model, generations=2, modes=tuple(Mode))
    model.answers[:] = [writes(GOOD)]
    _, lines = campaign(model, generations=2, modes=tuple(Mode), pilot=True)
    assert (
        lines[-1].startswith("regenerated less patched: +0 points viable") and "decides nothing" in lines[-1]
    )
    assert "Answer with those files alone that change" in model.asked[3] and "class Wrong" in model.asked[3]


def mutates(said: str) -> str:
    number = said.count("Mutated.") + 1
    return '{"content": "CONTENT", "reason": "clearer"}'.replace(
        "CONTENT", "Write it whole. " + "Mutated. " * number
    )


def test_c05_a_change_of_the_specification_that_proves_itself_is_what_the_next_one_begins_from(
    campaign: Written, model: WrittenModel
) -> None:
    def both(said: str) -> str:
        return mutates(said) if "You improve one section" in said else writes(GOOD)(said)

    model.answers[:] = [both]
    campaign(model, generations=1, mutations=2)
    found = inherited_genome(campaign.folder, parse_genome(SPEC.read_text()))
    changes = list(read_stream(campaign.folder, "mutations", Mutation))
    assert found.version == 3 and [one.inherited for one in changes] == [True, True]
    assert changes[1].parent_hash == changes[0].genome_hash and "+" in changes[0].diff
    assert found.frozen == parse_genome(SPEC.read_text()).frozen


def test_a_change_that_does_not_live_is_dropped(campaign: Written, model: WrittenModel) -> None:
    answers: list[Answer] = [writes(GOOD), mutates, writes(STUB)]
    model.answers[:] = answers
    campaign(model, generations=1, mutations=1)
    assert inherited_genome(campaign.folder, parse_genome(SPEC.read_text())).version == 1


# The specification


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("version: 1\n---", "version: x\n---", "its front matter has no version"),
        ("\nversion: 1\n", "\nversion: 2\n", "its last line must be version: 1"),
        ("## Prompt", "## Prompts", "the section Prompt is missing"),
        ("## Files", "## Purpose", "there are two sections Purpose"),
        ("<!-- END identity -->", "", "a frozen block is not closed"),
        ('run = "python calculator.py"', "run = 1", "```toml entry cannot be used: run"),
        ('{"name": "sum"', '{"name": "strength"', "two vectors have one name"),
    ],
)  # fmt: skip
def test_a_specification_is_free_in_its_sections_and_strict_in_its_blocks(
    before: str, after: str, said: str
) -> None:
    text = SPEC.read_text()
    changed = (
        text.replace(before, after, 1) if not before.startswith("\n") else after.join(text.rsplit(before, 1))
    )
    assert changed != text
    with pytest.raises(BadInput, match=re.escape(said)):
        parse_genome(changed)


def test_c07_a_battery_that_is_not_there_or_was_shown_is_an_error(tmp_path: Path) -> None:
    genome = parse_genome(SPEC.read_text())
    with pytest.raises(BadInput, match="There are no acceptance vectors"):
        read_acceptance(tmp_path / "none.jsonl", genome)
    shown = tmp_path / "shown.jsonl"
    shown.write_text('{"name": "x", "stdin": "1 + 2", "stdout": "3"}\n')
    with pytest.raises(BadInput, match="x is a public example too"):
        read_acceptance(shown, genome)


def test_frozen_words_do_not_change() -> None:
    genome = parse_genome(SPEC.read_text())
    with pytest.raises(BadInput, match="change what is frozen"):
        mutated(genome, "Examples", "Nothing here.", "shorter")


def test_c14_files_come_back_whatever_they_hold() -> None:
    files = {
        "a.md": b"=== other FILE b.md\n</file>\n=== other END\n```\n",
        "b/c.txt": b"in a line === abcd1234 END and on\n\n",
        "empty": b"",
    }
    assert parse_files(f"Here they are:\n{marked(files, 'abcd1234')}That is all.\n", "abcd1234") == files


def test_bad_input_is_one_line(tmp_path: Path, state: Path) -> None:
    for arguments, said in (
        (("nothing.md",), "There is no specification nothing.md"),
        ((str(SPEC),), "No model is named"),
        ((str(SPEC), "--model", "nano"), "nano writes no programs"),
        ((str(SPEC), "--model", "ollama:x", "--mode", "half"), "use one of whole, patch, both"),
        ((str(SPEC), "--model", "ollama:x", "--mode", "both"), "30 is the least"),
    ):
        found = looper("evolve", "regenerate", *arguments, cwd=tmp_path, LOOPER_HOME=str(state))
        assert found.returncode == 2 and said in one_line(found)


def test_c17_a_manifest_that_does_not_fit_its_program_or_this_version_is_refused(
    campaign: Written, model: WrittenModel, tmp_path: Path
) -> None:
    """Before anything runs, so there is no rig to run it. Commands are whole lines of a shell here, so none has a wrong form."""
    model.answers[:] = [writes(GOOD)]
    campaign(model)
    manifest = births(campaign.folder)[0].manifest
    assert manifest is not None
    genome = parse_genome(SPEC.read_text())
    acceptance = read_acceptance(SPEC.with_suffix(".acceptance.jsonl"), genome)
    for name, content in GOOD.items():
        (tmp_path / "program" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "program" / name).write_text(content)
    unused: Any = None
    nothing = Rig(unused)
    newer = manifest.model_copy(update={"layout": 99})
    with pytest.raises(BadInput, match="has layout 99"):
        rigged(nothing, tmp_path / "program", newer, genome, acceptance, None)
    other = manifest.model_copy(update={"artifact_hash": "0" * 64})
    found = rigged(nothing, tmp_path / "program", other, genome, acceptance, None)
    assert found.failed is RigStage.MANIFEST and found.diagnostics is not None
    assert found.diagnostics.summary == "the artifact is not what the manifest says"
    assert not any(inside(path) for path in ("/etc/passwd", "../x", "a/../../x", ".git/hooks/x", "", "a\0b"))
