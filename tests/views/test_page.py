"""The page of a run: everything in one file, every figure from the records, nothing fetched, nothing run."""

import html
import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from tests.cli.test_commands import looper
from tests.experiment.test_run import Project
from tests.fakes.written_run import write_run

from looper.metrics import design
from looper.metrics.claim import claim_of
from looper.metrics.registered import Decision
from looper.records.plan import Contrast
from looper.records.verdict import Outcome
from looper.views.markdown import run_block
from looper.views.plots import Interval, curves, forest, inline, save
from looper.views.runs import RunView, read_run
from looper.views.tables import run_table
from looper.views.web.page import page
from looper.views.web.templating import static_file


@pytest.fixture(scope="module")
def run(finished: Project) -> RunView:
    return read_run(finished.run)


@pytest.fixture(scope="module")
def text(run: RunView) -> str:
    return page(run)


class Tags(HTMLParser):
    """Every tag with its attributes; complains about what is closed and was not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_whole_and_every_link_of_it_leads_somewhere(text: str) -> None:
    tags = Tags(text)
    assert not tags.open
    ids = [attributes["id"] for _, attributes in tags.found if attributes.get("id")]
    assert len(set(ids)) == len(ids)
    links = [attributes["href"] or "" for tag, attributes in tags.found if tag == "a"]
    assert len(links) >= 10 and {link.removeprefix("#") for link in links} <= set(ids)


def test_it_needs_nothing_else(text: str) -> None:
    """No script, nothing from another place: it opens from the disk, and says so to the browser."""
    tags = Tags(text)
    assert not [tag for tag, _ in tags.found if tag in ("script", "iframe", "img", "object")]
    places = [
        value or ""
        for _, attributes in tags.found
        for name, value in attributes.items()
        if name in ("href", "src", "xlink:href")
    ]
    assert all(place.startswith(("#", "data:,")) for place in places)
    assert "default-src 'none'" in text and "@import" not in text
    assert static_file("looper.css").decode() in text, "the stylesheet of the served pages, and no other"
    assert not re.search(r"url\((?!#)", text)


def test_figures_are_those_of_the_records(run: RunView, text: str) -> None:
    for arm in ("base", "lora", "in_batches"):
        figures = run.figures(arm).resolved
        assert f'<th scope="row">{arm}</th><td>{figures.numerator}/{figures.denominator}</td>' in text
    marks = re.findall(r'<i class="(\w*)" title="([^"]+)">', text)
    assert len(marks) == 3 * len(run.tasks)
    for mark, said in marks:
        resolved, of = map(int, re.findall(r"(\d+) of (\d+)", said)[0])
        assert mark == ("y" if resolved == of else "p" if resolved else "n") and of == 2


def test_every_registered_contrast_is_drawn_between_any_two_arms_and_what_is_not_says_that_it_is_exploratory(
    run: RunView,
) -> None:
    """Also one between two treatments, and one in another unit; in the page, the terminal and the text."""
    plan = run.manifest.plan
    between = plan.contrasts[0].model_copy(update={"arm": "in_batches", "against": "lora"})
    contrasts = (between, plan.contrasts[1])
    other = replace(
        run,
        manifest=run.manifest.model_copy(update={"plan": plan.model_copy(update={"contrasts": contrasts})}),
    )
    shown = page(other)
    said = dict(re.findall(r'<figcaption id="(forest\w*)-alt">([^<]*)</figcaption>', shown))
    assert re.search(r"; lora − base [-+]", said["forest"]) and "in_batches − lora" in said["forest"]
    assert "in_batches − base, action log likelihood" in said["forest_nats"]
    assert "in_batches − lora (registered: pilot, " in shown and "lora − base (exploratory): " in shown
    text = io.StringIO()
    Console(file=text, width=1000).print(run_table(other))
    for written in (shown, text.getvalue(), run_block(other)):
        assert "lora − base (treatment, exploratory): " in written
        assert "in_batches − base (treatment, exploratory): " in written, (
            "by its likelihood alone it was registered"
        )
    assert "lora − base (treatment, registered: pilot, " in page(run)


def test_the_command_draws_a_registered_contrast_of_two_treatments(tmp_path: Path) -> None:
    primary = Contrast(arm="third", against="other", shown="A.", refuted="B.", open="C.")
    folder = write_run(tmp_path / "runs", arms=("base", "other", "third"), contrasts=[primary])
    done = looper("report", "written", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (drawn,) = re.findall(
        r'<figcaption id="forest-alt">([^<]*)</figcaption>', (folder / "report.html").read_text()
    )
    assert drawn.index("third − other") < drawn.index("other − base") < drawn.index("third − base")


def test_what_a_model_or_a_person_wrote_is_text(run: RunView) -> None:
    plan = run.manifest.plan.model_copy(update={"hypothesis": "<script>alert(1)</script>", "title": "a & b"})
    shown = page(replace(run, manifest=run.manifest.model_copy(update={"plan": plan})))
    assert (
        "<script" not in shown and html.escape("<script>alert(1)</script>") in shown and "a &amp; b" in shown
    )


def test_an_unfinished_run_says_so_and_concludes_nothing(run: RunView) -> None:
    cut = replace(run, verdicts=run.verdicts[:-4])
    shown = page(cut)
    assert "The run is unfinished" in shown and "still to do: " in shown


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunView:
    """A run that is shipped: three registered contrasts, decided as if a plan might count on the 90 points that it expects."""
    monkeypatch.setattr(design, "LARGEST_EFFECT", 1.0)
    name = "small-micro-ac66498b4214"
    return read_run(shutil.copytree(Path(__file__).parents[1] / "data" / name, tmp_path / name))


def test_a_registered_contrast_of_an_unfinished_run_is_drawn_as_one_that_decides_nothing(
    registered: RunView,
) -> None:
    """In the page and in the text, each says how far the run is; none is filled, and none has the interval of a decision."""
    cut = replace(registered, verdicts=registered.verdicts[:-4])
    state = f"unfinished, {cut.finished} of {cut.planned} cells"
    shown, finished = page(cut), page(registered)
    before, drawn = (
        re.findall(r'<figcaption id="forest-alt">([^<]*)</figcaption>', text)[0] for text in (finished, shown)
    )
    assert "gold − base, shown +" in before and "unfinished" not in before
    low, high = (100 * end for end in cut.registered[0].difference.interval())
    assert f"gold − base, {state} " in drawn and f"({low:+.1f} to {high:+.1f})" in drawn
    assert "Filled: " in finished and "Filled: " not in shown
    for written in (shown, run_block(cut)):
        assert f"memory − base (treatment, registered: pilot), {state}: " in written
    assert f"memory − base (registered: pilot), {state}: " in shown, "which cells flipped"
    for found in registered.registered:
        claim = claim_of(found.contrast, found.finding)
        assert claim in run_block(registered) and claim not in run_block(cut)


def test_a_profile_without_the_arms_of_what_is_registered_does_not_say_that_nothing_is(
    registered: RunView,
) -> None:
    plan = registered.manifest.plan.model_copy(update={"contrasts": (), "unasked": ("warm − base",)})
    shown = page(replace(registered, manifest=registered.manifest.model_copy(update={"plan": plan})))
    assert "not asked here, where an arm of theirs is left out: warm − base" in shown
    assert "registers no contrast" not in shown


def test_with_too_few_verdicts_nothing_is_concluded(run: RunView) -> None:
    """Two of twelve cells of a contrast that ended outside of the agent are more than one in twenty."""
    broken = tuple(
        verdict.model_copy(update={"outcome": Outcome.INFRA_ERROR})
        if verdict.cell in (f"base/0/{run.tasks[0]}", f"lora/0/{run.tasks[0]}")
        else verdict
        for verdict in run.verdicts
    )
    cut = replace(run, verdicts=broken)
    assert [found.finding for found in cut.registered] == [Decision.INDECISIVE] * 2
    shown = page(cut)
    assert (
        "fewer than 95 % of the cells have a verdict" in shown
        and "ended outside of the agent, without a verdict: 2 cells" in shown
    )
    assert run.registered[0].finding is not Decision.INDECISIVE


def test_a_run_without_a_single_verdict_is_honest(run: RunView) -> None:
    empty = page(replace(run, verdicts=(), trajectories=()))
    assert "no verdict" in empty and "0/0" in empty and not re.search(r"\bnan\b", empty)


def test_drawings_take_the_page_s_colours_and_say_what_they_show(tmp_path: Path) -> None:
    drawn = forest(
        [Interval("lora − base", 12.5, -3.0, 28.0, True), Interval("a < b", 0.0, -5.0, 5.0, False)]
    )
    shown = inline(drawn)
    assert (
        "currentColor" in shown
        and "#010203" not in shown
        and "lora − base +12.5 (-3.0 to +28.0)" in drawn.alt
    )
    assert 'aria-labelledby="forest-alt"' in shown and "a &lt; b" in shown
    other = inline(curves({"base": [0.0, 0.5]}, {"base": "#123456"}))
    ids = [set(re.findall(r' id="([^"]+)"', found)) for found in (shown, other)]
    assert not ids[0] & ids[1]
    save(drawn, tmp_path / "plots")
    assert "#010203" not in (tmp_path / "plots" / "forest.svg").read_text()
    assert (tmp_path / "plots" / "forest.png").read_bytes().startswith(b"\x89PNG")
    assert (
        forest([Interval("x", 1.0, 0.0, 2.0, True)]).svg == forest([Interval("x", 1.0, 0.0, 2.0, True)]).svg
    )


def test_the_command_writes_it_beside_the_records(finished: Project) -> None:
    assert (finished.run / "report.html").is_file() and (finished.run / "plots" / "forest.svg").is_file()
