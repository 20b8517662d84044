"""What pages show, of whatever is there: hostile texts, damage, nothing at all, very much."""

import contextlib
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from looper.cli.served import EmbeddedCampaign
from looper.journal import RunLock, Stream, read_stream
from looper.records.audit_entry import AuditAction, AuditEntry
from looper.records.learning import Treatment
from looper.records.memory import MemoryItem, MemoryKind, Remembering
from looper.records.plan import Contrast
from looper.records.session import ClusterNode, NodeState, Session
from looper.records.training import Selection
from looper.records.trajectory import Observation, ObservationKind, Step
from looper.records.treatment import Consolidation, GateStop, Proof, ProofKind, StoppingGate
from looper.records.verdict import Outcome, Verdict
from looper.serve.audit_log import AuditLog
from looper.serve.pages import DIFF_STEPS
from looper.views.board import LISTED
from looper.views.figures import effort_table
from looper.views.live import Projection, nodes_text
from looper.views.markdown import run_block
from looper.views.plots import COLOURS
from looper.views.runs import read_run
from looper.views.show import ending_text, shortened, step_text
from looper.views.trajectory import PAGE, TEXT_CHARS
from looper.views.watch import screen
from looper.views.web.page import write_page
from tests import program
from tests.experiment.test_run import Project
from tests.fakes.written_run import fails, write_run
from tests.serve.conftest import Served, serving
from tests.views.test_show import remembered

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>\'"--></pre>{{ 7*7 }}\x1b]0;title\x07\ud800'


def test_h07_hostile_text_in_every_field_is_text(served: Served, runs: Path) -> None:
    task = "a__<b>-1"
    folder = write_run(
        runs,
        arms=("base", "other"),
        tasks=(task, "a__b-2"),
        said=HOSTILE, seen=HOSTILE, cause=HOSTILE, patch=f"diff --git a/x b/{HOSTILE}\n+{HOSTILE}\n", test=HOSTILE,
    )  # fmt: skip
    with served.browser() as client:
        pages = ["/", *(f"/runs/{folder.name}{end}" for end in ("", "/tasks", "/learned", "/curves"))]
        cell = f"base/0/{task}"
        pages += [
            f"/runs/{folder.name}/cells/{cell}",
            f"/runs/{folder.name}/cells/{cell}?find={HOSTILE[:40]}",
            f"/runs/{folder.name}/diff?a={cell}&b=other/0/{task}",
            f"/runs/{folder.name}/cells/{HOSTILE[:30]}",
            f"/runs/{HOSTILE[:30]}",
        ]
        for path in pages:
            answer = client.get(path)
            assert answer.status_code in (200, 404), path
            assert not re.search(
                r"<script(?! src=\"/static/)|<img|<b>arm|onerror=alert\(1\)>\s*<|\x1b|\x07", answer.text
            ), path
            assert "49" not in re.findall(r"\{\{ 7\*7 \}\}|49(?=\\x1b)", answer.text)
        shown = client.get(f"/runs/{folder.name}/cells/{cell}").text
        assert "&lt;script&gt;alert(" in shown and "\\x1b]0;title" in shown
        file = client.get(f"/runs/{folder.name}/text/{cell}?part=seen&step=1")
    assert file.headers["content-type"].startswith("text/plain") and "<script>" in file.text
    assert file.headers["content-disposition"].startswith("attachment")


def test_j3_pages_repeat_the_command_that_was_recorded(served: Served, runs: Path) -> None:
    folder = write_run(runs, judged=lambda cell: cell.startswith("base"))
    command = f"looper run exp00 --arm 'a b' --limit 3 --master-seed 5 --run {folder.name}"
    for where, said in (("/some where", f"cd '/some where' && {command}"), (str(Path.cwd()), command)):
        stream = Stream(folder, "sessions", Session)
        stream.append(Session(pid=1, workers=2, begun="x", done_before=0, command=command, where=where))
        stream.close()
        with served.browser() as client:
            assert f"<code>{said}</code>" in html.unescape(client.get(f"/runs/{folder.name}").text)


def test_no_runs_yet_says_how_to_make_one(served: Served) -> None:
    with served.browser() as client:
        assert "looper run exp00" in client.get("/").text
        assert "looper evolve run --profile micro" in client.get("/evolution").text
        assert "looper serve --repo PATH" in client.get("/prime").text


def test_a_damaged_run_is_shown_as_damaged_and_the_others_work(served: Served, runs: Path) -> None:
    good, broken, torn = (write_run(runs, experiment=name) for name in ("good", "broken", "torn"))
    (broken / "manifest.jsonl").write_text("no journal line\n")
    with (torn / "verdicts.jsonl").open("r+b") as file:
        file.seek(200)
        file.write(b"#")
    with served.browser() as client:
        first = client.get("/").text
        assert "its manifest cannot be read" in first and good.name in first and "1 damaged records" in first
        assert client.get(f"/runs/{good.name}").status_code == 200
        assert "verdicts.jsonl line 1, checksum does not match" in client.get(f"/runs/{torn.name}").text
        answer = client.get(f"/runs/{broken.name}")
        assert answer.status_code == 409 and "its manifest cannot be read" in answer.text


@pytest.mark.parametrize(
    "path", ["/runs/nothing", "/nowhere", "/evolution/3", "/runs/RUN/cells/base/0/none", "/runs/RUN/diff?a=x&b=y", "/runs/RUN/cells/base/0/a__b-1?attempt=9"]
)  # fmt: skip
def test_what_is_not_there_has_a_page_that_says_so(served: Served, runs: Path, path: str) -> None:
    path = path.replace("RUN", write_run(runs).name)
    with served.browser() as client:
        page = client.get(path)
    with served.program() as client:
        answer = client.get(path)
    assert page.status_code == answer.status_code == 404
    assert "<h1>404</h1>" in page.text and answer.json()["error"]["kind"] == "not_found"


# Trajectories


def steps_on(page: str) -> list[int]:
    return [int(number) for number in re.findall(r'<li id="step-(\d+)"', page)]


