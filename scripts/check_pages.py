"""Follows a real run in a real browser to its end, number by number, and takes a picture of every page.

    python scripts/check_pages.py [--profile demo] [--every 0.3] [--folder FOLDER] [--pictures FOLDER]

Begins `looper run exp00` and `looper serve` beside it, opens the run's page in headless Chromium, and at every poll compares what the page
says with `looper status --json`, asked before and after: where both say the same, so must the page. At every poll the columns of the
table and the numbers above it must agree. Then at how many polls the end lay in the interval that was shown for it, what serving took of
the processor, as a share of one core over the run, first paint and size of the run's page, and every page in both themes, 390 and 1,440
pixels wide. Needs Chromium and the extra `dev`.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from looper.views.findings import percent

LOOPER = [sys.executable, "-m", "looper.cli.main"]
LATE_S = 8.0
"""A page is at most a look, a fetch and a swap behind the records; of a large run it fetches every few seconds."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument(
        "--every", type=float, default=0.3, help="Seconds from poll to poll; each takes a second of a core."
    )
    parser.add_argument("--folder", type=Path, help="To run in; else a new one, which is removed.")
    parser.add_argument("--campaign", type=Path, help="Folder of a campaign, for pictures of its pages.")
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    place = (options.folder or Path(tempfile.mkdtemp(prefix="check-pages-"))).absolute()
    place.mkdir(parents=True, exist_ok=True)
    try:
        return check(place, options.profile, options.every, options.pictures, options.campaign)
    finally:
        if options.folder is None:
            shutil.rmtree(place, ignore_errors=True)


def check(place: Path, profile: str, every_s: float, pictures: Path | None, campaign: Path | None) -> int:
    running = subprocess.Popen(
        [*LOOPER, "run", "exp00", "--profile", profile],
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wrong: list[str] = []
    with served(place, campaign) as (link, server), sync_playwright() as driver:
        base = link.partition("/login")[0]
        browser = driver.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        page = browser.new_page()
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith((base, "data:")) else wrong.append(asked.url),
        )
        page.goto(link)
        page.wait_for_selector("#runs .card a", timeout=600_000)
        page.locator("#runs .card a").first.click()
        begun, before = time.monotonic(), processor_s(server)
        polls, equal, late = follow(page, place, running, every_s)
        wrong += late
        print(
            f"{polls} polls, {equal} of them with the same words before and after, and the page said the same"
        )
        first_paint(browser, page)
        if before is not None:
            share = (processor_s(server) - before) / (time.monotonic() - begun)  # type: ignore[operator]
            print(f"serving took {100 * share:.2f} % of one core while the page followed")
        if pictures is not None:
            take(browser, page, base, pictures, campaign is not None)
        browser.close()
    for line in wrong:
        print(f"wrong: {line}")
    return 1 if wrong or running.returncode else 0


def follow(
    page: Page, place: Path, running: "subprocess.Popen[bytes]", every_s: float
) -> tuple[int, int, list[str]]:
    polls, equal, wrong, last = 0, 0, [], -1
    intervals, ended_at = list[tuple[float, float]](), time.monotonic()
    while True:
        ended = running.poll() is not None
        before = status(place)
        shown = numbers(page)
        until = time.monotonic() + LATE_S
        while (after := status(place)) == before and shown != after and time.monotonic() < until:
            time.sleep(0.2)
            shown = numbers(page)
        polls += 1
        wrong += disagreeing(page)
        if (left := left_s(place)) is not None:
            intervals.append((time.monotonic() + left[1], time.monotonic() + left[2]))
        if before == after:
            equal += 1
            if shown != after:
                wrong.append(f"the page says {shown} and the command {after}")
        if after[0] != last:
            last = after[0]
            print(f"  {after[0]} of {after[1]} cells", flush=True)
        if ended and before == after:
            hit = sum(low <= ended_at <= high for low, high in intervals)
            print(f"time left was shown at {len(intervals)} polls, and the end lay in its interval at {hit}")
            return polls, equal, wrong
        if not ended:
            ended_at = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(every_s)


def disagreeing(page: Page) -> list[str]:
    """Where numbers of one moment do not fit each other: cells of all arms against those above the table, a rate against its counts."""
    rows, phases = page.evaluate(
        """() => [[...document.querySelectorAll('#arms tr[data-arm]')].map((row) => [...row.children].map((cell) => cell.textContent)),
        Object.fromEntries([...document.querySelectorAll('#now [data-phase]')].map((row) => [row.dataset.phase, row.querySelector('progress').value]))]"""
    )
    found = []
    judged = [row for row in rows if "/" in row[1]]
    for row in judged:
        resolved, of = map(int, row[1].split("/"))
        if of and not row[2].startswith(f"{percent(resolved / of)} "):
            found.append(f"{row[0]} has {row[1]} and {row[2]}")
    ended = sum(int(row[1].partition("/")[2]) + int(row[-1]) for row in judged)
    if "evaluation" in phases and len(judged) == len(rows) and ended != phases["evaluation"]:
        found.append(f"the table has {ended} cells, above it stand {phases['evaluation']}")
    return found


