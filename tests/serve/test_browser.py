"""The pages as a person uses them, in a headless Chromium: by keyboard, by search, by link; deciding; following a run to its end."""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from looper.cli.repository_steps import verify
from looper.cli.served import RepositoryCampaign
from looper.journal import RunLock
from looper.records.generation import Phase
from looper.records.plan import Contrast
from looper.views.board import LISTED
from looper.views.findings import percent
from looper.views.live import Projection
from looper.views.runs import read_run
from looper.views.web.page import page as report
from tests import program
from tests.experiment.test_run import Project
from tests.fakes.shop import Shop, shop
from tests.fakes.written_run import write_run
from tests.serve.conftest import Served, serving
from tests.serve.test_pages import HOSTILE

playwright = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

expect.set_options(timeout=20_000)

CONTRASTS = [
    Contrast(arm=arm, against=against, shown="It helps.", refuted="It harms.", open="It is open.")
    for arm, against in (("third", "other"), ("other", "base"))
]

__all__ = ["shop"]
CHROMIUM = next(
    filter(
        None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))
    ),
    None,
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine; Debian: apt-get install chromium"
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def page_of(
    chromium: Browser,
    served: Served,
    width: int = 1200,
    theme: Literal["light", "dark"] = "light",
    errors: int = 0,
) -> Iterator[Page]:
    """A page that is logged in. At its end: so many errors on the console, and nothing was asked of any other server."""
    page = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme).new_page()
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(f"a script said {dialog.message}"))
    page.on(
        "request",
        lambda asked: (
            None
            if asked.url.startswith((f"{served.url}/", "data:"))
            else wrong.append(f"asked for {asked.url}")
        ),
    )
    page.goto(f"{served.url}/login?code={served.auth.new_code()}")
    yield page
    page.context.close()
    assert wrong[errors:] == []


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id"))


def test_a_failed_trajectory_is_found_stepped_through_searched_and_laid_beside_another(
    chromium: Browser, served: Served, runs: Path
) -> None:
    folder = write_run(runs, steps=90)
    with page_of(chromium, served) as page:
        page.get_by_role("link", name=folder.name).click()
        page.get_by_label("Outcome").select_option("unresolved")
        page.get_by_role("button", name="Show").click()
        page.get_by_role("link", name="base/0/a__b-1", exact=True).last.click()
        expect(page.get_by_role("heading", level=1)).to_have_text("base/0/a__b-1")
        page.keyboard.press("j")
        page.keyboard.press("j")
        assert focused(page) == "step-2"
        page.keyboard.press("k")
        assert focused(page) == "step-1" and page.url.endswith("#step-1")
        for _ in range(40):
            page.keyboard.press("j")
        expect(page.locator("#step-41")).to_be_focused()
        page.keyboard.press("k")
        expect(page.locator("#step-40")).to_be_focused()
        page.keyboard.press("/")
        page.keyboard.type("seen 77")
        page.keyboard.press("Enter")
        expect(page.locator("#count")).to_contain_text("1 of 90 steps")
        page.get_by_role("link", name="Link to step 77").click()
        page.wait_for_url("**step=77#step-77")
        expect(page.locator("#step-77")).to_be_in_viewport()
        linked = page.url
        page.goto(f"{served.url}/")
        page.goto(linked)
        expect(page.locator("#step-77")).to_be_in_viewport()
        page.keyboard.press("p")
        expect(page.get_by_role("heading", name="Patch")).to_be_in_viewport()
        page.get_by_role("link", name="other", exact=True).click()
        expect(page.get_by_role("heading", name="other/0/a__b-1")).to_be_visible()
        expect(page.locator("#parted")).to_contain_text("The same 90 actions")


def test_the_theme_is_switched_and_kept(chromium: Browser, served: Served, runs: Path) -> None:
    write_run(runs)
    with page_of(chromium, served) as page:
        colour = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(colour)
        page.get_by_role("button", name="Switch between light and dark").click()
        dark = page.evaluate(colour)
        assert dark != light
        page.reload()
        assert page.evaluate(colour) == dark
        page.keyboard.press("t")
        assert page.evaluate(colour) == light


