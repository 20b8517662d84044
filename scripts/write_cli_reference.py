"""Writes docs/cli.md from the commands' own help.

python scripts/write_cli_reference.py
"""

import argparse
from pathlib import Path

import typer
from typer.testing import CliRunner

from looper.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"


def commands() -> list[list[str]]:
    """Every command as its words, the main one first."""
    group = typer.main.get_group(app)
    found: list[list[str]] = [[]]
    for name, command in group.commands.items():
        found.append([name])
        found += [[name, below] for below, one in getattr(command, "commands", {}).items() if not one.hidden]
    return found


def reference() -> str:
    runner = CliRunner()
    parts = [
        "# Command line\n\nGenerated from the commands' own help by `python scripts/write_cli_reference.py`."
    ]
    for words in commands():
        shown = runner.invoke(
            app, [*words, "--help"], prog_name="looper", terminal_width=100, color=False
        ).output
        parts.append(f"## {' '.join(['looper', *words])}\n\n```\n{shown.strip()}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(reference(), "utf-8")