def test_steps_are_paged_filtered_searched_and_linked_to(served: Served, runs: Path) -> None:
    folder = write_run(runs, tasks=("a__b-1",), steps=100, seen="line")
    where = f"/runs/{folder.name}/cells/base/0/a__b-1"
    with served.browser() as client:
        assert steps_on(client.get(where).text) == list(range(1, PAGE + 1))
        assert steps_on(client.get(f"{where}?page=3").text) == list(range(2 * PAGE + 1, 101))
        assert steps_on(client.get(f"{where}?page=99").text)[-1] == 100
        assert 73 in steps_on(client.get(f"{where}?step=73").text), "a link to a step finds its page"
        assert steps_on(client.get(f"{where}?tool=done").text) == [100]
        assert steps_on(client.get(f"{where}?guard=repeated_action").text) == [2]
        assert steps_on(client.get(f"{where}?errors=1").text) == [n for n in range(3, 100, 3)]
        assert steps_on(client.get(f"{where}?find=LINE+7").text) == [7, *range(70, 80)]
        assert steps_on(client.get(f"{where}?find=LINE+7&errors=1").text) == [72, 75, 78]
        assert "No step is like that" in client.get(f"{where}?find=nowhere").text
        assert len(steps_on(client.get(f"{where}?tool=evil&guard=evil&page=-1&step=x").text)) == PAGE


def test_two_rollouts_stand_beside_each_other_from_where_they_part(served: Served, runs: Path) -> None:
    folder = write_run(runs, steps=4)
    path = f"/runs/{folder.name}/diff?a=base/0/a__b-1&b=other/0/a__b-1"
    with served.browser() as client:
        page = client.get(path).text
        assert "The same 4 actions with the same results." in page and "The same patch." in page
        other = client.get(path.replace("other/0/a__b-1", "other/0/a__b-2"))
        assert other.status_code == 422 and "different tasks" in other.text


def test_cells_that_never_began_are_not_described_as_if_they_had(served: Served, runs: Path) -> None:
    folder = write_run(runs, steps=0, judged=lambda cell: cell == "base/0/a__b-2")
    begun, ended = (f"/runs/{folder.name}/diff?a=base/0/a__b-{at}&b=other/0/a__b-{at}" for at in (1, 2))
    lock = RunLock(folder)
    try:
        with served.browser() as client:
            page = client.get(begun).text
            assert "No step is on record of base/0/a__b-1 and other/0/a__b-1." in page
            assert (
                page.count("No patch before the rollout&#39;s end.")
                + page.count("No patch before the rollout's end.")
                == 2
            )
            assert "The same" not in page and "Empty." not in page
            page = client.get(ended).text
            assert "No step is on record of other/0/a__b-2." in page and "Empty." not in page
            page = client.get(f"/runs/{folder.name}/cells/other/0/a__b-2").text
            assert ">to do</span>" in page and "at work" not in page
            assert "No step is on record." in page and "0 steps so far" not in page
    finally:
        lock.close()


def test_more_steps_than_are_compared_are_said_to_be_there(served: Served, runs: Path) -> None:
    folder = write_run(runs, tasks=("a__b-1",), steps=DIFF_STEPS + 1)
    with served.browser() as client:
        page = client.get(f"/runs/{folder.name}/diff?a=base/0/a__b-1&b=other/0/a__b-1").text
    assert f"Only the first {DIFF_STEPS} steps" in page and f'id="pair-{DIFF_STEPS + 1}"' not in page


def test_a_decision_that_breaks_is_on_record_as_failed(tmp_path: Path) -> None:
    def broken() -> str:
        raise OSError("the disk is gone")

    with pytest.raises(OSError):
        AuditLog(tmp_path).do(AuditAction.PROMOTE, "1", "abcdef", broken, str)
    noted = [(deed.stage.value, deed.said) for deed in read_stream(tmp_path, "deeds", AuditEntry)]
    assert noted == [("begun", ""), ("failed", "the disk is gone")]


def test_h13_a_long_text_is_cut_and_can_be_had_whole(served: Served, runs: Path) -> None:
    long = "x" * 3_000_000
    folder = write_run(runs, tasks=("a__b-1",), steps=2, seen=long)
    where = f"/runs/{folder.name}/cells/base/0/a__b-1"
    with served.browser() as client:
        page = client.get(where).text
        assert "The whole text as a file" in page and len(page) < 10 * TEXT_CHARS
        whole = client.get(f"/runs/{folder.name}/text/base/0/a__b-1?part=seen&step=1").text
        assert whole == f"{long} 1"


# A run at a glance


@pytest.fixture
def project(tmp_path: Path, state: Path) -> Project:
    return Project(tmp_path, state)


