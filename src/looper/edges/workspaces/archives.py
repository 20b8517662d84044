"""Unpacking git's own archives by one rule on every Python: tarfile's filters came with 3.11.4."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from looper.edges.workspaces.manifest import link_leaves_tree
from looper.errors import WorkspaceError


def unpack(archive: bytes, target: Path, *, links_may_leave: bool) -> None:
    """Put the files, folders and links of an archive below an empty folder, readable for everybody whatever the umask is. Nothing
    is written outside of it, through a link, or into git's own records; links that point outside are kept where they may. Raises WorkspaceError."""
    root = os.path.realpath(target)
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extraction_filter = lambda member, path: (
            member
        )  # Checked already, and a newer Python would ask.
        packed.extractall(root, members=_checked(packed, root, links_may_leave))


def _checked(packed: tarfile.TarFile, root: str, links_may_leave: bool) -> Iterator[tarfile.TarInfo]:
    """Each entry once those before it are unpacked, so that links on its way are seen."""
    for member in packed:
        above = os.path.realpath(os.path.join(root, os.path.dirname(member.name)))
        stays = os.path.normpath(member.name) == member.name.rstrip("/") and not os.path.isabs(member.name)
        stays = stays and os.path.commonpath((root, above)) == root
        if member.issym():
            stays = stays and (links_may_leave or not link_leaves_tree(member.name, member.linkname))
        elif not member.isfile() and not member.isdir():
            stays = False
        if not stays:
            raise WorkspaceError(f"The tree holds what leaves it: {member.name}.")
        # Git checks out no such name: its settings name programs.
        if ".git" in member.name.lower().split("/"):
            raise WorkspaceError(f"The tree holds what is git's own: {member.name}.")
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        yield member
