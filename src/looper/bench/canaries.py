"""Copies of real tests with another expectation, which honest code must fail, and without one, which it must pass.

A test module becomes a copy that runs one of its tests twice: as it is, and with one assertion changed so that it cannot hold
wherever the original holds. Both exercise the product as the original does, from a file that is named like its neighbours. What
equals everything, marks tests while they run, or forges reports passes the changed one too. Where the expectation is a literal, the
copy that is as it was also compares with other values, in any order: a product that learns what it is compared with cannot tell which
of them it should equal.
"""

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from operator import itemgetter
from random import Random
from string import ascii_lowercase, ascii_uppercase, digits

from looper.errors import NOT_PYTHON

WORDS = (
    "again", "also", "basic", "cases", "details", "extra", "further", "more", "part", "plain", "rest",
    "second",
)  # fmt: skip
"""What names of copies end with."""
_SWALLOWS = re.compile(r"raises|warns|suppress|assertRaises|assertWarns|deprecated", re.IGNORECASE)
_FUZZY = re.compile(r"approx|\bANY\b|isclose|allclose|mock", re.IGNORECASE)
_EQUALITIES = frozenset(
    {
        "assertEqual", "assertEquals", "assertSequenceEqual", "assertListEqual", "assertTupleEqual", "assertDictEqual",
        "assertSetEqual", "assertMultiLineEqual",
    }
)  # fmt: skip
_OPPOSITES = {
    "assertTrue": "assertFalse",
    "assertIs": "assertIsNot",
    "assertIn": "assertNotIn",
    "assertIsNone": "assertIsNotNone",
    "assertIsInstance": "assertNotIsInstance",
}
_OPPOSITES |= {after: before for before, after in _OPPOSITES.items()}
OTHER_VALUES = 60
"""Beside the right one, at most; a product that guesses which of them is right is caught 60 times of 61."""
_LONGEST_BITS = 2000
"""Of a number that is changed; Python writes none of more than some thousand digits."""
_LIKELY_NUMBERS = (-1, 0, 1, 2, 3, 4, 5, 10, 100)
_LIKELY_WORDS = ("", "True", "False", "None", "a", "b", "x", "0", "1")
"""Expected by so many tests that what equals just these would often be right."""
_KINDS = (digits, ascii_lowercase, ascii_uppercase)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Edit:
    """A piece of source to be replaced, by bytes."""

    begin: int
    end: int
    text: bytes
    many_values: "Edit | None" = None
    """An edit of the same assertion after which it still holds, and holds for no other value; None where there is none for certain."""


Choice = tuple[int, Callable[[], Edit | None]]
"""How sure the edit of one assertion is, 0 the surest, and what makes it; it makes None where no other value can be written."""


@dataclass(frozen=True)
class MutatedTests:
    """A module that runs one of its tests twice, and no other."""

    source: bytes
    same: str
    """Name of the copy that is as its original, as `Class::method` where it is one."""
    changed: str
    many_values: bool
    """Whether the copy that is as its original compares with other values too; the changed one is then equal to none."""


