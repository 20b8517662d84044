"""What transformers finds out about itself at each import, kept: the same table, without looking through its files."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from looper.edges.models.structure import Table, _kept

PROGRAM = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
sys.modules["torch"] = None
from looper.edges.models.structure import quick_transformers
quick_transformers()
from transformers import AutoTokenizer
from transformers.utils.import_utils import define_import_structure
looked_through = sum("/transformers/models/" in path and path.endswith(".py") for path in opened)
folder = sys.modules["transformers"].__path__[0] + "/models"
look = define_import_structure.args[0]
same = [define_import_structure(folder, prefix) == look(folder, prefix) for prefix in (None, "models")]
print(looked_through, same)
"""


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_the_kept_table_is_the_one_that_transformers_finds_and_its_files_are_not_looked_through() -> None:
    said = [
        subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    looked_through, same = said[1].split(maxsplit=1)
    assert int(looked_through) < 50 and same == "[True, True]\n", said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models" / "__pycache__").mkdir(parents=True)
    (tmp_path / "models" / "__init__.py").write_text("")
    return tmp_path / "models"


class Looked:
    """The look through the files, counted."""

    times = 0

    def __call__(self, path: str, prefix: str | None) -> Table:
        self.times += 1
        return {frozenset({"torch"}): {f"{prefix}.{self.times}": {"Name"}}}


def test_a_table_is_looked_for_once_by_folder_or_by_file(folder: Path) -> None:
    look = Looked()
    first = _kept(look, str(folder), "models")
    assert _kept(look, str(folder / "__init__.py"), "models") == first and look.times == 1
    assert _kept(look, str(folder), None) != first and look.times == 2, "each prefix has its own"


@pytest.mark.parametrize(
    "content",
    [b"", b"nothing", b"i\x00\x00\x00\x00", b")\x00", b"{0"],
    ids=["empty", "text", "number", "tuple", "dict"],
)
def test_what_is_damaged_or_of_other_files_is_looked_for_again(folder: Path, content: bytes) -> None:
    look = Looked()
    _kept(look, str(folder), "models")
    (place,) = (folder / "__pycache__").iterdir()
    place.write_bytes(content)
    _kept(look, str(folder), "models")
    assert look.times == 2
    (folder / "new").mkdir()
    _kept(look, str(folder), "models")
    assert look.times == 3


def test_a_table_of_what_cannot_be_kept_is_looked_for_each_time_and_leaves_nothing(folder: Path) -> None:
    table: Table = {frozenset(): {"name": {Path}}}
    assert _kept(lambda path, prefix: table, str(folder), "models") is table
    assert not list((folder / "__pycache__").iterdir())


def test_where_nothing_can_be_kept_it_is_looked_for_each_time(folder: Path, tmp_path: Path) -> None:
    look = Looked()
    (folder / "__pycache__").rmdir()
    (tmp_path / "models" / "llama").mkdir()
    for path in (folder, folder, folder / "llama"):
        _kept(look, str(path), "models")
    assert look.times == 3 and not list(folder.rglob("looper-*"))