def test_h07_hostile_text_stays_inert(chromium: Browser, served: Served, runs: Path) -> None:
    folder = write_run(
        runs, tasks=(f"a__{HOSTILE[:30]}-1".replace("/", ""),), said=HOSTILE, seen=HOSTILE, cause=HOSTILE, patch=f"+{HOSTILE}", test=HOSTILE
    )  # fmt: skip
    with page_of(chromium, served) as page:
        for path in ("", "/tasks", "/curves"):
            page.goto(f"{served.url}/runs/{folder.name}{path}")
        page.goto(f"{served.url}/runs/{folder.name}")
        page.locator("#cells tbody a").first.click()
        expect(page.locator("#step-1")).to_contain_text('<script>alert("x")</script><img src=x')
        page.locator(".chips a").first.click()
        expect(page.locator("#pair-1")).to_contain_text("<script>")


def test_every_page_fits_a_phone(chromium: Browser, served: Served, runs: Path) -> None:
    folder = write_run(runs, tasks=[f"a__b-{number}" for number in range(120)], said="long " * 400)
    with page_of(chromium, served, width=390) as page:
        cell = f"/runs/{folder.name}/cells/base/0/a__b-1"
        beside = f"/runs/{folder.name}/diff?a=base/0/a__b-1&b=other/0/a__b-1"
        ends = ("", "/tasks", "/learned", "/curves")
        for path in (
            "/",
            *(f"/runs/{folder.name}{end}" for end in ends),
            cell,
            beside,
            "/evolution",
            "/prime",
            "/doctor",
        ):
            page.goto(f"{served.url}{path}")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
            unnamed = page.evaluate(
                "[...document.querySelectorAll('button, a, input:not([type=hidden]), select, textarea')].filter((e) => !(e.textContent.trim() || "
                "e.getAttribute('aria-label') || e.getAttribute('title') || e.labels?.length)).map((e) => e.outerHTML)"
            )
            assert unnamed == [], f"{path}: nothing says what these are"


def test_on_a_phone_nothing_is_cut_without_a_sign_and_a_square_of_the_map_has_a_name(
    chromium: Browser, served: Served, runs: Path
) -> None:
    tasks = [f"a__b-{number}" for number in range(1, 61)]
    folder = write_run(runs, tasks=tasks, patch="diff --git a/x b/x\n+" + "wide " * 60)
    shadows = """(node) => { const style = getComputedStyle(node); return [style.backgroundAttachment, (style.backgroundImage.match(/linear-gradient/g) || []).length]; }"""
    with page_of(chromium, served, width=390) as page:
        page.goto(f"{served.url}/runs/{folder.name}")
        for tab in page.locator(".tabs a, .top nav a").all():
            box = tab.bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390, tab.text_content()
        for table in page.locator("main .scroll").all():
            assert table.evaluate(shadows) == ["local, local, scroll, scroll, scroll", 4]
        square = page.locator(".map tr").first.locator("a").nth(2)
        square.focus()
        expect(page.locator("#square")).to_have_text("base/0/a__b-3: unresolved")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#square")).to_have_text("base/0/a__b-4: unresolved")
        page.goto(f"{served.url}/runs/{folder.name}/diff?a=base/0/a__b-1&b=other/0/a__b-1")
        for patch in page.locator(".patch").all():
            assert patch.evaluate("(node) => node.scrollWidth <= node.clientWidth + 1")
        page.goto("about:blank")
        page.set_content(report(read_run(folder)))
        page.get_by_text("The tasks, column by column").click()
        expect(page.locator("#tasks details li").nth(4)).to_have_text("a__b-5")
        page.goto(f"{served.url}/")
        # A finger rests on nothing: the first touch names, the second opens.
        known = page.context.storage_state()
        phone = chromium.new_context(
            viewport={"width": 390, "height": 844}, has_touch=True, storage_state=known
        )
        touched = phone.new_page()
        touched.goto(f"{served.url}/runs/{folder.name}")
        squares = touched.locator(".map tr").nth(1).locator("a")
        squares.nth(4).tap()
        expect(touched.locator("#square")).to_have_text("other/0/a__b-5: resolved · touch again to open")
        squares.nth(4).tap()
        touched.wait_for_url("**/cells/other/0/a__b-5")
        phone.close()