def plain(page: str) -> str:
    """The text of a page, blanks joined."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))


def test_registered_results_come_first_and_the_primary_one_is_open(project: Project) -> None:
    plan = project.folder / "experiments" / "test.toml"
    contrast = '[[contrasts]]\narm = "{}"\nagainst = "base"\nshown = "They differ so."\nrefuted = "They differ otherwise."\nopen = "Who knows that now."\n'
    text = plan.read_text()
    for at, (played, name) in enumerate((("gold", "again"), ("noop", "third")), 1):
        text = text.replace(
            f'name = "{played}"\nrole = "control"\nmodel = "{played}"',
            f'name = "{name}"\nrole = "again"\nrepetition = {at}',
        )
    plan.write_text(
        text.replace(
            "[profiles.micro]", f"{contrast.format('again')}{contrast.format('third')}[profiles.micro]"
        )
    )
    assert project.looper("run", "test").returncode == 0
    with real_server(project) as client:
        page = client.get(f"/runs/{project.run.name}").text
        first = client.get("/").text
    results, arms = page.index('id="results"'), page.index('id="arms"')
    assert results < page.index("<b>Primary</b>: again − base") < page.index("third − base") < arms
    assert "<details" not in page[results:arms], "nothing that was registered is folded away"
    for arm in ("again", "third"):
        assert f'/runs/{project.run.name}/arms?a={arm}&amp;b=base"' in page[results:arms]
    assert project.looper("report", "--bundle", "pages").returncode == 0
    pairs = {path.name for path in (project.folder / "pages").glob("arms*.html")}
    assert {"arms.a-again.b-base.html", "arms.a-third.b-base.html"} <= pairs, (
        "each pair is inside, as files too"
    )
    said = plain(first)
    assert "again − base: pilot" in said and "4 tasks × 3 arms × 1 seed" in said
    assert "test micro: Test" in said and re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC · scripted", said)


def test_cells_are_sorted_filtered_and_paged_by_the_address(served: Served, runs: Path) -> None:
    tasks = [f"a__b-{number}" for number in range(1, LISTED + 11)]
    folder = write_run(runs, tasks=tasks, judged=lambda cell: cell != "other/0/a__b-3")
    where = f"/runs/{folder.name}"

    def listed(asked: str) -> tuple[list[str], str]:
        with served.browser() as client:
            page = client.get(f"{where}?{asked}").text
        part = page[page.index('id="cells"') :]
        return re.findall(r'<th scope="row">(?:<a [^>]*>)?([^<]+)', part), part

    names, part = listed("")
    assert names == [f"base/0/{task}" for task in tasks[:LISTED]], "in the order of the plan"
    assert f"{2 * len(tasks)} cells, page 1 of 3" in part and 'rel="next" href="?page=2#cells-head"' in part
    assert listed("page=3")[0][-1] == f"other/0/{tasks[-1]}"
    failed, part = listed("outcome=failed&sort=cell&descending=1")
    assert failed[0] == f"base/0/{tasks[-1]}" and f"{len(tasks)} cells" in part
    assert 'aria-sort="descending"' in part
    # Following the list on keeps what was asked for.
    assert 'href="?outcome=failed&amp;descending=1&amp;page=2#cells-head"' in part
    assert listed("arm=other&outcome=to+do")[0] == ["other/0/a__b-3"]
    assert listed("sort=steps&descending=1")[0][0] == "base/0/a__b-1"
    assert listed("arm=other&sort=steps&page=2")[0][-1] == "other/0/a__b-3", "what has no steps comes last"
    assert listed("find=a+test+failed")[0][0].startswith("base/"), "the cause is searched too"
    assert len(listed("sort=evil&page=-1&descending=x&arm=")[0]) == LISTED


def test_one_figure_has_one_rounding_and_an_arm_one_colour(served: Served, runs: Path) -> None:
    tasks = [f"a__b-{number}" for number in range(40)]
    folder = write_run(runs, tasks=tasks, arms=("base", *(f"arm_{at}" for at in range(9))))
    found = list(read_stream(folder, "verdicts", Verdict))
    (folder / "verdicts.jsonl").unlink()
    stream = Stream(folder, "verdicts", Verdict)
    for verdict in found:
        # 21 of 40 are 52.5 %.
        lost = verdict.cell.startswith("arm_0/") and int(verdict.cell.rpartition("-")[2]) >= 21
        stream.append(verdict.model_copy(update={"outcome": Outcome.UNRESOLVED}) if lost else verdict)
    stream.close()
    with served.program() as client:
        curves = client.get(f"/runs/{folder.name}/curves.json").json()
        page = client.get(f"/runs/{folder.name}", headers={"Accept": "text/html"}).text
        status = client.get("/status").json()
    for at, (arm, colour) in enumerate(curves["colours"].items()):
        assert colour == COLOURS[at]
        row = re.search(rf'<tr data-arm="{arm}">(.*?)</tr>', page)
        assert row and f'fill="{colour}"' in row[1] and f"<td>{curves['rates'][arm]}</td>" in row[1]
    assert len(set(curves["colours"].values())) == 10
    assert curves["rates"]["arm_0"].startswith("53 %")
    terminal = Console(width=80, record=True, file=io.StringIO())
    terminal.print(screen(status, 40, runs))
    assert "53 %" in terminal.export_text()
    report = write_page(read_run(folder), "").read_text()
    assert "arm_0 53 %" in report and "52 %" not in report
    drawn = re.findall(r"stroke: (#[0-9a-f]{6}); stroke-width: 1.4", report)
    assert drawn[:10] == list(COLOURS[:10]), "an arm's curve has the colour that it has on its page"


def test_a_run_page_is_small_and_static_files_are_kept(served: Served, runs: Path) -> None:
    folder = write_run(
        runs,
        tasks=[f"a__b-{number}" for number in range(60)],
        arms=("base", *(f"arm_{at}" for at in range(10))),
    )
    with served.browser() as client:
        answer = client.get(f"/runs/{folder.name}", headers={"Accept-Encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        assert int(answer.headers["content-length"]) <= 60_000
        for path in re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text):
            kept = client.get(path)
            assert kept.headers["cache-control"] == "public, max-age=31536000, immutable", path
            assert client.get(path.partition("?")[0] + "?v=0").headers["cache-control"] == "no-store"
        assert answer.headers["cache-control"] == "no-store"
        with client.stream("GET", "/events", headers={"Accept-Encoding": "gzip"}) as stream:
            assert "content-encoding" not in stream.headers and next(stream.iter_lines())


def test_pages_become_files_whatever_the_length_of_an_arm_s_name(runs: Path, tmp_path: Path) -> None:
    arms = ("x" * 300, "x" * 301, "base")
    folder = write_run(runs, arms=arms, tasks=("a__b-1",), steps=1)
    done = program.looper("report", str(folder), "--bundle", str(tmp_path / "pages"))
    assert done.returncode == 0, done.stderr
    pages = [path.read_text() for path in (tmp_path / "pages" / "cells").rglob("*.html")]
    titles = {re.search(r"<h1>(.*?)</h1>", text)[1] for text in pages}  # type: ignore[index]
    assert titles == {f"{arm}/0/a__b-1" for arm in arms}, "each in a file of its own"


def test_the_pages_of_a_run_as_files_lead_to_each_other_and_need_nothing_else(
    runs: Path, tmp_path: Path
) -> None:
    names = [*(f"a__b-{number}" for number in range(30)), "c/d:1", "c/d_1", "C/d_1"]
    folder = write_run(runs, tasks=names, steps=PAGE + 3)
    write_run(runs, experiment="another")
    place = tmp_path / "pages"

    def report(*words: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "LOOPER_RUNS": str(runs), "LOOPER_HOME": str(tmp_path / "home")}
        return program.looper("report", *words, env=environment)

    done = report(str(folder), "--bundle", str(place))
    assert done.returncode == 0 and done.stdout.startswith(f"{place}/index.html: "), done.stderr
    pages = {path.relative_to(place).as_posix(): path.read_text() for path in place.rglob("*.html")}
    cells = {f"{arm}/0/{name}" for arm in ("base", "other") for name in names}
    titles = {re.search(r"<h1>(.*?)</h1>", text)[1] for text in pages.values()}  # type: ignore[index]
    assert cells <= {html.unescape(title) for title in titles}, (
        "every rollout is inside, in a file of its own"
    )
    assert 'id="step-42"' in pages["cells/base/0/a__b-1.page-2.html"]
    assert "a__b-1.page-2.html#step-42" in pages["cells/base/0/a__b-1.page-2.html"], (
        "each step is found on its page"
    )
    for page, text in pages.items():
        assert "<form" not in text and "data-follow" not in text
        assert not re.search(r"<a\b(?![^>]* href=)", text), "no word that looks like a link and leads nowhere"
        for said in re.findall(r' (?:href|src)="([^"]*)"', text):
            if not said.startswith(("#", "data:")):
                target = (place / page).parent / urllib.parse.unquote(html.unescape(said).partition("#")[0])
                assert not said.startswith(("/", "http")) and target.resolve().is_file(), (page, said)
    zipped = tmp_path / "pages.zip"
    assert report(str(folder), "--bundle", str(zipped)).returncode == 0
    names = set(zipfile.ZipFile(zipped).namelist())
    assert {f"{folder.name}/{page}" for page in pages} <= names
    for again, why in (
        (place, "is there already"),
        (zipped, "is there already"),
        (tmp_path / "none" / "pages", "cannot be written: No such file"),
        (tmp_path / "none" / "pages.zip", "cannot be written: No such file"),
    ):
        refused = report(str(folder), "--bundle", str(again))
        assert refused.returncode == 2 and why in refused.stderr, refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("end", ["", "/tasks", "/learned", "/curves", "/arms", "/search?find=x", "/cells/base/0/a__b-1", "/diff?a=base/0/a__b-1&b=other/0/a__b-1", "/status", "/curves.json"])  # fmt: skip
def test_a_run_with_nothing_but_its_manifest_has_every_page(served: Served, runs: Path, end: str) -> None:
    folder = write_run(runs, judged=lambda cell: False)
    for path in folder.iterdir():
        if path.name != "manifest.jsonl":
            path.unlink()
    with served.browser() as client:
        assert client.get(f"/runs/{folder.name}{end}").status_code == 200
        assert client.get("/").status_code == 200


# Why a cell failed, and what it was given


@contextlib.contextmanager
def real_server(
    project: Project, port: int = 0, cookies: dict[str, str] | None = None
) -> Iterator[httpx.Client]:
    """`looper serve` in a process of its own, and a browser that has logged in, or comes with its cookies of before."""
    argv = [sys.executable, "-m", "looper.cli.main", "serve", "--port", str(port)]
    server = subprocess.Popen(
        argv,
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    try:
        link = server.stdout.readline().strip()
        base = link.partition("/login")[0]
        cookies = cookies or dict(httpx.get(link, timeout=60).cookies)
        with httpx.Client(
            base_url=base, headers={"Accept": "text/html"}, cookies=cookies, timeout=60
        ) as client:
            yield client
    finally:
        server.terminate()
        server.wait(20)


def test_a_port_that_a_server_of_the_same_user_has_leads_to_that_server(project: Project) -> None:
    with real_server(project) as client:
        port = str(client.base_url.port)
        found = project.looper("serve", "--port", port)
    assert found.returncode == 2
    assert re.search(
        rf"^looper: Port {port} is in use by a looper serve of yours. To open that one: looper serve --link --port {port}. To begin another "
        r"beside it: looper serve --port \d+$",
        found.stderr.strip(),
    )


def test_one_page_says_what_was_asked_tried_and_missed(project: Project) -> None:
    assert project.looper("run", "test", "--arm", "base").returncode == 0
    failed = next(verdict for verdict in project.verdicts() if verdict.cell.startswith("base"))
    with real_server(project) as client:
        page = client.get(f"/runs/{project.run.name}/cells/{failed.cell}").text
    part = page[page.index("Why it failed") : page.index('id="steps-head"')]
    said = plain(part)
    assert "repo " in said and "issue " in said, "what the agent was asked"
    assert "4 bash python check.py; cat note.txt exit code 0" in said
    assert "+two" in said, "its patch"
    (test,) = failed.fail_to_pass
    assert f"failed {test} FAIL_TO_PASS" in said and failed.output
    printed = re.search(r'aria-label="Output of failing tests">(.*?)</pre>', part, re.DOTALL)
    assert printed and html.unescape(printed[1]).strip() == failed.output.strip()
    gold = re.search(r'<details id="gold">(.*?)</details>', part, re.DOTALL)
    assert gold and "diff --git" in gold[1], "behind a click"
    assert "<details open" not in part


def test_output_of_failing_tests_stands_beside_them(served: Served, runs: Path) -> None:
    folder = write_run(runs, found={"output": "tests/test_x.py::test_x\nassert 3 == 4 <b>"})
    with served.browser() as client:
        page = client.get(f"/runs/{folder.name}/cells/base/0/a__b-1").text
        assert "assert 3 == 4 &lt;b&gt;" in page
    bare = write_run(runs, experiment="earlier")
    with served.browser() as client:
        assert "What they printed was not kept." in client.get(f"/runs/{bare.name}/cells/base/0/a__b-1").text


def test_a_cell_names_its_adapter_and_quotes_its_memory(served: Served, runs: Path) -> None:
    folder = write_run(runs, end={"memory": ("item1",), "memory_candidates": 3, "memory_tokens": 17})
    chosen = Selection(seen=9, unresolved=2, without_verdict=0, outside=0, duplicates=0, over_cap=0, taken=7, tasks=("a__b-7",), dropped_steps=0)  # fmt: skip
    kept = Stream(folder, "consolidations", Consolidation)
    for repo, adapter in (("a/b", "adapterofab"), ("c/d", "adapterofcd")):
        kept.append(Consolidation(arm="other", seed=0, repo=repo, treatment=Treatment.ADAPTER, selection=chosen, used=5, adapter=adapter, seconds=1.0))  # fmt: skip
    kept.close()
    items = Stream(folder, "memory", MemoryItem)
    items.append(MemoryItem(id="item1", kind=MemoryKind.LESSONS, source="base/0/a__b-7#1", instance_id="a__b-7", repo="a/b", position=1, title="a lesson", text="Change <x> to y.", asked="", paths=(), changes=()))  # fmt: skip
    items.close()
    with served.browser() as client:
        said = plain(client.get(f"/runs/{folder.name}/cells/other/0/a__b-1").text)
        assert "Adapter adapterofab : its folder is gone; for a/b, from 5 of 7 successes" in said
        assert "adapterofcd" not in said, "of the other repository"
        assert "Told 1 of 3 memory items that could be told, 17 tokens" in said and "Change <x> to y." in said
        base = plain(client.get(f"/runs/{folder.name}/cells/base/0/a__b-1").text)
    assert "Nothing was learned for this cell." in base


def test_seconds_of_the_agent_and_seconds_with_its_tests_have_names_of_their_own(
    served: Served, runs: Path
) -> None:
    """One figure has one name in every view, and the table of arms, the list of cells and a cell's page agree."""
    folder = write_run(runs, end={"wall_s": 5.49}, found={"wall_s": 3.0})
    run = read_run(folder)
    with served.browser() as client:
        page = client.get(f"/runs/{folder.name}").text
        cell = plain(client.get(f"/runs/{folder.name}/cells/base/0/a__b-1").text)
    heads = re.findall(r'<th scope="col"[^>]*>(?:<a[^>]*>)?([^<]*)', page)
    assert "seconds" not in heads and {"agent s", "s with tests"} <= {*heads}
    (row,) = re.findall(r"<tr><th scope=\"row\"><a [^>]*cells/base/0/a__b-1\">.*?</tr>", page)
    assert "<td>5.5</td><td>8.5</td>" in row and "<td>5.49</td>" in page
    assert "after 5 steps, agent 5.5 s, 8.5 s with tests" in cell
    end, verdict = run.last_ends["base/0/a__b-1"], run.final["base/0/a__b-1"]
    assert "══ done after 5 steps, agent 5.5 s, 8.5 s with tests ══" in ending_text(end, verdict)
    assert "| agent s |" in run_block(run) and "seconds" not in run_block(run).split("\n\n")[1]
    assert "agent s, median of base → arm" in effort_table(run).columns


