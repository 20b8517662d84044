"""The file of a new plan: one that runs, with every key that there is.

`looper new` writes it. Keys, meanings, units and defaults come from the records that read a plan (`plan_keys`), so a new key is in it
without a word here.
"""

import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from looper.agent.scaffold import packaged_scaffold, scaffold_names
from looper.experiment.plan_keys import Key, header, keys, written
from looper.experiment.plans import ExperimentText

WIDTH = 110
"""Characters of a line of comment."""
HEAD = """\
# A plan that runs as it is, with every key that there is. A key behind # is not said; the value is its default, or an example where it
# has none. In brackets: type, unit, default. What it would take: looper plan FILE. Run it, over a night: looper
# run FILE; in minutes, as a pilot that decides nothing: looper run FILE --profile demo.

"""
PLAN: Mapping[str, Any] = {
    "title": "What a memory is worth",
    "hypothesis": "Lessons from earlier tasks of a repository help there.",
    "factor": "whether lessons are in the prompt",
    "arms": [
        {"name": "base", "role": "base"},
        {
            "name": "base_again",
            "role": "again",
            "repetition": 1,
            "reason": "how often it differs from base by chance is what the smallest visible effect is computed from",
        },
        {
            "name": "memory",
            "role": "treatment",
            "learning": {"treatment": "memory", "memory": {"kind": "lessons"}},
        },
    ],
    "contrasts": [
        {
            "arm": "memory",
            "against": "base",
            "shown": "Lessons from here help.",
            "refuted": "Lessons from here harm.",
            "open": "Whether lessons help is open: more tasks are needed.",
        }
    ],
}
REPOSITORIES = 32
"""Of the new plan: with fewer of six tasks and four seeds it would be a pilot, and with these it takes no longer than a night."""
WHOLE = {"arms": 2, "contrasts": 0}
"""Which of a list of tables has all keys."""


def new_plan(profile: Mapping[str, Any]) -> str:
    """The text of a file with one profile, `micro`, of `REPOSITORIES`. Every key that it does not say is a comment `#key = value`, with
    its default or, where it has none, an example."""
    tasks = {**profile["tasks"], "repositories": REPOSITORIES}
    live = {**PLAN, "profiles": {"micro": {**profile, "tasks": tasks}}}
    scaffold = packaged_scaffold(profile["scaffold"]) if profile["scaffold"] in scaffold_names() else None
    given = scaffold.model_dump(mode="json") if scaffold else {}
    guards = {key: "off" if value is None else value for key, value in given.get("guards", {}).items()}
    instead = {
        "arms.scaffold": given,
        "arms.scaffold.guards": guards,
        "arms.scaffold.pruning": given.get("pruning", {}),
    }
    return HEAD + "\n".join(_Writing(instead).body(keys(ExperimentText), live, ())).strip() + "\n"


@dataclass(frozen=True)
class _Writing:
    instead: Mapping[str, Mapping[str, Any]]
    """Defaults of a table that are not those of its record, by the keys that lead to it."""

    def body(
        self,
        found: Sequence[Key],
        live: Mapping[str, Any] | None,
        path: tuple[str, ...],
        *,
        all_keys: bool = True,
    ) -> Iterator[str]:
        """Plain keys before tables, as TOML wants it. Without `live` all of it is a comment."""
        said = live or {}
        for key in found:
            value = said.get(key.name)
            if value is not None and not (key.tables and isinstance(value, dict | list)):
                yield from _about(key) if all_keys else ()
                yield f"{key.name} = {written(value)}"
            elif value is None and all_keys and (key.example or len(key.tables) > 1):
                yield from _about(key)
                yield from self._unsaid(key, path)
        for key in found:
            if len(key.tables) == 1 and not isinstance(said.get(key.name), str):
                yield from self._tables(key, said.get(key.name), (*path, key.name), all_keys=all_keys)

    def _unsaid(self, key: Key, path: tuple[str, ...]) -> Iterator[str]:
        if len(key.tables) > 1:
            for kind, _ in key.tables:
                yield f"#{key.name} = {{ {', '.join(_inline(kind))} }}"
            return
        other = self.instead.get(".".join(path), {})
        yield f"#{key.name} = {written(other[key.name]) if key.name in other else key.default or key.example}"

    def _tables(self, key: Key, value: Any, path: tuple[str, ...], *, all_keys: bool) -> Iterator[str]:
        ((kind, holds),) = key.tables
        if value is None and not all_keys:
            return
        each: list[tuple[tuple[str, ...], Any, bool]]
        if path == ("profiles",):
            each = [((*path, name), below, True) for name, below in value.items()]
        elif key.many and value is not None:
            each = [(path, below, at == WHOLE[key.name]) for at, below in enumerate(value)]
        else:
            each = [(path, value, True)]
        for number, (where, below, every) in enumerate(each):
            yield ""
            if number == 0 and all_keys:
                yield from _about(key)
            yield f"{'#' if below is None else ''}{header(where, many=key.many)}"
            yield from self.body(keys(kind, holds), below, where, all_keys=every and all_keys)


def _inline(kind: type[BaseModel]) -> Iterator[str]:
    """The keys of a table on one line, as examples."""
    for key in keys(kind):
        if key.tables:
            yield f"{key.name} = {{ {', '.join(_inline(key.tables[0][0]))} }}"
        elif value := key.default or key.example:
            yield f"{key.name} = {value}"


def _about(key: Key, name: str = "") -> Iterator[str]:
    """A key's comment: what it means, what it takes, what each of its words means; with its name where that does not stand below."""
    state = "required" if key.required else f"default {key.default}" if key.default else "optional"
    yield from _comment(f"{name}{key.means} [{key.takes}{', ' * bool(key.unit)}{key.unit}; {state}]")
    for value, said in key.values:
        yield from _comment(f"- {value}{': ' if said else ''}{said}")
    for kind, _ in key.tables if len(key.tables) > 1 else ():
        (called,) = [each for each in keys(kind) if each.name == "name"]
        yield from _comment(f"- {json.loads(called.default)}: {inspect.getdoc(kind)}")
        for each in _below(kind):
            yield from (f"#   {line.removeprefix('# ')}" for line in _about(each, f"{each.name}: "))


def _below(kind: type[BaseModel]) -> Iterator[Key]:
    """The keys of a table but for its name, and of the tables in it."""
    for key in keys(kind):
        if key.name != "name":
            yield key
        for each, _ in key.tables:
            yield from _below(each)


def _comment(text: str) -> list[str]:
    return [
        f"# {line}" for line in textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