def test_a_phone_shows_a_list_of_cells_by_the_page_and_every_difference_whole_with_its_axis(
    chromium: Browser, served: Served, runs: Path
) -> None:
    folder = write_run(
        runs,
        arms=("base", "other", "third"),
        tasks=[f"a__b-{number}" for number in range(220)],
        contrasts=CONTRASTS,
    )
    cells = 3 * 220
    with page_of(chromium, served, width=390) as page:
        page.goto(f"{served.url}/runs/{folder.name}")
        expect(page.locator("#cells")).to_contain_text(f"{cells} cells, page 1 of {-(-cells // LISTED)}")
        assert page.evaluate("document.documentElement.scrollHeight") < 6_000
        seen = page.evaluate(
            """() => {
              const whole = (node) => { const at = node.getBoundingClientRect(); return at.width > 0 && at.left >= 0 && at.right <= innerWidth; };
              const ticks = [...document.querySelectorAll("#differences .axis text")];
              return {
                rows: [...document.querySelectorAll("#differences .bars tr:not([aria-hidden])")].map((row) => [
                  row.querySelector("th").textContent, [...row.querySelectorAll("th, svg, .said")].every(whole), row.querySelectorAll(".tick").length, getComputedStyle(row.querySelector("svg")).overflow,
                ]),
                ticks: ticks.map((tick) => tick.textContent),
                places: ticks.map((tick) => tick.getBoundingClientRect().left),
                whole: ticks.every(whole),
                size: Math.min(...ticks.map((tick) => tick.getBoundingClientRect().height)),
              };
            }"""
        )
        assert [row[0] for row in seen["rows"]] == ["third − other", "other − base", "third − base"]
        assert all(whole and lines == len(seen["ticks"]) for _, whole, lines, _ in seen["rows"]), seen
        assert {row[-1] for row in seen["rows"]} == {"visible"}, (
            "a mark at the end of the axis is drawn whole"
        )
        assert seen["ticks"][0].startswith("-") and "0" in seen["ticks"] and seen["ticks"][-1].startswith("+")
        assert seen["whole"] and seen["size"] >= 8 and sorted(seen["places"]) == seen["places"], seen


def test_squares_of_the_map_are_large_enough_for_a_finger_and_each_has_a_name(
    chromium: Browser, served: Served, runs: Path
) -> None:
    tasks = [f"a__b-{number}" for number in range(40)]
    folder = write_run(runs, tasks=tasks, judged=lambda cell: not cell.startswith("other/0/a__b-3"))
    with page_of(chromium, served, 360) as page:
        page.goto(f"{served.url}/runs/{folder.name}")
        sizes = page.locator(".map a, .map i").evaluate_all(
            "(squares) => squares.map((square) => { const box = square.getBoundingClientRect(); return [box.width, box.height]; })"
        )
        assert len(sizes) == 80 and all(min(size) >= 24 for size in sizes)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, "the map scrolls, not the page"
        assert page.locator(".map").bounding_box()["height"] < 100, "a row of squares is one line"  # type: ignore[index]
        expect(
            page.locator(".map").get_by_role("img", name="other/0/a__b-3: to do", exact=True)
        ).to_have_count(1)
        expect(page.locator(".map").get_by_role("img")).to_have_count(11)


@pytest.mark.proof
def test_the_page_of_a_large_run_is_small_and_costs_less_than_half_a_second_until_it_is_painted(
    chromium: Browser, served: Served, runs: Path
) -> None:
    """In time of the processor, of the server and of the browser's page, which is what it takes on a machine that has nothing else to do."""
    folder = write_run(
        runs,
        arms=("base", "other", *(f"arm_{at}" for at in range(9))),
        tasks=[f"a__b-{number}" for number in range(60)],
        contrasts=CONTRASTS[1:],
    )
    cost, size = [], []
    with page_of(chromium, served) as page:
        browser = page.context.new_cdp_session(page)
        browser.send("Performance.enable", {"timeDomain": "threadTicks"})

        def worked_s() -> float:
            told = browser.send("Performance.getMetrics")["metrics"]
            return float({one["name"]: one["value"] for one in told}["TaskDuration"])

        for _ in range(3):
            page.goto("about:blank")
            before = worked_s()
            page.goto(f"{served.url}/runs/{folder.name}", wait_until="load")
            page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
            browsing = worked_s() - before
            serving_ms, document = page.evaluate(
                "performance.getEntriesByType('navigation').map((one) => [one.serverTiming[0].duration, one.transferSize])[0]"
            )
            cost.append((serving_ms / 1000, browsing))
            size.append(document)
    assert min(map(sum, cost)) <= 0.5, cost
    assert max(size) <= 60_000, size