def test_a_result_is_said_once_and_a_command_that_failed_is_not_called_ok(served: Served, runs: Path) -> None:
    folder = write_run(runs)
    steps = list(read_stream(folder, "steps", Step))
    ok = Observation(kind=ObservationKind.OK, text="ok\n")
    edited = steps[1].model_copy(update={"observation": ok})
    (folder / "steps.jsonl").unlink()
    stream = Stream(folder, "steps", Step)
    for step in [steps[0], edited, *steps[2:]]:
        stream.append(step)
    stream.close()
    with served.browser() as client:
        page = client.get(f"/runs/{folder.name}/cells/base/0/a__b-1").text
    assert steps[2].observation.exit_code == 1 and "<h4>Saw: exit code 1</h4>" in page
    assert "<h4>Saw: ok</h4>" in page and "ok, exit code" not in page
    assert 'aria-label="Saw: ok, step 2"' not in page, "the word stands there already"
    assert step_text(edited).endswith("── ok ──")


def test_tokens_are_counted_in_the_unit_that_they_fill(served: Served, runs: Path) -> None:
    folder = write_run(runs, end={"prompt_tokens": 10_000, "completion_tokens": 723})
    assert [shortened(each) for each in (812, 999.6, 42_892, 999_960, 1_234_567)] == ["812", "1.0 k", "42.9 k", "1.0 M", "1.2 M"]  # fmt: skip
    with served.browser() as client:
        for path in ("/", f"/runs/{folder.name}"):
            assert "42.9 k tokens" in plain(client.get(path).text), path
    told = io.StringIO()
    Console(file=told, width=200).print(screen(Projection(runs).status(), 40, runs))
    assert "42.9 k tokens" in told.getvalue()


