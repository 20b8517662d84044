"""Reading and writing inside a tree whose links, pipes and names may be hostile."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from looper.edges.workspaces.manifest import LONGEST_PATH_BYTES
from looper.errors import FileRefused, is_of_what_was_made

READ_CAP_BYTES = 16 << 20
DEEPEST = 64
"""Parts of a path: deeper trees than this break other programs."""


class Tree:
    """Regular files below one folder. No link is followed, wherever it points, so that nothing can be swapped in
    between looking and opening: each folder on the way is opened from the one above it."""

    def __init__(self, root: Path, owner: int | None = None) -> None:
        self._root = root
        self._owner = owner

    def read(self, path: str) -> bytes:
        """Raises FileRefused."""
        parts = _parts(path)
        with _reasons(path), self._folder(parts[:-1]) as folder:
            descriptor = os.open(
                parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
            )
            with os.fdopen(descriptor, "rb") as stream:
                status = os.fstat(stream.fileno())
                _must_be_plain(status, path)
                if status.st_size > READ_CAP_BYTES:
                    raise FileRefused(f"{path} has {status.st_size} bytes, more than can be shown")
                return stream.read(READ_CAP_BYTES + 1)[:READ_CAP_BYTES]

    def write(self, path: str, content: bytes) -> None:
        """Make or replace a file, keeping its mode, with the folders above it. Raises FileRefused."""
        parts = _parts(path)
        if parts[0].lower() == ".git":
            raise FileRefused(f"{path} belongs to git's own records")
        with _reasons(path), self._folder(parts[:-1], make=True) as folder:
            mode = self._mode_of_existing(parts[-1], folder, path)
            # A new file takes the place of the old one: a hard link elsewhere keeps its own content.
            temporary = f".looper-{secrets.token_hex(8)}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(content)
                    os.fchmod(stream.fileno(), mode)
                    if self._owner is not None:
                        os.fchown(stream.fileno(), self._owner, self._owner)
                os.rename(temporary, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                os.unlink(temporary, dir_fd=folder)
                raise

    def _mode_of_existing(self, name: str, folder: int, path: str) -> int:
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return 0o644
        if stat.S_ISLNK(status.st_mode):
            raise FileRefused(f"{path} is a link; name the file itself")
        if not stat.S_ISREG(status.st_mode):
            raise FileRefused(f"{path} is not a regular file")
        return stat.S_IMODE(status.st_mode)

    @contextlib.contextmanager
    def _folder(self, parts: tuple[str, ...], make: bool = False) -> Iterator[int]:
        """Descriptor of the folder below the root that `parts` name."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        current = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                try:
                    below = os.open(part, flags, dir_fd=current)
                except FileNotFoundError:
                    if not make:
                        raise
                    os.mkdir(part, 0o755, dir_fd=current)
                    below = os.open(part, flags, dir_fd=current)
                    if self._owner is not None:
                        os.fchown(below, self._owner, self._owner)
                os.close(current)
                current = below
            yield current
        finally:
            os.close(current)


def _parts(path: str) -> tuple[str, ...]:
    """The path's components, checked as text before any of them reaches the system."""
    if "\0" in path:
        raise FileRefused("the path holds a NUL byte")
    try:
        if len(os.fsencode(path)) > LONGEST_PATH_BYTES:
            raise FileRefused(f"the path has {len(path)} characters, more than programs can be given")
    except UnicodeEncodeError as error:
        raise FileRefused(
            f"the path holds a character that no path can hold: {error.object[error.start]!a}"
        ) from error
    if path.startswith(("/", "~")):
        raise FileRefused(f"{path} is an absolute path; paths are relative to the repository's root")
    parts = PurePosixPath(path).parts
    if ".." in parts:
        raise FileRefused(f"{path} leaves the repository")
    if not parts:
        raise FileRefused("the path names no file")
    if len(parts) > DEEPEST:
        raise FileRefused(f"the path has {len(parts)} parts; {DEEPEST} are allowed")
    return parts


def _must_be_plain(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise FileRefused(f"{path} is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise FileRefused(f"{path} is not a regular file")
    if status.st_nlink > 1:
        raise FileRefused(f"{path} has a second name (hard link)")


@contextlib.contextmanager
def _reasons(path: str) -> Iterator[None]:
    """Turn what the system says into words that an agent can act on."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileRefused(f"no such file: {path}") from error
    except IsADirectoryError as error:
        raise FileRefused(f"{path} is a folder") from error
    except NotADirectoryError as error:
        raise FileRefused(f"{path} goes through a link or something that is no folder") from error
    except OSError as error:
        if error.errno == errno.ELOOP:  # what O_NOFOLLOW says of a link
            raise FileRefused(f"{path} is a link; name the file itself") from error
        if not is_of_what_was_made(error):
            raise  # A full disk is nothing that an agent could mend.
        raise FileRefused(f"{path}: {error.strerror}") from error