def follow_lines(source: Path, target: Path, wanted: bytes) -> Iterator[None]:
    """The lines that have `wanted` in them, one more with each turn, as a run would append them."""
    with target.open("ab", buffering=0) as stream:
        for line in source.read_bytes().splitlines(keepends=True):
            if wanted in line:
                stream.write(line)
                yield


def test_numbers_of_one_moment_agree_in_every_column(chromium: Browser, served: Served, runs: Path) -> None:
    tasks = [f"a__b-{number}" for number in range(12)]
    folder = write_run(runs, tasks=tasks, judged=lambda cell: cell.startswith("other"))
    whole = write_run(runs.parent / "whole", tasks=tasks)
    lock = RunLock(folder)
    try:
        with page_of(chromium, served) as page:
            page.goto(f"{served.url}/runs/{folder.name}")
            expect(page.locator("#live")).to_have_text("live")
            seen = set()
            ends = follow_lines(whole / "trajectories.jsonl", folder / "trajectories.jsonl", b'"arm":"base"')
            verdicts = follow_lines(whole / "verdicts.jsonl", folder / "verdicts.jsonl", b'"cell":"base/')
            for _ in zip(ends, verdicts, strict=True):
                for _ in range(6):
                    page.wait_for_timeout(100)
                    finished, results, rows = page.evaluate(
                        "[document.querySelector('#now [data-number=finished]').textContent, document.querySelector('#results').textContent, "
                        "[...document.querySelectorAll('#arms tr[data-arm]')].map((row) => [...row.children].map((cell) => cell.textContent))]"
                    )
                    attempted = [int(row[1].partition("/")[2]) for row in rows]
                    assert sum(attempted) == int(finished), (
                        "the numbers above the table are those of the table"
                    )
                    assert f"{finished} of 24 cells" in results or finished == "24", (
                        "and so is what is said of the results"
                    )
                    for row in rows:
                        resolved, of = map(int, row[1].split("/"))
                        if of:
                            assert row[2].startswith(f"{percent(resolved / of)} ") and row[4] != "–", row
                    seen.add(finished)
            assert len(seen) > 3, "it was followed"
    finally:
        lock.close()


def test_a_rollout_is_followed_step_by_step_from_the_page_of_its_run(
    chromium: Browser, served: Served, runs: Path
) -> None:
    folder = write_run(runs, tasks=("a__b-1",), steps=60, judged=lambda cell: False)
    steps = folder / "steps.jsonl"
    lines = steps.read_bytes().splitlines(keepends=True)
    steps.write_bytes(b"".join(lines[:10]))
    lock = RunLock(folder)
    try:
        with page_of(chromium, served) as page:
            page.goto(f"{served.url}/runs/{folder.name}")
            page.locator("#at-work a").click()
            expect(page.locator("#step-10")).to_be_visible()
            expect(page.locator("#live")).to_have_text("live")
            with steps.open("ab") as stream:
                stream.writelines(lines[10:30])
            expect(page.locator("#step-30")).to_be_visible(timeout=15_000)
            expect(page.locator(".tried li")).to_have_count(30)
    finally:
        lock.close()


@pytest.mark.parametrize("where", ["", "/arms", "/tasks", "/cells/base/0/a__b-1"])
def test_a_run_that_is_removed_is_called_live_no_more_and_followed_again_when_it_is_back(
    chromium: Browser, served: Served, runs: Path, where: str
) -> None:
    folder = write_run(runs, judged=lambda cell: cell != "other/0/a__b-2")
    whole = write_run(runs.parent / "whole")
    # The browser itself notes an answer of 404, where the page asks for itself once more.
    with page_of(chromium, served, errors=1) as page, page.expect_response("**/events"):
        page.goto(f"{served.url}/runs/{folder.name}{where}")
        if not where:
            expect(page.locator("#live")).to_have_text("live")
        page.wait_for_timeout(1_500)
        away = folder.rename(runs.parent / "away")
        expect(page.get_by_role("alert")).to_contain_text("no longer there", timeout=15_000)
        expect(page.locator("#live")).to_be_hidden()
        away.rename(folder)
        expect(page.get_by_role("alert")).to_have_count(0, timeout=15_000)
        if not where:
            expect(page.locator("#live")).to_have_text("live")
            for name in ("trajectories", "verdicts"):
                shutil.copy(whole / f"{name}.jsonl", folder)
            expect(page.locator("#now [data-number=finished]")).to_have_text("4", timeout=15_000)