def test_arms_stand_against_each_other_with_the_cells_that_part_them(served: Served, runs: Path) -> None:
    folder = write_run(runs, arms=("base", "other", "third"))
    with served.browser() as client:
        page = client.get(f"/runs/{folder.name}/arms?a=other&b=base").text
        said = plain(page)
        assert "only other resolves: 2" in said and "only base resolves: 0" in said
        assert f"/runs/{folder.name}/diff?a=other/0/a__b-1&amp;b=base/0/a__b-1" in page
        assert "temperature: 0.2 | 0.0" in said and "exploratory" in said
        same = plain(client.get(f"/runs/{folder.name}/arms?a=third&b=other").text)
        assert "Both resolve 2, neither 0" in same
        assert client.get(f"/runs/{folder.name}/arms?a=none&b=base").status_code == 404


def test_two_arms_say_at_how_many_tasks_memory_was_told_something(served: Served, runs: Path) -> None:
    """Where nothing was told, the arms are the same one twice."""
    folder = remembered(runs, items=[("a__b-0", 50)], found=1)
    with served.browser() as client:
        for first, second in (("other", "base"), ("base", "other")):
            said = plain(client.get(f"/runs/{folder.name}/arms?a={first}&b={second}").text)
            assert "other: told something at 0 of 2 tasks; nothing at 2: " in said


def test_a_cell_that_was_told_nothing_says_why(served: Served, runs: Path) -> None:
    folder = remembered(runs, items=[("a__b-0", 50)], found=1)
    with served.browser() as client:
        other, base = (
            plain(client.get(f"/runs/{folder.name}/cells/{arm}/0/a__b-1").text) for arm in ("other", "base")
        )
    assert "Memory told nothing: none of 1 item from earlier tasks of a__b shares a telling word" in other
    assert "Memory told nothing" not in base, "it has no memory"


def test_what_an_arm_learned_stands_key_by_key(served: Served, runs: Path) -> None:
    by_default, other = remembered(runs), remembered(runs, how=Remembering(kind=MemoryKind.PLAYBOOK))
    with served.browser() as client:
        said = [plain(client.get(f"/runs/{folder.name}/learned").text) for folder in (by_default, other)]
    assert "learned: treatment memory, source gold, memory as by default" in said[0]
    assert "learned: treatment memory, source gold, memory.kind playbook" in said[1]
    assert "{" not in said[0] + said[1]


def test_the_page_of_the_prime_says_what_that_is(served: Served) -> None:
    with served.browser() as client:
        assert "The prime is the model that leads the evolution of a repository" in client.get("/prime").text


def test_while_experience_is_gathered_its_cells_are_named_and_found(served: Served, runs: Path) -> None:
    folder = remembered(runs)
    verdicts = list(read_stream(folder, "verdicts", Verdict))
    for name in ("verdicts", "trajectories"):
        (folder / f"{name}.jsonl").unlink()
    stream = Stream(folder, "verdicts", Verdict)
    cell = "experience_gold_1/0/a__b-0"
    stream.append(verdicts[0].model_copy(update={"cell": cell, "instance_id": "a__b-0"}))
    with served.browser() as client:
        page = client.get(f"/runs/{folder.name}").text
        assert "<option>experience_gold_1</option>" in page
        (link,) = re.findall(r'What has ended so far is experience.*?href="([^"]*)"', page, re.DOTALL)
        assert "experience_gold_1 (1)" in plain(page)
        listed = client.get(link.partition("#")[0]).text
        assert "<option selected>experience_gold_1</option>" in listed and f"/cells/{cell}" in listed
        assert "1 cell." in plain(listed[listed.index('id="cells"') :])
        assert 'id="experience"' in client.get(f"/runs/{folder.name}?part=now").text
        stream.append(verdicts[1])
        later = client.get(f"/runs/{folder.name}").text
    stream.close()
    assert "What has ended so far" not in later, "an arm that is compared has a result"
    assert "<option>experience_gold_1</option>" in later


