"""The real program as a process of its own, begun where reading its modules ends: that is most of what a short command costs.

A server per test process reads the modules once and forks for every command; arguments, folder, environment, input, output, exit code and
what ends a process are those of a command that was started. All commands of one test process have one
hash seed. What a start itself does (the interpreter's own variables and options, an import that fails, a signal while modules are read) is
tested by commands that really are started: `argv` of a Popen.
"""

import contextlib
import importlib
import os
import pickle
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
ARGV = (sys.executable, "-m", "looper.cli.main")
READ_FIRST = ("scipy.stats", "scipy.optimize", "numpy", "looper.cli.main")
OF_A_START = (
    "PYTHON",
    "LC_",
    "LANG",
    "LD_",
    "MALLOC_",
    "OMP_",
    "OPENBLAS_",
    "FORCE_COLOR",
    "TERMINAL_WIDTH",
    "TYPER_",
)
"""Beginnings of variables that count while an interpreter or a library is loaded."""
WIDTH = 16
"""Bytes of a number that the server tells."""


def looper(
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    typed: str = "",
    timeout_s: float = 900,
) -> "subprocess.CompletedProcess[str]":
    """A command to its end, with `typed` as what it is given to read; raises TimeoutExpired, as subprocess does."""
    argv, folder = [*ARGV, *arguments], cwd or Path.cwd()
    variables = dict(os.environ if env is None else env)
    if sys.platform != "linux" or _at_start(variables) != AT_START:
        return subprocess.run(
            argv, cwd=folder, env=variables, input=typed, capture_output=True, text=True, timeout=timeout_s
        )
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(typed.encode())
        given.seek(0)
        code = _forked(argv, folder, variables, [given.fileno(), out.fileno(), err.fileno()], timeout_s)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode().replace("\r\n", "\n"))
        return subprocess.CompletedProcess(argv, code, *texts)


def _at_start(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith(OF_A_START)}


AT_START = _at_start(os.environ)


def _forked(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str], streams: list[int], timeout_s: float
) -> int:
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(_server())
        socket.send_fds(asked, [b"."], streams)
        asked.sendall(pickle.dumps((list(argv), os.fspath(cwd), dict(env))))
        asked.shutdown(socket.SHUT_WR)
        pid = int(asked.recv(WIDTH, socket.MSG_WAITALL))
        asked.settimeout(timeout_s)
        try:
            code = int(asked.recv(WIDTH, socket.MSG_WAITALL))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(argv), timeout_s) from None
    return code


@cache
def _server() -> str:
    """Where the server of this process listens; it ends with this process, which holds the other end of its input."""
    place = Path(tempfile.mkdtemp(prefix="program-")) / "door"
    reading, _held = os.pipe()
    subprocess.Popen(
        [sys.executable, "-m", "tests.program", str(place)],
        cwd=ROOT,
        stdin=reading,
        stdout=subprocess.DEVNULL,
    )
    os.close(reading)
    until = time.monotonic() + 120
    while not place.exists():
        assert time.monotonic() < until, "the program's modules cannot be read"
        time.sleep(0.02)
    return str(place)


def _serve(place: str) -> None:
    """Returns in each command's process, once; in the server when the tests are at their end."""
    import gc

    import looper.cli

    for name in (
        *READ_FIRST,
        *(f"looper.cli.{found.name}" for found in pkgutil.iter_modules(looper.cli.__path__)),
    ):
        importlib.import_module(name)
    gc.freeze()
    door = socket.socket(socket.AF_UNIX)
    door.bind(f"{place}.new")
    door.listen(8)
    os.rename(f"{place}.new", place)
    # What waits for a command is nobody's child to wait for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with selectors.DefaultSelector() as waited:
        waited.register(door, selectors.EVENT_READ)
        waited.register(0, selectors.EVENT_READ)
        while 0 not in (ready := [key.fd for key, _ in waited.select()]) and door.fileno() in ready:
            connection, _ = door.accept()
            with connection:
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    waited.close()
                    door.close()
                    return _attend(connection)
    with contextlib.suppress(OSError):
        os.unlink(place)
        os.rmdir(os.path.dirname(place))
    sys.exit()


def _attend(connection: socket.socket) -> None:
    """Forks the command, in which this returns, and tells its end to whoever asked."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    asked = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    if (pid := os.fork()) == 0:
        connection.close()
        argv, cwd, variables = pickle.loads(asked)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(variables)
        sys.orig_argv, sys.path[0] = argv, cwd
        sys.argv = [sys.modules["looper.cli.main"].__file__ or "", *argv[3:]]
        return
    for stream in streams:
        os.close(stream)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{pid:{WIDTH}}".encode())
        _, status = os.waitpid(pid, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status):{WIDTH}}".encode())
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
    from looper.cli.main import main

    main()
