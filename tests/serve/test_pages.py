"""What pages show, of whatever is there: hostile texts, damage, nothing at all, very much."""

import html
import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from looper.cli.served import EmbeddedCampaign
from looper.journal import Stream, read_stream
from looper.records.deed import Deed, DeedKind
from looper.records.session import Session
from looper.serve.audit_log import AuditLog
from looper.serve.pages import DIFF_STEPS
from looper.views.live import Projection
from looper.views.trajectory import PAGE, TEXT_CHARS
from tests.fakes.written_run import write_run
from tests.serve.conftest import Served, serving

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


def test_more_steps_than_are_compared_are_said_to_be_there(served: Served, runs: Path) -> None:
    folder = write_run(runs, tasks=("a__b-1",), steps=DIFF_STEPS + 1)
    with served.browser() as client:
        page = client.get(f"/runs/{folder.name}/diff?a=base/0/a__b-1&b=other/0/a__b-1").text
    assert f"Only the first {DIFF_STEPS} steps" in page and f'id="pair-{DIFF_STEPS + 1}"' not in page


def test_a_decision_that_breaks_is_on_record_as_failed(tmp_path: Path) -> None:
    def broken() -> str:
        raise OSError("the disk is gone")

    with pytest.raises(OSError):
        AuditLog(tmp_path).do(DeedKind.PROMOTE, "1", "abcdef", broken, str)
    noted = [(deed.stage.value, deed.said) for deed in read_stream(tmp_path, "deeds", Deed)]
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
    text = (resources.files("looper.serve") / "static" / "looper.css").read_text("utf-8")
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