def test_what_was_registered_of_two_arms_stands_on_their_page_either_way_round(
    served: Served, runs: Path
) -> None:
    contrast = Contrast(arm="other", against="base", shown="A.", refuted="B.", open="C.")
    folder = write_run(runs, contrasts=[contrast])
    with served.browser() as client:
        forth, back = (
            plain(client.get(f"/runs/{folder.name}/arms?a={a}&b={b}").text)
            for a, b in (("other", "base"), ("base", "other"))
        )
    for said in (forth, back):
        assert "Primary , registered before the data as other − base: pilot : +100.0 points" in said
        assert "1 contrast in one family" in said and "the unit is the task" in said
    assert "other − base (registered: pilot, " in forth and "): +100.0 points, " in forth
    assert "base − other (registered as other − base: pilot, " in back and "): -100.0 points, " in back


def test_a_failed_arm_has_no_difference_on_the_page_of_arms(served: Served, runs: Path) -> None:
    folder = write_run(runs, arms=("base", "other", "third"))
    fails(folder, "other", "31 of 40 steps held no action")
    with served.browser() as client:
        said = plain(client.get(f"/runs/{folder.name}/arms?a=other&b=base").text)
        assert (
            "other − base (exploratory): no difference, other is a failed arm and has no rate: 31 of 40 steps held no action"
            in said
        )
        assert " points" not in said and "Both resolve" not in said and "temperature: 0.2 | 0.0" in said
        assert "+100.0 points" in plain(client.get(f"/runs/{folder.name}/arms?a=third&b=base").text)


def test_rollouts_beside_each_other_show_what_was_edited(project: Project) -> None:
    assert project.looper("run", "test", "--arm", "base", "--arm", "gold").returncode == 0
    where = next(verdict.cell for verdict in project.verdicts()).partition("/")[2]
    with real_server(project) as client:
        page = client.get(f"/runs/{project.run.name}/diff?a=base/{where}&b=gold/{where}").text
    steps = page[page.index('class="pairs"') : page.index('id="patches"')]
    steps = re.sub(r"<details.*?</details>", "", steps, flags=re.DOTALL)  # What is folded away is not seen.
    assert '<span class="del">-one</span>' in steps and '<span class="add">+two</span>' in steps


def test_all_rollouts_of_a_run_are_searched(served: Served, runs: Path) -> None:
    folder = write_run(runs, steps=60, seen='a "quoted" Line')
    with served.browser() as client:
        page = client.get(f"/runs/{folder.name}/search?find=QUOTED%22+line+33").text
        assert "4 steps" in page and page.count("<mark>") == 4
        assert f'/runs/{folder.name}/cells/other/0/a__b-2?attempt=1&amp;step=33#step-33"' in page
        many = client.get(f"/runs/{folder.name}/search?find=line").text
        assert "The first 100 steps; there are more" in many
        assert "0 steps" in client.get(f"/runs/{folder.name}/search?find={HOSTILE[:20]}").text


def test_a_text_that_lies_beside_the_steps_is_searched_as_well(served: Served, runs: Path) -> None:
    folder = write_run(runs, tasks=("a__b-1",), steps=2, seen=f"{'line ' * 60_000}and the Needle")
    assert len(list((folder / "texts").iterdir())) == 2
    with served.browser() as client:
        page = client.get(f"/runs/{folder.name}/search?find=the+needle").text
    assert "4 steps" in page and page.count("<mark>the Needle</mark>") == 4


def test_a_gate_that_stopped_a_run_stands_on_its_page_until_its_proof_is_there(
    served: Served, runs: Path
) -> None:
    folder = write_run(runs, judged=lambda cell: not cell.startswith("other"))

    def now() -> tuple[dict[str, Any], str]:
        with served.program() as client:
            (run,) = client.get("/status").json()["runs"]
        with served.browser() as client:
            return run, client.get(f"/runs/{folder.name}").text

    run, page = now()
    assert not run["stopped_by"] and "Go on with: <code>" in page
    subject = "x x"
    said = "other: x has a window of 9 tokens, and the plan wants 10. Serve <b>another</b>."
    stops = Stream(folder, "gate_stops", GateStop)
    stops.append(GateStop(gate=StoppingGate.CONTEXT, arm="other", subject=subject, said=said))
    run, page = now()
    assert run["stopped_by"] == [f"Stopped by the gate context: {said[:-1]}"] and not run["stops_again"]
    assert "wants 10. Serve &lt;b&gt;another&lt;/b&gt;.</p>" in page
    assert "Once that is put right, go on with: <code>" in page, "a server can be put right"
    told = {"value": 0.5, "least": 0.9, "said": "1 of 2 tasks told something"}
    memory = {"gate": StoppingGate.MEMORY_DELIVERED, "arm": "other", "subject": "memory", **told}
    stops.append(GateStop.model_validate(memory))
    run, page = now()
    assert run["goes_on_with"] is None and run["stops_again"] and len(run["stopped_by"]) == 2
    assert "Pass it over with: <code>" in page and "go on with: <code>" not in page
    stops.close()
    proofs = Stream(folder, "proofs", Proof)
    for kind, what in ((ProofKind.CONTEXT, subject), (ProofKind.MEMORY_DELIVERED, "memory")):
        proofs.append(Proof(kind=kind, arm="other", subject=what, passed=True, said="it is"))
    proofs.close()
    run, page = now()
    assert not run["stopped_by"] and "Go on with: <code>" in page


