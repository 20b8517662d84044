"""What runs say is written to a page for each experiment, and all pages into one table in which a pilot decides nothing."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fakes.written_run import write_run

from looper.cli.reporting import history_files, share, summarise, verify
from looper.cli.settings import Settings, settings
from looper.errors import BadInput, NotAsRecorded
from looper.views.history import read_history
from looper.views.markdown import with_history
from looper.views.results import RESULTS, SharedPages, not_checked, with_run
from looper.views.runs import read_run
from looper.views.summary import read_results, summary_lines

PAGE = """# {name}: A title

Hypothesis: Whether {name} helps. More of it.

<!-- looper report {name} micro -->
2026-01-01, `{name}-micro-0123`: {tasks} tasks, seeds 0, 1, nano f36422fca56f, code 1, sandbox none.

Registered before the data:

{pilot}- primary: lora − base: {figure}, {decision}, p = 0.01 adjusted: It helped.

Every arm against base by itself; what is registered is decided by the interval in brackets, all else is exploratory:

- again − base (A/A, expected 0): +1.0 points, 95 % interval -2.0 to +4.0, {cells} pairs, {half} gained, {half} lost, exact McNemar p = 1 (mid-p 1); by task p = 1; by repository -1.0 to +2.0, {repositories} of them
- fresh − base (A/A, expected 0, exploratory): +0.2 points, 95 % -1.0 to +1.4, p = 1 unadjusted by task (9), {cells} pairs, 1 gained, 1 lost
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
    return summary_lines(read_results(SharedPages().blocks()))


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
        "12 points",
    ]


@pytest.mark.parametrize("decision", ["shown", "refuted", "open"])
def test_a_run_that_says_it_is_a_pilot_decides_nothing(decision: str) -> None:
    a_page(decision=decision, pilot="- a PILOT, which confirms nothing: the smallest is none\n")
    assert row()[6] == "*pilot*" and f"| {decision}" not in table()[2]


def test_a_run_that_could_have_seen_nothing_is_a_pilot_though_it_does_not_say_so() -> None:
    """A plan of margins alone prints no line about its power."""
    a_page(tasks=10, repositories=2)
    assert row()[6:] == ["*pilot*", "83 points"]


def test_what_is_shown_in_few_repositories_is_shown_of_these() -> None:
    a_page(repositories=5)
    assert row()[6] == "shown, on these repositories"


SCOPE = "about {}: 200 tasks of 20 repositories, 2 seeds; the unit is the {}; 1 contrast in one family"


@pytest.mark.parametrize(
    ("said", "row"),
    [
        (
            "a PILOT, which decides nothing: lora − base is shown with a chance of 9 % where it is +10.0 points, and the smallest "
            "difference that is shown in 80 % of runs is 31 points (30 % of cells differ between equal arms)\n"
            f"- {SCOPE.format('these repositories and no others', 'task')}",
            ["20", "*pilot*", "31 points"],
        ),
        (
            "a PILOT, which decides nothing: lora − base is shown with a chance of 9 % where it is +10.0 points, and no difference is "
            f"shown in 80 % of runs (50 % of cells differ)\n- {SCOPE.format('these', 'task')}",
            ["20", "*pilot*", "none"],
        ),
        (SCOPE.format("repositories like these", "repository"), ["20", "shown", "–"]),
    ],
    ids=["says its power", "sees nothing", "repositories"],
)
def test_a_block_that_says_its_unit_and_power_is_taken_at_its_word(said: str, row: list[str]) -> None:
    a_page(pilot=f"- {said}\n", repositories=5)
    page = RESULTS / "exp50.md"
    page.write_text(page.read_text().replace(", shown, p = 0.01 adjusted: ", ", p = 0.01 adjusted, shown: "))
    cells = table()[2].strip("| ").split(" | ")
    assert [cells[4], *cells[6:]] == row and cells[5] == "+20.0 points, 95 % +11.0 to +29.0"


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
        "| `again` | +1.0 points, 95 % -2.0 to +4.0, 400 pairs, by itself | exp50 to exp51, exp53 |",
        "| `fresh` | +0.2 points, 95 % -1.0 to +1.4, 400 pairs, exploratory | exp50 to exp51, exp53 |",
        "| `placebo` | +0.5 points, 95 % -2.5 to +3.5, 400 pairs, by itself | exp50 to exp51, exp53 |",
        "| `zero` | must make base's patch in every cell: 4 of 4, does | exp50 to exp51, exp53 |",
    ]


def test_controls_of_one_name_and_different_recipes_are_shown_with_what_they_are() -> None:
    for name, what in (
        ("exp50", "a lesson of another repository"),
        ("exp51", "a whole success of another one"),
    ):
        a_page(name)
        page = RESULTS / f"{name}.md"
        page.write_text(page.read_text().replace("<!-- looper", f"- `placebo` is {what}.\n\n<!-- looper", 1))
    figure = "+0.5 points, 95 % -2.5 to +3.5, 400 pairs, by itself"
    assert [line for line in table() if "placebo" in line] == [
        f"| `placebo` | a lesson of another repository: {figure} | exp50 |",
        f"| `placebo` | a whole success of another one: {figure} | exp51 |",
    ]


