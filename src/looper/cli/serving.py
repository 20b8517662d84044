"""What `looper serve` does.

Puts the server together: its secret and sessions, the campaign, the tasks of runs, and the socket. `looper report --bundle` uses the
same pages without a server.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from looper.bench.validate import shipped
from looper.cli.adapters import card_reader
from looper.cli.options import json_line, the_run
from looper.cli.preparing import tasks_as_they_are
from looper.cli.repositories import opened
from looper.cli.served import EmbeddedCampaign, RepositoryCampaign
from looper.cli.settings import Settings
from looper.cli.wiring import examine
from looper.errors import BadInput, FileRefused, JournalError, LooperError, unwritable
from looper.journal import read_stream
from looper.records.base import content_hash
from looper.records.eligibility import Validation
from looper.records.plan import RunManifest
from looper.records.task import Task
from looper.records.text import counted
from looper.serve.app import application
from looper.serve.audit_log import AuditLog
from looper.serve.authenticator import Authenticator, loopback_origins
from looper.serve.bundle import write_bundle
from looper.serve.evolving import CampaignView
from looper.serve.pages import DoctorCheck, PageContext
from looper.serve.server import bound, server_of
from looper.untrusted import read_untrusted
from looper.views.findings import registered_rows
from looper.views.live import Projection

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SESSIONS_BYTES = 1 << 20
CHANGED = "The tasks of the suite are no longer what this run was given; they are shown as they are today."


@dataclass(frozen=True)
class ServeOptions:
    host: str
    port: int
    names: tuple[str, ...]
    """Under which browsers reach it beside loopback."""
    folder: Path
    repo: Path | None
    setting: dict[str, object]


def serve_pages(
    options: ServeOptions, settings: Settings, say: Callable[[str], None], *, as_json: bool = False
) -> None:
    """Until somebody ends it. Raises BadInput."""
    if options.host not in LOOPBACK and not options.names:
        raise BadInput(
            f"{options.host} can be reached by others. Say under which name browsers will find this server: --name NAME. Anyone who has a link "
            "sees everything, and nothing is encrypted on the way."
        )
    campaign = _campaign(options, settings, say)
    with contextlib.closing(_bound(options, settings)) as listening:
        port = int(listening.getsockname()[1])
        kept = settings.state / "serve" / f"{port}.sessions"
        auth = Authenticator(
            loopback_origins(port) | {f"http://{name}:{port}" for name in options.names},
            # Sessions outlive this process, so they end by the time of day.
            clock=time.time,
            sessions=_sessions_in(kept),
            keep=lambda sessions: _keep_sessions(sessions, kept),
        )
        projection, tasks = Projection(settings.runs), TasksOfRuns(settings)
        page_context = PageContext(
            projection,
            Campaigns(options, campaign).now,
            auth,
            card_reader(settings),
            lambda tasks: _eligible(tasks, settings),
            lambda: [
                DoctorCheck(found.level, found.what, found.found, found.fix)
                for found in examine("auto", settings)
            ],
            tasks.of,
        )
        with _token_file(settings, port, auth.token):
            shown = options.names[0] if options.names else "127.0.0.1"
            say(f"runs below {settings.runs}" + (f", evolution of {campaign.name}" if campaign else ""))
            say("Open this link, once, in a browser; Ctrl-C ends the server and touches no run:")
            link = f"http://{shown}:{port}/login?code={auth.new_code()}"
            print(json_line({"link": link}) if as_json else link, flush=True)
            server = server_of(application(page_context, AuditLog(settings.state / "serve")))
            threading.Thread(target=_warm, args=(projection, tasks), daemon=True).start()
            # uvicorn ends in order and then raises the signal once more, for whoever was asked before it: that is the end wanted.
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.default_int_handler)
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(server.serve(sockets=[listening]))


def bundled(
    wanted: Sequence[str], place: Path, settings: Settings, say: Callable[[str], None]
) -> Iterator[str]:
    """Write the pages of one run, the newest where none is named, as files; where, in words. Raises BadInput."""
    if len(wanted) > 1:
        raise BadInput("--bundle writes one run: name one.")
    run = the_run(settings.runs, *wanted)
    page_context = PageContext(
        Projection(run.folder.parent),
        lambda: None,
        Authenticator(frozenset()),
        card_reader(settings),
        lambda tasks: _eligible(tasks, settings),
        list,
        TasksOfRuns(settings).of,
    )
    if place.suffix != ".zip":
        count = write_bundle(page_context, run.folder.name, place, say)
        yield f"{place / 'index.html'}: {counted(count, 'page')} of {run.folder.name}"
        return
    if place.exists():
        raise BadInput(f"{place} is there already. Name another file.")
    try:
        # Beside the file, where there is to be room for it; nothing is left of it where that is not so.
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as work:
            (Path(work) / "pages").mkdir()
            count = write_bundle(page_context, run.folder.name, Path(work) / "pages" / run.folder.name, say)
            made = shutil.make_archive(f"{work}/made", "zip", Path(work) / "pages")
            os.replace(made, place)
    except OSError as error:
        raise unwritable(place, "file", error) from error
    yield f"{place}: {counted(count, 'page')} of {run.folder.name}, begin with index.html"


def _warm(projection: Projection, tasks: "TasksOfRuns") -> None:
    """Load and work out what the first pages need, while nobody waits for it."""
    import numpy
    import scipy.special

    del numpy, scipy
    with contextlib.suppress(LooperError, OSError):
        runs = projection.read()[0]
        for run in reversed(runs):
            registered_rows(run)
        if runs:
            tasks.of(runs[-1].manifest)


def _bound(options: ServeOptions, settings: Settings) -> socket.socket:
    """As `bound`; where a server of this user has the port, it is said how that one is opened."""
    try:
        return bound(options.host.replace("localhost", "127.0.0.1"), options.port)
    except BadInput as taken:
        try:
            another_link(options.port, settings)
        except BadInput:
            raise taken from None
        port = f" --port {options.port}"
        raise BadInput(
            f"Port {options.port} is in use by a looper serve of yours. To open that one: looper serve --link{port}. To begin another beside it: "
            f"{str(taken).rpartition(': ')[2]}"
        ) from taken


def another_link(port: int, settings: Settings) -> str:
    """That logs in one more browser, from a server that runs. Raises BadInput where none does."""
    path = _token_path(settings, port)
    try:
        token = path.read_text("ascii")
        answer = httpx.post(
            f"http://127.0.0.1:{port}/codes", json={}, headers={"Authorization": f"Bearer {token}"}, timeout=5
        )
        answer.raise_for_status()
    except (OSError, httpx.HTTPError) as error:
        others = sorted(int(found.stem) for found in path.parent.glob("*.token") if found != path)
        elsewhere = f" One may on port {others[0]}: looper serve --link --port {others[0]}." if others else ""
        raise BadInput(
            f"No server of yours answers on port {port}.{elsewhere} Begin one: looper serve --port {port}"
        ) from error
    return str(answer.json()["link"])


def _token_path(settings: Settings, port: int) -> Path:
    return settings.state / "serve" / f"{port}.token"


@contextlib.contextmanager
def _token_file(settings: Settings, port: int, token: str) -> Iterator[None]:
    """Readable by its owner alone, from its first moment on, and gone with the server."""
    path = _token_path(settings, port)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
    except OSError as error:
        raise BadInput(
            f"{path.parent} cannot be made: {error.strerror}. Name a place that can be written to with LOOPER_HOME."
        ) from error
    _write_private(path, token.encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _write_private(path: Path, content: bytes) -> None:
    # The mask of the process is also that of every file which other threads make meanwhile.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(content)
        temporary.replace(path)
    except OSError as error:
        raise JournalError(
            f"{path} cannot be written: {error.strerror}. Free space or change its rights."
        ) from error


def _keep_sessions(sessions: dict[str, float], path: Path) -> None:
    # Where they cannot be kept they end with this process, which is no reason to let nobody in.
    with contextlib.suppress(JournalError):
        _write_private(path, json.dumps(sessions).encode())


def _sessions_in(path: Path) -> dict[str, float]:
    """Those that an earlier server on the same port has opened; none where the file is not there or cannot be read, so browsers log
    in again."""
    try:
        found = json.loads(read_untrusted(path, SESSIONS_BYTES))
        return {str(key): float(end) for key, end in found.items()}
    except (FileRefused, ValueError, TypeError, AttributeError, RecursionError):
        return {}


@dataclass
class Campaigns:
    """The campaign that is served: the one that was there when the server began, else one that has begun in its folder since."""

    options: ServeOptions
    campaign: CampaignView | None

    def now(self) -> CampaignView | None:
        if self.campaign is None:
            self.campaign = _embedded(self.options.folder)
        return self.campaign


class TasksOfRuns:
    """The tasks that runs were given, from their suites; those of a run are loaded once. Safe for several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, tuple[Mapping[str, Task], str]] = {}
        self._lock = threading.Lock()

    def of(self, manifest: RunManifest) -> tuple[Mapping[str, Task], str]:
        """By id, and what is to be said of them. Raises BadInput where the suite cannot be had."""
        key = manifest.tasks_hash
        with self._lock:
            if key not in self._known:
                tasks = tasks_as_they_are(manifest, self._settings)
                changed = content_hash(*tasks) != manifest.tasks_hash
                self._known[key] = {task.instance_id: task for task in tasks}, CHANGED if changed else ""
            return self._known[key]


def _campaign(options: ServeOptions, settings: Settings, say: Callable[[str], None]) -> CampaignView | None:
    if options.repo is not None:
        return RepositoryCampaign(opened(options.repo, options.setting, settings, say))
    return _embedded(options.folder)


def _embedded(folder: Path) -> CampaignView | None:
    return EmbeddedCampaign(folder.absolute()) if (folder / "repository").is_dir() else None


def _eligible(tasks: Iterable[str], settings: Settings) -> dict[str, str]:
    """What `looper bench validate` found last of each of these tasks."""
    wanted, found = set(tasks), dict[str, str]()
    for each in (*shipped(), *read_stream(settings.validations, "validations", Validation)):
        if each.instance_id in wanted:
            found[each.instance_id] = "valid" if each.valid else f"not valid: {each.cause}"
    return found