def test_nodes_of_a_cluster_are_counted_and_those_that_take_no_cells_are_named(
    served: Served, runs: Path
) -> None:
    folder = write_run(
        runs, found={"node": "10.0.0.5"}, judged=lambda cell: not cell.startswith("other"), cause="it failed"
    )
    ledger = Stream(folder, "sessions", Session)
    ledger.append(Session(pid=os.getpid(), workers=1, begun="2026-01-02T00:00:00+00:00", done_before=0))
    ledger.close()
    stream = Stream(folder, "nodes", ClusterNode)
    for address, state, said, day in (
        ("10.0.0.4", NodeState.READY, "gold resolves a__b-1", 1),
        ("10.0.0.5", NodeState.READY, "gold resolves a__b-1", 2),
        ("10.0.0.6", NodeState.READY, "gold resolves a__b-1", 2),
        ("10.0.0.6", NodeState.LOST, "", 3),
        ("10.0.0.7", NodeState.REFUSED, "<b>no</b> sandbox", 2),
    ):
        at = f"2026-01-0{day}T00:00:00+00:00"
        stream.append(ClusterNode(node=f"id {address}", address=address, state=state, said=said, at=at))
    stream.close()
    with contextlib.closing(RunLock(folder)):
        with served.program() as client:
            (run,) = client.get("/status").json()["runs"]
        states = [(one["node"][-1], one["state"], one["cells"]) for one in run["nodes"]]
        assert states == [("4", "before", 0), ("5", "ready", 2), ("6", "lost", 0), ("7", "refused", 0)]
        assert run["queued"] == 1, "of two that are not done, one is worked on"
        with served.browser() as client:
            page = client.get(f"/runs/{folder.name}").text
        part = page[page.index('id="nodes"') :].partition("</table>")[0]
        assert "not begun: 1" in part and "10.0.0.6</th><td>lost" in part
        assert "&lt;b&gt;no&lt;/b&gt; sandbox" in part
    told = "4 nodes: 10.0.0.4 0 cells (before), 10.0.0.6 0 cells (lost), 10.0.0.7 0 cells (refused), 10.0.0.5 2 cells; 1 cell not begun"
    assert nodes_text(run, 9) == told
    assert nodes_text({"nodes": run["nodes"], "queued": 0}, 1) == "4 nodes: 10.0.0.4 0 cells (before), 3 more"
    assert nodes_text({"nodes": [], "queued": 3}, 4) == "", "of a run of one machine nothing is said"


def test_a_rollout_at_work_is_found_and_its_last_steps_are_shown(served: Served, runs: Path) -> None:
    folder = write_run(runs, steps=PAGE + 5, judged=lambda cell: cell != "other/0/a__b-2")
    lock = RunLock(folder)
    try:
        with served.program() as client:
            (run,) = client.get("/status").json()["runs"]
            assert run["at_work"] == [{"cell": "other/0/a__b-2", "attempt": 1, "steps": PAGE + 5}]
        with served.browser() as client:
            page = client.get(f"/runs/{folder.name}").text
            part = page[page.index('id="at-work"') :].partition("</p>")[0]
            assert f"/runs/{folder.name}/cells/other/0/a__b-2" in part and f"step {PAGE + 5}" in part
            assert client.get(f"/runs/{folder.name}?outcome=at+work").text.count("outcome at-work") == 1
            cell = client.get(f"/runs/{folder.name}/cells/other/0/a__b-2").text
            assert (
                steps_on(cell) == list(range(PAGE + 1, PAGE + 6)) and f'data-follow="{folder.name}"' in cell
            )
            over = client.get(f"/runs/{folder.name}/cells/other/0/a__b-1").text
            assert "data-follow" not in over and steps_on(over)[0] == 1
    finally:
        lock.close()


def test_every_failed_cell_leads_to_the_next(served: Served, runs: Path) -> None:
    folder = write_run(runs, tasks=("a__b-1", "a__b-2", "a__b-3"))
    seen, where = [], f"/runs/{folder.name}"
    with served.browser() as client:
        for _ in range(4):
            where = re.search(r'id="next-failed" href="([^"]+)"', client.get(where).text)[1]  # type: ignore[index]
            seen.append(where.rpartition("/")[2])
    assert seen == ["a__b-1", "a__b-2", "a__b-3", "a__b-1"]


def next_from(client: httpx.Client, where: str) -> str | None:
    found = re.search(r'id="next-failed" href="([^"]+)"', client.get(where).text)
    return html.unescape(found[1]) if found else None


def test_what_must_fail_comes_last_of_the_failed_cells_and_a_filter_is_kept(
    served: Served, runs: Path
) -> None:
    tasks = ("a__b-1", "a__b-2")
    folder = write_run(runs, arms=("nothing", "base", "other"), noop="nothing", tasks=tasks)
    where = f"/runs/{folder.name}"

    def walk(first: str, steps: int) -> list[str]:
        seen, place = [], first
        for _ in range(steps):
            place = next_from(client, place) or ""
            seen.append(place.partition("/cells/")[2].partition("?")[0])
        return seen

    with served.browser() as client:
        order = [f"{arm}/0/{task}" for arm in ("base", "nothing") for task in tasks]
        assert walk(where, 5) == [*order, order[0]]
        part = client.get(f"{where}?outcome=failed").text.partition('id="cells"')[2]
        assert re.findall(r'<th scope="row"><a [^>]*>([^<]+)', part) == order
        assert walk(f"{where}?arm=nothing", 3) == [*order[2:], order[2]], "only cells of the filter"
        assert walk(f"{where}?find=b-2", 3) == [order[1], order[3], order[1]]
        assert walk(f"{where}?find=a+test+failed&outcome=unresolved", 2) == order[:2]
        for nothing in ("arm=other", "outcome=resolved", "outcome=without+a+verdict"):
            assert next_from(client, f"{where}?{nothing}") is None, nothing
        row = re.search(r'<a href="([^"]+)">nothing/0/a__b-1</a>', client.get(f"{where}?arm=nothing").text)
        assert row is not None
        assert walk(html.unescape(row[1]), 1) == ["nothing/0/a__b-2"], "from the list as well"
        step = re.search(r'href="([^"]+)#step-2"', client.get(html.unescape(row[1])).text)
        assert step is not None
        assert walk(html.unescape(step[1]), 1) == ["nothing/0/a__b-2"], "and from a step of it"