def test_the_key_to_the_next_failed_cell_works_on_pages_from_before_its_failure(
    chromium: Browser, served: Served, runs: Path
) -> None:
    folder = write_run(runs, judged=lambda cell: False)
    whole = write_run(runs.parent / "whole")
    lock = RunLock(folder)
    try:
        with page_of(chromium, served) as page:
            page.goto(f"{served.url}/runs/{folder.name}")
            expect(page.locator("#live")).to_have_text("live")
            expect(page.locator("#next-failed")).to_have_count(0)
            other = page.context.new_page()
            other.goto(f"{served.url}/runs/{folder.name}/cells/other/0/a__b-1")
            expect(other.locator("#next-failed")).to_have_count(0)
            for name in ("trajectories", "verdicts"):
                shutil.copy(whole / f"{name}.jsonl", folder)
            expect(page.get_by_role("link", name="first failed cell")).to_be_visible()
            for each in (page, other):
                each.keyboard.press("n")
                expect(each.get_by_role("heading", level=1)).to_have_text("base/0/a__b-1")
    finally:
        lock.close()


def test_keys_lead_into_the_map_to_the_next_failed_cell_and_open_everything(
    chromium: Browser, served: Served, runs: Path
) -> None:
    folder = write_run(runs)
    with page_of(chromium, served) as page:
        page.goto(f"{served.url}/runs/{folder.name}")
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("Boolean(document.activeElement.closest('.map'))"):
                break
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.getAttribute('href')").endswith("/cells/other/0/a__b-2")
        page.keyboard.press("n")
        expect(page.get_by_role("heading", level=1)).to_have_text("base/0/a__b-1")
        page.keyboard.press("n")
        expect(page.get_by_role("heading", level=1)).to_have_text("base/0/a__b-2")
        page.locator(".chips a").first.click()
        expect(page.locator("details:not([open])").first).to_be_visible()
        page.keyboard.press("e")
        expect(page.locator("details:not([open])")).to_have_count(0)