def test_a_control_that_was_registered_stands_there_with_what_decides_it_and_one_of_a_pilot_as_that() -> None:
    """Not with the 95 % interval of the difference by itself, which may leave 0 out where the other does not."""
    for name in ("exp50", "exp51"):
        a_page(name)
        page = RESULTS / f"{name}.md"
        line = "- placebo − base (control, registered, not more by 10.0 points: shown, 98.3 % -15.6 to +0.5): -7.6 points, 95 % -14.1 to -1.1, p = 0.03 unadjusted by repository (20), 400 pairs, 1 gained, 9 lost"
        page.write_text(
            re.sub("- placebo − base.*", f"{line}\n- {SCOPE.format('these', 'repository')}", page.read_text())
        )
    said = "-7.6 points, 400 pairs, registered, not more by 10.0 points: shown, 98.3 % -15.6 to +0.5, one of 1 in its family"
    assert f"| `placebo` | {said} | exp50 to exp51 |" in table()
    for name in (
        "exp50",
        "exp51",
    ):  # As a version writes it that gives a registered difference no other interval.
        page = RESULTS / f"{name}.md"
        page.write_text(
            page.read_text().replace(
                "-7.6 points, 95 % -14.1 to -1.1, p = 0.03 unadjusted by", "-7.6 points, by"
            )
        )
    assert f"| `placebo` | {said} | exp50 to exp51 |" in table()
    for name in ("exp50", "exp51"):
        a_page(name, pilot="- a PILOT, which decides nothing: it is small\n")
    assert "| `placebo` | *pilot*: +0.5 points, 95 % -2.5 to +3.5, 400 pairs | exp50 to exp51 |" in table()


def test_a_block_whose_run_is_not_here_is_named() -> None:
    a_page("exp50")
    a_page("exp51")
    assert not_checked(SharedPages().blocks(), {"exp51-micro-0123"}) == [
        "docs/results/exp50.md: the block of exp50 micro: its run is not here"
    ]


@pytest.fixture
def mine(here: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a person who has pages and no run."""
    monkeypatch.setenv("LOOPER_HOME", str(state))
    monkeypatch.setenv("LOOPER_RUNS", str(here / "runs"))
    return settings()


def test_without_any_run_the_blocks_are_still_named(mine: Settings) -> None:
    with pytest.raises(BadInput, match="There is no run below"):
        list(verify(mine, [], SharedPages()))
    a_page()
    assert list(verify(mine, [], SharedPages())) == [
        "not checked, docs/results/exp50.md: the block of exp50 micro: its run is not here",
        "0 runs, 0 findings, 1 not checked",
    ]
    with pytest.raises(NotAsRecorded, match="1 thing could not be checked"):
        list(verify(mine, [], SharedPages(), strict=True))
    with pytest.raises(BadInput, match='There is no run "exp51"'):
        list(verify(mine, ["exp51"], SharedPages()))


def test_the_table_is_written_between_its_marks_and_nothing_else_changes(here: Path) -> None:
    learned = here / "LEARNINGS.md"
    learned.write_text(
        "# Mine\n\n<!-- looper report --summary -->\n<!-- end of looper report --summary -->\n\nWords.\n"
    )
    with pytest.raises(BadInput, match="There is nothing in docs/results yet"):
        list(summarise(None, SharedPages()))
    a_page()
    assert list(summarise(None, SharedPages())) == ["LEARNINGS.md: rows in the table: 1"]
    head, _, rest = learned.read_text().partition("<!-- looper report --summary -->\n")
    assert head == "# Mine\n\n" and rest.endswith("\n\nWords.\n") and rest.startswith("| experiment | ")
    learned.write_text("# No marks\n")
    with pytest.raises(BadInput, match="has no marks to write between"):
        list(summarise(None, SharedPages()))


def test_earlier_experiments_have_a_page_whose_figures_nobody_changes_unseen(mine: Settings) -> None:
    list(share(mine.runs, ["history"], SharedPages()))
    (name, path), *_ = history_files().items()
    page = RESULTS / "history.md"
    assert page.read_text() == with_history("", name, read_history(path))
    assert list(verify(mine, [], SharedPages())) == ["0 runs, 0 findings, 0 not checked"]
    page.write_text(page.read_text().replace("| 2/25 |", "| 5/25 |"))
    said = verify(mine, [], SharedPages())
    assert next(said) == f"docs/results/history.md: the block of history {name} is not what {path.name} says"
    with pytest.raises(NotAsRecorded, match="1 finding in"):
        list(said)


def test_other_repositories_have_a_block_of_their_own_beside_those_of_the_plan(here: Path) -> None:
    run = read_run(write_run(here / "runs", experiment="exp50"))
    plan = run.manifest.plan
    elsewhere = plan.model_copy(update={"master_seed": 1})
    other = replace(run, manifest=run.manifest.model_copy(update={"plan": elsewhere}))
    assert "with other repositories (master seed 1)" in with_run("", other)
    RESULTS.mkdir(parents=True)
    page = RESULTS / "exp50.md"
    page.write_text(with_run(with_run("", run), other))
    assert list(SharedPages().blocks()) == [f"exp50 {plan.profile}", f"exp50 {plan.profile}@1"]
    assert with_run(page.read_text(), other) == page.read_text()
    assert [line.split("]")[0] for line in table()[2:4]] == ["| [exp50", "| [exp50 (master seed 1)"]
