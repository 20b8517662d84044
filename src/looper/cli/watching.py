"""What `looper watch` does."""

import time
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live

from looper.cli.options import say
from looper.views.live import Projection
from looper.views.runs import find_run
from looper.views.watch import screen


def watch(runs: Path, wanted: str | None, *, every_s: float, once: bool) -> None:
    """Until somebody presses Ctrl-C; one screen where `once`, or where nobody looks at a terminal."""
    chosen, console = find_run(runs, wanted, say=say) if wanted else None, Console()
    projection = Projection(chosen.parent if chosen else runs)

    def seen() -> RenderableType:
        status = projection.status()
        if chosen:
            mine = [run for run in status["runs"] if run["run"] == chosen.name]
            status = {"runs": mine, "unreadable": [] if mine else status["unreadable"]}
        return screen(status, console.height, runs)

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
