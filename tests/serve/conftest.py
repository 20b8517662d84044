"""A server of pages on a port of its own, as `looper serve` puts it together, in a thread of the test."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from looper.records.training import AdapterRecord
from looper.serve.app import application
from looper.serve.audit_log import AuditLog
from looper.serve.authenticator import Authenticator, loopback_origins
from looper.serve.evolving import CampaignView
from looper.serve.pages import DoctorCheck, PageContext
from looper.serve.server import bound, server_of
from looper.views.live import Projection


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    url: str
    auth: Authenticator
    deeds: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def program(self) -> httpx.Client:
        """A client with the token, as a program has it."""
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.auth.token}"}, timeout=30
        )

    def browser(self) -> httpx.Client:
        """A client that has logged in by a link, as a browser does; pages are what it asks for."""
        entered = httpx.get(f"{self.url}/login?code={self.auth.new_code()}", timeout=30)
        assert entered.status_code == 303
        return httpx.Client(
            base_url=self.url, headers={"Accept": "text/html"}, cookies=dict(entered.cookies), timeout=30
        )


Serving = Callable[..., "contextlib.AbstractContextManager[Served]"]


@contextlib.contextmanager
def serving(
    runs: Path,
    deeds: Path,
    evolving: CampaignView | None = None,
    card_of: Callable[[str], AdapterRecord | None] = lambda name: None,
) -> Iterator[Served]:
    listening = bound("127.0.0.1", 0)
    port = int(listening.getsockname()[1])
    auth = Authenticator(loopback_origins(port))
    finding = DoctorCheck("ok", "sandbox", "bubblewrap", "")
    page_context = PageContext(
        Projection(runs),
        lambda: evolving,
        auth,
        card_of,
        lambda tasks: {},
        lambda: [finding],
        lambda manifest: ({}, ""),
    )
    server = server_of(application(page_context, AuditLog(deeds)))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Served(f"http://127.0.0.1:{port}", auth, deeds)
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def served(runs: Path, tmp_path: Path) -> Iterator[Served]:
    with serving(runs, tmp_path / "deeds") as found:
        yield found
