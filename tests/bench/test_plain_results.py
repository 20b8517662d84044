"""What tests that were written here see of a product's results."""

import array
import collections
import datetime
import decimal
import enum
import importlib.util
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from looper.bench import runners

SOURCE = Path(runners.__file__).with_name("looper_plain.py")


def _loaded() -> Any:
    spec = importlib.util.spec_from_file_location("looper_plain", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LOADED = _loaded()
plain = LOADED.as_plain_data


class Loose(str):
    """Equal to every text with the same letters."""

    def __eq__(self, other: object) -> bool:
        return sorted(self) == sorted(str(other))

    def __hash__(self) -> int:
        return 0


class Quiet(int):
    """Says nothing of what it is equal to."""


class Always:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __contains__(self, item: object) -> bool:
        return True

    def __len__(self) -> int:
        return 10**6


class Meta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return True


class Made(int, metaclass=Meta): ...


class Same(type):
    """Its classes equal each of Python's."""

    def __eq__(cls, other: object) -> bool:
        return True

    __hash__ = type.__hash__


class Raised(Exception, metaclass=Same): ...


class OfAll(metaclass=Same):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


class Pretends(Always):
    __class__ = type  # type: ignore[assignment]
    __bases__ = (BaseException,)


Pair = collections.namedtuple("Pair", "a b")
OWN = [
    None, True, 3, 1.5, 2j, "a", b"a", bytearray(b"a"), range(3), [1, [2]], (1, "a"), {1, 2}, frozenset({1}), {"a": [1]},
    collections.OrderedDict(a=1), collections.Counter("aab"), collections.deque([1, 2], 3), {"a": 1}.keys(), decimal.Decimal("1.5"),
    datetime.date(2020, 1, 1), datetime.timedelta(1), collections.defaultdict(int, a=1),
]  # fmt: skip


@pytest.mark.parametrize("value", OWN, ids=lambda value: type(value).__name__)
def test_what_python_s_own_types_hold_is_seen_as_it_is(value: object) -> None:
    assert plain(value) == value and type(plain(value)) is type(value)


def test_what_derives_from_one_without_a_word_is_equal_to_the_same_and_still_no_plain_one() -> None:
    class Names(list[str]): ...

    for value, is_equal in ((Quiet(3), 3), (Names(["a"]), ["a"])):
        seen = plain(value)
        assert (
            seen == is_equal
            and repr(seen) == repr(is_equal)
            and type(seen) not in (type(value), type(is_equal))
        )


def test_what_is_shared_or_holds_itself_is_gone_through_once() -> None:
    shared: list[Any] = []
    for _ in range(60):
        shared = [shared, shared]
    seen = plain(shared)
    assert seen[0] is seen[1]
    shared.append(shared)
    assert (seen := plain(shared))[2] is seen


@pytest.mark.parametrize(
    "value",
    [Always(), lambda: Always(), Always],
    ids=("object", "function", "class"),
)
def test_what_is_of_the_product_s_own_kind_is_equal_to_itself_alone(value: object) -> None:
    for seen in (plain(value), *plain([value]), *plain((value,)), plain({"a": value})["a"]):
        assert not any(seen == other for other in ("ab", "ba", 3, None, [], Always))
        assert not hasattr(type(seen), "__contains__") and not hasattr(type(seen), "__len__")


def test_what_one_of_python_s_own_types_holds_of_the_product_s_is_no_more_than_that() -> None:
    for holding in (collections.deque([Always()]), collections.OrderedDict(a=Always()), {"a": Always()}):
        assert plain(holding) not in (collections.deque([1]), collections.OrderedDict(a=1), {"a": 1})
    assert plain({"a": Always()}.values()) != [1] and list(plain(iter([Always()])))[0] != 1
    assert plain({"a": Loose("ab")}.items()) != {"a": "ba"}.items()


class Level(enum.IntEnum):
    HIGH = 3


class Word(str, enum.Enum):  # noqa: UP042 - as products write it
    YES = "yes"


class Defaulting(dict[str, int]):
    def __missing__(self, key: str) -> int:
        return 0


class Steps(list[int]):
    def __init__(self, *items: int) -> None:
        super().__init__(items)

    def __add__(self, other: object) -> "Steps":
        return self

    def __repr__(self) -> str:
        return "steps"

    def __lt__(self, other: object) -> bool:
        return True


@pytest.mark.parametrize(
    ("value", "holds", "other"),
    [
        (Pair(1, 2), (1, 2), (2, 1)),
        (Level.HIGH, 3, 2),
        (Word.YES, "yes", "no"),
        (Defaulting(a=1), {"a": 1}, {"a": 2}),
        (Steps(1, 2), [1, 2], [1]),
        (Loose("ab"), "ab", "ba"),
        (Made(3), 3, 4),
        (collections.UserList([1]), [1], [2]),
        (collections.UserDict(a=1), {"a": 1}, {}),
        (collections.UserString("a"), "a", "b"),
        (types.MappingProxyType({"a": 1}), {"a": 1}, {}),
        (collections.ChainMap({"a": 1}, {"b": 2}), {"b": 2, "a": 1}, {"a": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_derives_from_python_s_own_types_is_what_it_holds_whatever_its_class_says(
    value: object, holds: object, other: object
) -> None:
    for seen in (plain(value), *plain([value])):
        assert seen == holds and holds == seen and repr(seen) == repr(holds)
        assert seen != other and other != seen


def test_what_a_class_has_beside_its_data_is_asked_there_and_seen_as_data() -> None:
    class Named(collections.namedtuple("Named", "first second")):
        def both(self) -> Always:
            return Always()

    seen = plain(Named(1, 2))
    assert (seen.first, seen.second) == (1, 2) and plain(Level.HIGH).name == "HIGH"
    assert seen.both() != 1
    assert LOADED.proxy(lambda given: isinstance(given, Named))(seen) is True, (
        "handed back it is the product's own"
    )


def test_what_a_product_puts_into_what_tests_handed_over_is_data_when_they_look() -> None:
    def fill(rows: list[Any], table: dict[str, Any]) -> list[Any]:
        rows[0][:] = [Always()]
        rows.append(Loose("ab"))
        table["inner"]["found"] = Always()
        return rows

    rows: list[Any] = [[0], 1]
    table: dict[str, Any] = {"inner": {}}
    inner = rows[0]
    seen = LOADED.proxy(fill)(rows, table)
    assert seen is rows and seen[0] is inner, "what is theirs stays theirs"
    assert inner[0] != 5 and seen[2] == "ab" and seen[2] != "ba" and table["inner"]["found"] != 5


TESTS = """
import math
from {module} import {names}


def equal(found, wanted):
    assert found == wanted


{test}
"""
WAYS = {
    "in a helper": "def test_f():\n    equal(f(2), 4)\n",
    "in a loop": "def test_f():\n    for given, wanted in ((1, 1), (2, 4)):\n        assert f(given) == wanted\n",
    "after another statement": "def test_f():\n    if f(1) is None:\n        return\n    assert f(2) == 4\n",
    "with a name": "def test_f():\n    wanted = 2 + 2\n    assert f(2) == wanted\n",
    "in a container": "def test_f():\n    assert 4 in g(2)\n",
    "by its size": "def test_f():\n    assert len(g(2)) > 1\n",
    "nearly": "def test_f():\n    assert math.isclose(f(2), 4)\n",
    "in a function": "def test_f():\n    from product import f as found\n    assert found(2) == 4\n",
}
HOSTILE = (
    "class E:\n    __eq__ = __contains__ = __gt__ = lambda self, other: True\n    __len__ = lambda self: 9\n"
    + (
        "def f(x): return E()\ndef g(x): return E()\nimport math\nmath.isclose = lambda *given, **named: True\n"
    )
)
RIGHT = "def f(x): return x * x\ndef g(x): return [x * x, 0]\n"


@pytest.mark.parametrize("way", WAYS)
def test_however_a_test_compares_an_object_that_equals_everything_does_not_pass(
    tmp_path: Path, way: str
) -> None:
    assert _outcomes(tmp_path / "right", RIGHT, WAYS[way]) == {"passed"}
    said = _outcomes(tmp_path / "hostile", HOSTILE, WAYS[way])
    assert "tampered" in said or "passed" not in said


REACHES = {
    "its name": "import sys\nsys.modules['looper_plain'].as_plain_data = lambda value, known=None: value\n",
    "the import": "import builtins\nbuiltins.__import__.__globals__['plain'] = lambda value, known=None: value\n",
    "its cells": "import builtins\nfor cell in builtins.__import__.__closure__:\n"
    "    if isinstance(cell.cell_contents, frozenset): cell.cell_contents = frozenset()\n",
    "collections": "import collections\ncollections.deque = E\n",
    "a builtin": "import builtins\nbuiltins.abs = lambda x: 0\n",
    "a module's name": "import math, sys, types\nfake = types.ModuleType('math')\nfake.isclose = lambda *given, **named: True\n"
    "sys.modules['math'] = fake\n",
    "a name that it has not": "import sys\nsys.modules['product.f'] = f\nsys.modules['x.f'] = f\n__name__ = 'x'\ndel f\n",
    "a profile": "import sys\nclass N(int): pass\ndef evil(frame, event, arg):\n"
    "    if type(arg) is N: N.__eq__ = lambda self, other: True\ndef f(x):\n    sys.setprofile(evil)\n    return N(0)\n",
}
EACH = (
    "def test_f():\n    assert abs(f(2) - 4) < 1e-6\n    assert f(2) == 4\n    assert math.isclose(f(2), 4)\n"
)


@pytest.mark.parametrize("reaches", REACHES)
def test_what_a_product_does_to_how_it_is_seen_does_not_make_it_pass(tmp_path: Path, reaches: str) -> None:
    hostile = HOSTILE.replace("math.isclose = lambda *given, **named: True\n", "")
    hostile = hostile.replace(
        "    __len__",
        "    __sub__ = lambda self, other: self\n    __abs__ = lambda self: self\n    __lt__ = __eq__\n    __len__",
    )
    said = _outcomes(tmp_path / "hostile", hostile + REACHES[reaches], EACH)
    assert "tampered" in said or "passed" not in said


def test_what_tests_hand_over_is_theirs_when_it_comes_back_and_when_it_is_changed(tmp_path: Path) -> None:
    product = "import functools\nclass P: pass\nP.K = K = P()\ndef f(x): return x\ndef g(x, y=None):\n    x.append(y or E())\n"
    product += "class E:\n    __eq__ = lambda self, other: True\ndef h(): return functools.partial(f, 3)\ndef k(): return K\n"
    test = "def test_f():\n    own = object()\n    assert f(own) is own and f([own])[0] is own\n    held = []\n    g(held)\n"
    test += "    assert held != [3] and h()() == 3 and k() is k() and f(k()) is k()\n    things = [k()]\n    g(things, k())\n"
    test += "    assert things == [k(), k()]\n"
    assert _outcomes(tmp_path / "back", product, test, names="f, g, h, k") == {"passed"}


def test_things_of_the_product_are_handed_back_to_it_and_its_functions_too(tmp_path: Path) -> None:
    product = "class P:\n    def __init__(self, x): self.x = x\ndef f(ps): return sum(p.x for p in ps)\ndef g(h, x): return h(x)\n"
    test = "def test_f():\n    p = P(3)\n    p.x += 1\n    assert p.x == 4 and f([p, P(1)]) == 5 and g(f, [p]) == 4\n"
    assert _outcomes(tmp_path / "things", product, test, names="P, f, g") == {"passed"}


class ListOf(collections.UserList[int]): ...


class TableOf(collections.UserDict[str, int]): ...


class WordOf(collections.UserString): ...


class Squares:
    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        return (at * at for at in range(self.count))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: int) -> int:
        return at * at

    def __str__(self) -> str:
        return "squares"


def test_own_containers_are_gone_through_measured_and_printed_as_they_are() -> None:
    assert plain(ListOf([1])) == [1] and plain(TableOf(a=1)) == {"a": 1} and plain(WordOf("a")) == "a"
    seen = plain(Squares(4))
    assert list(seen) == [0, 1, 4, 9] and len(seen) == 4 and seen[3] == 9 and str(seen) == "squares" and seen
    assert not plain(Squares(0)) and 4 in seen and 5 not in seen
    assert list(plain(array.array("q", [1, 2]))) == [1, 2] and plain(memoryview(b"ab")) == b"ab"
    kind = LOADED.proxy(Squares)
    assert isinstance(kind(3), kind) and not isinstance(3, kind)


ANY = "class Q:\n    __eq__ = lambda self, other: True\n    __hash__ = lambda self: 0\nclass S(str):\n    __eq__ = lambda self, other: True\n"
ANY += "    __hash__ = str.__hash__\n"
RAISES = {
    "text": (
        "class E(ValueError):\n    def __str__(self): return S('no')\ndef f(x): raise E('no')\n",
        "    try:\n        f(2)\n    except ValueError as error:\n        assert str(error) == 'below zero: 2'\n    else:\n        assert False\n",
    ),
    "arguments": (
        "def f(x): raise ValueError(Q())\n",
        "    with pytest.raises(ValueError) as found:\n        f(2)\n    assert found.value.args[0] == 'below zero: 2'\n",
    ),
    "a code": (
        "def f(x): raise SystemExit(Q())\n",
        "    for code in (1, 2):\n        with pytest.raises(SystemExit) as found:\n            f(code)\n        assert found.value.code == code\n",
    ),
    "an attribute": (
        "def f(x):\n    error = KeyError('a')\n    error.key = Q()\n    raise error\n",
        "    with pytest.raises(KeyError) as found:\n        f(2)\n    assert found.value.key == 2\n",
    ),
    "a cause": (
        "def f(x): raise ValueError('a') from KeyError(Q())\n",
        "    with pytest.raises(ValueError) as found:\n        f(2)\n    assert found.value.__cause__.args == (2,)\n",
    ),
    "a class attribute": (
        "class E(ValueError):\n    code = Q()\ndef f(x): raise E('a')\n",
        "    with pytest.raises(ValueError) as found:\n        f(2)\n    assert found.value.code == 2\n",
    ),
    "a class of classes": (
        "class M(type):\n    pass\nclass E(ValueError, metaclass=M):\n    __str__ = lambda self: S('no')\ndef f(x): raise E('a')\n",
        "    with pytest.raises(ValueError) as found:\n        f(2)\n    assert str(found.value) == 'b'\n",
    ),
    "equality": (
        "class E(ValueError):\n    __eq__ = lambda self, other: True\n    __hash__ = ValueError.__hash__\ndef f(x): raise E('a')\n",
        "    try:\n        f(2)\n    except ValueError as error:\n        assert error == 2\n",
    ),
    "a cause's text": (
        "class E(ValueError):\n    __str__ = lambda self: S('no')\n    __len__ = lambda self: 0\ndef f(x): raise ValueError('a') from E('b')\n",
        "    with pytest.raises(ValueError) as found:\n        f(2)\n    assert str(found.value.__cause__) == 'c'\n",
    ),
    "what it was raised in": (
        "def f(x):\n    try:\n        raise KeyError(Q())\n    except KeyError:\n        raise ValueError('a') from IndexError('b')\n",
        "    with pytest.raises(ValueError) as found:\n        f(2)\n    assert found.value.__context__.args == (2,)\n",
    ),
    "a group": (
        "def f(x): raise ExceptionGroup('a', [ValueError(Q())])\n",
        "    with pytest.raises(ExceptionGroup) as found:\n        f(2)\n    assert found.value.exceptions[0].args == (2,)\n",
    ),
    "itself as a result": (
        "class E(ValueError):\n    __eq__ = lambda self, other: True\n    __hash__ = ValueError.__hash__\ndef f(x): return E(Q())\n",
        "    assert isinstance(f(2), ValueError)\n    assert f(2).args == (2,) or f(2) == 2\n",
    ),
    "what an exception's class makes": (
        "class L(list):\n    __eq__ = lambda self, other: True\nclass f(Exception):\n    def __new__(cls, x): return L()\n",
        "    assert f(2) == [4]\n",
    ),
    "an exception that is made": (
        "class f(Exception):\n    __eq__ = lambda self, other: True\n    __hash__ = Exception.__hash__\n",
        "    assert f(2) == [4]\n",
    ),
    "an exception's class that says something later": (
        "class f(Exception):\n    pass\ndef later():\n    f.__new__ = lambda cls, x: Q()\n"
        "import sys\nsys.modules['product'].__class__ = type('M', (type(sys),), {'go': property(lambda self: later())})\n",
        "    import product\n    product.go\n    assert f(2) == [4]\n",
    ),
    "what a class of exceptions has": (
        "class f(Exception):\n    @staticmethod\n    def of(x): return Q()\n",
        "    assert f.of(2) == [4]\n",
    ),
    "who hears of classes that are derived": (
        "class f(Exception):\n    def __init_subclass__(cls, **named): cls.__eq__ = lambda self, other: True\n    code = Q()\n",
        "    assert f(2) == 4\n",
    ),
    "a view that is filled later": (
        "held = {'a': 1}\ndef f(x):\n    if x: held['a'] = Q()\n    return held.values()\n",
        "    values = f(0)\n    f(1)\n    assert list(values) == [4]\n",
    ),
    "a zone": (
        "import datetime\nclass Z(datetime.tzinfo):\n    utcoffset = lambda self, at: datetime.timedelta(hours=9)\n"
        "def f(x): return datetime.datetime(2000, 1, 1, 9, tzinfo=Z())\n",
        "    import datetime\n    assert f(2) == datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)\n",
    ),
    "a step": (
        "def f(x):\n    yield 1\n    raise ValueError(Q())\n",
        "    with pytest.raises(ValueError) as found:\n        list(f(2))\n    assert found.value.args[0] == 2\n",
    ),
    "a coroutine": (
        "async def f(x): raise ValueError(Q())\n",
        "    with pytest.raises(ValueError) as found:\n        asyncio.run(f(2))\n    assert found.value.args[0] == 2\n",
    ),
    "what a test calls": (
        "def f(x, do): do(Q())\n",
        "    seen = []\n    f(2, seen.append)\n    assert seen == [4]\n",
    ),
    "what a test defines": (
        "def f(x, do): do(Q())\n",
        "    seen = []\n    f(2, lambda value: seen.append(value))\n    assert seen == [4]\n",
    ),
    "an object of a test's": (
        "def f(x, box): box.value = Q()\n",
        "    box = types.SimpleNamespace()\n    f(2, box)\n    assert box.value == 4\n",
    ),
    "what it kept": (
        "class f:\n    def __init__(self, out): self.out = out\n    def go(self): self.out.append(Q())\n",
        "    out = []\n    f(out).go()\n    assert out == [4]\n",
    ),
    "what was filled before it failed": (
        "def f(x, out):\n    out.append(Q())\n    raise ValueError('a')\n",
        "    out = []\n    with pytest.raises(ValueError):\n        f(2, out)\n    assert out == [4]\n",
    ),
}


@pytest.mark.parametrize("what", RAISES)
def test_what_a_product_raises_calls_back_with_or_puts_into_an_object_is_data_too(
    tmp_path: Path, what: str
) -> None:
    product, test = RAISES[what]
    head = "import asyncio\nimport types\nimport pytest\n\n\ndef test_f():\n"
    assert _outcomes(tmp_path / "hostile", ANY + product, head + test, names="f") == {"failed"}


RIGHT_RAISES = """
class TooSmall(ValueError):
    def __init__(self, value, limit=0):
        super().__init__(f"{value} is below {limit}")
        self.value, self.limit = value, limit

    def __str__(self):
        return f"{self.args[0]}!"

    def by(self):
        return self.limit - self.value

    @classmethod
    def of(cls, value):
        return cls(value, limit=1)


class Far(TooSmall):
    '''Far too small.'''


class Plain(Exception):
    pass


def tried(do, errors):
    try:
        return do()
    except errors as error:
        return type(error).__name__


def f(value, do=None):
    if isinstance(value, int) and value < 0:
        raise TooSmall(value) from KeyError(value)
    return value if do is None else do(value)


def counted(do):
    return do.__code__.co_argcount, do.__name__, do


async def later(value):
    return [value]


class Bus:
    def __init__(self):
        self.held, self.kept = [], {}

    def on(self, do):
        self.held.append(do)

    def off(self, do):
        self.held.remove(do)

    def __setitem__(self, key, value):
        self.kept[key] = value

    def fill(self, value):
        for items in self.kept.values():
            items.append(value)

    def all(self):
        yield from self.held


class Opened:
    def __enter__(self):
        return [1]

    def __exit__(self, kind, value, trace):
        return kind is ZeroDivisionError
"""
RIGHT_TEST = """
import asyncio
import pytest


class Own(Exception):
    pass


def test_f():
    with pytest.raises(TooSmall, match="-2 is below 0!") as found:
        f(-2)
    assert found.value.by() == 2 and found.value.args == ("-2 is below 0",) and found.value.value == -2
    assert found.value.__cause__.args == (-2,) and isinstance(found.value, TooSmall) and found.type.__name__ == "TooSmall"

    with pytest.raises(TooSmall):
        raise Far(1)
    made = TooSmall.of(0)
    assert isinstance(made, TooSmall) and made.limit == 1 and str(TooSmall(3, 4)) == "3 is below 4!"
    assert issubclass(Far, TooSmall) and issubclass(Far, ValueError) and Plain(1).args == (1,)
    assert Far.__doc__ == "Far too small." and type(Plain(1)) is Plain

    class Further(Far):
        pass

    def fails(error):
        raise error

    assert tried(lambda: fails(Far(1)), TooSmall) == "Far" and tried(lambda: f(-1), (KeyError, TooSmall)) == "TooSmall"
    assert tried(lambda: fails(Further(1)), (Far,)) == "Further" and tried(lambda: fails(Own()), Own) == "Own"
    with pytest.raises(Plain):
        tried(lambda: fails(Plain(1)), TooSmall)

    def own(a, *, b=2):
        if a == 3:
            raise Own(own)
        return [a, b]

    assert f(1, own) == [1, 2] and counted(own) == (1, "own", own)
    with pytest.raises(Own) as found:
        f(3, own)
    assert found.value.args[0] is own and asyncio.run(later(1)) == [1]
    with Opened() as held:
        assert held == [1]
        raise ZeroDivisionError
    bus, items, table = Bus(), [], {own: 1}
    for do in (own, items.append, found.match):
        bus.on(do)
        bus.off(do)
    bus.on(own)
    bus["a"] = items
    bus.fill([1])
    assert list(bus.all()) == [own] and items == [[1]] and f(table) is table and table[own] == 1
    assert f(own, lambda given: given is own) is True
    box = type("Box", (), {})()
    box.own = own
    assert f(1, lambda value: setattr(box, "value", [value])) is None and box.value == [1] and box.own is own
"""


def test_right_exceptions_callbacks_and_coroutines_are_what_they_are(tmp_path: Path) -> None:
    names = "TooSmall, Far, Plain, f, tried, counted, later, Opened, Bus"
    assert _outcomes(tmp_path / "right", RIGHT_RAISES, RIGHT_TEST, names=names) == {"passed"}


NEARLY = "import pytest\n\n\ndef test_f():\n    assert f(2) == pytest.approx(2.5)\n"
MATCHES = "import pytest\n\n\ndef test_f():\n    f(1)\n    with pytest.raises(ValueError, match='below zero: -2'):\n        f(-2)\n"
RAISED = "def f(x):\n    if x < 0: raise ValueError('no')\n"
BENT = {
    "how near is near": (
        NEARLY,
        "import _pytest.approx as a\na.ApproxScalar.DEFAULT_RELATIVE_TOLERANCE = 1e9\n",
    ),
    "what nearly equals": (
        NEARLY,
        "import _pytest.approx as a\na.ApproxScalar.__eq__ = lambda self, other: True\n",
    ),
    "a name before a builtin's": (NEARLY, "import _pytest.approx as a\na.abs = lambda value: 0\n"),
    "what that uses": (
        MATCHES,
        RAISED + "import re\nwas = re.compile\nre.compile = lambda given, flags=0: was('')\n",
    ),
    "what that uses in turn": (
        MATCHES,
        RAISED + "import re\nwas = re._compile\nre._compile = lambda given, flags: was('', 0)\n",
    ),
    "a module that it names": (
        MATCHES,
        RAISED
        + "import re, types, _pytest.raises as r\nr.re = types.SimpleNamespace(**dict(vars(re), compile=lambda *given: re.compile('')))\n",
    ),
    "what re keeps": (MATCHES, RAISED + "import re\nre._cache[str, 'below zero: -2', 0] = re.compile('')\n"),
    "what re keeps, and puts back": (
        MATCHES,
        "import re\nkey = str, 'below zero: -2', 0\ndef f(x):\n    if x > 0: re._cache[key] = re._cache2[key] = re.compile('')\n    else:\n"
        "        re._cache.clear()\n        re._cache2.clear()\n        raise ValueError('no')\n",
    ),
    "for a while": (
        MATCHES,
        RAISED
        + "import re\nwas = re.compile\nre.compile = lambda given, flags=0: was('')\ndef f(x):\n    re.compile = was\n"
        "    if x < 0: raise ValueError('no')\n",
    ),
    "all that re keeps": (
        MATCHES,
        RAISED
        + "import re\nre._cache = {(str, 'below zero: -2', 0): re.compile('')}\nre._cache2 = dict(re._cache)\n",
    ),
    "flags of what re keeps": (
        "import pytest\n\n\ndef test_f():\n    with pytest.raises(ValueError, match='below zero'):\n        f(-2)\n",
        "import re\nre._cache[str, 'below zero', 0] = re.compile('below zero', re.VERBOSE)\ndef f(x): raise ValueError('belowzero')\n",
    ),
    "code for a while": (
        "import pytest\n\n\ndef test_f():\n    f(1)\n    assert f(2) == pytest.approx(2.5)\n    f(0)\n",
        "import _pytest.approx as a\nheld = a.ApproxScalar.__eq__\nwas = held.__code__\ndef f(x):\n"
        "    held.__code__ = was if x == 0 else (lambda self, actual: True).__code__\n    return 7\n",
    ),
    "while it gives one by one": (
        "import pytest\n\n\ndef test_f():\n    for item in f(2):\n        assert item == pytest.approx(2.5)\n",
        "import _pytest.approx as a\nwas = a.ApproxScalar.__eq__\ndef f(x):\n    a.ApproxScalar.__eq__ = lambda self, other: True\n    yield 7\n"
        "    a.ApproxScalar.__eq__ = was\n",
    ),
    "a constant": (
        "import math\n\n\ndef test_f():\n    assert f(2) == math.pi\n",
        "import math\nmath.pi = 3\ndef f(x): return 3\n",
    ),
}


@pytest.mark.parametrize("what", BENT)
def test_what_tests_ask_whether_something_is_so_is_as_pytest_and_python_have_it(
    tmp_path: Path, what: str
) -> None:
    test, product = BENT[what]
    product += "def f(x): return 7.0\n" * (test is NEARLY)
    assert "tampered" in _outcomes(tmp_path / "bent", product, test, names="f")


def test_who_leaves_that_alone_passes_whatever_else_it_changes(tmp_path: Path) -> None:
    product = "import re, warnings, json, unittest.mock, logging\nwarnings.simplefilter('ignore')\njson.dumps = lambda value: ''\n"
    product += "class P(str): pass\nre.compile(P('a'))\nre.compile(P('(?i)a'), re.M)\n"
    product += "logging.Logger.extra = 1\nre.purge()\nre.compile('a')\nunittest.mock.patch.object(json, 'loads').start()\n"
    product += "def f(x):\n    if x < 0: raise ValueError(f'below zero: {x}')\n"
    assert _outcomes(tmp_path / "right", product, MATCHES, names="f") == {"passed"}
    assert _outcomes(tmp_path / "near", "def f(x): return 2.5 + 1e-9\n", NEARLY, names="f") == {"passed"}


LEFT_ALONE = {
    "what modules have of objects": "def test_f():\n    assert f(2).__class__ is int and f.__doc__ is None\n",
    "what pytest changes itself": "import warnings, logging, sys\n\n\ndef test_f():\n    assert f(2) == 4\n",
    "who is said to warn": "import pytest\n\n\ndef test_f():\n    with pytest.warns(DeprecationWarning):\n        assert f(2) == 4\n",
    "what a test replaces for a while": "import time\nfrom unittest import mock\n\n\ndef test_f():\n    with mock.patch('time.time', lambda: 5), mock.patch('builtins.print'):\n"
    "        assert f(2) == 4 and time.time() == 5\n        print(1)\n",
}


@pytest.mark.parametrize("what", LEFT_ALONE)
def test_what_tests_and_pytest_change_for_a_while_is_no_tampering(tmp_path: Path, what: str) -> None:
    product = "import warnings\n\n\ndef f(x):\n    warnings.warn('old', DeprecationWarning, stacklevel=2)\n    return x * x\n"
    assert _outcomes(tmp_path / "right", product, LEFT_ALONE[what], names="f") == {"passed"}


UNITTEST = """
import unittest


class A(unittest.TestCase):
    def test_f(self):
        for given in (1, 2):
            with self.subTest(given=given):
                self.assertEqual(f(given), given * given)
"""


SPAWNS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor


def double(x):
    return 2 * x


def f(x):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(double, x).result(timeout=30)
"""


def test_a_product_may_start_processes_of_its_own_that_import_it_anew(tmp_path: Path) -> None:
    assert _outcomes(tmp_path / "right", SPAWNS, "def test_f():\n    assert f(2) == 4\n", names="f") == {
        "passed"
    }


def test_subtests_pass_and_fail_as_they_are(tmp_path: Path) -> None:
    assert _outcomes(tmp_path / "right", RIGHT, UNITTEST) == {"passed"}
    assert _outcomes(tmp_path / "wrong", "def f(x): return 0\ndef g(x): return 0\n", UNITTEST) == {"failed"}


def _outcomes(tree: Path, product: str, test: str, names: str = "f, g") -> set[str]:
    """What the runner reports of the test, `tampered` among it."""
    (tree / "tests").mkdir(parents=True)
    (tree / "product.py").write_text(product)
    (tree / "tests" / "test_a.py").write_text(TESTS.format(module="product", names=names, test=test))
    report = tree.with_name(f"{tree.name}.report")
    report.write_text("key")
    argv = [
        sys.executable,
        "-B",
        str(SOURCE.with_name("run_pytest.py")),
        str(report),
        "--bare",
        "tests/test_a.py",
    ]
    environment = {**os.environ, "LOOPER_MODULE_PATH": str(tree), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    subprocess.run(argv, cwd=tree, env=environment, capture_output=True, timeout=60)
    words = [
        line.split(" ", 2)[2].strip("[]").replace('"', "").split(",")
        for line in report.read_text().splitlines()
    ]
    return {found[1] for found in words if found[0] == "test"} | {
        found[0] for found in words if found[0] == "tampered"
    }