RULES = """() => {
  const wrong = [], all = (selector) => [...document.querySelectorAll(selector)];
  const seen = (node) => node.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && node.getBoundingClientRect().width > 0;
  const tell = (rule, node) => wrong.push(`${rule}: ${node.outerHTML.slice(0, 160)}`);
  const name = (node) => (node.getAttribute("aria-label") || node.getAttribute("title") || [...(node.labels || [])].map((one) => one.textContent).join("") ||
    (node.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id)?.textContent || "").join("") || node.textContent).trim();
  // Headings, ids, landmarks.
  const levels = all("h1,h2,h3,h4,h5,h6").filter(seen);
  if (levels.filter((node) => node.tagName === "H1").length !== 1) wrong.push("one h1");
  levels.forEach((node, at) => { if (at && Number(node.tagName[1]) > Number(levels[at - 1].tagName[1]) + 1) tell("heading order", node); });
  const ids = all("[id]").map((node) => node.id);
  ids.filter((id, at) => ids.indexOf(id) !== at).forEach((id) => wrong.push(`id twice: ${id}`));
  if (all("main").length !== 1 || all("body > header").length !== 1) wrong.push("landmarks");
  [...document.body.children].filter((node) => !node.matches("header, nav, main, .skip, dialog") && node.textContent.trim()).forEach((node) => tell("outside of landmarks", node));
  const marks = all("nav, [role=region], [role=search], section[aria-label], section[aria-labelledby]").map((node) => `${node.tagName} ${name(node).slice(0, 80)}`);
  marks.filter((mark, at) => marks.indexOf(mark) !== at).forEach((mark) => wrong.push(`landmark twice: ${mark}`));
  // Names.
  all("a[href], button, input:not([type=hidden]), select, textarea, progress, [role=img], [role=group], [role=region], summary").filter((node) => !name(node)).forEach((node) => tell("no name", node));
  all("[aria-label], [aria-labelledby]").filter((node) => node.matches("div, span, p, pre, code, td, i, b") && !node.hasAttribute("role")).forEach((node) => tell("name without role", node));
  all("thead th").filter((node) => !node.hasAttribute("scope")).forEach((node) => tell("head without scope", node));
  all("li").filter((node) => !node.parentElement.matches("ol:not([role]), ul:not([role])")).forEach((node) => tell("part of no list", node));
  // What scrolls can be scrolled by keyboard.
  const focusable = "a[href]:not([tabindex='-1']), button, input, select, textarea, summary, [tabindex='0']";
  for (const node of all("main *, header *").filter(seen)) {
    const style = getComputedStyle(node);
    const scrolls = (/auto|scroll/.test(style.overflowX) && node.scrollWidth > node.clientWidth + 1) || (/auto|scroll/.test(style.overflowY) && node.scrollHeight > node.clientHeight + 1);
    if (scrolls && !node.matches(focusable) && !node.querySelector(focusable)) tell("scrolls for a mouse only", node);
  }
  // Links in text are told by more than their colour.
  for (const link of all("main p a, main li a, main dd a, main h1 a, main h2 a, main h3 a").filter(seen)) {
    const text = [...link.parentElement.childNodes].some((node) => !(node.nodeName === "A") && node.textContent.trim().length > 2);
    if (text && !getComputedStyle(link).textDecorationLine.includes("underline")) tell("link like its text", link);
  }
  // Contrast of every text with what it stands on.
  const parsed = (colour) => { const found = colour.match(/[\\d.]+/g).map(Number); return found.length < 4 ? [...found, 1] : found; };
  const over = (top, below) => [0, 1, 2].map((at) => top[at] * top[3] + below[at] * (1 - top[3])).concat(1);
  const light = (colour) => colour.slice(0, 3).map((part) => part / 255).map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4).reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const done = new Set();
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || done.has(node) || !seen(node) || node.closest("[aria-hidden=true], :disabled, .skip, svg")) continue;
    done.add(node);
    const chain = [];
    for (let up = node; up; up = up.parentElement) chain.push(up);
    const ground = chain.reverse().reduce((below, up) => over(parsed(getComputedStyle(up).backgroundColor), below), [255, 255, 255, 1]);
    const opacity = chain.reduce((part, up) => part * Number(getComputedStyle(up).opacity), 1);
    const style = getComputedStyle(node), ink = parsed(style.color);
    const values = [light(over([...ink.slice(0, 3), ink[3] * opacity], ground)), light(ground)].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if ((values[0] + 0.05) / (values[1] + 0.05) < (large ? 3 : 4.5)) tell(`contrast ${((values[0] + 0.05) / (values[1] + 0.05)).toFixed(2)}`, node);
  }
  return wrong;
}"""
"""What WCAG 2.2 asks of a page at level AA, as far as a program can tell: the rules that axe calls heading-order, duplicate-id, region,
landmark-unique, listitem, the ones about names, scrollable-region-focusable, link-in-text-block and color-contrast."""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_every_page_can_be_read_by_everybody(
    chromium: Browser, served: Served, runs: Path, theme: Literal["light", "dark"], width: int
) -> None:
    folder = write_run(
        runs,
        arms=("base", "other", "third"),
        steps=45,
        said="long " * 80,
        seen="line\n" * 60,
        patch="+" + "wide " * 90,
        contrasts=CONTRASTS,
    )
    cell = f"/runs/{folder.name}/cells/base/0/a__b-1"
    ends = (
        "",
        "/tasks",
        "/learned",
        "/curves",
        "/arms",
        "/search?find=line",
        "/diff?a=base/0/a__b-1&b=other/0/a__b-1",
    )
    with page_of(chromium, served, width, theme, errors=1) as page:
        for path in (
            "/",
            *(f"/runs/{folder.name}{end}" for end in ends),
            cell,
            "/evolution",
            "/prime",
            "/doctor",
            "/nowhere",
        ):
            page.goto(f"{served.url}{path}")
            page.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
            assert page.evaluate(RULES) == [], path
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        # The report of a run is read without a server, by its own rules of what it may load.
        page.goto("about:blank")
        page.set_content(report(read_run(folder)))
        page.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
        assert page.evaluate(RULES) == []


