"""The pages as a person uses them, in a headless Chromium: by keyboard, by search, by link; deciding; following a run to its end."""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from looper.cli.repository_steps import verify
from looper.cli.served import RepositoryCampaign
from looper.records.generation import Phase
from looper.views.live import Projection
from tests.experiment.test_run import Project
from tests.fakes.shop import Shop, shop
from tests.fakes.written_run import write_run
from tests.serve.conftest import Served, serving
from tests.serve.test_pages import HOSTILE

playwright = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

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
def page_of(chromium: Browser, served: Served, width: int = 1200) -> Iterator[Page]:
    """A page that is logged in. At its end: no error on the console, and nothing was asked of any other server."""
    page = chromium.new_context(viewport={"width": width, "height": 900}).new_page()
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
    assert wrong == []


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
        page.locator("#cells a").first.click()
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
                "e.getAttribute('aria-label') || e.labels?.length)).map((e) => e.outerHTML)"
            )
            assert unnamed == [], f"{path}: nothing says what these are"


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
