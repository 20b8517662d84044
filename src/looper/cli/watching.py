"""What `looper watch` does."""

import time
from pathlib import Path

from rich.console import Console
from rich.live import Live

from looper.views.live import Projection
from looper.views.watch import screen


def watch(runs: Path, *, every_s: float, once: bool) -> None:
    """Until somebody presses Ctrl-C; one screen where `once`, or where nobody looks at a terminal."""
    projection, console = Projection(runs), Console()
    if once or not console.is_terminal:
        console.print(screen(projection.status(), console.height, runs))
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                live.update(screen(projection.status(), console.height, runs), refresh=True)
                time.sleep(every_s)
        except KeyboardInterrupt:
            return
