"""What runs say is written to a page for each experiment, and all pages into one table in which a pilot decides nothing."""

from pathlib import Path

import pytest
from tests.experiment.test_run import Project

from looper.cli.reporting import history_files
from looper.views.history import read_history
from looper.views.markdown import with_history
from looper.views.results import RESULTS, not_checked, written_blocks
from looper.views.summary import read_results, summary_lines

PAGE = """# {name}: A title

Whether {name} helps. More of it.

<!-- looper report {name} micro -->
2026-01-01, `{name}-micro-0123`: {tasks} tasks, seeds 0, 1, nano f36422fca56f, code 1, sandbox none.

Registered before the data:

{pilot}- primary: lora − base: {figure}, {decision}, p = 0.01 adjusted: It helped.

Every arm against base; what is not registered is exploratory:

- again − base (A/A, expected 0): +1.0 points, 95 % interval -2.0 to +4.0, {cells} pairs, {half} gained, {half} lost, exact McNemar p = 1 (mid-p 1); by task p = 1; by repository -1.0 to +2.0, {repositories} of them
- placebo − base (control, no gain expected): +0.5 points, 95 % interval -2.5 to +3.5, {cells} pairs, 1 gained, 1 lost

Controls and provenance:

- control zero must make base's patch in every cell: 4 of 4, does
<!-- end of {name} micro -->
"""


def a_page(
    name: str = "exp50", tasks: int = 200, repositories: int = 20, decision: str = "shown", pilot: str = ""
) -> None:
    figure = "+20.0 points, 95 % +11.0 to +29.0"
    half = tasks // 5
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text(
        PAGE.format(
            name=name, tasks=tasks, cells=2 * tasks, half=half, repositories=repositories, decision=decision,
            pilot=pilot, figure=figure,
        )
    )  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table() -> list[str]:
    return summary_lines(read_results(written_blocks(None)))


def row() -> list[str]:
    """The cells of the only result."""
    return [cell.strip() for cell in table()[2].strip("|").split("|")]


def test_a_row_says_what_was_asked_of_how_much_and_what_came_of_it() -> None:
    a_page()
    assert row() == [
        "[exp50](docs/results/exp50.md)",
        "Whether exp50 helps.",
        "lora − base",
        "200 × 2",
        "20",
        "+20.0 points, 95 % +11.0 to +29.0",
        "shown",
        "9 points",
    ]


@pytest.mark.parametrize("decision", ["shown", "refuted", "open"])
def test_a_run_that_says_it_is_a_pilot_decides_nothing(decision: str) -> None:
    a_page(decision=decision, pilot="- a PILOT, which confirms nothing: the smallest is none\n")
    assert row()[6] == "*pilot*" and f"| {decision}" not in table()[2]


def test_a_run_that_could_have_seen_nothing_is_a_pilot_though_it_does_not_say_so() -> None:
    """A plan of margins alone prints no line about its power."""
    a_page(tasks=10, repositories=2)
    assert row()[6:] == ["*pilot*", "none"]


def test_what_is_shown_in_few_repositories_is_shown_of_these() -> None:
    a_page(repositories=5)
    assert row()[6] == "shown, on these repositories"


def test_an_arm_that_was_not_measured_has_no_difference() -> None:
    a_page()
    page = RESULTS / "exp50.md"
    page.write_text(page.read_text().replace(": +20.0 points, 95 % +11.0 to +29.0, shown", ", not measured"))
    assert row()[5:7] == ["–", "not measured"]


def test_controls_that_runs_share_stand_there_once() -> None:
    for name in ("exp50", "exp51", "exp53"):
        a_page(name)
    controls = [line for line in table() if line.startswith("| `")]
    assert controls == [
        "| `again` | +1.0 points, 95 % -2.0 to +4.0, 400 pairs | exp50 to exp51, exp53 |",
        "| `placebo` | +0.5 points, 95 % -2.5 to +3.5, 400 pairs | exp50 to exp51, exp53 |",
        "| `zero` | must make base's patch in every cell: 4 of 4, does | exp50 to exp51, exp53 |",
    ]


def test_a_block_whose_run_is_not_here_is_named() -> None:
    a_page("exp50")
    a_page("exp51")
    assert not_checked(written_blocks(None), {"exp51-micro-0123"}) == [
        "docs/results/exp50.md: not checked, the block of exp50 micro: its run is not here"
    ]


def test_without_any_run_the_blocks_are_still_named(here: Path, state: Path) -> None:
    a_page()
    found = Project(here, state).looper("report", "--verify")
    assert found.returncode == 2 and "No run of anything" in found.stderr
    assert "not checked, the block of exp50 micro" in found.stdout


def test_the_table_is_written_between_its_marks_and_nothing_else_changes(here: Path, state: Path) -> None:
    project = Project(here, state)
    learned = here / "LEARNINGS.md"
    learned.write_text(
        "# Mine\n\n<!-- looper report --summary -->\n<!-- end of looper report --summary -->\n\nWords.\n"
    )
    nothing = project.looper("report", "--summary")
    assert nothing.returncode == 2 and "There is nothing in docs/results yet" in nothing.stderr
    a_page()
    done = project.looper("report", "--summary")
    assert done.stdout == "LEARNINGS.md: 1 results\n", done.stderr
    head, _, rest = learned.read_text().partition("<!-- looper report --summary -->\n")
    assert head == "# Mine\n\n" and rest.endswith("\n\nWords.\n") and rest.startswith("| experiment | ")
    learned.write_text("# No marks\n")
    refused = project.looper("report", "--summary")
    assert refused.returncode == 2 and "has no marks to write between" in refused.stderr


def test_earlier_experiments_have_a_page_whose_figures_nobody_changes_unseen(here: Path, state: Path) -> None:
    project = Project(here, state)
    project.looper("run", "exp00", "--arm", "noop", "--limit", "1")
    assert project.looper("report", "history").returncode == 0
    (name, path), *_ = history_files().items()
    page = RESULTS / "history.md"
    assert page.read_text() == with_history("", name, read_history(path))
    page.write_text(page.read_text().replace("| 2/25 |", "| 5/25 |"))
    found = project.looper("report", "--verify")
    assert (
        found.returncode == 1 and f"the block of history {name} is not what {path.name} says" in found.stdout
    )
