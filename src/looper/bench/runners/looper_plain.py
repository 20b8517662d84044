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

# Bound here: what a module or the builtins mean by these names later is the product's to say.
from builtins import (
    all,
    any,
    bytearray,
    callable,
    getattr,
    hasattr,
    id,
    issubclass,
    map,
    object,
    setattr,
    type,
    vars,
)
from collections import deque, defaultdict

WHOLE = (type(None), bool, int, float, complex, str, bytes, range, type(...), type(NotImplemented))
WHOLE += (
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
# By identity: a metaclass of the product's own can equal all of them.
IS_WHOLE, IS_HOLDING, IS_MAPPING, IS_VIEW = (
    frozenset(map(id, kinds)) for kinds in (WHOLE, HOLDING, MAPPINGS, VIEWS)
)
IS_TYPE = IS_WHOLE | IS_HOLDING | IS_MAPPING
DERIVED = {
    id(kind): type("Derived", (kind,), {}) for kind in (int, float, complex, str, bytes) + HOLDING + MAPPINGS
}
"""For what derives from a type without a word on what it is equal to: no class that the product could say it of later."""
# fmt: off
SAYS_NOTHING = frozenset((
    "__module__", "__doc__", "__dict__", "__weakref__", "__slots__", "__new__", "__init__", "__qualname__", "__annotations__",
    "__firstlineno__", "__static_attributes__", "__orig_bases__", "__parameters__",
))
# fmt: on
"""What a class may say that derives from one of these types, and still be that to whoever compares it."""


def connect(tree, files):
    """What these files of tests import from the root of the tree is handed to them so, from now on."""
    genuine = builtins.__import__
    names = frozenset(name.partition(".")[0] for name in os.listdir(tree)) - {"tests", "conftest", ""}
    inside = frozenset(os.path.join(tree, name) for name in files)

    def imported(name, globals=None, locals=None, fromlist=(), level=0):
        found = genuine(name, globals, locals, fromlist, level)
        of_tests = type(globals) is dict and globals.get("__file__") in inside
        return Module(found) if of_tests and not level and name.partition(".")[0] in names else found

    builtins.__import__ = imported


def plain(value, known=None):
    """`known` has, by identity, what something was seen as already, with the thing itself."""
    kind = type(value)
    at = id(kind)
    if at in IS_WHOLE or id(value) in IS_TYPE:
        return value
    known = {} if known is None else known
    if id(value) not in known:
        # What holds itself is known before it is gone through.
        if kind is list:
            known[id(value)] = found, _ = [], value
            found.extend([plain(item, known) for item in value])
        elif at in IS_MAPPING:
            known[id(value)] = found, _ = kind(), value
            for key, item in value.items():
                found[plain(key, known)] = plain(item, known)
        else:
            known[id(value)] = _made(value, kind, known), value
    return known[id(value)][0]


def _made(value, kind, known):
    at = id(kind)
    if at in IS_HOLDING:
        return kind([plain(item, known) for item in value])
    if kind is bytearray:
        return bytearray(value)
    if kind is deque:
        return deque([plain(item, known) for item in value], value.maxlen)
    if kind is defaultdict:
        found = defaultdict(plain(value.default_factory, known))
        found.update({plain(key, known): plain(item, known) for key, item in value.items()})
        return found
    if at in IS_VIEW:
        return value if all(id(type(item)) in IS_WHOLE for item in value) else thing(value)
    if hasattr(kind, "__next__"):
        return (plain(item) for item in value)
    return _derived(value, known)


def _derived(value, known):
    """Of what derives from one of Python's own types and leaves to it what it is equal to and how it is shown."""
    for base in type.mro(type(value)) if type(type(value)) is type else ():
        at = id(base)
        if at in DERIVED:
            if at in IS_MAPPING:
                return DERIVED[at]({plain(key, known): plain(item, known) for key, item in base.items(value)})
            if at in IS_HOLDING:
                return DERIVED[at]([plain(item, known) for item in base.__iter__(value)])
            return DERIVED[at](
                base.__getnewargs__(value)[0] if at != id(complex) else complex.__add__(value, 0)
            )
        if any(name.startswith("__") and name not in SAYS_NOTHING for name in vars(base)):
            break
    return thing(value)


THINGS = {}


def thing(of):
    """The same one for the same object each time."""
    if id(of) not in THINGS:
        THINGS[id(of)] = Function(of) if callable(of) else Thing(of)
    return THINGS[id(of)]


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
        known = {}
        for item in arguments:
            # What tests handed over is theirs when it comes back.
            for own in [item] + (list(item) if type(item) is list else []):
                known[id(own)] = own, own
        found = object.__getattribute__(self, "_of")(*given, **{key: handed(named[key]) for key in named})
        for item, was in zip(arguments, given):  # noqa: B905 - on old Pythons, too
            if type(item) is list:
                item[:] = [plain(each, known) for each in was]
        return plain(found, known)


class Module(types.ModuleType):
    """A module of the product."""

    def __init__(self, of):
        types.ModuleType.__init__(self, "")
        # Without a name nothing is looked for in sys.modules that it has not.
        self.__dict__.update(__of__=of, __name__=None)

    def __getattr__(self, name):
        found = getattr(self.__dict__["__of__"], name)
        kind = type(found)
        if name == "__all__":
            return found
        if kind is types.ModuleType:
            return Module(found)
        if issubclass(kind, type):
            # What tests say that it is raised. Whoever says what its classes are equal to does not get so far.
            return found if kind is type and issubclass(found, BaseException) else thing(found)
        return plain(found)


def handed(value):
    """What a test hands to the product: things are what they are of, in lists and the like too."""
    kind = type(value)
    if kind is Thing or kind is Function:
        return object.__getattribute__(value, "_of")
    if id(kind) in IS_HOLDING and any(id(type(item)) not in IS_WHOLE for item in value):
        changed = [handed(item) for item in value]
        return value if all(map(operator.is_, changed, value)) else kind(changed)
    if kind is dict and any(id(type(item)) not in IS_WHOLE for item in value.values()):
        changed = {key: handed(item) for key, item in value.items()}
        return changed if any(changed[key] is not value[key] for key in value) else value
    return value
