"""What comes to the socket and must not act. Rows H01 to H06, H08 to H12 of the security goals."""

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from looper.journal import read_stream
from looper.records.audit_entry import AuditEntry
from looper.serve.authenticator import Authenticator, loopback_origins
from looper.serve.guard import BODY_BYTES
from looper.serve.streams import STREAMS
from looper.views.live import Projection
from tests import program
from tests.fakes.written_run import write_run
from tests.serve.conftest import Served, serving


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder and one server for all of these: what they send must change nothing."""
    return tmp_path_factory.mktemp("guarded") / "runs"


@pytest.fixture(scope="module")
def served(runs: Path) -> Iterator[Served]:
    with serving(runs, runs.parent / "deeds") as found:
        yield found


ACTING = "/codes"
"""A route that changes something: it makes a code that logs in."""


def raw(served: Served, request: bytes, wait_s: float = 5) -> bytes:
    """What comes back for exactly these bytes."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=wait_s) as talk:
        talk.sendall(request)
        answer = b""
        try:
            while piece := talk.recv(65536):
                answer += piece
        except TimeoutError:
            pass
        return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# H01


@pytest.mark.parametrize("host", [None, "evil.example", "127.0.0.1", "evil.example:PORT", "127.0.0.1:1"])
def test_h01_a_request_for_another_name_is_refused(served: Served, host: str | None) -> None:
    line = f"Host: {host.replace('PORT', str(served.port))}\r\n" if host else ""
    answer = raw(
        served, f"GET /status HTTP/1.0\r\n{line}Authorization: Bearer {served.auth.token}\r\n\r\n".encode()
    )
    assert status(answer) in (400, 403) and b'"runs"' not in answer


def test_h01_two_names_are_refused(served: Served) -> None:
    head = f"GET /status HTTP/1.0\r\nHost: 127.0.0.1:{served.port}\r\nHost: evil\r\n"
    assert status(raw(served, f"{head}Authorization: Bearer {served.auth.token}\r\n\r\n".encode())) in (
        400,
        403,
    )


def test_h01_its_own_names_are_answered(served: Served) -> None:
    for name in ("127.0.0.1", "localhost"):
        with served.program() as client:
            assert client.get("/status", headers={"Host": f"{name}:{served.port}"}).status_code == 200


# H02


@pytest.mark.parametrize("token", ["", "wrong", "Bearer", "Bearer wrong", "Basic TOKEN", "Bearer TOKENx"])
def test_h02_without_the_token_nothing_is_told_or_done(served: Served, token: str) -> None:
    header = {"Authorization": token.replace("TOKEN", served.auth.token)}
    for answer in (
        httpx.get(f"{served.url}/status", headers=header),
        httpx.post(f"{served.url}{ACTING}", headers=header, json={}),
    ):
        assert answer.status_code == 401 and set(answer.json()) == {"error"}


def test_h02_a_session_that_was_made_up_is_none(served: Served) -> None:
    assert httpx.get(f"{served.url}/", headers={"Cookie": "looper_session=made-up"}).status_code == 401


def test_a_link_logs_in_once_and_not_for_ever() -> None:
    now = [0.0]
    auth = Authenticator(loopback_origins(1), lambda: now[0])
    code, late = auth.new_code(), auth.new_code()
    session = auth.open(code)
    assert session and auth.knows_session(session) and auth.open(code) is None
    now[0] = 601
    assert auth.open(late) is None and auth.knows_session(session)
    now[0] = 8 * 86400
    assert not auth.knows_session(session)


# H03, H04


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_h03_what_a_form_of_another_site_can_send_is_refused(served: Served, kind: str) -> None:
    with served.browser() as client:
        answer = client.post(ACTING, content=b"{}", headers={"Content-Type": kind, "Origin": served.url})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "OWN", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "OWN", "Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_h04_another_site_acts_neither_by_cookie_nor_by_token(
    served: Served, headers: dict[str, str]
) -> None:
    sent = {name: value.replace("OWN", served.url) for name, value in headers.items()}
    with served.browser() as browser, served.program() as program:
        for client in (browser, program):
            assert client.post(ACTING, json={}, headers=sent).status_code == 403
            assert client.get("/status", headers=sent).status_code == 403


