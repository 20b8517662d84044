"""How fast pages are, beside how fast the same records are read by hand: a large run, a long trajectory, idle streams, a run that goes on.

    python scripts/bench_serve.py [--megabytes 1000]

Runs are generated as in bench_report.py; the server is `looper serve` in a process of its own. Memory is what that process held at most,
less what it held after its first page.
"""

import argparse
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bench_report
import httpx

from looper.journal import Stream
from looper.records.plan import RunManifest

CELL = "base/0/t-1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, help="Of the longest trajectory.")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="bench-serve-"))
    runs = place / "runs"
    try:
        bench_report.realistic(runs)
        (large,) = runs.iterdir()
        ten = one_trajectory(runs, "ten", 10)
        huge = one_trajectory(runs, "huge", options.megabytes)
        with Server(place) as server:
            server.get("/doctor")
            show(
                "a run of 273 tasks × 4 arms × 30 steps, first opening",
                server.timed(f"/runs/{large.name}"),
                "1 s",
            )
            again = [server.timed(f"/runs/{large.name}") for _ in range(5)]
            show("  again, median of 5", statistics.median(again), "1 s")
            show(
                "a trajectory of 10 MB, first opening",
                server.timed(f"/runs/{ten.name}/cells/{CELL}"),
                "0.5 s",
            )
            again = [server.timed(f"/runs/{ten.name}/cells/{CELL}") for _ in range(5)]
            show("  again, median of 5", statistics.median(again), "0.5 s")
        with Server(place) as server:
            server.get(f"/runs/{ten.name}/cells/{CELL}")
            before = server.peak_mib()
            path = f"/runs/{huge.name}/cells/{CELL}"
            show(
                f"a trajectory of {options.megabytes} MB, first opening, which indexes it",
                server.timed(path),
                "-",
            )
            show("  another page of it", server.timed(f"{path}?page=9"), "-")
            show("  a search in it", server.timed(f"{path}?find=nowhere"), "-")
            print(f"  memory: {server.peak_mib() - before} MiB more than with 10 MB (goal: 64)")
        with Server(place) as server:
            streams(server)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def show(what: str, seconds: float, goal: str) -> None:
    print(f"{what}: {seconds:.3f} s (goal: {goal})", flush=True)


def one_trajectory(runs: Path, name: str, megabytes: int) -> Path:
    """A run with one rollout whose steps are so long together."""
    chars, rng = 100_000, random.Random(0)
    registered = bench_report.plan()
    manifest = RunManifest(
        plan=registered.model_copy(update={"experiment": name}),
        code_version="x",
        tasks=("t-1",),
        tasks_hash=name,
        models={arm.name: bench_report.IDENTITY for arm in registered.arms},
        environments=("e",),
        sandbox="none",
    )
    folder = runs / f"{name}-generated-{manifest.run_hash()}"
    folder.mkdir(parents=True)
    stream = Stream(folder, "manifest", RunManifest)
    stream.append(manifest)
    stream.close()
    made = bench_report.step(CELL, 1, rng, chars)
    count = max(2, megabytes * 1_000_000 // len(made.to_json()))
    bench_report.write(
        folder / "steps.jsonl", (made.model_copy(update={"index": number}) for number in range(1, count + 1))
    )
    return folder


class Server:
    """`looper serve`, logged in to."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __enter__(self) -> "Server":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "looper.cli.main", "serve", "--port", "0"],
            cwd=self._place,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={
                **os.environ,
                "LOOPER_RUNS": str(self._place / "runs"),
                "LOOPER_HOME": str(self._place / "home"),
            },
        )
        assert self._process.stdout is not None
        link = self._process.stdout.readline().strip()
        self.url = link.partition("/login")[0]
        (token,) = (self._place / "home" / "serve").glob("*.token")
        self.token = token.read_text()
        head = {"Authorization": f"Bearer {self.token}", "Accept": "text/html"}
        self.client = httpx.Client(base_url=self.url, headers=head, timeout=600)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait()

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path).raise_for_status()

    def timed(self, path: str) -> float:
        return timed(lambda: self.get(path))

    def peak_mib(self) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) >> 10  # type: ignore[index]


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def streams(server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    request = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {server.token}\r\n\r\n".encode()
    talks = []
    for _ in range(200):
        talk = socket.create_connection(("127.0.0.1", port), timeout=30)
        talk.sendall(request)
        talks.append(talk)
    answers = [talk.recv(65536).split(b" ", 2)[1] for talk in talks]
    json = {"Content-Type": "application/json"}
    took = [
        timed(lambda: server.client.post("/codes", content=b"{}", headers=json).raise_for_status())
        for _ in range(20)
    ]
    print(f"200 streams: {answers.count(b'200')} kept, {answers.count(b'503')} refused")
    show("  a POST meanwhile, slowest of 20", max(took), "0.2 s")
    for talk in talks:
        talk.close()


if __name__ == "__main__":
    main()
