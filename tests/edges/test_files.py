"""The file tools inside a hostile tree: rows F01 to F13."""

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from looper.edges.workspaces.files import Tree
from looper.errors import FileRefused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "ws"
    folder.mkdir()
    (folder / "inside.txt").write_text("inside")
    (tmp_path / "outside.txt").write_text("secret")
    (tmp_path / "ws-evil").mkdir()
    (tmp_path / "ws-evil" / "file").write_text("secret")
    return folder


@pytest.mark.parametrize(
    "path",
    [
        "../outside.txt",
        "a/../../outside.txt",
        "/etc/passwd",
        "~/x",
        "../ws-evil/file",
        "",
        ".",
        "x\0y",
        "n" * 300,
        "a/" * 2000 + "x",
    ],
)
def test_f01_f02_f08_paths_that_leave_or_cannot_be_are_refused(root: Path, path: str) -> None:
    (root / "a").mkdir()
    with pytest.raises(FileRefused):
        Tree(root).read(path)
    with pytest.raises(FileRefused):
        Tree(root).write(path, b"x")
    assert (root.parent / "outside.txt").read_text() == "secret"


@pytest.mark.parametrize("target", ["../outside.txt", "/proc/self/environ", "inside.txt", "loop"])
def test_f03_f04_links_are_not_followed_by_any_tool(root: Path, target: str) -> None:
    (root / "loop").symlink_to(target)
    with pytest.raises(FileRefused, match="link"):
        Tree(root).read("loop")
    with pytest.raises(FileRefused, match="link"):
        Tree(root).write("loop", b"x")
    assert (root.parent / "outside.txt").read_text() == "secret"


def test_f03_f10_linked_folders_are_not_entered(root: Path) -> None:
    (root / "folder").symlink_to("..")
    with pytest.raises(FileRefused):
        Tree(root).read("folder/outside.txt")
    with pytest.raises(FileRefused):
        Tree(root).write("folder/new.txt", b"x")
    assert not (root.parent / "new.txt").exists()


@pytest.mark.slow
def test_f05_a_link_swapped_in_at_the_last_moment_leaks_nothing(root: Path) -> None:
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            for make in (
                lambda: os.symlink("../outside.txt", root / "flip.new"),
                lambda: (root / "flip.new").write_text("inside"),
            ):
                make()
                os.replace(root / "flip.new", root / "flip")

    (root / "flip").write_text("inside")
    thread = threading.Thread(target=flip)
    thread.start()
    seen: set[bytes] = set()
    refused, until = 0, time.monotonic() + 3
    while time.monotonic() < until:
        try:
            seen.add(Tree(root).read("flip"))
        except FileRefused:
            refused += 1
    stop.set()
    thread.join()
    assert refused and seen <= {b"inside", b""}


def test_f06_a_file_with_a_second_name_is_not_read_and_not_written_through(root: Path) -> None:
    os.link(root.parent / "outside.txt", root / "second")
    with pytest.raises(FileRefused, match="second name"):
        Tree(root).read("second")
    Tree(root).write("second", b"changed")
    assert (root.parent / "outside.txt").read_text() == "secret"
    assert (root / "second").read_text() == "changed"


def test_f07_pipes_sockets_and_devices_are_refused_at_once(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(root)  # Names of sockets are short.
        try:
            server.bind("socket")
        finally:
            os.chdir(before)
        begun = time.monotonic()
        for name in ("pipe", "socket"):
            with pytest.raises(FileRefused):
                Tree(root).read(name)
            with pytest.raises(FileRefused):
                Tree(root).write(name, b"x")
        assert time.monotonic() - begun < 1


def test_f09_a_huge_sparse_file_is_refused_without_reading_it(root: Path) -> None:
    with (root / "huge").open("wb") as stream:
        stream.truncate(100 << 30)
    with pytest.raises(FileRefused, match="more than can be shown"):
        Tree(root).read("huge")


def test_writing_makes_folders_keeps_modes_and_leaves_no_temporary_file(root: Path) -> None:
    Tree(root).write("new/folder/file.py", b"x")
    assert (root / "new/folder/file.py").read_bytes() == b"x"
    (root / "inside.txt").chmod(0o755)
    Tree(root).write("inside.txt", b"y")
    assert (root / "inside.txt").stat().st_mode & 0o777 == 0o755
    assert not [name for _, _, names in os.walk(root) for name in names if name.startswith(".looper")]


def test_gits_own_records_cannot_be_written(root: Path) -> None:
    for path in (".git/config", ".GIT/hooks/pre-commit"):
        with pytest.raises(FileRefused, match="git's own"):
            Tree(root).write(path, b"[core]")


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00binary", b"\xef\xbb\xbfbom\r\n", b"no newline", b"", b"\r\n" * 3]
)
def test_f13_any_bytes_survive_a_round_trip(root: Path, content: bytes) -> None:
    tree = Tree(root)
    tree.write("file", content)
    assert tree.read("file") == content
