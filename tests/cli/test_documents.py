"""What the documents tell people to do."""

import re
from pathlib import Path

import pytest
from tests.experiment.test_run import Project

from looper.views.results import SharedPages
from looper.views.summary import SUMMARY, read_results, summary_lines

DOCS = Path(__file__).parents[2] / "docs"
LEARNINGS = DOCS.parent / "LEARNINGS.md"
DECIDED = re.compile(r"^- (?:primary|secondary): .*, (?:shown|refuted)\b", re.MULTILINE)


def test_the_plan_in_the_page_on_own_experiments_is_one(tmp_path: Path, state: Path) -> None:
    project = Project(tmp_path, state)
    found = re.search(r"```toml\n(.*?)```", (DOCS / "own_experiment.md").read_text("utf-8"), re.DOTALL)
    assert found is not None
    (tmp_path / "mine.toml").write_text(found[1])
    told = project.looper("plan", "mine.toml")
    assert told.returncode == 0, told.stderr
    assert "40 tasks, 4 arms" in told.stdout and "smallest difference" in told.stdout


def test_what_the_readme_shows_of_power_and_family_is_what_the_plan_says(tmp_path: Path, state: Path) -> None:
    """The table that the first command prints stands there, and its plan decides what is beside each difference."""
    shown = " ".join((DOCS.parent / "README.md").read_text("utf-8").split())
    project = Project(tmp_path, state)
    told = project.looper("plan", "exp00", "--profile", "demo")
    assert told.returncode == 0, told.stderr
    power = re.search(r"a PILOT, which decides nothing: .*? of cells", told.stdout)
    family = re.search(r"(\d+) differences and (\d+) margins in one family", told.stdout)
    assert power is not None and family is not None
    assert power[0] in shown
    assert f"{int(family[1]) + int(family[2])} contrasts in one family" in shown


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
