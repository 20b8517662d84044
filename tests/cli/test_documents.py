"""What the documents tell people to do, and the words that they and the program say it in."""

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.experiment.test_run import Project

from looper.views.findings import control_lines, planned_lines, scope_line
from looper.views.results import SharedPages
from looper.views.runs import read_run
from looper.views.summary import SUMMARY, read_results, summary_lines

DOCS = Path(__file__).parents[2] / "docs"
LEARNINGS = DOCS.parent / "LEARNINGS.md"
SOURCES = DOCS.parent / "src" / "looper"
GLOSSARY = DOCS / "glossary.md"
NOT_OUR_WORDS = {"glossary.md", "experiments.md", "readinglist.md"}
"""Pages that quote: the phrases themselves, registered plans, titles of papers."""
TO_MODELS = ("bench/micro/", "nano/", "evolution/reflect.py", "evolution/review.py", "evolution/chat.py")
"""Texts of tasks and prompts, which are data: another word there is another experiment."""
MANY = re.compile(
    r" (?:runs|findings|things|cells|tasks|steps|pages|adapters|files|verdicts|rollouts|repositories|arms|models|nodes|seeds|items|texts|"
    r"workers|candidates|generations|folders|names|lines|patches|tests|rows|values|examples|attempts|sessions|records|contrasts|successes|"
    r"trainings|units|pairs|issues|copies|changes|keys|plans|servers|actions|questions|packages|predictions|validations|commands)\b"
)
"""What is counted in messages."""
NEVER_ONE = {
    "len(alike)", "len(begun)", "len(contrast.arms)", "len(folders)", "len(found)", "len(self.arms)", "len(waiting)",
    "self.failures", "self.faults", "lines", "seeds", "width", "attempts.seen", "options.generations", "options.tasks",
}  # fmt: skip
"""Counts that are larger than one where they stand in a message."""
NO_COUNTS = {
    "adapter", "batch.cells or 'As many'", "batch.memory_mb", "card.id", "contrast.name", "label", "path", "source", "spec.backend",
    "variable", "'more' if up else 'fewer'",
}  # fmt: skip
"""Names and words."""
RECORDED = {"cells", "len(deliveries)", "len(self.examples)", "self.seen", "workers"}
"""In scripts, in what records hold and in what was found of them, where other words are other records."""
DECIDED = re.compile(r"^- (?:primary|secondary): .*, (?:shown|refuted)\b", re.MULTILINE)


SCRIPTS = DOCS.parent / "scripts"


def test_every_script_says_how_it_is_called() -> None:
    programs = [path for path in SCRIPTS.rglob("*.py") if "__main__" in path.read_text("utf-8")]
    mute = [path.name for path in programs if "parse_args(" not in path.read_text("utf-8")]
    assert programs and not mute, "with argparse, so that --help does nothing else"
    for arguments, code, said in (
        (["--help"], 0, "usage: "),
        (["nowhere"], 2, "error: nowhere is no usable"),
    ):
        told = subprocess.run(
            [sys.executable, str(SCRIPTS / "write_ways_table.py"), *arguments], capture_output=True, text=True
        )
        assert told.returncode == code and said in told.stdout + told.stderr
        assert "Traceback" not in told.stderr


def test_the_table_of_all_ways_to_learn_has_arms_of_their_plan_alone() -> None:
    """Rows of one run: an arm that is added later has none until it is made anew, one that is taken out or renamed goes with its row."""
    plan = tomllib.loads((DOCS.parent / "experiments" / "ways.toml").read_text("utf-8"))
    table = (DOCS / "learning.md").read_text("utf-8").partition("## What each did to the embedded agent")[2]
    rows = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert rows and rows == [arm["name"] for arm in plan["arms"] if arm["name"] in rows]


def test_the_plan_in_the_page_on_own_experiments_is_one(tmp_path: Path, state: Path) -> None:
    project = Project(tmp_path, state)
    found = re.search(r"```toml\n(.*?)```", (DOCS / "own_experiment.md").read_text("utf-8"), re.DOTALL)
    assert found is not None
    (tmp_path / "mine.toml").write_text(found[1])
    told = project.looper("plan", "mine.toml")
    assert told.returncode == 0, told.stderr
    assert "240 tasks, 4 arms, 4 seeds" in told.stdout and "smallest difference" in told.stdout
    assert "PILOT" not in told.stdout
    # Of many repositories those are named that decide.
    assert "there are 14 to 15 to try, fewest of gimmavjur, mavquoulm, " in told.stdout


def test_what_the_readme_shows_of_power_and_family_is_what_the_plan_says(tmp_path: Path, state: Path) -> None:
    """The table that the first command prints stands there, and its plan decides what is beside each difference."""
    shown = " ".join((DOCS.parent / "README.md").read_text("utf-8").split())
    project = Project(tmp_path, state)
    told = project.looper("plan", "exp00", "--profile", "demo")
    assert told.returncode == 0, told.stderr
    power = re.search(r"a PILOT, which decides nothing: .*", told.stdout)
    assert power is not None and power[0] in shown
    assert (
        "measured of what the power takes for granted: equal arms differed in 25 % (assumed: 30 %)" in shown
    )
    # An arm that asks no model is enough for what a run of the plan says of itself.
    ran = project.looper("run", "exp00", "--profile", "demo", "--arm", "noop")
    assert ran.returncode == 0, ran.stderr
    run = read_run(next((tmp_path / "runs").iterdir()))
    lines = [*planned_lines(run), scope_line(run), *control_lines(run)[:1]]
    assert [line for line in lines if line.removesuffix(" more") not in shown] == []
    (row,) = (line for line in ran.stdout.splitlines() if "noop" in line and "0/40" in line)
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    assert " ".join([*cells[:7], cells[8]]) in shown, "all but its seconds"


