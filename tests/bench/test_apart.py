"""A product in a process of its own, as tests see it from theirs: what crosses, what does not, and how it ends.

The asking side is loaded here, the answering one is the real program behind real pipes.
"""

import builtins
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from looper.bench import runners

PROGRAMS = Path(runners.__file__).parent


def _loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, PROGRAMS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


CROSSING = _loaded("looper_crossing")
APART = _loaded("looper_apart")
for _name in ("looper_apart", "looper_crossing"):
    del sys.modules[_name]


class Served:
    """A product that is served from a tree, and what was refused to cross to it."""

    def __init__(self, tree: Path) -> None:
        self.tree, self.refused = tree, list[str]()
        self._pipes = tree.with_name(f"{tree.name}.pipes")
        self._pipes.mkdir()
        for name in ("ask", "answer"):
            os.mkfifo(self._pipes / name)
        APART.connect(str(self._pipes), str(tree), self.refused.append)
        self.finder = sys.meta_path[0]
        self.process = subprocess.Popen(
            [sys.executable, "-B", str(PROGRAMS / "serve_product.py"), str(self._pipes), "word"],
            cwd=tree,
            env={**os.environ, "LOOPER_MODULE_PATH": str(tree)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def tell_its_end(self) -> None:
        """As the harness does where the process is at its end."""
        (self._pipes / "answer").write_bytes(b'\n["gone"]\n')

    def end(self) -> int:
        """The tests are over: their end of the pipe is closed."""
        sys.meta_path.remove(self.finder)
        product = self.finder._product  # type: ignore[attr-defined]
        os.close(product._ask)
        status = self.process.wait(20)
        os.close(product._lines._descriptor)
        return status


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    before, begun = set(sys.modules), list[Served]()

    def serve(**files: str) -> Served:
        tree = tmp_path / f"tree{len(begun)}"
        (tree / "tests").mkdir(parents=True)
        (tree / "conftest.py").touch()
        for name, text in files.items():
            path = tree / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        begun.append(Served(tree))
        return begun[-1]

    yield serve
    for each in begun:
        if each.finder in sys.meta_path:
            assert each.end() == 0, "it ends with its tests"
    for name in set(sys.modules) - before:
        if isinstance(sys.modules[name], APART.Module):
            del sys.modules[name]


PLAIN = [
    None, True, 3, -1.5, "é\n\0", "", [1, [2]], [], (1, ("a",)), (), {1, 2}, frozenset({"a"}), {(1, 2): [None], "b": {}}, {},
    b"\x00\xff", b"", 1 - 2j, 10**30,
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_data_is_on_the_other_side_what_it_was(value: object) -> None:
    line = CROSSING.line_of(CROSSING.encoded(value, None))
    assert line.endswith(b"\n") and line.count(b"\n") == 1 and line.isascii()
    seen = CROSSING.decoded(CROSSING.json.loads(line), None)
    assert seen == value and type(seen) is type(value)


def test_of_what_derives_from_plain_data_nothing_crosses_unasked() -> None:
    class Own(int): ...

    class Names(list[str]): ...

    for value in (Own(3), Names(["a"]), [Own(3)], {"a": Own(3)}, {Own(3): "a"}, bytearray(b"a"), range(3)):
        with pytest.raises(CROSSING.CannotCross, match="of its own"):
            CROSSING.encoded(value, _refusing)
    assert CROSSING.encoded((Own(3), 1), lambda value: ["own"]) == ["tuple", ["own"], 1]
    for kind in ("a", "bytez", "complexes", "dicts", "own", "z"):
        assert CROSSING.decoded(["tuple", [kind, 2], 1], lambda *found: found) == ((kind, [2]), 1)


def test_what_crosses_is_written_and_read_by_a_copy_that_nobody_else_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def replaced(*given: object) -> str:
        raise AssertionError("the product's own")

    import json

    assert (
        CROSSING.json is not json
        and sys.modules["json"] is json
        and sys.modules["json.decoder"] is json.decoder
    )
    for name in ("dumps", "loads"):
        monkeypatch.setattr(json, name, replaced)
    monkeypatch.setattr(json.decoder.JSONDecoder, "decode", replaced)
    monkeypatch.setattr(json.encoder.JSONEncoder, "encode", replaced)
    assert _messages(CROSSING.line_of(["a"])) == [["a"], None]


def _refusing(value: object) -> None:
    raise CROSSING.CannotCross(f"a {type(value).__name__} of its own")


def test_what_is_too_large_or_too_deep_for_a_line_does_not_cross() -> None:
    most = "a" * ((32 << 20) - len('""\n'))
    assert len(CROSSING.line_of(most)) == 32 << 20
    with pytest.raises(CROSSING.CannotCross, match=f"it takes {(32 << 20) + 1} bytes"):
        CROSSING.line_of(most + "a")
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(CROSSING.CannotCross):
        CROSSING.line_of(deep)


def _messages(*pieces: bytes) -> list[object]:
    """What is read of a pipe that gives these pieces, one at a time; None at its end or for what is no message."""
    left = list(pieces)
    lines = CROSSING.Lines(lambda descriptor, most: left.pop(0) if left else b"", 0)
    return [lines.next() for _ in range(len(pieces) + 1)]


def test_messages_are_whole_lines_however_they_arrive() -> None:
    assert _messages(b'["a"]\n["b"]\n', b"3\n") == [["a"], ["b"], 3]
    assert _messages(b'["a', b'"]\n["', b'b"]\n') == [["a"], ["b"], None, None]
    assert _messages(b'["a"]\n["b"]') == [["a"], None], "its last line never ended"
    assert _messages(b"no message\n3\n") == [None, 3] and _messages(b'"\xff"\n3\n') == [None, 3]
    assert _messages(b"[" * 5_000 + b"\n3\n") == [None, 3]


def test_a_line_that_is_longer_than_any_message_is_read_no_further() -> None:
    piece, asked = b"a" * (1 << 20), []

    def read(descriptor: int, most: int) -> bytes:
        asked.append((descriptor, most))
        return piece

    assert CROSSING.Lines(read, 7).next() is None
    assert len(asked) == 34, "the whole of a message that is as long as one can be, and a piece more"
    assert {descriptor for descriptor, _ in asked} == {7}


VALUES = """
import sys

LIMIT = (1, {"a": b"b"})
held = []


def f(x, y=2, *, z=3):
    return [x, y, z]


def kept(*values):
    held.extend(values)
    return held


class Box:
    def __init__(self, x):
        self.x = x


def applied(do, *given):
    return do(*given)


def size_of(box):
    return box.width * box.inner.height, box.do(1), box.__name__


def gone():
    del globals()["gone"]


def arguments():
    return sys.argv[1:], "looper_report" in sys.modules
"""


def test_functions_are_called_with_plain_data_and_give_plain_data(served: Callable[..., Served]) -> None:
    one = served(product=VALUES)
    product = importlib.import_module("product")
    assert product.f(1) == [1, 2, 3] and product.f((1,), z=b"c", y={4}) == [(1,), {4}, b"c"]
    assert product.LIMIT == (1, {"a": b"b"}) and product.f.__name__ == "f"
    assert product.kept(1) == [1] and product.kept(2) == [1, 2], "it is one process all along"
    assert product.applied(product.f, 5, 6) == [5, 6, 3], "its functions are handed back to it"
    assert product.arguments() == ([], False), "of how it is served a product sees nothing"
    assert not one.refused
    with pytest.raises(APART.CannotCross, match="a result of type Box is no plain data"):
        product.Box(3)
    with pytest.raises(AttributeError, match="^module 'product' has no attribute 'missing'$"):
        _ = product.missing
    assert not hasattr(product, "__path_of_its_own__")
    gone, kept = product.gone, product.kept
    assert gone() is None and kept.__name__ == "kept"
    with pytest.raises(AttributeError, match="^module 'product' has no attribute 'gone'$"):
        gone(1, x=2)


def test_what_tests_made_of_plain_attributes_crosses_and_other_objects_are_refused(
    served: Callable[..., Served],
) -> None:
    one = served(
        product=VALUES,
        tests__things="class Inner:\n    pass\nclass Box:\n    def __init__(self, width):\n        self.width, self._own = width, object()\n"
        "class Doing(Box):\n    pass\nclass Sized:\n    def area(self):\n        return 1\nclass Asked:\n    @property\n    def width(self):\n        return 1\n",
    )
    product = importlib.import_module("product")
    spec = importlib.util.spec_from_file_location("things_of_tests", one.tree / "tests" / "things.py")
    assert spec is not None and spec.loader is not None
    things: Any = importlib.util.module_from_spec(spec)
    sys.modules["things_of_tests"] = things
    try:
        spec.loader.exec_module(things)
        box, box.inner = things.Box(3), things.Inner()
        box.inner.height, box.do = 4, product.f
        assert product.size_of(box) == (12, [1, 2, 3], "Box") and not one.refused
        for each in (object(), Path, lambda: 1, things.Doing(3), things.Sized(), things.Asked(), [object()]):
            one.refused.clear()
            with pytest.raises(APART.CannotBeHanded, match="is no plain data"):
                product.f(each)
            named = type(each[0] if isinstance(each, list) else each)
            name = each.__name__ if isinstance(each, type) else named.__name__
            assert one.refused == [f"an argument of product.f cannot cross: a {name} is no plain data"]
        one.refused.clear()
        with pytest.raises(APART.CannotBeHanded):
            product.f(1, z=object())
        assert len(one.refused) == 1
    finally:
        del sys.modules["things_of_tests"]


def test_that_it_cannot_cross_is_not_the_tests_doing_where_the_product_chose_it(
    served: Callable[..., Served],
) -> None:
    one = served(product="def f(x): raise ValueError('no')\n")
    product = importlib.import_module("product")
    with pytest.raises(ValueError) as raised:
        product.f(1)
    for given in (raised.value, "a" * (32 << 20)):
        with pytest.raises(APART.CannotCross) as found:
            product.f(given)
        assert type(found.value) is APART.CannotCross and not one.refused


RAISES = """
import builtins


class TooSmall(ValueError):
    def __init__(self, value, limit):
        super().__init__(value, limit)


class Far(TooSmall):
    pass


class Stop(BaseException):
    pass


class Odd(UnicodeDecodeError):
    def __init__(self):
        super().__init__("ascii", b"a", 0, 1, "odd")
        self.args = ()


class Both(LookupError, ArithmeticError):
    pass


def f(name, *given):
    raise (globals().get(name) or getattr(builtins, name))(*given)


def g():
    raise ValueError(object(), "said")


def deep():
    found = []
    for _ in range(600):
        found = [found]
    raise ValueError(found)
"""


def test_exceptions_come_as_their_class_with_their_arguments(served: Callable[..., Served]) -> None:
    served(product=RAISES)
    product = importlib.import_module("product")
    with pytest.raises(product.TooSmall) as found:
        product.f("TooSmall", -2, (1, 2))
    assert found.value.args == (-2, (1, 2)) and isinstance(found.value, ValueError)
    assert (type(found.value).__name__, type(found.value).__module__) == ("TooSmall", "product")
    with pytest.raises(ValueError) as further:
        product.f("Far", 1, 2)
    assert type(further.value).__name__ == "Far"
    for name in ("KeyError", "ZeroDivisionError", "SystemExit", "StopIteration"):
        with pytest.raises(getattr(builtins, name)) as own:
            product.f(name, 3)
        assert type(own.value) is getattr(builtins, name) and own.value.args == (3,)
    # What would end the run, or pass by what handles exceptions, is an exception like others here.
    for name in ("Stop", "KeyboardInterrupt", "GeneratorExit"):
        with pytest.raises(Exception) as ended:
            product.f(name, 3)
        assert type(ended.value).__name__ == name and ended.value.args == (3,)
    with pytest.raises(LookupError) as both:
        product.f("Both")
    assert not isinstance(both.value, ArithmeticError) and type(both.value) is product.Both
    with pytest.raises(UnicodeDecodeError) as odd:
        product.f("Odd")
    assert type(odd.value).__name__ == "Odd", "also where it cannot be made of its arguments"
    with pytest.raises(ValueError, match="said") as text:
        product.g()
    assert isinstance(text.value.args[0], str), "what is no plain data is told as text"
    with pytest.raises(ValueError, match=r"^\[\[\[") as deep:
        product.deep()
    assert isinstance(deep.value.args[0], str), "what is too deep as well"


def test_modules_are_imported_there_and_nowhere_else(served: Callable[..., Served]) -> None:
    one = served(
        product__inner="from product.other import LIMIT\n",
        product__other="LIMIT = 4\n",
        product__late="import nothing_of_that_name\n",
        product__broken="raise ValueError('at once')\n",
        product____init__="",
        alone="1 / 0\n",
    )
    (one.tree / "tests" / "test_a.py").touch()
    assert importlib.import_module("product.inner").LIMIT == 4
    with pytest.raises(ModuleNotFoundError, match="^No module named 'product.nothing'$"):
        importlib.import_module("product.nothing")
    with pytest.raises(ImportError, match="^No module named 'nothing_of_that_name'$"):
        importlib.import_module("product.late")
    with pytest.raises(ValueError, match="^at once$"):
        importlib.import_module("product.broken")
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("alone")
    # Whoever is not at the root of the tree, and tests, which are not the product's, are found as everywhere.
    for name in ("json", "tests", "tests.test_a", "conftest"):
        assert one.finder.find_spec(name) is None  # type: ignore[call-arg]
    spec = one.finder.find_spec("product")  # type: ignore[call-arg]
    assert spec is not None and spec.submodule_search_locations is not None


ENDS = """
import os


def leave():
    os._exit(3)


def own():
    import multiprocessing
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(double, [2])


def double(x):
    return 2 * x
"""


def test_a_product_that_is_gone_is_asked_nothing_more(served: Callable[..., Served]) -> None:
    one = served(product=ENDS)
    product = importlib.import_module("product")
    leave, double = product.leave, product.double
    assert double(2) == 4
    one.process.kill()
    one.process.wait(20)
    one.tell_its_end()
    for _ in range(2):
        with pytest.raises(APART.ProductGone, match="the product's process is at its end"):
            leave()
    sys.meta_path.remove(one.finder)


@pytest.mark.parametrize(
    "said",
    [b"no message\n", b"3\n", b"[]\n", b'["value", ["of its own", 1]]\n', b'["value", []]\n', b'["value"]\n', b'["value", ["bytes", 1]]\n'],
    ids=repr,
)  # fmt: skip
def test_what_is_no_answer_is_a_product_that_is_gone(served: Callable[..., Served], said: bytes) -> None:
    one = served(product=ENDS)
    product = importlib.import_module("product")
    double = product.double
    one.process.kill()
    one.process.wait(20)
    (one._pipes / "answer").write_bytes(said)
    with pytest.raises(APART.ProductGone):
        double(2)
    sys.meta_path.remove(one.finder)


def test_a_served_product_may_start_processes_of_its_own(served: Callable[..., Served]) -> None:
    served(product=ENDS)
    assert importlib.import_module("product").own() == [4]


def test_pipes_that_are_links_are_not_opened(tmp_path: Path) -> None:
    finders = list(sys.meta_path)
    os.mkfifo(tmp_path / "elsewhere")
    for name in ("ask", "answer"):
        (tmp_path / name).symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        APART.connect(str(tmp_path), str(tmp_path), print)
    assert sys.meta_path == finders