def left_s(place: Path) -> list[int] | None:
    (run,) = json.loads(asked(place))["runs"]
    return run["left_s"]  # type: ignore[no-any-return]


def first_paint(browser: Browser, page: Page) -> None:
    """Of the run's page in a browser that has kept no file of it, and what was sent for it."""
    context = browser.new_context(storage_state=page.context.storage_state())
    at = context.new_page()
    at.goto(page.url)
    at.wait_for_timeout(500)
    painted, sent = at.evaluate(
        """() => [performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN,
        performance.getEntriesByType('navigation')[0].transferSize]"""
    )
    print(
        f"first paint after {painted / 1000:.2f} s (goal: 0.5 s), {sent / 1000:.0f} kB for the page (goal: 60 kB)"
    )
    context.close()


def numbers(page: Page) -> tuple[int, int, dict[str, str]]:
    """Finished, planned, and what each arm resolved, as the page shows them at one moment."""
    found = page.evaluate(
        """() => [document.querySelector('#now [data-number=finished]').textContent, document.querySelector('#now [data-number=planned]').textContent,
        Object.fromEntries([...document.querySelectorAll('#arms tr[data-arm]')].map((row) => [row.dataset.arm, row.children[1].textContent]))]"""
    )
    return int(found[0]), int(found[1]), found[2]


def status(place: Path) -> tuple[int, int, dict[str, str]]:
    (run,) = json.loads(asked(place))["runs"]
    arms = {arm["arm"]: f"{arm['resolved']}/{arm['attempted']}" for arm in run["arms"]}
    return run["finished"], run["planned"], arms


def asked(place: Path) -> str:
    return subprocess.run(
        [*LOOPER, "status", "--json"], cwd=place, capture_output=True, text=True, check=True
    ).stdout


def take(browser: Browser, page: Page, base: str, pictures: Path, campaign: bool) -> None:
    pictures.mkdir(parents=True, exist_ok=True)
    run = page.url.partition("?")[0]
    page.goto(f"{run}?outcome=unresolved&arm=base")
    failed = str(page.locator("#cells tbody a").first.get_attribute("href"))
    page.goto(base + failed)
    beside = str(page.locator(".chips a", has_text="lora").first.get_attribute("href"))
    places = {
        "runs": f"{base}/", "run": run, "tasks": f"{run}/tasks", "arms": f"{run}/arms", "search": f"{run}/search?find=def", "learned": f"{run}/learned", "curves": f"{run}/curves",
        "trajectory": base + failed, "diff": base + beside, "evolution": f"{base}/evolution", "prime": f"{base}/prime",
        "doctor": f"{base}/doctor", "missing": f"{base}/nowhere",
        **({"generation": f"{base}/evolution/2"} if campaign else {}),
    }  # fmt: skip
    state = page.context.storage_state()
    for theme in ("light", "dark"):
        for width, height in ((390, 844), (1440, 900)):
            context = browser.new_context(
                storage_state=state,
                viewport={"width": width, "height": height},
                color_scheme=theme,  # type: ignore[arg-type]
            )
            at = context.new_page()
            for name, where in places.items():
                at.goto(where)
                at.wait_for_timeout(300)
                at.screenshot(path=pictures / f"{name}-{theme}-{width}.png")
            context.close()
    print(f"{4 * len(places)} pictures in {pictures}")


@contextlib.contextmanager
def served(place: Path, campaign: Path | None) -> Iterator[tuple[str, int]]:
    """The link that logs in, and the server's process."""
    more = ["--folder", str(campaign.absolute())] if campaign else []
    server = subprocess.Popen(
        [*LOOPER, "serve", "--port", "0", *more],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip(), server.pid
    finally:
        server.terminate()
        server.wait()


def processor_s(pid: int) -> float | None:
    """Seconds of processor time that a process has taken; None where that cannot be read."""
    path = Path(f"/proc/{pid}/stat")
    if not path.exists():
        return None
    fields = path.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    sys.exit("There is no Chromium. Debian: apt-get install chromium")


if __name__ == "__main__":
    sys.exit(main())
