"""Writes docs/plan.md from the records that a plan's file becomes.

python scripts/write_plan_reference.py
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from looper.experiment.plan_keys import Key, PlanTable, plan_tables

PAGE = Path(__file__).parents[1] / "docs" / "plan.md"
HEAD = """# Keys of a plan

Generated from the records by `python scripts/write_plan_reference.py`. `looper new FILE` writes a plan that runs, with all of these keys
as comments; [own_experiment.md](own_experiment.md) explains one. A plan is a TOML file. A key that says *None for …* is left out for that;
a guard is switched off by `"off"`. What cannot be is refused with file, line and column, before anything runs (`looper plan FILE`).
"""


def reference() -> str:
    alike: dict[tuple[Key, ...], list[PlanTable]] = {}
    for table in plan_tables():
        alike.setdefault(table.keys, []).append(table)
    return "\n".join([HEAD, *(line for found in alike.values() for line in _section(found))]).rstrip() + "\n"


def _section(places: Sequence[PlanTable]) -> Iterator[str]:
    """One kind of table, which may stand in several places."""
    table = places[0]
    where = ", ".join(f"`{each.header}`" for each in places)
    yield f"## {where if table.path else 'The file'}{_alternative(table)}"
    yield ""
    if table.means and table.path:
        yield table.means
        yield ""
    yield "| key | type | unit | default | meaning | example |"
    yield "|---|---|---|---|---|---|"
    for key in table.keys:
        default = "required" if key.required else _code(key.default) if key.default else "none"
        example = f"{key.name} = {key.example}" if key.example else ""
        yield f"| `{key.name}` | {key.takes} | {key.unit or '–'} | {default} | {_meaning(key)} | {_code(example) if example else 'its own table'} |"
    yield ""


def _alternative(table: PlanTable) -> str:
    """Of tables that stand in each other's place: the name that tells them apart."""
    name = next((key for key in table.keys if key.name == "name" and len(key.values) == 1), None)
    return f" with `name = {name.default}`" if name else ""


def _meaning(key: Key) -> str:
    values = "; ".join(
        f"`{value}`{f': {said.rstrip(chr(46))}' if said else ''}" for value, said in key.values
    )
    return f"{key.means}{f' {values}.' if values else ''}".replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|')}`"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(reference(), "utf-8")
