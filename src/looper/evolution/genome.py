"""A specification that programs are written from: its grammar, its frozen blocks, its mutations.

Free in its sections, strict in its blocks:

    ---
    genome: calculator
    version: 1
    ---
    ## Purpose ...
    ## Prompt ...            the words that a generation is asked with
    ```toml entry            commands: run, build, test, module, start
    ```json vectors          public examples, one JSON object a line
    <!-- FROZEN identity -->  ...  <!-- END identity -->
    version: 1

Frozen acceptance vectors lie in a file of their own, so that no prompt can hold them.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from looper.errors import BadInput
from looper.records.base import content_hash
from looper.records.genome import EntryPoint, Mutation, Reproduction, Vector
from looper.records.text import bare_lines, whole_lines
from looper.untrusted import parsed_toml

REQUIRED = ("Purpose", "Prompt")
_HEAD = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)
_SECTION = re.compile(r"^## +(.+?) *$", re.MULTILINE)
_FROZEN = re.compile(r"<!-- FROZEN (\S+) -->\n(.*?)<!-- END \1 -->", re.DOTALL)
_BLOCK = re.compile(r"^```(\w+) (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FOOT = re.compile(r"\nversion: *(\d+)\s*$")


@dataclass(frozen=True)
class Genome:
    name: str
    version: int
    text: str
    sections: Mapping[str, str]
    frozen: Mapping[str, str]
    entry: EntryPoint
    vectors: tuple[Vector, ...]
    """Public ones."""

    @property
    def hash(self) -> str:
        return content_hash(self.text)


@dataclass(frozen=True)
class Acceptance:
    """What decides, and what no author is shown."""

    vectors: tuple[Vector, ...]
    reproduction: Reproduction | None
    hash: str


def parse_genome(text: str) -> Genome:
    """Raises BadInput, naming every problem."""
    problems: list[str] = []
    head = dict(_fields(found[1])) if (found := _HEAD.match(text)) else {}
    if not head:
        problems.append("it begins with no front matter: ---, genome: NAME, version: N, ---")
    foot = _FOOT.search(text)
    version = head.get("version", "")
    if not version.isdigit():
        problems.append("its front matter has no version: N")
    if foot is None or foot[1] != version:
        problems.append(f"its last line must be version: {version or 'N'}, as in front")
    names = _SECTION.findall(text)
    problems += [f"the section {name} is missing" for name in REQUIRED if name not in names]
    problems += [
        f"there are two sections {name}" for name in sorted({name for name in names if names.count(name) > 1})
    ]
    frozen = {}
    for name, content in _FROZEN.findall(text):
        if name in frozen:
            problems.append(f"there are two frozen blocks {name}")
        frozen[name] = content
    opened = len(re.findall(r"<!-- FROZEN ", text))
    if opened != len(_FROZEN.findall(text)):
        problems.append("a frozen block is not closed: <!-- END NAME -->")
    blocks = {name: content for _, name, content in _BLOCK.findall(text)}
    entry, vectors = EntryPoint(run=""), tuple[Vector, ...]()
    try:
        entry = EntryPoint.model_validate(parsed_toml(blocks.get("entry", "")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        problems.append(f"its block ```toml entry cannot be used: {_first(error)}")
    try:
        vectors = _vectors(blocks.get("vectors", ""))
    except (ValueError, ValidationError) as error:
        problems.append(f"its block ```json vectors cannot be used: {_first(error)}")
    if problems:
        raise BadInput(f"The specification cannot be used: {'; '.join(problems)}.")
    return Genome(head.get("genome", ""), int(version), text, _sections(text), frozen, entry, vectors)


def _fields(text: str) -> list[tuple[str, str]]:
    return [
        (name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in bare_lines(text))
    ]


def _sections(text: str) -> dict[str, str]:
    parts = _SECTION.split(text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _vectors(text: str) -> tuple[Vector, ...]:
    found = [Vector.model_validate(json.loads(line)) for line in bare_lines(text) if line.strip()]
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise ValueError("two vectors have one name")
    return tuple(found)


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        one = error.errors()[0]
        return f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
    return str(error)


def read_acceptance(path: Path, genome: Genome) -> Acceptance:
    """Vectors, one JSON object a line, and at most one `{"reproduction": …}`. Raises BadInput: a battery that is not there would be
    one that everything passes."""
    if not path.is_file():
        raise BadInput(
            f"There are no acceptance vectors {path}. Without them nothing is decided: write them, or name them with --acceptance."
        )
    text = path.read_text("utf-8", "replace")
    reproduction = None
    lines = []
    try:
        for line in bare_lines(text):
            value = json.loads(line) if line.strip() else None
            if isinstance(value, dict) and "reproduction" in value:
                reproduction = Reproduction.model_validate(value["reproduction"])
            elif value is not None:
                lines.append(line)
        vectors = _vectors("\n".join(lines))
    except (ValueError, ValidationError) as error:
        raise BadInput(f"{path}: {_first(error)}.") from error
    shown = {(one.args, one.stdin) for one in genome.vectors}
    if both := [one.name for one in vectors if (one.args, one.stdin) in shown]:
        raise BadInput(
            f"{path}: {both[0]} is a public example too; what decides must be something that no author has seen."
        )
    if not vectors:
        raise BadInput(f"{path} holds no vectors.")
    return Acceptance(vectors, reproduction, content_hash(text))


def mutated(genome: Genome, section: str, content: str, reason: str) -> tuple[Genome, Mutation]:
    """The genome with one section in other words, one version on. Raises BadInput where a frozen block, the entry or a vector would change."""
    if section not in genome.sections:
        raise BadInput(f"There is no section {section}. There are: {', '.join(genome.sections)}.")
    old = genome.sections[section]
    text = genome.text.replace(f"## {section}{old}", f"## {section}\n\n{content.strip()}\n\n", 1)
    text = text.replace(f"version: {genome.version}\n---", f"version: {genome.version + 1}\n---", 1)
    text = _FOOT.sub(
        f"\nversion: {genome.version + 1}\n",
        text if _FOOT.search(text) else f"{text.rstrip()}\nversion: {genome.version}\n",
    )
    found = parse_genome(text)
    if found.frozen != genome.frozen or found.entry != genome.entry or found.vectors != genome.vectors:
        raise BadInput(f"The new words for {section} change what is frozen.")
    diff = "".join(
        difflib.unified_diff(
            whole_lines(genome.text), whole_lines(text), genome.hash[:12], found.hash[:12], n=0
        )
    )
    return found, Mutation(
        genome_hash=found.hash,
        parent_hash=genome.hash,
        section=section,
        reason=reason,
        diff=diff,
        inherited=False,
    )
