"""Runs every registered experiment on the embedded model, one after another, and says what each came to.

    python scripts/run_all_micro.py [--profile micro] [EXP...] [-- OPTIONS OF looper run]

What is finished is not run again, so an interrupted series goes on where it was. Ends with an error if any did.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from looper.cli.settings import settings
from looper.views.runs import RunView, read_runs

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    own, options = given(sys.argv[1:])
    parser = argparse.ArgumentParser()
    parser.add_argument("--profile", default="micro", help="micro: three days on two cores; demo: an hour")
    parser.add_argument("names", nargs="*", metavar="EXP", help="all, unless some are named")
    asked = parser.parse_args(own)
    names = asked.names or sorted(path.stem for path in (ROOT / "experiments").glob("exp*.toml"))
    console, begun, rows = Console(width=160), time.monotonic(), []
    for number, name in enumerate(names, 1):
        console.rule(f"{name}, {number} of {len(names)}")
        started = time.monotonic()
        looper = [sys.executable, "-m", "looper.cli.main", "run", name, "--profile", asked.profile, *options]
        ended = subprocess.run(looper, cwd=ROOT).returncode
        rows.append((name, ended, time.monotonic() - started))
        if ended == 130:
            break
    console.print(summary(rows, asked.profile, asked_seed(options)))
    hours = (time.monotonic() - begun) / 3600
    console.print(f"{len(rows)} of {len(names)} experiments, {hours:.2f} hours")
    sys.exit(max((ended for _, ended, _ in rows), default=0))


def given(words: list[str]) -> tuple[list[str], list[str]]:
    """What stands before `--`, and what after it."""
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def asked_seed(options: list[str]) -> int:
    at = options.index("--master-seed") + 1 if "--master-seed" in options else len(options)
    return int(options[at]) if at < len(options) else 0


def summary(rows: list[tuple[str, int, float]], profile: str, seed: int) -> Table:
    table = Table(title=f"All experiments, profile {profile}", title_justify="left")
    for head in ("experiment", "cells", "minutes", "primary contrast", "finding"):
        table.add_column(head, justify="right" if head in ("cells", "minutes") else "left")
    newest: dict[tuple[str, str, int], RunView] = {}
    for known in read_runs(settings().runs, print):
        plan = known.manifest.plan
        newest[plan.experiment, plan.profile, plan.master_seed] = known
    for name, ended, seconds in rows:
        run = newest.get((name, profile, seed))
        if ended or run is None:
            table.add_row(name, "–", f"{seconds / 60:.1f}", "–", f"ended with {ended}")
            continue
        found = run.registered
        primary = found[0].contrast.name if found else "–"
        table.add_row(
            name,
            f"{run.finished}/{run.planned}",
            f"{seconds / 60:.1f}",
            primary,
            found[0].finding.value if found else "–",
        )
    return table


if __name__ == "__main__":
    main()
