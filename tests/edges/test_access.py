"""What the sandbox's user reads is readable, wherever it was made: rows R1, R6, C12."""

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from looper.bench.runners import programs
from looper.edges.access import closed_to_others, share, shared_folder
from looper.edges.environments.beside import site_for, stamped_site
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.sandboxes.bare import NoSandbox
from looper.edges.workspaces.archives import unpack
from looper.edges.workspaces.exports import GitSessions, provided
from looper.errors import BadInput, EnvironmentBroken, WorkspaceError


@pytest.fixture
def closed_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def closed(place: Path) -> list[str]:
    """Of a folder and all below it what others may not read, or enter."""
    found = []
    for path in (place, *place.rglob("*")):
        needed = 0o055 if path.is_dir() else 0o044
        if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & needed != needed:
            found.append(str(path.relative_to(place)))
    return found


@pytest.mark.usefixtures("closed_umask")
def test_r6_what_commands_read_is_open_whatever_the_umask(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    HarnessEnvironment(home / "environments").made()
    stamped_site(shared_folder(home / "environments" / "real"), "name", "name.version", "1.2")
    site_for(home / "environments" / "images" / "one", Path("/release"), ("name",))
    GitSessions(
        {}, home / "exports", home / "workspaces", NoSandbox(), HarnessEnvironment(home / "environments").of
    )
    provided(home / "workspaces", programs())
    assert closed(tmp_path / "new") == []


@pytest.mark.usefixtures("closed_umask")
def test_r6_a_program_stays_one_and_no_other_file_becomes_one(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\n")
    (tmp_path / "program").chmod(0o700)
    (tmp_path / "text").write_text("")
    share(tmp_path)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("program", "text")] == [0o755, 0o644]


@pytest.mark.parametrize("below", ["/proc/nope", "/dev/null/x"])
def test_a_folder_that_cannot_be_made_is_named_with_what_chooses_another(below: str) -> None:
    with pytest.raises(BadInput, match=f"The folder {below}/suites cannot be made: .* LOOPER_HOME"):
        shared_folder(Path(below) / "suites")


def test_a_tree_that_cannot_be_opened_says_so_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentBroken, match="missing cannot be opened .*: No such file"):
        share(tmp_path / "missing")


def test_r6_the_first_closed_folder_on_the_way_is_named(state: Path) -> None:
    inner = shared_folder(state / "open" / "shut" / "inner")
    assert closed_to_others([inner, state / "missing" / "x"]) is None
    (state / "open" / "shut").chmod(0o700)
    assert closed_to_others([state, inner]) == (state / "open" / "shut", inner)


def archive(*entries: tarfile.TarInfo) -> bytes:
    """Each file holds its own name."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for entry in entries:
            content = entry.name.encode() if entry.isfile() else b""
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o664) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, mode
    return made


@pytest.mark.usefixtures("closed_umask")
def test_c12_archives_are_unpacked_with_the_modes_that_git_knows(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    inside = archive(
        entry("folder", tarfile.DIRTYPE, mode=0o775),
        entry("folder/text"),
        entry("folder/program", mode=0o4777),
        entry("link", tarfile.SYMTYPE, "folder/text"),
        entry("out", tarfile.SYMTYPE, "/etc/passwd"),
        entry("..dots"),
    )
    unpack(inside, tree, links_may_leave=True)
    assert (tree / "link").read_text() == "folder/text" and os.readlink(tree / "out") == "/etc/passwd"
    modes = {name: stat.S_IMODE((tree / "folder" / name).stat().st_mode) for name in ("", "text", "program")}
    assert modes == {"": 0o755, "text": 0o644, "program": 0o755}
    with pytest.raises(WorkspaceError, match="holds what leaves it: out"):
        unpack(inside, tmp_path / "other", links_may_leave=False)


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../evil")],
        [entry("/evil")],
        [entry("folder/../../evil")],
        [entry("link", tarfile.SYMTYPE, ".."), entry("link/evil")],
        [entry("evil", tarfile.LNKTYPE, "/etc/passwd")],
        [entry("evil", tarfile.FIFOTYPE)],
        [entry("evil", tarfile.CHRTYPE)],
    ],
    ids=["above", "absolute", "through a folder", "through a link", "hard link", "pipe", "device"],
)
def test_c12_an_archive_that_leaves_its_folder_is_refused_on_every_python(
    tmp_path: Path, entries: list[tarfile.TarInfo]
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with pytest.raises(WorkspaceError, match="holds what leaves it"):
        unpack(archive(*entries), tree, links_may_leave=True)
    assert not (tmp_path / "evil").exists() and not Path("/evil").exists()
    assert not os.path.lexists(tree / "evil")