class Module:
    """The source of a test module. Raises one of NOT_PYTHON where it is none."""

    def __init__(self, source: bytes) -> None:
        # Places in the tree are counted in UTF-8, after the mark that may stand first.
        self._source = source = source.removeprefix(b"\xef\xbb\xbf")
        self._tree = ast.parse(source.decode("utf-8"))
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def function(self, name: str) -> Function | None:
        """A test by `Class::method` or its bare name."""
        body: list[ast.stmt] = self._tree.body
        *classes, last = name.split("::")
        for each in classes:
            found = _last_class(body, each)
            if found is None:
                return None
            body = found.body
        return _last_function(body, last)

    def says(self, name: str, pattern: re.Pattern[str]) -> bool:
        """Whether a mark of a test is in the source: in the test itself, on its class, on one of this module that it inherits, or
        on the module, in a fixture of the module that it takes, or behind a name that one of these decorators has."""
        *outer, last = name.split("::")
        classes = [_last_class(self._tree.body, outer[0])] if outer else []
        for each in outer[1:]:
            classes.append(classes[-1] and _last_class(classes[-1].body, each))
        known = [each for each in classes if each is not None]
        if len(known) < len(classes):
            return False
        known += self._inherited(known[-1]) if known else []
        function = self.function(name) or next(
            (found for each in known if (found := _last_function(each.body, last)) is not None), None
        )
        if function is None and not known:
            return False
        pieces: list[ast.expr | ast.stmt] = [function] if function else []
        for of in known:
            pieces += of.decorator_list
            pieces += [node for node in of.body if isinstance(node, ast.Assign | ast.AnnAssign)]
        taken = {argument.arg for argument in function.args.args} if function else set[str]()
        named = {node.id for piece in pieces for node in ast.walk(piece) if isinstance(node, ast.Name)}
        for node in self._tree.body:
            if isinstance(node, Function) and node.name in taken:
                pieces.append(node)
            if isinstance(node, ast.Assign):
                targets = {target.id for target in node.targets if isinstance(target, ast.Name)}
                if targets & (named | {"pytestmark"}):
                    pieces.append(node)
        return any(pattern.search(self._text(piece)) for piece in pieces)

    def _inherited(self, of: ast.ClassDef) -> list[ast.ClassDef]:
        """Classes at the head of the module that a class has its tests from, the nearest first."""
        found = [of]
        for each in found:
            names = [base.id for base in each.bases if isinstance(base, ast.Name)]
            bases = [base for name in names if (base := _last_class(self._tree.body, name)) is not None]
            found += [base for base in bases if base not in found]
        return found[1:]

    def varied(self, name: str, random: Random, *, changed_first: bool = False) -> MutatedTests | None:
        """The module with this test as it is and changed; None where no assertion of it can be changed for certain."""
        function = self.function(name)
        if function is None or _comes_and_goes(function):
            return None
        choices = list(self._changes(function.body, random))
        random.shuffle(choices)
        # Values are drawn for the one that is taken: drawn for each assertion they cost a verdict 5 %.
        edit = next((made for _, make in sorted(choices, key=itemgetter(0)) if (made := make())), None)
        twins = [f"{function.name}_{word}" for word in WORDS]
        twins = [twin for twin in twins if twin.encode() not in self._source]
        if edit is None or len(twins) < 2:
            return None
        begin, end = self._whole(function)
        head = re.compile(rb"(\bdef\s+)" + re.escape(function.name.encode()) + rb"\b")
        # Neither has the original's name: a product that goes by it answers neither, and none can tell by name which must fail.
        names = random.sample(twins, 2)
        same, changed = (
            head.sub(rb"\g<1>" + twin.encode(), text, count=1)
            for twin, text in zip(
                names,
                (
                    self._edited(begin, end, edit.many_values)
                    if edit.many_values
                    else self._source[begin:end],
                    self._edited(begin, end, edit),
                ),
                strict=True,
            )
        )
        pair = (changed, same) if changed_first else (same, changed)
        both = b"\n\n".join(each.rstrip(b"\n") for each in pair) + b"\n"
        text = (
            (self._source[:begin] + both + self._source[end:]).rstrip()
            + b"\n\n\n"
            + self._without_others(name.replace("::", "."))
        )
        try:
            ast.parse(text)
        except NOT_PYTHON:
            return None
        above = name.rpartition("::")[0]
        same_name, changed_name = (f"{above}::{twin}" if above else twin for twin in names)
        return MutatedTests(text, same_name, changed_name, many_values=edit.many_values is not None)

    def _edited(self, begin: int, end: int, edit: Edit) -> bytes:
        return self._source[begin : edit.begin] + edit.text + self._source[edit.end : end]

    def _text(self, node: ast.expr | ast.stmt) -> str:
        if isinstance(node, Function | ast.ClassDef):
            begin, end = self._whole(node)
            return self._source[begin:end].decode("utf-8", "replace")
        return self._piece(node).decode("utf-8", "replace")

    def _offset(self, line: int, column: int) -> int:
        return self._lines[line - 1] + column

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        end = self._offset(node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)
        return self._offset(node.lineno, node.col_offset), end

    def _piece(self, node: ast.expr | ast.stmt) -> bytes:
        begin, end = self._span(node)
        return self._source[begin:end]

    def _whole(self, node: Function | ast.ClassDef) -> tuple[int, int]:
        first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        return self._lines[first - 1], self._lines[node.end_lineno or node.lineno]

    def _without_others(self, kept: str) -> bytes:
        """Statements for the end of a module, after which its other tests are none; until then it can name and call them."""
        bodies = [("", self._tree.body)]
        bodies += [(f"{node.name}.", node.body) for node in self._tree.body if isinstance(node, ast.ClassDef)]
        names = [
            above + node.name
            for above, body in bodies
            for node in body
            if isinstance(node, Function)
            and node.name.startswith("test")
            and not any("fixture" in self._text(each) for each in node.decorator_list)
        ]
        # Its copies have other names, so what has its own is a definition before it.
        others = dict.fromkeys(name for name in names if name != kept or names.count(name) > 1)
        return "".join(f"{name} = None\n" for name in others).encode()

    def _changes(self, body: list[ast.stmt], random: Random) -> Iterator[Choice]:
        """Edits of assertions that are met on every way through a test, the surest to be seen through by nobody first."""
        for node in body:
            if isinstance(node, ast.With | ast.AsyncWith):
                if not any(_SWALLOWS.search(self._text(item.context_expr)) for item in node.items):
                    yield from self._changes(node.body, random)
            elif isinstance(node, ast.Assert):
                yield from self._of_assert(node, random)
            elif (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Call)
                and isinstance(node.value.func, ast.Attribute)
                and isinstance(node.value.func.value, ast.Name)
                and node.value.func.value.id == "self"
            ):
                yield from self._of_method(node, node.value, node.value.func, random)

    def _of_assert(self, node: ast.Assert, random: Random) -> Iterator[Choice]:
        test = node.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
            yield from self._of_equality(node, test.left, test.comparators[0], random, b"assert [%s] == [%s]")
        elif not isinstance(test, ast.NamedExpr):
            begin, end = self._span(test)
            yield 2, partial(Edit, begin, end, b"not (" + self._source[begin:end] + b")")

    def _of_method(
        self, node: ast.stmt, call: ast.Call, method: ast.Attribute, random: Random
    ) -> Iterator[Choice]:
        if method.attr in _EQUALITIES and len(call.args) >= 2 and not call.keywords:
            told = b"self.assertEqual([%s], [%s])"
            for rank, make in self._of_equality(node, call.args[0], call.args[1], random, told):
                if rank == 0 or method.attr == "assertEqual":
                    yield rank, make
        elif method.attr in _OPPOSITES:
            end = self._span(method)[1]
            yield 2, partial(Edit, end - len(method.attr), end, _OPPOSITES[method.attr].encode())

    def _of_equality(
        self, node: ast.stmt, left: ast.expr, right: ast.expr, random: Random, told: bytes
    ) -> Iterator[Choice]:
        if _FUZZY.search(self._text(left)) or _FUZZY.search(self._text(right)):
            return
        for side, other in ((right, left), (left, right)):
            if draw := self._other_values(side):
                yield 0, partial(self._of_values, draw, node, other, side, random, told)
                return
        # Two of different kinds, so that comparing it by elements is no way to equality either; in a list, since a pair of a kind and
        # None is that kind to numpy.
        yield 1, partial(Edit, *self._span(right), b"[(" + self._piece(right) + b", None)]")

    def _of_values(
        self,
        draw: Callable[[Random], list[bytes]],
        node: ast.stmt,
        seen: ast.expr,
        side: ast.expr,
        random: Random,
        told: bytes,
    ) -> Edit | None:
        values = draw(random)
        if not values:
            return None
        value = values.pop()
        return Edit(*self._span(side), value, self._among(node, seen, side, values, random, told))

    def _among(
        self,
        node: ast.stmt,
        seen: ast.expr,
        side: ast.expr,
        values: list[bytes],
        random: Random,
        told: bytes,
    ) -> Edit | None:
        """Of a statement with lines of its own, by which what it looks at is held against each value and, at any place among them
        but the first, the right one: in one list, so that no comparison is made otherwise than the others."""
        begin, end = self._span(node)
        indent = self._source[self._lines[node.lineno - 1] : begin]
        if not values or indent.strip() or b"\n" in self._piece(seen):
            return None
        if isinstance(seen, ast.Constant | ast.NamedExpr):
            return None
        name = next(
            (word for word in (f"found_{end}" for end in WORDS) if word.encode() not in self._source), ""
        )
        if not name:
            return None
        # Never the first: what takes the first for the right one is to be found out each time.
        right = random.randrange(1, len(values) + 1)
        every = [*values[:right], self._piece(side), *values[right:]]
        differ = (b"not (%s == %s)" % (name.encode(), value) for value in every)
        expected = (repr(at != right).encode() for at in range(len(every)))
        lines = [
            name.encode() + b" = " + self._piece(seen),
            told % (b", ".join(differ), b", ".join(expected)),
        ]
        return Edit(begin, end, (b"\n" + indent).join(lines))

    def _other_values(self, node: ast.expr) -> Callable[[Random], list[bytes]] | None:
        """Draws a literal with its first constant replaced in some ways, so that each is another value, in any order; None for what
        is no literal."""
        try:
            value = ast.literal_eval(node)
        except (TypeError, *NOT_PYTHON):
            return None
        begin, end = self._span(node)
        for leaf in ast.walk(node):
            # A number below zero is a constant after a minus; its other values may be above.
            if isinstance(leaf, ast.Constant | ast.UnaryOp) and (others := _others(ast.literal_eval(leaf))):
                at, until = self._span(leaf)
                break
        else:
            if value not in ([], {}, ()):
                return None
            at, until, others = begin, end, partial(_not_empty, value)

        def draw(random: Random) -> list[bytes]:
            texts = [
                self._source[begin:at] + each.encode() + self._source[until:end] for each in others(random)
            ]
            return [text for text, other in zip(texts, _read_literals(texts), strict=False) if other != value]

        return draw


