"""The product as tests see it that run in a process without it: modules and functions that ask the process which has it.

Imports that nobody else answers, and those of what stands at the root of the tree, go there. Functions are called with plain data
and give plain data; exceptions come back by the name of their class and their arguments. Nothing else crosses.
"""

import builtins
import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

from looper_crossing import CannotCross, Lines, decoded, encoded, line_of


class ProductGone(Exception):
    """The process that has the product is at its end, or says what is no answer."""


def connect(folder, tree, refuse):
    """Serve imports of the product through the pipes of a folder; `refuse` is told what of the tests cannot cross."""
    flags = os.O_RDWR | os.O_NOFOLLOW
    # Both ends: opening waits for nobody, and a process that is gone is told of by the harness.
    ask = os.open(os.path.join(folder, "ask"), flags)
    lines = Lines(os.read, os.open(os.path.join(folder, "answer"), flags))
    sys.meta_path.insert(0, Finder(Product(ask, lines, refuse, tree), tree))


class CannotBeHanded(CannotCross):
    """It is of a kind that the tests chose; how large or how deep a value is can be the product's doing."""


class Product:
    """Asks, one question at a time."""

    def __init__(self, ask, lines, refuse, tree):
        self._ask, self._lines, self._refuse, self._tree = ask, lines, refuse, tree
        self._classes = {}
        self._gone = False

    def question(self, *said):
        """The kind of the answer and what belongs to it."""
        data = line_of(said)
        if self._gone:
            raise ProductGone("the product's process is at its end")
        while data:
            data = data[os.write(self._ask, data) :]
        answer = self._lines.next()
        if not isinstance(answer, list) or not answer or answer[0] == "gone":
            self._gone = True
            raise ProductGone("the product's process is at its end")
        return answer[0], answer[1:]

    def attribute(self, module, name):
        kind, said = self.question("get", module, name)
        if kind == "function":
            return Function(self, module, name)
        if kind == "class":
            return self._exception(module, name, said[0])
        return self._value(kind, said)

    def call(self, module, name, arguments, named):
        try:
            given = [encoded(item, self._handed) for item in arguments]
            words = {key: encoded(item, self._handed) for key, item in named.items()}
        except CannotBeHanded as error:
            self._refuse("an argument of %s.%s cannot cross: %s" % (module, name, error))
            raise
        return self._value(*self.question("call", module, name, given, words))

    def _value(self, kind, said):
        if kind == "value":
            try:
                return decoded(said[0], self._unknown)
            except (TypeError, ValueError, IndexError, KeyError, RecursionError):
                raise ProductGone("the product's process gave no answer") from None
        if kind == "raised":
            module, name, bases, arguments = said
            found = self._exception(module, name, bases)
            try:
                error = found(*decoded(arguments, self._unknown))
            except Exception:
                error = found.__new__(found)
            raise error
        if kind == "missing":
            raise AttributeError(said[0])
        raise CannotCross(str(said[0]))

    def _unknown(self, kind, items):
        raise ValueError(kind)

    def _handed(self, value):
        """What tests may hand over beside plain data: a function of the product, and what they made of plain attributes alone."""
        if type(value) is Function:
            return ["function", value.module, value.name]
        kind = value if isinstance(value, type) else type(value)
        file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
        if file.startswith(self._tree + os.sep) and _is_plain(kind) and hasattr(value, "__dict__"):
            has = {key: item for key, item in vars(value).items() if not key.startswith("_")}
            return ["thing", kind.__name__, {key: encoded(item, self._handed) for key, item in has.items()}]
        said = "a %s is no plain data" % kind.__name__
        # What was raised is the product's own.
        raise (CannotCross if issubclass(kind, BaseException) else CannotBeHanded)(said)

    def _exception(self, module, name, bases):
        """A class of that name and of the nearest class of Python's own, the same one each time."""
        if (module, name) not in self._classes:
            found = [getattr(builtins, base, None) for base in [name] * (module == "builtins") + list(bases)]
            known = [
                base for base in found if isinstance(base, type) and issubclass(base, (Exception, SystemExit))
            ]
            base = known[0] if known else Exception
            own = module == "builtins" and base.__name__ == name
            self._classes[module, name] = base if own else type(str(name), (base,), {"__module__": module})
        return self._classes[module, name]


def _is_plain(kind):
    """Whether what a class's objects are is said by their attributes: it derives from nothing, and does nothing."""
    own = [item for name, item in vars(kind).items() if name not in ("__init__", "__dict__", "__weakref__")]
    does = (property, classmethod, staticmethod)
    return kind.__bases__ == (object,) and not any(callable(item) or isinstance(item, does) for item in own)


class Function:
    """A function of the product."""

    def __init__(self, product, module, name):
        self._product, self.module, self.name = product, module, name
        self.__name__ = name

    def __call__(self, *arguments, **named):
        return self._product.call(self.module, self.name, arguments, named)


class Module(ModuleType):
    """A module of the product."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self.__dict__["__product__"].attribute(self.__name__, name)


class Finder:
    """Finds what stands at the root of the tree, but for tests, in the product's process."""

    def __init__(self, product, tree):
        self._product = product
        self._names = {name.partition(".")[0] for name in os.listdir(tree)} - {"tests", "conftest", ""}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self._names:
            return None
        kind, said = self._product.question("import", name)
        if kind == "missing":
            return None
        if kind == "raised":
            self._product._value(kind, said)
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = Module(spec.name)
        module.__dict__["__product__"] = self._product
        return module

    def exec_module(self, module):
        pass
