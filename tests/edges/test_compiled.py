"""Compiled modules of a tree that no release is near: built once, found beside the tree, real compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from looper.edges.environments.beside import grafted_site
from looper.edges.environments.compiled import compiled_modules, native_hash
from looper.errors import EnvironmentBroken

SOURCE = """
#include <Python.h>
static PyObject *answer(PyObject *self, PyObject *unused) { return PyLong_FromLong(ANSWER); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, 0}, {0, 0, 0, 0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "fast", 0, -1, methods};
PyMODINIT_FUNC PyInit_fast(void) { return PyModule_Create(&definition); }
"""
SETUP = """
import subprocess, sysconfig
target = "ship/fast" + sysconfig.get_config_var("EXT_SUFFIX")
include = "-I" + sysconfig.get_path("include")
subprocess.run(["cc", "-shared", "-fPIC", include, "ship/fast.c", "-o", target], check=True)
print("all", "is", "built")
"""
COMMAND = ("setup.py", "build_ext", "--inplace", "-j{cores}")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    package = tmp_path / "tree" / "ship"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from ship.fast import answer\n")
    (package / "helper.py").write_text("")
    (package / "fast.c").write_text(SOURCE.replace("ANSWER", "42"))
    (package.parent / "setup.py").write_text(SETUP)
    return package.parent


def built(tree: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    said: list[str] = []
    found = compiled_modules(tmp_path / "place", tree, Path(sys.executable), COMMAND, "ship", said.append)
    return found, said


def test_a_tree_imports_what_was_compiled_of_it_and_holds_nothing_of_it(tree: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in tree.rglob("*"))
    found, said = built(tree, tmp_path)
    assert "compiling ship" in said[0] and "compiled ship: 1 modules" in said[1]
    site = grafted_site(found, ("ship",))
    answered = subprocess.run(
        [sys.executable, "-B", "-c", "import ship; print(ship.answer())"],
        env={**os.environ, "PYTHONPATH": f"{tree}:{site}"},
        capture_output=True,
        text=True,
    )
    assert answered.stdout == "42\n", answered.stderr
    assert sorted(path.name for path in tree.rglob("*")) == before
    assert [path.suffix for path in found.rglob("*") if path.is_file()] == [".so"], (
        "what the tree has is its own"
    )


def test_equal_native_sources_are_compiled_once(tree: Path, tmp_path: Path) -> None:
    first, _ = built(tree, tmp_path)
    (tree / "ship" / "helper.py").write_text("changed = True\n")
    again, said = built(tree, tmp_path)
    assert again == first and said == []
    (tree / "ship" / "fast.c").write_text(SOURCE.replace("ANSWER", "7"))
    other, said = built(tree, tmp_path)
    assert other != first and len(said) == 2 and other.name == native_hash(tree)


def test_a_failed_build_says_its_last_words_and_where_all_of_them_are(tree: Path, tmp_path: Path) -> None:
    (tree / "ship" / "fast.c").write_text("int broken(")
    with pytest.raises(EnvironmentBroken, match=r"Compiling ship failed: .* The whole log: .*\.log") as error:
        built(tree, tmp_path)
    log = Path(str(error.value).rpartition(": ")[2])
    assert "broken" in log.read_text() and "\n" not in str(error.value)
    (tree / "ship" / "fast.c").write_text(SOURCE.replace("ANSWER", "1"))
    assert built(tree, tmp_path)[0].is_dir()


def test_what_an_interrupted_build_left_is_built_anew(tree: Path, tmp_path: Path) -> None:
    left = tmp_path / "place" / native_hash(tree)
    left.mkdir(parents=True)
    (left / "half.so").write_text("half")
    found, _ = built(tree, tmp_path)
    assert found == left and not (left / "half.so").exists()


def test_a_build_without_modules_or_without_a_compiler_is_named(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "setup.py").write_text("print('nothing to do')\n")
    with pytest.raises(EnvironmentBroken, match="left no compiled module"):
        built(tree, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        EnvironmentBroken, match="no C and C.. compiler. Install them: apt-get install build-essential"
    ):
        built(tree, tmp_path)