def test_without_a_verdict_is_every_cell_that_has_none_and_views_take_no_filter_along(
    served: Served, runs: Path
) -> None:
    outcome = {"outcome": Outcome.CANCELLED, "cause": "cancelled"}
    folder = write_run(runs, judged=lambda cell: cell != "other/0/a__b-2", found=outcome)
    with served.browser() as client:
        page = client.get(f"/runs/{folder.name}?arm=base&find=b-1&outcome=cancelled&sort=steps").text
        views = page.partition('id="views"')[2].partition("</p>")[0]
        asked = {
            name: dict(urllib.parse.parse_qsl(where))
            for where, name in re.findall(r'href="\?([^#"]*)#[^"]*">([^<]+)', html.unescape(views))
        }
        assert asked == {
            "all failed": {"outcome": "failed"},
            "without a verdict": {"outcome": "without a verdict"},
            "slowest": {"sort": "seconds", "descending": "1"},
            "most tokens": {"sort": "tokens", "descending": "1"},
        }
        none = client.get(f"/runs/{folder.name}?outcome=without+a+verdict").text.partition('id="cells"')[2]
    assert "4 cells" in none and "other/0/a__b-2" in none and "base/0/a__b-1" in none


def test_a_restart_logs_nobody_out_and_a_campaign_that_began_since_is_there(project: Project) -> None:
    with real_server(project) as client:
        port, cookies = client.base_url.port, dict(client.cookies)
        assert "Nothing evolves here" in client.get("/evolution").text
        subprocess.run(["git", "init", "-q", str(project.folder / "evolving" / "repository")], check=True)
        assert "Nothing evolves here" not in client.get("/evolution").text
    assert port is not None
    with real_server(project, port, cookies) as client:
        assert client.get("/").status_code == 200
    with real_server(project, port, {"looper_session": "made-up"}) as client:
        assert client.get("/").status_code == 401
    (kept,) = (Path(project.environment["LOOPER_HOME"]) / "serve").glob(f"{port}.sessions")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert cookies["looper_session"] not in kept.read_text(), "who reads the file cannot log in"


# The projection


def test_the_projection_reads_on_and_agrees_with_the_command(served: Served, runs: Path) -> None:
    folder = write_run(runs, judged=lambda cell: cell.endswith("-1"))
    with served.program() as client:
        before = client.get("/status").json()
        assert [run["finished"] for run in before["runs"]] == [2] and before["runs"][0][
            "standing"
        ] == "stopped"
        whole = write_run(runs.parent / "other")
        for name in ("verdicts", "trajectories"):
            lines = (whole / f"{name}.jsonl").read_bytes().splitlines(keepends=True)
            with (folder / f"{name}.jsonl").open("ab") as stream:
                stream.writelines(line for line in lines if b"a__b-2" in line)
                stream.write(b'{"seq":9,"half a li')
        after = client.get("/status").json()
        assert after["runs"][0]["finished"] == 4 and after["runs"][0]["standing"] == "finished"
        assert after["runs"][0]["damaged_records"] == 0, "a line that is being written is no damage"
        fresh = Projection(runs).status()
        for said in (after, fresh):
            said["runs"][0].pop("quiet_s")
        assert after == fresh
        page = client.get(f"/runs/{folder.name}", headers={"Accept": "text/html"}).text
        assert '<b data-number="finished">4</b>' in page
        shutil.rmtree(folder)
        assert client.get("/status").json() == {"runs": [], "unreadable": []}


def test_an_adapter_that_an_arm_brought_along_is_on_the_page_of_what_was_learned(
    served: Served, runs: Path, tmp_path: Path
) -> None:
    folder = write_run(runs, adapter="3f2a91c04d5e6b78")
    with served.browser() as client:
        learned = client.get(f"/runs/{folder.name}/learned")
    assert learned.status_code == 200 and "3f2a91c04d5e6b78" in learned.text
    asked = ("report", str(folder), "--bundle", str(tmp_path / "pages"))
    done = program.looper(*asked)
    assert done.returncode == 0, done.stderr
    assert "3f2a91c04d5e6b78" in (tmp_path / "pages" / "learned.html").read_text()


def test_nothing_is_written_and_no_lock_is_taken(served: Served, runs: Path) -> None:
    folder = write_run(runs)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with served.browser() as client:
        for path in ("", "/tasks", "/learned", "/curves", "/cells/base/0/a__b-1", "/status"):
            assert client.get(f"/runs/{folder.name}{path}").status_code == 200
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_stream_tells_everything_first_and_then_what_changed(served: Served, runs: Path) -> None:
    folder = write_run(runs, judged=lambda cell: False)
    whole = write_run(runs.parent / "other")
    with served.program() as client, client.stream("GET", "/events") as stream:
        events = parsed(stream.iter_lines())
        name, data = next(events)
        assert name == "status" and data["runs"][0]["finished"] == 0
        shutil.copy(whole / "verdicts.jsonl", folder / "verdicts.jsonl")
        name, data = next(events)
        assert name == "changed" and [(run["run"], run["finished"]) for run in data["runs"]] == [
            (folder.name, 4)
        ]


def parsed(lines):  # type: ignore[no-untyped-def]
    """Name and data of each event."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


# To be read by everybody


def colours(selector: str) -> dict[str, str]:
    """The named colours of one theme."""
    text = (resources.files("looper.views.web") / "static" / "looper.css").read_text("utf-8")
    block = text[text.index(selector) :].partition("}")[0]
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))


def luminance(colour: str) -> float:
    """Relative, as WCAG 2.2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [":root {", ":root:not([data-theme=light]) {", ":root[data-theme=dark] {"])
def test_every_colour_of_text_stands_out_from_what_it_stands_on(theme: str) -> None:
    """4.5 to 1, WCAG 2.2 level AA; lines of a patch on their own grounds too."""
    found = colours(theme)
    pairs = [
        (ink, ground)
        for ink in ("ink", "soft", "good", "bad", "accent", "warn")
        for ground in ("page", "box")
    ]
    for ink, ground in [*pairs, ("ink", "add"), ("ink", "del"), ("ink", "at")]:
        high, low = sorted((luminance(found[ink]), luminance(found[ground])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{ink} on {ground}"


def test_a_ledger_that_is_damaged_hides_no_run(runs: Path, tmp_path: Path) -> None:
    folder = write_run(runs)
    subprocess.run(["git", "init", "-q", str(tmp_path / "evolving" / "repository")], check=True)
    (tmp_path / "evolving" / "ledger").mkdir()
    (tmp_path / "evolving" / "ledger" / "events.jsonl").write_text("no event\n")
    with (
        serving(runs, tmp_path / "deeds", EmbeddedCampaign(tmp_path / "evolving")) as found,
        found.browser() as client,
    ):
        first = client.get("/")
        assert first.status_code == 200 and folder.name in first.text
        assert "events.jsonl line 1 is damaged" in first.text
        assert "events.jsonl line 1 is damaged" in client.get("/evolution").text