@pytest.mark.slow
def test_a_candidate_is_promoted_and_rolled_back_by_a_person_who_was_asked(
    chromium: Browser, shop: Shop, tmp_path: Path
) -> None:
    shop.spawn()
    verify(shop.open(), 1)
    campaign = RepositoryCampaign(shop.open())
    with (
        serving(tmp_path / "runs", tmp_path / "deeds", campaign) as served,
        page_of(chromium, served) as page,
    ):
        page.get_by_role("link", name="Evolution", exact=True).click()
        page.get_by_role("link", name="1 A discount").click()
        expect(page.locator(".patch")).to_contain_text("def discount")
        page.get_by_role("button", name="Promote").click()
        page.get_by_role("button", name="No").click()
        assert shop.generation().phase is Phase.ACCEPTED, "who says no has done nothing"
        page.get_by_role("button", name="Promote").click()
        page.get_by_role("button", name="Yes").click()
        page.get_by_role("button", name="Roll back").click(timeout=30_000)
        assert shop.generation().phase is Phase.PROMOTED
        page.get_by_role("button", name="Yes").click()
        expect(page.locator("#facts")).to_contain_text("rolled_back", timeout=30_000)
        assert shop.generation().phase is Phase.ROLLED_BACK


def test_pages_as_files_have_the_keys_and_the_theme_of_those_that_are_served(
    chromium: Browser, runs: Path, tmp_path: Path
) -> None:
    """Opened from the disk, without a server: what they offer works, and nothing is asked of anybody."""
    folder = write_run(runs, steps=3)
    environment = {**os.environ, "LOOPER_RUNS": str(runs), "LOOPER_HOME": str(tmp_path / "home")}
    done = program.looper("report", str(folder), "--bundle", str(tmp_path / "pages"), env=environment)
    assert done.returncode == 0, done.stderr
    page = chromium.new_context().new_page()
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda asked: None if asked.url.startswith(("file:", "data:")) else wrong.append(asked.url)
    )
    page.goto((tmp_path / "pages" / "cells" / "base" / "0" / "a__b-1.html").as_uri())
    before = page.evaluate("document.documentElement.dataset.theme")
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate("document.documentElement.dataset.theme") not in (before, None)
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert focused(page) == "step-2"
    page.get_by_role("link", name="other").click()
    assert page.get_by_role("heading", level=1).inner_text() == "other/0/a__b-1", "beside it lies another arm"
    page.goto((tmp_path / "pages" / "arms.html").as_uri())
    opened = page.locator("main details[open]").count()
    page.keyboard.press("e")
    assert page.locator("main details[open]").count() != opened
    page.context.close()
    assert wrong == []


@pytest.mark.slow
def test_a_run_is_followed_to_its_end_and_says_what_the_command_says(
    chromium: Browser, tmp_path: Path, state: Path
) -> None:
    project = Project(tmp_path, state)
    running = project.start("run", "test", "--workers", "1")

    def told() -> dict[str, int]:
        return {run["run"]: run["finished"] for run in Projection(runs).status()["runs"]}

    runs = project.folder / "runs"
    with serving(runs, tmp_path / "deeds") as served, page_of(chromium, served) as page:
        polls = 0
        page.wait_for_selector("#runs .card", timeout=60_000)
        page.locator("#runs .card a").click()
        number = page.locator("#now [data-number=finished]")
        expect(page.locator("#live")).to_have_text("live")
        threading.Thread(target=running.communicate, daemon=True).start()
        while running.poll() is None:
            before = told()
            shown = int(number.inner_text())
            after = told()
            # The page is at most a look and a fetch behind.
            assert shown <= max(after.values())
            polls += before == after
        expect(page.locator("#now .state")).to_have_text("finished", timeout=15_000)
        assert running.returncode == 0 and polls
        (final,) = told().values()
        (said,) = json.loads(project.looper("status", "--json").stdout)["runs"]
        assert said["finished"] == final
        assert (
            int(number.inner_text()) == final == int(page.locator("#now [data-number=planned]").inner_text())
        )
        rows = page.locator("#arms table.figures tbody tr")
        assert rows.count() == 3 and "4/4" in rows.first.inner_text()