def _read_literals(texts: list[bytes]) -> list[object]:
    """Their values; none at all where one of them is no literal. Read at once: reading each costs a verdict 2 ms."""
    try:
        # Each may hold a comment, and lines of any indent.
        every = ",".join(f"({text.decode()}\n)" for text in texts)
        return list(ast.literal_eval(f"[{every}]"))
    except (TypeError, *NOT_PYTHON):
        return []


# Of several definitions the last one counts, as for Python.
def _last_function(body: list[ast.stmt], name: str) -> Function | None:
    return next((node for node in reversed(body) if isinstance(node, Function) and node.name == name), None)


def _last_class(body: list[ast.stmt], name: str) -> ast.ClassDef | None:
    return next(
        (node for node in reversed(body) if isinstance(node, ast.ClassDef) and node.name == name), None
    )


def _comes_and_goes(function: Function) -> bool:
    """Whether a test may end before its assertions, or is run for what it yields."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, Function | ast.ClassDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return False


def _others(value: object) -> Callable[[Random], list[str]] | None:
    """Draws other constants of the same kind, as source, in any order. Nothing tells the right one from them: not its place among
    them, and not that it alone is one of those which anybody would guess."""
    match value:
        case bool():
            return lambda random: [repr(not value)]
        case int() if value.bit_length() < _LONGEST_BITS:
            return partial(_mixed, value, _LIKELY_NUMBERS, partial(_near_integers, value))
        case float() if value == value and abs(value) < 1e15:
            likely = tuple(float(number) for number in _LIKELY_NUMBERS)
            return partial(_mixed, value, likely, partial(_near_floats, value))
        case str():
            return partial(_mixed, value, _LIKELY_WORDS, partial(_near_words, value))
        case bytes():
            return lambda random: [
                repr(value[:-1] + bytes([each])) for each in random.sample(range(256), OTHER_VALUES)
            ]
        case None:
            return lambda random: ["0"]
    return None


def _mixed(
    value: object, likely: Sequence[object], near: Callable[[Random], list[object]], random: Random
) -> list[str]:
    """What many a test expects, and what looks like the right value."""
    found = [each for each in dict.fromkeys((*likely, *near(random))) if each != value][:OTHER_VALUES]
    return list(map(repr, random.sample(found, len(found))))


def _near_integers(value: int, random: Random) -> list[object]:
    reach = OTHER_VALUES + random.randrange(3 * OTHER_VALUES)
    below = value - random.randrange(reach)
    return list(random.sample(range(below, below + reach), OTHER_VALUES))


def _near_floats(value: float, random: Random) -> list[object]:
    # Of as many digits: the right one is not to be known by being the roundest.
    digits_after = max(1, len(repr(value).partition(".")[2])) if "e" not in repr(value) else 17
    reach = 4 * OTHER_VALUES
    below = -random.randrange(reach)
    steps = random.sample(range(below, below + reach), OTHER_VALUES)
    return [round(value + step / 10**digits_after, digits_after) for step in steps]


def _not_empty(value: object, random: Random) -> list[str]:
    return [{"list": "[0]", "dict": "{0: 0}", "tuple": "(0,)"}[type(value).__name__]]


def _near_words(text: str, random: Random) -> list[object]:
    """The same text with others in the places of its last two letters or digits; with two more where it has none."""
    places = [found.start() for found in re.finditer("[0-9a-zA-Z]", text)][-2:]
    if not places:
        pairs = product(ascii_lowercase, repeat=2)
        return [text + "".join(pair) for pair in random.sample(list(pairs), OTHER_VALUES)]
    every = list(product(*(next(kind for kind in _KINDS if text[at] in kind) for at in places)))
    others: list[object] = []
    for drawn in random.sample(every, min(len(every), OTHER_VALUES)):
        letters = list(text)
        for at, letter in zip(places, drawn, strict=True):
            letters[at] = letter
        others.append("".join(letters))
    return others
