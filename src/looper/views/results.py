"""Where what runs say is written down: in each run's folder, and in pages that several runs share where a person names those."""

import re
from dataclasses import dataclass
from pathlib import Path

from looper.errors import FileRefused
from looper.journal import replace_file
from looper.untrusted import named_text, read_untrusted
from looper.views.findings import hypothesis_text
from looper.views.markdown import block_of, name_of, named_blocks, run_block, unread_marks, with_block_at_end
from looper.views.runs import RunView

NAME = "report.md"
"""Of a run, in its folder."""
PAGE_BYTES = 1 << 28
RESULTS = Path("docs/results")
"""The pages of this project."""
HISTORY = "history"
"""Experiment under which the results of earlier ones are named."""
_WRITTEN_BY = re.compile(r"<!-- written by looper ([0-9a-f]*) -->\n")


@dataclass(frozen=True)
class SharedPages:
    """What several runs share: a page for each experiment in a folder, or one file for all."""

    folder: Path = RESULTS
    file: Path | None = None

    def of(self, name: str) -> Path:
        """Where the block `EXPERIMENT PROFILE` belongs."""
        return self.file or self.folder / f"{name.split()[0]}.md"

    def text(self, page: Path) -> str:
        """What stands there; nothing where a page has not been made yet. Raises BadInput where it is no text."""
        return named_text(page) if page.exists() else ""

    def blocks(self) -> dict[str, tuple[Path, str]]:
        """By experiment and profile: the page and the block that stand there now. Raises BadInput where a page is no text."""
        pages = [self.file] if self.file else sorted(self.folder.glob("*.md"))
        texts = {page: named_text(page) for page in pages if page.is_file()}
        return {
            name: (page, block_of(text, name) or "")
            for page, text in texts.items()
            for name in named_blocks(text)
        }

    def misplaced(self) -> list[str]:
        """Blocks that are there more than once, so that one of them is read and the others are not, and marks that nobody reads."""
        pages = [self.file] if self.file else sorted(self.folder.glob("*.md"))
        texts = {page: named_text(page) for page in pages if page.is_file()}
        names = [(name, page) for page, text in texts.items() for name in named_blocks(text)]
        unread = [
            f"{page}: {mark} begins no block that is read"
            for page, text in texts.items()
            for mark in unread_marks(text)
        ]
        return unread + [
            f"{page}: another block of {name} stands in {first}"
            for at, (name, page) in enumerate(names)
            for first in [next((where for other, where in names[:at] if other == name), None)]
            if first is not None
        ]


def write_text(run: RunView, by: str) -> Path:
    """The run's tables and findings as Markdown in its folder; where they lie. `by` is the version of the code that writes."""
    path = run.folder / NAME
    replace_file(path, _text(run, by).encode())
    return path


def _text(run: RunView, by: str) -> str:
    return f"<!-- written by looper {by} -->\n{with_run('', run)}"


def look_at_text(run: RunView, by: str) -> tuple[str, str]:
    """What of it is not what the records say, and what could not be looked at, since another version of the code wrote it."""
    path = run.folder / NAME
    try:
        there = read_untrusted(path, PAGE_BYTES).decode("utf-8", "replace")
    except FileRefused as error:
        return (f"{error}" if path.exists() else ""), ""
    writer = _WRITTEN_BY.match(there)
    if writer is None or writer[1] != by:
        which = "an earlier version" if writer is None else f"another version ({writer[1]})"
        return "", f"{NAME}: {which} of the code wrote it; looper report {run.folder.name} writes it anew"
    return ("" if there == _text(run, by) else f"{NAME} is not what the records say"), ""


def with_run(text: str, run: RunView) -> str:
    """The page with the run's block written anew. An empty one gets the plan's title and hypothesis first."""
    plan = run.manifest.plan
    title = f"{plan.experiment}: {plan.title}"
    asked = hypothesis_text(plan)
    if not text and not plan.master_seed:
        return f"# {title}\n\n{asked}\n\n{run_block(run)}\n"
    other = f", with other repositories (master seed {plan.master_seed})" if plan.master_seed else ""
    return with_block_at_end(
        text or f"# {title}\n\n{asked}\n", name_of(run), run_block(run), f"{title}{other}"
    )


def not_checked(blocks: dict[str, tuple[Path, str]], folders: set[str]) -> list[str]:
    """By name: blocks that come from none of these run folders, so that nothing here can say whether they are true."""
    return [
        f"{page}: the block of {name}: its run is not here"
        for name, (page, block) in blocks.items()
        if not name.startswith(HISTORY) and not any(f"`{folder}`" in block for folder in folders)
    ]
