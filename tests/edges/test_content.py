"""What a node lacks comes from the run's machine: whole or not at all, what was told and nothing else, and never more than there is
room for."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from looper.edges.content import CHUNK_BYTES, ContentCache, ContentSource, content_of, must_be_idle
from looper.edges.models.digests import FileDigests
from looper.edges.workspaces.exports import BaseTrees
from looper.edges.workspaces.mirrors import missing_commits, must_be_whole, packed_trees
from looper.errors import BadInput, DiskNearlyFull, InfrastructureError
from looper.records.content import ContentFile, ContentKind, Wanted
from looper.records.task import Task

ADAPTER = ContentKind.ADAPTER


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Adapters on the run's machine; one file is longer than an answer."""
    for name in ("first", "second"):
        folder = tmp_path / "there" / name
        (folder / "below").mkdir(parents=True)
        (folder / "adapters.safetensors").write_bytes(name.encode() * (CHUNK_BYTES // 3))
        (folder / "below" / "empty").touch()
    return tmp_path / "there"


def source(there: Path) -> ContentSource:
    return ContentSource(
        lambda kind, name: there / name if name in ("first", "second") else None, FileDigests()
    )


def cache(there: Path, here: Path, **other: object) -> ContentCache:
    return ContentCache(
        **{  # type: ignore[arg-type]
            "folder": here,
            "ask": source(there).answer,
            "needed_bytes": 0,
            "digests": FileDigests(),
            "stopped": lambda: False,
            "say": lambda said: None,
            **other,
        }
    )


def test_what_is_fetched_holds_what_is_there_and_is_fetched_once(there: Path, tmp_path: Path) -> None:
    asked: list[Wanted] = []

    def ask(wanted: Wanted) -> bytes:
        asked.append(wanted)
        answer = source(there).answer(wanted)
        assert len(answer) <= CHUNK_BYTES
        return answer

    for _ in range(2):
        found = cache(there, tmp_path / "here", ask=ask).place(ADAPTER, "first", None)
        assert found is not None and content_of(found, FileDigests()) == content_of(
            there / "first", FileDigests()
        )
    pieces = [wanted for wanted in asked if wanted.path]
    assert [wanted.offset for wanted in pieces] == [0, CHUNK_BYTES] and len(asked) == 4


def test_one_file_is_fetched_as_a_file(there: Path, tmp_path: Path) -> None:
    (there / "rows.jsonl").write_text("{}\n")
    rows = ContentSource(lambda kind, name: there / "rows.jsonl", FileDigests())
    found = cache(there, tmp_path / "here", ask=rows.answer).place(ContentKind.ROWS, "swe-bench", None)
    assert found is not None and found.name == "rows.jsonl" and found.read_text() == "{}\n"


def test_its_own_place_serves_where_it_holds_the_same_and_no_other(there: Path, tmp_path: Path) -> None:
    here = cache(there, tmp_path / "here")
    assert here.place(ADAPTER, "first", there / "first") == there / "first"
    other = cache(there, tmp_path / "here").place(ADAPTER, "first", there / "second")
    assert other not in (None, there / "second")
    assert here.place(ADAPTER, "third", None) is None, "which the run's machine does not have"


def test_what_was_damaged_here_is_fetched_anew(there: Path, tmp_path: Path) -> None:
    found = cache(there, tmp_path / "here").place(ADAPTER, "first", None)
    assert found is not None
    (found / "adapters.safetensors").write_bytes(b"else")
    again = cache(there, tmp_path / "here").place(ADAPTER, "first", None)
    assert again == found and (again / "adapters.safetensors").stat().st_size > CHUNK_BYTES


@pytest.mark.parametrize(
    "change", [lambda piece: piece[:-1] + b"?", lambda piece: b"", lambda piece: piece * 3]
)
def test_what_comes_otherwise_than_it_was_told_is_refused_and_leaves_nothing(
    there: Path, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    def ask(wanted: Wanted) -> bytes:
        answer = source(there).answer(wanted)
        return change(answer) if wanted.path else answer

    with pytest.raises(InfrastructureError, match="adapter first did not come as it was told"):
        cache(there, tmp_path / "here", ask=ask).place(ADAPTER, "first", None)
    assert [path.name for path in (tmp_path / "here").iterdir()] == [".lock"]


def test_no_path_leads_out_of_its_folder(there: Path, tmp_path: Path) -> None:
    listed = content_of(there / "first", FileDigests()).to_json().replace(b"adapters.s", b"../adapters.s")
    with pytest.raises(InfrastructureError, match=r"\.\./adapters\.safetensors is no path below a folder"):
        cache(there, tmp_path / "here", ask=lambda wanted: listed).place(ADAPTER, "first", None)
    with pytest.raises(InfrastructureError, match="does not have"):
        source(there).answer(Wanted(kind=ADAPTER, name="first", path="../second/adapters.safetensors"))


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (("a", "a"), "a stands where another file does"),
        (("a", "a/b"), "a/b stands where another file does"),
        (("n" * 300,), r"cannot be kept below \S+: File name too long\. Name a place that takes it"),
    ],
)
def test_of_what_cannot_be_kept_it_is_said_what_is_wrong_and_no_room_is_asked_for(
    tmp_path: Path, paths: tuple[str, ...], why: str
) -> None:
    files = [{"path": path, "size_bytes": 0, "sha256": hashlib.sha256().hexdigest()} for path in paths]
    listed = json.dumps({"files": files}).encode()
    with pytest.raises(InfrastructureError, match=why) as caught:
        cache(tmp_path, tmp_path / "here", ask=lambda wanted: listed).place(ADAPTER, "first", None)
    assert not isinstance(caught.value, DiskNearlyFull) and "oom" not in str(caught.value)


def test_a_disk_that_is_full_when_a_file_comes_is_said_with_what_makes_room(
    there: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True
    ).returncode:
        pytest.skip("a full disk is mounted by root alone")
    try:
        # Its size is told as nothing, so that the room is not missed before.
        listed = content_of(there / "first", FileDigests())
        with pytest.raises(DiskNearlyFull, match=r": No space left on device\. Make room there"):
            cache(there, small / "here", needed_bytes=-listed.size_bytes).place(ADAPTER, "first", None)
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_node_without_room_refuses_in_one_line(there: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DiskNearlyFull, match=r"^the adapter first takes \d+ MiB, and of \d+ MiB that are free"
    ):
        cache(there, tmp_path / "here", needed_bytes=1 << 60).place(ADAPTER, "first", None)


def test_what_nobody_uses_makes_room_and_what_somebody_uses_stays(there: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    begun = cache(there, here, kept_bytes=CHUNK_BYTES)
    first = begun.place(ADAPTER, "first", None)
    second = cache(there, here, kept_bytes=CHUNK_BYTES)
    assert first is not None and second.place(ADAPTER, "second", None) and first.exists()
    begun.close()
    second.close()
    (there / "second" / "more").touch()
    assert cache(there, here, kept_bytes=CHUNK_BYTES).place(ADAPTER, "second", None) and not first.exists()


def test_what_a_killed_process_left_is_removed_and_two_that_fetch_the_same_do_it_once(
    there: Path, tmp_path: Path
) -> None:
    left = tmp_path / "here" / ".unfinished-0"
    left.mkdir(parents=True)
    program = """
import sys
from pathlib import Path
from tests.edges.test_content import ADAPTER, cache
cache(Path(sys.argv[1]), Path(sys.argv[2]), say=print).place(ADAPTER, "first", None)
"""
    root = Path(__file__).parents[2]
    asked = [sys.executable, "-c", program, str(there), str(tmp_path / "here")]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    both = [subprocess.Popen(asked, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(each.communicate()[0] for each in both)
    assert said.count("adapter first fetched") == 1 and not left.exists()


def test_packed_trees_are_a_mirror_of_the_commits_of_tasks_alone(
    micro: tuple[tuple[Task, ...], dict[str, Path]], tmp_path: Path
) -> None:
    """What a node exports from one is what the run's machine exports from the repository with all of its history."""
    tasks, mirrors = micro
    name = f"{tasks[0].suite}:{tasks[0].repo}"
    mine = [task for task in tasks if f"{task.suite}:{task.repo}" == name]
    wanted = [mine[1].base_commit, mine[-1].base_commit]
    packed = packed_trees(mirrors[name], wanted, tmp_path / "packs")
    assert packed is not None and packed == packed_trees(mirrors[name], wanted, tmp_path / "packs")
    packs = ContentSource(lambda kind, name: packed, FileDigests())
    here = cache(tmp_path, tmp_path / "here", ask=packs.answer).place(ContentKind.TREES, name, None)
    assert here is not None
    must_be_whole(here, wanted)
    assert len(missing_commits(here, mine)) == len({task.base_commit for task in mine} - {*wanted})
    for task in (mine[1], mine[-1]):
        trees = [
            BaseTrees({name: mirror}, tmp_path / mirror.name).base_tree(task)
            for mirror in (mirrors[name], here)
        ]
        there, fetched = (content_of(tree, FileDigests()).files for tree in trees)
        assert [file for file in there if not file.path.startswith(".git/")] == [
            file for file in fetched if not file.path.startswith(".git/")
        ]


def test_what_a_process_of_this_machine_is_at_work_with_is_not_to_be_removed(
    there: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "here"
    must_be_idle(folder)
    at_work = cache(there, folder)
    assert at_work.place(ADAPTER, "first", None) is not None
    with pytest.raises(BadInput, match="is at work in"):
        must_be_idle(folder)
    at_work.close()
    must_be_idle(folder)


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../up", ".", "a//b", "", "a\0"])
def test_a_listing_names_only_files_below_its_folder(path: str) -> None:
    with pytest.raises(ValueError, match="is no path below a folder"):
        ContentFile(path=path, size_bytes=1, sha256=64 * "0")


def test_linked_folders_belong_to_what_a_folder_holds(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "part").write_bytes(b"w")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "linked").symlink_to(tmp_path / "weights")
    assert [file.path for file in content_of(tmp_path / "model", FileDigests()).files] == ["linked/part"]