def test_every_link_between_the_documents_leads_somewhere() -> None:
    pages = [
        *DOCS.rglob("*.md"),
        *(DOCS.parent / name for name in ("README.md", "LEARNINGS.md", "CLAUDE.md")),
    ]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_table_of_all_results_is_what_their_pages_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DOCS.parent)
    table = "\n".join(summary_lines(read_results(SharedPages().blocks())))
    written = f"<!-- {SUMMARY} -->\n{table}\n<!-- end of {SUMMARY} -->"
    assert written in LEARNINGS.read_text("utf-8"), "run: looper report --summary"


def test_every_registered_experiment_has_a_page_of_results_and_no_page_a_pilot_that_decides_unsaid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks are data and stay as they were written; what an earlier version called shown is named a pilot's above it."""
    monkeypatch.chdir(DOCS.parent)
    results = read_results(SharedPages().blocks())
    plans = {path.stem for path in Path("experiments").glob("exp*.toml")}
    assert {one.page.removesuffix(".md") for one in results} == plans
    decided = [one for one in results if one.decision == "pilot" and DECIDED.search(one.block)]
    for one in decided:
        above = (DOCS / "results" / one.page).read_text("utf-8").split("<!-- looper report")[0]
        assert "**A pilot**" in above, one.page


def test_what_a_plan_supposes_is_named_a_hypothesis_wherever_it_stands() -> None:
    """A sentence alone under a title reads as a finding."""
    for page in (DOCS / "results").glob("exp*.md"):
        assert page.read_text("utf-8").split("\n\n")[1].startswith("Hypothesis: "), page.name
    plans = (DOCS / "experiments.md").read_text("utf-8").split("\n## ")[1:]
    assert plans and all(plan.split("\n\n")[1].startswith("**Hypothesis**: ") for plan in plans)
    table = LEARNINGS.read_text("utf-8").split(f"<!-- {SUMMARY} -->")[1]
    assert table.splitlines()[1].startswith("| experiment | hypothesis |")


def test_what_is_known_fits_on_pages_that_a_person_reads() -> None:
    """Blocks of runs stand elsewhere, and so do plans' results: neither page holds what the other is for."""
    text = LEARNINGS.read_text("utf-8")
    assert len(text.encode()) <= 40_000
    assert "Registered before the data" not in text
    plans = (DOCS / "experiments.md").read_text("utf-8")
    assert not re.search(r"[-+]\d+\.\d points", plans)


def rows_of(title: str) -> list[list[str]]:
    """Of the table under this title of the glossary."""
    section = GLOSSARY.read_text("utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [line.strip("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)] for row in rows[2:]]


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """What a module says, by line: its texts without docstrings, of which the commands' own are in docs/cli.md and the keys' in docs/plan.md."""
    tree = ast.parse(path.read_text("utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def texts() -> Iterator[tuple[str, str]]:
    """Everything that people read of this project, with where it stands."""
    pages = [page for page in DOCS.glob("*.md") if page.name not in NOT_OUR_WORDS]
    templates = [*SOURCES.rglob("*.j2"), *SOURCES.rglob("looper.js")]
    for page in (*pages, DOCS.parent / "README.md", *templates):
        for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
            yield f"{page.relative_to(DOCS.parent)}:{number}", line
    for path in SOURCES.rglob("*.py"):
        name = path.relative_to(SOURCES).as_posix()
        if not name.startswith(TO_MODELS):
            for number, said in messages(path):
                yield f"src/looper/{name}:{number}", said


def test_nothing_that_people_read_uses_a_phrase_that_the_glossary_rules_out() -> None:
    rules = [
        (re.compile(said.strip("`").replace("\\|", "|")), better) for said, better in rows_of("Not written")
    ]
    assert len(rules) >= 10
    found = [
        f"{where}: {match[0]!r}; write: {better}"
        for where, text in texts()
        for rule, better in rules
        for match in rule.finditer(text)
    ]
    assert found == [], "\n".join(found)


def test_the_glossary_is_short_and_each_of_its_terms_is_in_use() -> None:
    terms = [term for term, _ in rows_of("Terms")]
    assert 10 <= len(terms) <= 25 and len({*terms}) == len(terms)
    said = "\n".join(text for _, text in texts()).lower()
    assert [term for term in terms if not re.search(rf"\b{term}s?\b", said)] == []
    assert "docs/glossary.md" in (DOCS.parent / "README.md").read_text("utf-8")


def test_a_count_and_what_it_counts_agree_in_number_wherever_one_can_be() -> None:
    """`counted` says "1 cell" and "2 cells": a bare number before a plural says "1 cells" one day."""
    found = []
    for path in sorted(SOURCES.rglob("*.py")):
        if str(path.relative_to(SOURCES)).startswith((*TO_MODELS, "agent/", "bench/runners/")):
            continue
        for text in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(text, ast.JoinedStr):
                continue
            for before, after in itertools.pairwise(text.values):
                if (
                    isinstance(before, ast.FormattedValue)
                    and before.format_spec is None
                    and isinstance(after, ast.Constant)
                    and MANY.match(str(after.value))
                    and not (name := ast.unparse(before.value)).isupper()
                    and name not in NEVER_ONE | NO_COUNTS | RECORDED
                ):
                    found.append(f"{path.name}:{before.lineno} {{{name}}}{after.value[:30]}")
    assert found == []
