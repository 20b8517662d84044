"""What `looper watch` does."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

from looper.cli.options import json_line, say
from looper.views.live import Projection
from looper.views.runs import find_run
from looper.views.watch import screen


def watch(runs: Path, wanted: str | None, *, every_s: float, once: bool, as_json: bool) -> None:
    """Until somebody presses Ctrl-C; one screen where `once`, or where nobody looks at a terminal. For programs an object a line, whoever
    looks."""
    chosen, console = find_run(runs, wanted, say=say) if wanted else None, Console()
    projection = Projection(chosen.parent if chosen else runs)

    def status() -> dict[str, Any]:
        found = projection.status()
        if chosen:
            mine = [run for run in found["runs"] if run["run"] == chosen.name]
            return {"runs": mine, "unreadable": [] if mine else found["unreadable"]}
        return found

    def seen() -> RenderableType:
        return screen(status(), console.height, runs)

    if as_json:
        with suppress(KeyboardInterrupt):
            print(json_line(status()), flush=True)
            while not once:
                time.sleep(every_s)
                print(json_line(status()), flush=True)
        return
    if once or not console.is_terminal:
        console.print(seen())
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                live.update(seen(), refresh=True)
                time.sleep(every_s)
        except KeyboardInterrupt:
            return
