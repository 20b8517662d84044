"""`program.md` → a contract, and back; every problem of the text at once."""

import re
from collections.abc import Sequence
from pathlib import Path

from looper.errors import BadInput, JournalError
from looper.journal import replace_file
from looper.records.base import content_hash
from looper.records.generation import Contract, Criterion

SECTIONS = {
    "requirements": "requirements",
    "acceptance criteria": "criteria",
    "constraints": "constraints",
    "objective": "objective",
    "files to modify": "files",
}
"""Heading, in lower case → part of the contract."""
_TASK = re.compile(r"#\s+Task\b\s*:?\s*(.*)", re.IGNORECASE)
_SECTION = re.compile(r"##\s+(.+?)\s*:?\s*")
_BULLET = re.compile(r"\s*[-*]\s+(?:\[[ xX]\]\s+)?(.*)")
_COMMAND = re.compile(r"`([^`]+)`\s*(?:exits? with 0|exits? 0|passes|succeeds)\b", re.IGNORECASE)


def parse_contract(text: str, allowed: Sequence[str] = ()) -> Contract:
    """One grammar: `# Task` with a title, then sections of bullets. `allowed` are folders that a candidate may change; empty for any.

    Raises BadInput, naming every problem with its line.
    """
    title, problems = "", list[str]()
    parts: dict[str, list[str]] = {name: [] for name in SECTIONS.values()}
    section = ""
    wants_title = False
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if found := _TASK.fullmatch(stripped):
            if title or wants_title:
                problems.append(f"line {number}: a second task")
            title, wants_title, section = found[1].strip(), not found[1].strip(), ""
        elif found := _SECTION.fullmatch(stripped):
            name = found[1].lower()
            if name not in SECTIONS:
                problems.append(f'line {number}: no section is called "{found[1]}"; there are: {_names()}')
            section = SECTIONS.get(name, "?")
        elif stripped and wants_title:
            title, wants_title = stripped, False
        elif stripped and section and section != "?":
            bullet = _BULLET.fullmatch(line)
            if bullet:
                parts[section].append(bullet[1].strip())
            elif section == "objective" or not parts[section]:
                parts[section].append(stripped)
            else:
                # A bullet that goes on in the next line.
                parts[section][-1] += f" {stripped}"
    if not title:
        problems.append("a title is missing: # Task: what is to be done")
    if not parts["criteria"]:
        problems.append("at least one acceptance criterion is wanted: ## Acceptance Criteria, then - bullets")
    files = tuple(name.strip("`") for name in parts["files"])
    problems += [
        f"{name} is not where a candidate may change anything: {', '.join(allowed)}"
        for name in files
        if allowed and not _inside(name, allowed)
    ]
    if problems:
        raise BadInput(f"The contract cannot be used: {'; '.join(problems)}.")
    return Contract(
        title=title,
        objective=" ".join(parts["objective"]),
        requirements=tuple(parts["requirements"]),
        criteria=tuple(_criterion(number, text) for number, text in enumerate(parts["criteria"], 1)),
        constraints=tuple(parts["constraints"]),
        files=files,
    )


def _names() -> str:
    return ", ".join(name.title() for name in SECTIONS)


def _inside(path: str, allowed: Sequence[str]) -> bool:
    parts = path.split("/")
    return (
        ".." not in parts
        and not path.startswith("/")
        and any(path == folder or path.startswith(f"{folder.rstrip('/')}/") for folder in allowed)
    )


def _criterion(number: int, text: str) -> Criterion:
    """A command in backticks that has to pass is run by the judge; everything else is read by a reviewer."""
    command = _COMMAND.search(text)
    return Criterion(id=f"A{number}", text=text, command=command[1] if command else "")


def contract_text(contract: Contract) -> str:
    """As `parse_contract` reads it."""
    lines = [f"# Task: {contract.title}"]
    if contract.objective:
        lines += ["", "## Objective", contract.objective]
    sections = [
        ("Requirements", contract.requirements),
        ("Acceptance Criteria", tuple(found.text for found in contract.criteria)),
        ("Constraints", contract.constraints),
        ("Files to Modify", contract.files),
    ]
    for name, bullets in sections:
        if bullets:
            lines += ["", f"## {name}", *(f"- {bullet}" for bullet in bullets)]
    return "\n".join(lines) + "\n"


class Contracts:
    """Texts of contracts by their hash, outside of every candidate's tree."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, text: str) -> str:
        """Durable when this returns; the hash."""
        key = content_hash(text)
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._path(key).is_file():
            replace_file(self._path(key), text.encode())
        return key

    def text(self, key: str) -> str:
        """Raises JournalError where it is gone, or is not what it was."""
        path = self._path(key)
        found = path.read_text("utf-8") if path.is_file() else ""
        if content_hash(found) != key:
            raise JournalError(
                f"The contract {path} is {'damaged' if path.is_file() else 'gone'}. Put it back from a copy."
            )
        return found

    def contract(self, key: str) -> Contract:
        return parse_contract(self.text(key))

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.md"
