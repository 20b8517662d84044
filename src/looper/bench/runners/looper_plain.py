"""Results of the product as tests see them that were written here: what Python's own types hold, and nothing that is equal to more.

An object of the product's own can equal all that it is compared with, wherever a test compares it. So what tests import from the
tree is handed to them through this module: functions give plain data, made anew, or a thing that is equal to itself alone.
"""

import builtins
import collections
import datetime
import decimal
import operator
import os
import types

SCALARS = (type(None), bool, int, float, complex, str, bytes, range, type(...), type(NotImplemented))
WHOLE = SCALARS + (
    decimal.Decimal,
    datetime.date,
    datetime.datetime,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
)
"""Types that hold nothing else."""
HOLDING = (list, tuple, set, frozenset)
MAPPINGS = (dict, collections.OrderedDict, collections.Counter)
VIEWS = (type({}.keys()), type({}.values()), type({}.items()))
CALLED = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
SAYS_NOTHING = frozenset(
    [
        "__module__",
        "__doc__",
        "__dict__",
        "__weakref__",
        "__slots__",
        "__new__",
        "__init__",
        "__qualname__",
        "__annotations__",
    ]
    + ["__firstlineno__", "__static_attributes__", "__orig_bases__", "__parameters__"]
)
"""What a class may say that derives from one of these types, and still be that to whoever compares it."""


def connect(tree, files):
    """What these files of tests import from the root of the tree is handed to them so, from now on."""
    genuine = builtins.__import__
    names = {name.partition(".")[0] for name in os.listdir(tree)} - {"tests", "conftest", ""}
    inside = {os.path.join(tree, name) for name in files}

    def imported(name, globals=None, locals=None, fromlist=(), level=0):
        found = genuine(name, globals, locals, fromlist, level)
        of_tests = isinstance(globals, dict) and globals.get("__file__") in inside
        return Module(found) if of_tests and not level and name.partition(".")[0] in names else found

    builtins.__import__ = imported


def plain(value):
    kind = type(value)
    if kind in WHOLE:
        return value
    if kind in HOLDING:
        return kind([plain(item) for item in value])
    if kind in MAPPINGS:
        return kind({plain(key): plain(item) for key, item in value.items()})
    if kind is bytearray:
        return bytearray(value)
    if kind is collections.deque:
        return collections.deque([plain(item) for item in value], value.maxlen)
    if kind is collections.defaultdict:
        pairs = {plain(key): plain(item) for key, item in value.items()}
        return collections.defaultdict(value.default_factory, pairs)
    if kind in VIEWS:
        return value if all(_is_plain(item) for item in value) else Thing(value)
    if kind in CALLED:
        return Function(value)
    if isinstance(value, type):
        return value if issubclass(value, BaseException) else Class(value)
    if hasattr(kind, "__next__"):
        return (plain(item) for item in value)
    return value if _is_plain(value) else Thing(value)


def _is_plain(value):
    """Whether it is one of Python's own, or derives from one and leaves to it what it is equal to and how it is shown."""
    kind = type(value)
    if kind in WHOLE:
        return True
    if type(kind) is not type:
        return False
    for base in kind.__mro__:
        if base in WHOLE:
            return True
        if base in HOLDING or base in MAPPINGS:
            held = (
                base.__iter__(value)
                if base in HOLDING
                else (each for pair in base.items(value) for each in pair)
            )
            return all(_is_plain(item) for item in held)
        if any(name.startswith("__") and name not in SAYS_NOTHING for name in vars(base)):
            return False
    return False


class Thing:
    """What a product made of its own kind, for tests to hand back to it; what it has is seen as what a function gives is."""

    def __init__(self, of):
        object.__setattr__(self, "_of", of)

    def __getattr__(self, name):
        return plain(getattr(object.__getattribute__(self, "_of"), name))

    def __setattr__(self, name, value):
        setattr(object.__getattribute__(self, "_of"), name, handed(value))


class Function(Thing):
    def __call__(self, *arguments, **named):
        given = [handed(item) for item in arguments]
        return plain(
            object.__getattribute__(self, "_of")(*given, **{key: handed(named[key]) for key in named})
        )


class Class(Function):
    """To be called; what it makes is a thing."""


class Module(types.ModuleType):
    """A module of the product."""

    def __init__(self, of):
        super().__init__(getattr(of, "__name__", ""))
        self.__dict__["__of__"] = of

    def __getattr__(self, name):
        found = getattr(self.__dict__["__of__"], name)
        if name == "__all__":
            return found
        if isinstance(found, types.ModuleType):
            return Module(found)
        return Function(found) if callable(found) and not isinstance(found, type) else plain(found)


def handed(value):
    """What a test hands to the product: things are what they are of, in lists and the like too."""
    kind = type(value)
    if kind in (Thing, Function, Class):
        return object.__getattribute__(value, "_of")
    if kind in HOLDING and any(type(item) not in WHOLE for item in value):
        changed = [handed(item) for item in value]
        return value if all(map(operator.is_, changed, value)) else kind(changed)
    if kind is dict and any(type(item) not in WHOLE for item in value.values()):
        changed = {key: handed(item) for key, item in value.items()}
        return changed if any(changed[key] is not value[key] for key in value) else value
    return value