def test_h04_a_cookie_alone_does_not_act(served: Served) -> None:
    """Every browser says where a POST comes from; what does not is no page of ours."""
    with served.browser() as client:
        assert client.post(ACTING, json={}).status_code == 401
        assert client.post(ACTING, json={}, headers={"Origin": served.url}).status_code == 201


# H05


@pytest.mark.parametrize(
    "path", ["/spawn", "/promote", "/rollback", "/prime/chat", "/codes", "/runs/x/pause", "/runs/x/cancel"]
)
def test_h05_nothing_is_done_by_get(served: Served, path: str) -> None:
    with served.program() as client:
        assert client.get(path).status_code == 405


# H06


@pytest.mark.parametrize(
    "name",
    [
        "../secret", "..%2fsecret", "%2e%2e%2fsecret", "%252e%252e%252fsecret", "..%5csecret", "%00", "a%00b", "secret%2f..%2fsecret",
        "/etc/passwd", "%2fetc%2fpasswd", ".", "..", "%c0%ae%c0%ae", "a" * 5000,
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "place", ["/runs/{}", "/runs/{}/status", "/runs/{}/curves", "/static/{}", "/runs/{}/cells/x"]
)
def test_h06_no_name_reaches_a_file_outside(served: Served, runs: Path, name: str, place: str) -> None:
    outside = runs.parent / "secret"
    outside.mkdir(exist_ok=True)
    (outside / "manifest.jsonl").write_text("the secret")
    request = f"GET {place.format(name)} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nConnection: close\r\n"
    answer = raw(served, f"{request}Authorization: Bearer {served.auth.token}\r\n\r\n".encode())
    assert status(answer) in (400, 404, 409) and b"the secret" not in answer and b"Traceback" not in answer


def test_h06_a_run_is_looked_up_among_what_is_there(runs: Path) -> None:
    write_run(runs.parent / "outside")
    (other,) = (runs.parent / "outside").iterdir()
    assert Projection(runs).run(f"../outside/{other.name}") is None and Projection(runs).run("..") is None


# H08, H09


def test_h08_a_hundred_idle_streams_are_refused_politely_and_a_post_still_answers(served: Served) -> None:
    kept: list[socket.socket] = []
    answers: list[int] = []
    request = (
        f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nAuthorization: Bearer {served.auth.token}\r\n\r\n"
    ).encode()
    try:
        for _ in range(200):
            talk = socket.create_connection(("127.0.0.1", served.port), timeout=10)
            talk.sendall(request)
            kept.append(talk)
        answers = [status(talk.recv(65536)) for talk in kept]
        assert answers.count(200) == STREAMS and answers.count(503) == 200 - STREAMS
        with served.program() as client:
            client.get("/status")
            begun = time.monotonic()
            assert client.post(ACTING, json={}).status_code == 201
            # The goal is 200 ms, shown by scripts/bench_serve.py; a busy machine is given more.
            assert time.monotonic() - begun < 2
    finally:
        for talk in kept:
            talk.close()
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as talk:
            talk.sendall(request)
            if status(talk.recv(65536)) == 200:
                return
        time.sleep(0.1)
    pytest.fail("places of streams that were closed are not given back")


def test_h09_requests_that_do_not_go_on_are_closed(served: Served) -> None:
    half = [
        b"GET /status HT",
        f"GET /status HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nX: ".encode(),
        (
            f"POST {ACTING} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nAuthorization: Bearer {served.auth.token}\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        ).encode(),
        b"",
    ]
    talks = [socket.create_connection(("127.0.0.1", served.port), timeout=12) for _ in range(100)]
    begun = time.monotonic()
    for number, talk in enumerate(talks):
        talk.sendall(half[number % len(half)])
    for talk in talks:
        while talk.recv(65536):
            pass
        talk.close()
    assert time.monotonic() - begun < 10


def test_h09_a_large_body_is_refused_before_it_is_read(served: Served) -> None:
    head = (
        f"POST {ACTING} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nAuthorization: Bearer {served.auth.token}\r\n"
        "Content-Type: application/json\r\n"
    )
    huge = raw(served, f"{head}Content-Length: 100000000\r\n\r\n".encode() + b"x" * 1000, 1)
    assert status(huge) == 413
    assert status(raw(served, f"{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".encode(), 1)) == 411
    assert status(raw(served, f"{head}\r\n".encode(), 1)) == 411
    with served.program() as client:
        full = client.post(ACTING, content=b" " * BODY_BYTES, headers={"Content-Type": "application/json"})
        assert full.status_code == 400


def test_a_body_that_is_deeper_than_any_reader_is_no_error_of_ours(served: Served) -> None:
    with served.program() as client:
        deep = client.post(ACTING, content=b"[" * 60_000, headers={"Content-Type": "application/json"})
        long = client.post(
            "/promote",
            content=b'{"generation": ' + b"9" * 50_000 + b"}",
            headers={"Content-Type": "application/json"},
        )
    assert deep.status_code in (400, 422) and long.status_code in (400, 422)


# H10


def test_h10_of_two_decisions_at_once_one_waits(served: Served, runs: Path) -> None:
    folder = write_run(runs)
    begun = subprocess.Popen([sys.executable, "-c", HOLD.format(folder=str(folder))], stdout=subprocess.PIPE)
    assert begun.stdout is not None and begun.stdout.readline() == b"held\n"
    try:
        with served.program() as client:
            shown = client.get(f"/runs/{folder.name}/status").json()
            answers: list[int] = []

            def act() -> None:
                body = {"run_hash": shown["run_hash"]}
                answers.append(httpx_post(served, f"/runs/{folder.name}/pause", body))

            threads = [threading.Thread(target=act) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted(answers)[0] == 200 and set(answers) <= {200, 409}
        assert begun.wait(10) == 7, "the run was told to stop, and ended in its own way"
        noted = [
            deed for deed in read_stream(served.deeds, "deeds", AuditEntry) if deed.target == folder.name
        ]
        assert [deed.stage.value for deed in noted] == ["begun", "done"] * answers.count(200)
        assert noted[0].seen_hash == shown["run_hash"] and noted[0].target == folder.name
    finally:
        begun.kill()


def httpx_post(served: Served, path: str, body: dict[str, str]) -> int:
    with served.program() as client:
        return client.post(path, json=body).status_code


HOLD = """
import os, signal, time
from pathlib import Path
from looper.journal import RunLock
lock = RunLock(Path({folder!r}))
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
print("held", flush=True)
time.sleep(60)
"""


def test_h10_a_decision_about_something_else_than_what_was_seen_is_refused(
    served: Served, runs: Path
) -> None:
    folder = write_run(runs, experiment="seen")
    begun = subprocess.Popen([sys.executable, "-c", HOLD.format(folder=str(folder))], stdout=subprocess.PIPE)
    assert begun.stdout is not None and begun.stdout.readline() == b"held\n"
    try:
        with served.program() as client:
            other = client.post(f"/runs/{folder.name}/cancel", json={"run_hash": "abcdef123456"})
            assert other.status_code == 409 and "another run" in other.json()["error"]["message"]
        with pytest.raises(subprocess.TimeoutExpired):
            begun.wait(0.5)
    finally:
        begun.kill()
        begun.wait()
    with served.program() as client:
        mine = client.get(f"/runs/{folder.name}/status").json()["run_hash"]
        nobody = client.post(f"/runs/{folder.name}/pause", json={"run_hash": mine})
    assert nobody.status_code == 409 and "This run is not running" in nobody.json()["error"]["message"]
    noted = read_stream(served.deeds, "deeds", AuditEntry)
    assert not any(deed.target == folder.name for deed in noted), "what was refused is no decision"


# H11, H12


def listening(pid: int) -> set[str]:
    """Addresses of the sockets that a process listens on, as the kernel writes them."""
    inodes = {
        os.readlink(path).removeprefix("socket:[").rstrip("]")
        for path in Path(f"/proc/{pid}/fd").iterdir()
        if path.is_symlink() and os.readlink(path).startswith("socket:[")
    }
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and parts[9] in inodes:
                found.add(parts[1].partition(":")[0])
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="listening sockets are read from /proc")
def test_h11_h12_it_listens_on_loopback_and_its_token_is_nowhere_but_in_its_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    said = tmp_path / "said"
    with said.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "looper.cli.main", "serve", "--port", "0"],
            cwd=tmp_path, stdout=out, stderr=out, env={**os.environ, "LOOPER_HOME": str(home)},
        )  # fmt: skip
    try:
        until = time.monotonic() + 30
        while b"/login?code=" not in said.read_bytes():
            assert time.monotonic() < until and server.poll() is None, said.read_text()
            time.sleep(0.05)
        assert listening(server.pid) == {"0100007F"}
        (file,) = (home / "serve").glob("*.token")
        token = file.read_text()
        assert (
            stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        )
        link = next(line for line in said.read_text().splitlines() if "/login?code=" in line)
        with httpx.Client(headers={"Accept": "text/html"}, timeout=30) as browser:
            entered = browser.get(link)
            assert entered.status_code == 303 and entered.headers["referrer-policy"] == "no-referrer"
            cookie = entered.headers["set-cookie"]
            assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
            base = link.partition("/login")[0]
            pages = [
                browser.get(f"{base}{path}").text for path in ("/", "/evolution", "/prime", "/doctor", "/x")
            ]
            again = browser.get(link)
            assert (again.status_code, again.headers["location"]) == (303, "/"), "it is logged in"
            assert "set-cookie" not in again.headers, "and for no longer than before"
            # For every other browser a link is good once, whatever it takes for its session.
            assert httpx.get(link).status_code == 401
            made_up = {"Cookie": "looper_session=made-up"}
            assert httpx.get(link, headers=made_up).status_code == 401
            assert httpx.get(f"{base}/login?code=none").status_code == 401
        everywhere = [
            said.read_text(), Path(f"/proc/{server.pid}/cmdline").read_text(), Path(f"/proc/{server.pid}/environ").read_text(), str(entered.headers), *pages,
        ]  # fmt: skip
        assert not any(token in text for text in everywhere)
        another = subprocess.run(
            [sys.executable, "-m", "looper.cli.main", "serve", "--link", "--port", base.rpartition(":")[2]],
            cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "LOOPER_HOME": str(home)},
        )  # fmt: skip
        assert httpx.get(another.stdout.strip()).status_code == 303
        told = program.looper(
            "serve", "--link", "--json", "--port", base.rpartition(":")[2], cwd=tmp_path,
            env={**os.environ, "LOOPER_HOME": str(home)},
        )  # fmt: skip
        assert httpx.get(json.loads(told.stdout)["link"]).status_code == 303
    finally:
        server.terminate()
        server.wait(10)
    assert not file.exists()


def test_h11_beyond_loopback_only_with_a_name(tmp_path: Path) -> None:
    variables = {**os.environ, "LOOPER_HOME": str(tmp_path)}
    found = program.looper("serve", "--host", "0.0.0.0", cwd=tmp_path, env=variables)
    assert found.returncode == 2 and "--name NAME" in found.stderr and not found.stdout
    assert len(found.stderr.strip().splitlines()) == 1


def test_a_port_that_is_taken_is_named_with_one_that_is_free(tmp_path: Path, served: Served) -> None:
    variables = {**os.environ, "LOOPER_HOME": str(tmp_path)}
    found = program.looper("serve", "--port", str(served.port), cwd=tmp_path, env=variables)
    assert found.returncode == 2 and len(found.stderr.strip().splitlines()) == 1
    free = int(found.stderr.split("--port ")[1].strip())
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind(("127.0.0.1", free))


def test_every_answer_carries_the_headers_that_hold_a_page_together(served: Served) -> None:
    for path in ("/", "/status", "/static/looper.js", "/nowhere", "/login"):
        headers = httpx.get(f"{served.url}{path}").headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
