"""Builds every environment of SWE-Bench-CL from an empty cache, and records what each took.

    nice python scripts/check_locks.py [--lock NAME ...] [--missing] [--place FOLDER] [--file docs/swe_bench_cl.md]

Every frozen list is installed into a folder of its own with an empty cache of uv's, and each release that its tasks borrow compiled
modules of beside it. What is installed then must be what the list says: `looper bench prepare` compares that with every build. The
figures go to src/looper/edges/environments/measured.json, which `looper bench prepare` shows beforehand; --file also writes them as a
table between the marks of a Markdown file. A list that cannot be built is said, and the exit code is 1. Takes ten minutes and, for
the largest, 2 GB below FOLDER at a time.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from looper.edges.environments import known
from looper.edges.environments.known import Recipe, cost_key, known_keys, recipe_of
from looper.edges.environments.pinned import PinnedEnvironments
from looper.errors import LooperError
from looper.views.blocks import with_block

KEPT = Path(known.__file__).with_name("measured.json")


def main() -> None:
    lists = recipes_by_list()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--lock", action="append", default=[], choices=[*lists])
    parser.add_argument("--missing", action="store_true", help="only lists that have no figures yet")
    parser.add_argument("--place", type=Path)
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    valid = {key for recipes in lists.values() for key, _, _ in parts(recipes)}
    load = f"load {os.getloadavg()[2]:.0f}" if os.getloadavg()[2] > 1 else "quiet"
    where = f"{date.today()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, {load}"
    failed = False
    for name, recipes in lists.items():
        known_here = all(key in kept()["costs"] for key, _, _ in parts(recipes))
        if (options.lock and name not in options.lock) or (options.missing and known_here):
            continue
        with tempfile.TemporaryDirectory(dir=options.place, prefix="check-locks-") as place:
            try:
                found = measured(recipes, Path(place))
            except LooperError as error:
                failed = True
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                continue
        costs = {key: cost for key, cost in (kept()["costs"] | found).items() if key in valid}
        KEPT.write_text(json.dumps({"where": where, "costs": costs}, indent=1, sort_keys=True) + "\n")
    if options.file:
        lines = list(table(lists, kept()))
        text = options.file.read_text("utf-8")
        options.file.write_text(with_block(text, "scripts/check_locks.py", lines, str(options.file)))
    sys.exit(failed)


def kept() -> dict[str, Any]:
    """Read anew each time: several of these may run side by side."""
    found: dict[str, Any] = json.loads(KEPT.read_text("utf-8"))
    return found


def recipes_by_list() -> dict[str, list[Recipe]]:
    """Versions that have the same list, by its name."""
    found: dict[str, list[Recipe]] = {}
    for recipe in map(recipe_of, known_keys()):
        found.setdefault(recipe.lock, []).append(recipe)
    return found


def parts(recipes: list[Recipe]) -> Iterator[tuple[str, str, str]]:
    """Key, name and release (none for the list itself) of what is installed."""
    recipe = recipes[0]
    yield cost_key(recipe.python, recipe.packages), recipe.lock, ""
    for release in sorted({release for each in recipes for release in each.releases.values()}):
        what = f"{recipe.graft['name']}=={release}"
        yield cost_key(recipe.python, [what]), what, release


def measured(recipes: list[Recipe], place: Path) -> dict[str, Any]:
    os.environ["UV_CACHE_DIR"] = str(place / "cache")
    environments = PinnedEnvironments(
        place / "environments", lambda line: print(line, file=sys.stderr, flush=True)
    )
    base = environments.base(recipes[0])
    asked = [str(base.python), "-c", "import platform; print(platform.python_version())"]
    exact = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    found = {}
    for key, what, release in parts(recipes):
        if release:
            folder = environments.release(recipes[0], release)
            mark = folder.with_name(f"{folder.name}.complete")
        else:
            mark = base.target / "complete.json"
        cost = json.loads(mark.read_text("utf-8"))
        log = (
            place / "environments" / f"{base.target.name}{f'-{mark.stem}' if release else ''}.log"
        ).read_text("utf-8")
        found[key] = {
            "what": what,
            "python": exact,
            "mib": cost["mib"],
            "seconds": cost["seconds"],
            "from_sources": sorted(re.findall(r"^\s*Built ([\w.-]+)==", log, re.MULTILINE)),
        }
    return found


def table(lists: dict[str, list[Recipe]], measured: dict[str, Any]) -> Iterator[str]:
    yield f"Measured {measured['where']}; each from an empty cache."
    yield ""
    yield "| list | versions | Python | packages | from sources | MiB | s | releases beside it | MiB | s |"
    yield "|---|---|---|---:|---|---:|---:|---|---:|---:|"
    totals = [0.0, 0.0, 0.0, 0.0]
    for name, recipes in lists.items():
        first, *releases = (measured["costs"].get(key) for key, _, _ in parts(recipes))
        if first is None or None in releases:
            yield f"| {name} | not measured yet | | {len(recipes[0].packages)} | | | | | | |"
            continue
        versions = ", ".join(each.key.partition("@")[2] for each in recipes)
        borrowed = ", ".join(each["what"].partition("==")[2] for each in releases)
        figures = (
            first["mib"],
            first["seconds"],
            sum(each["mib"] for each in releases),
            sum(each["seconds"] for each in releases),
        )
        totals = [total + figure for total, figure in zip(totals, figures, strict=True)]
        beside = f"{borrowed} | {figures[2]} | {figures[3]:.1f}" if releases else "| |"
        yield (
            f"| {name} | {versions} | {first['python']} | {len(recipes[0].packages)} | {', '.join(first['from_sources'])} | "
            f"{figures[0]} | {figures[1]:.1f} | {beside} |"
        )
    whole = all(key in measured["costs"] for recipes in lists.values() for key, _, _ in parts(recipes))
    yield f"| {'all' if whole else 'those measured'} | | | | | {totals[0]:.0f} | {totals[1]:.0f} | | {totals[2]:.0f} | {totals[3]:.0f} |"


if __name__ == "__main__":
    main()
