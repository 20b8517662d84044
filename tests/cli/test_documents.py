"""What the documents tell people to do."""

import re
from pathlib import Path

from tests.experiment.test_run import Project

DOCS = Path(__file__).parents[2] / "docs"


def test_the_plan_in_the_page_on_own_experiments_is_one(tmp_path: Path, state: Path) -> None:
    project = Project(tmp_path, state)
    found = re.search(r"```toml\n(.*?)```", (DOCS / "own_experiment.md").read_text("utf-8"), re.DOTALL)
    assert found is not None
    (tmp_path / "mine.toml").write_text(found[1])
    told = project.looper("plan", "mine.toml")
    assert told.returncode == 0, told.stderr
    assert "40 tasks, 4 arms" in told.stdout and "smallest difference" in told.stdout


def test_every_link_between_the_documents_leads_somewhere() -> None:
    pages = [*DOCS.glob("*.md"), *(DOCS.parent / name for name in ("README.md", "LEARNINGS.md", "CLAUDE.md"))]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []
