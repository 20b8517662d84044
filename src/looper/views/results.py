"""Where what runs say is written down: a page for each experiment below docs/results, or one file that a person names."""

from pathlib import Path

from looper.errors import BadInput
from looper.untrusted import named_text
from looper.views.markdown import block_of, name_of, named_blocks, run_block, with_block_at_end
from looper.views.runs import RunView

RESULTS = Path("docs/results")
HISTORY = "history"
"""Experiment under which the results of earlier ones are named."""


def page_of(name: str, file: Path | None) -> Path:
    """Where the block `EXPERIMENT PROFILE` belongs."""
    return file or RESULTS / f"{name.split()[0]}.md"


def page_text(page: Path, file: Path | None) -> str:
    """What stands there; nothing where a page has not been made yet. Raises BadInput where a file that a person named is missing."""
    if page.is_file():
        return named_text(page)
    if file is not None:
        raise BadInput(f"There is no file {file}. Make it, or leave --file out to write below {RESULTS}.")
    return ""


def written_blocks(file: Path | None) -> dict[str, tuple[Path, str]]:
    """By experiment and profile: the page and the block that stand there now. Raises BadInput where a page is no text."""
    pages = [file] if file else sorted(RESULTS.glob("*.md"))
    texts = {page: named_text(page) for page in pages if page.is_file()}
    return {
        name: (page, block_of(text, name) or "")
        for page, text in texts.items()
        for name in named_blocks(text)
    }


def with_run(text: str, run: RunView) -> str:
    """The page with the run's block written anew. An empty one gets the plan's title and question first."""
    plan = run.manifest.plan
    title = f"{plan.experiment}: {plan.title}"
    asked = " ".join(plan.hypothesis.split())
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
