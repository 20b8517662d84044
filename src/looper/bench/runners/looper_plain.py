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
    dict,
    frozenset,
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
ORDERS = vars(type)["__mro__"].__get__
"""The bases of a class as they are, whatever its metaclass says of them."""


def _derived_of(kind):
    """A class that derives from a type and has from it what it is equal to; what the product's own has beside that is asked there."""

    def attribute(value, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return plain(getattr(vars(value)["_of"], name))

    says = {
        name: getattr(kind, name)
        for name in ("__eq__", "__ne__", "__hash__", "__repr__", "__len__")
        if hasattr(kind, name)
    }
    return type("Derived", (kind,), dict(says, __getattr__=attribute))


KINDS = (int, float, complex, str, bytes) + HOLDING + MAPPINGS
DERIVED = {id(kind): _derived_of(kind) for kind in KINDS}
IS_DERIVED = frozenset(map(id, DERIVED.values()))
LIKE = {
    id(types.MappingProxyType): dict,
    id(collections.ChainMap): dict,
    id(collections.UserDict): dict,
    id(collections.UserList): list,
    id(collections.UserString): str,
}
"""Of Python's own kinds that are equal to what they wrap: what that is."""


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
    if at in LIKE:
        return plain(LIKE[at](value), known)
    if hasattr(kind, "__next__"):
        return (plain(item) for item in value)
    return _derived(value, known)


def _derived(value, known):
    """Of what derives from one of Python's own types: what it holds, equal to what that is equal to, whatever its class says."""
    for base in ORDERS(type(value)):
        at = id(base)
        if at in DERIVED:
            if at in IS_MAPPING:
                held = {plain(key, known): plain(item, known) for key, item in base.items(value)}
            elif at in IS_HOLDING:
                held = [plain(item, known) for item in base.__iter__(value)]
            else:
                held = base.__getnewargs__(value)[0] if at != id(complex) else complex.__add__(value, 0)
            found = DERIVED[at](held)
            vars(found)["_of"] = value
            return found
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
        own = {}
        for item in arguments + tuple(named.values()):
            owned(item, own)
        given = [handed(item) for item in arguments]
        found = object.__getattribute__(self, "_of")(*given, **{key: handed(named[key]) for key in named})
        for item, was in zip(arguments, given):  # noqa: B905 - on old Pythons, too
            if type(item) is list and item is not was:
                item[:] = was
        # What tests handed over is theirs when it comes back, but for what was put into it.
        known = {at: (item, item) for at, item in own.items()}
        for item in own.values():
            emptied(item, known)
        return plain(found, known)


def owned(value, own):
    """What a test hands over, by identity, with what that holds."""
    kind = type(value)
    if id(kind) in IS_WHOLE or id(value) in own:
        return
    own[id(value)] = value
    if id(kind) in IS_HOLDING or kind is deque:
        for item in value:
            owned(item, own)
    elif id(kind) in IS_MAPPING or kind is defaultdict:
        for item in value.values():
            owned(item, own)


def emptied(value, known):
    """Of what a product may have put into something that holds others, in its place plain data."""
    kind = type(value)
    if kind is list or kind is deque or kind is set:
        if any(id(type(item)) not in IS_WHOLE for item in value):
            items = [plain(item, known) for item in value]
            value.clear()
            (value.update if kind is set else value.extend)(items)
    elif (id(kind) in IS_MAPPING or kind is defaultdict) and any(
        id(type(item)) not in IS_WHOLE for pair in value.items() for item in pair
    ):
        items = [(plain(key, known), plain(item, known)) for key, item in value.items()]
        value.clear()
        value.update(dict(items))


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
    if id(kind) in IS_DERIVED:
        return vars(value)["_of"]
    if id(kind) in IS_HOLDING and any(id(type(item)) not in IS_WHOLE for item in value):
        changed = [handed(item) for item in value]
        return value if all(map(operator.is_, changed, value)) else kind(changed)
    if kind is dict and any(id(type(item)) not in IS_WHOLE for item in value.values()):
        changed = {key: handed(item) for key, item in value.items()}
        return changed if any(changed[key] is not value[key] for key in value) else value
    return value
