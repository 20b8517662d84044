"""Results of the product as tests see them that were written here: what Python's own types hold, and nothing that is equal to more.

An object of the product's own can equal all that it is compared with, wherever a test compares it. So what tests import from the
tree is handed to them through this module: functions give plain data, made anew, or a thing that is equal to itself alone. So
does what they raise, what they give to functions of tests, and what they put into objects of tests.

    test  →  proxy (`Thing`, `Function`)  →  product
          arguments: `unwrapped`
          results: `as_plain_data`, what is raised: `as_plain_exception`
          objects of tests, once the call is over: `after_call`
"""

import array
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
    isinstance,
    issubclass,
    map,
    next,
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
    array.array,
    memoryview,
)
"""Types that hold nothing else."""
HOLDING = (list, tuple, set, frozenset)
MAPPINGS = (dict, collections.OrderedDict, collections.Counter)
VIEWS = (type({}.keys()), type({}.values()), type({}.items()))
# By identity: a metaclass of the product's own can equal all of them.
IS_WHOLE, IS_HOLDING, IS_MAPPING, IS_VIEW = (
    frozenset(map(id, kinds)) for kinds in (WHOLE, HOLDING, MAPPINGS, VIEWS)
)
IS_OF_ZONE = frozenset((id(datetime.datetime), id(datetime.time)))
"""Their zone can be of the product's own, and is asked whenever they are compared."""
IS_TYPE = IS_WHOLE | IS_HOLDING | IS_MAPPING
ORDERS = vars(type)["__mro__"].__get__
"""The bases of a class as they are, whatever its metaclass says of them."""
SPACE = vars(type)["__dict__"].__get__
"""What a class defines itself, likewise."""
FUNCTION, METHOD, BUILTIN, COROUTINE = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.CoroutineType,
)


def _derived_of(kind):
    """A class that derives from a type and has from it what it is equal to; what the product's own has beside that is asked there."""

    def attribute(value, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return call_product(getattr, vars(value)["_of"], name)

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


def connect(tree, files, look=None):
    """What these files of tests import from the root of the tree is handed to them so, from now on; `look` sees whether something was
    replaced, which the product can put back before the test ends."""
    LOOKS.extend([look] * (MOST_LOOKS if look else 0))
    genuine = builtins.__import__
    waiting = [BaseException]
    while waiting:
        found = waiting.pop()
        NOT_THEIRS[id(found)] = found
        waiting += type.__subclasses__(found)
    names = frozenset(name.partition(".")[0] for name in os.listdir(tree)) - {"tests", "conftest", ""}
    inside = frozenset(os.path.join(tree, name) for name in files)
    TESTS.update(inside)

    def imported(name, globals=None, locals=None, fromlist=(), level=0):
        found = genuine(name, globals, locals, fromlist, level)
        of_tests = type(globals) is dict and globals.get("__file__") in inside
        return Module(found) if of_tests and not level and name.partition(".")[0] in names else found

    builtins.__import__ = imported


TESTS = set()
"""Files of tests."""
LOOKS, MOST_LOOKS = [], 100
"""To be taken after each time that the product was called, which must not slow down those that are called all the time."""


def after_call(own, known):
    """The product has ended, for this time: what tests handed over is theirs, but for what was put into it."""
    for item in list(own.values()):
        emptied(item, known)
    if LOOKS:
        LOOKS.pop()()


def as_plain_data(value, known=None):
    """`known` has, by identity, what something was seen as already, with the thing itself."""
    kind = type(value)
    at = id(kind)
    if at in IS_WHOLE or id(value) in IS_TYPE:
        return value if at not in IS_OF_ZONE or id(type(value.tzinfo)) in IS_WHOLE else proxy(value)
    known = {} if known is None else known
    if id(value) not in known:
        # What holds itself is known before it is gone through.
        if kind is list:
            known[id(value)] = found, _ = [], value
            found.extend([as_plain_data(item, known) for item in value])
        elif at in IS_MAPPING:
            known[id(value)] = found, _ = kind(), value
            for key, item in value.items():
                found[as_plain_data(key, known)] = as_plain_data(item, known)
        else:
            known[id(value)] = _made(value, kind, known), value
    return known[id(value)][0]


def _made(value, kind, known):
    at = id(kind)
    if at in IS_HOLDING:
        return kind([as_plain_data(item, known) for item in value])
    if kind is bytearray:
        return bytearray(value)
    if kind is deque:
        return deque([as_plain_data(item, known) for item in value], value.maxlen)
    if kind is defaultdict:
        found = defaultdict(as_plain_data(value.default_factory, known))
        found.update({as_plain_data(key, known): as_plain_data(item, known) for key, item in value.items()})
        return found
    if at in IS_VIEW:
        # Of a dict of their own: what comes into the product's later they do not show.
        items = [as_plain_data(item, known) for item in value]
        keys, values, _ = VIEWS
        if kind is values:
            return dict(enumerate(items)).values()
        return dict.fromkeys(items).keys() if kind is keys else dict(items).items()
    if at in LIKE:
        return as_plain_data(LIKE[at](value), known)
    if kind is COROUTINE:
        return awaited(value)
    if id(value) in SHOWN:
        return SHOWN[id(value)][0]
    if issubclass(kind, BaseException):
        return value if id(value) in TELLING else as_plain_exception(value)
    if "__next__" in defined(kind) and kind.__module__ in ("builtins", "itertools"):
        return steps(value)
    return _derived(value, known)


def defined(kind):
    """Names that a class has, beside those that every object has."""
    return {name for base in ORDERS(kind) if base is not object for name in SPACE(base)}


def steps(value):
    given = None
    while True:
        try:
            item = call_product(next, value) if given is None else call_product(value.send, unwrapped(given))
        except StopIteration as end:
            return end.value
        given = yield item


async def awaited(value):
    try:
        return as_plain_data(await value)
    except BaseException as error:
        raise as_plain_exception(error)  # noqa: B904 - it is the same one


def _derived(value, known):
    """Of what derives from one of Python's own types: what it holds, equal to what that is equal to, whatever its class says."""
    for base in ORDERS(type(value)):
        at = id(base)
        if at in DERIVED:
            if at in IS_MAPPING:
                held = {
                    as_plain_data(key, known): as_plain_data(item, known) for key, item in base.items(value)
                }
            elif at in IS_HOLDING:
                held = [as_plain_data(item, known) for item in base.__iter__(value)]
            else:
                held = base.__getnewargs__(value)[0] if at != id(complex) else complex.__add__(value, 0)
            return _made_of(value, DERIVED[at](held))
        if at in LIKE:
            # What it wraps, wherever its class says that it has it.
            held = vars(value).get("maps" if LIKE[at] is dict and "maps" in vars(value) else "data")
            held = (
                collections.ChainMap(*held) if type(held) is list and base is collections.ChainMap else held
            )
            return _made_of(value, DERIVED[id(LIKE[at])](as_plain_data(LIKE[at](held), known)))
    return proxy(value)


def _made_of(value, found):
    vars(found)["_of"] = value
    return found


THINGS = {}
_SAID = "bool delitem enter exit float getitem index int iter len next repr reversed setitem str"
FORWARDED = frozenset("__%s__" % name for name in _SAID.split())
"""What a thing is asked for as what it is of; what it is compared with it is never asked."""
KINDS_OF_THINGS = {}
IS_THING = set()
"""By identity."""


def proxy(of):
    """The same one for the same object each time."""
    if type(of) is METHOD:
        # A new one each time that it is asked for.
        return Function(of)
    if id(of) not in THINGS:
        has = defined(type(of))
        # Whoever has a size and nothing in it says what tests want to hear.
        names = (has & FORWARDED) - (set() if "__iter__" in has else {"__len__"})
        THINGS[id(of)] = _kind_of_thing(callable(of), frozenset(names))(of)
    return THINGS[id(of)]


def _kind_of_thing(called, names):
    if (called, names) not in KINDS_OF_THINGS:
        kind = type("Thing", (Function if called else Thing,), {name: _forwarding(name) for name in names})
        KINDS_OF_THINGS[called, names] = kind
        IS_THING.add(id(kind))
    return KINDS_OF_THINGS[called, names]


def _forwarding(name):
    def forwarded(self, *arguments):
        of = object.__getattribute__(self, "_of")
        for item in arguments:
            keep(item)
        return call_product(getattr(type(of), name), of, *map(unwrapped, arguments))

    return forwarded


class Thing:
    """What a product made of its own kind, for tests to hand back to it; what it has is seen as what a function gives is."""

    def __init__(self, of):
        object.__setattr__(self, "_of", of)

    def __getattr__(self, name):
        return call_product(getattr, object.__getattribute__(self, "_of"), name)

    def __setattr__(self, name, value):
        keep(value)
        call_product(setattr, object.__getattribute__(self, "_of"), name, unwrapped(value))


class Function(Thing):
    def __call__(self, *arguments, **named):
        for item in arguments + tuple(named.values()):
            keep(item)
        own = test_objects(arguments + tuple(named.values()))
        given = [unwrapped(item) for item in arguments]
        known = {at: (item, item) for at, item in own.items()}
        # Called here: another frame in between would be one more that whoever asks for its caller meets.
        try:
            found = object.__getattribute__(self, "_of")(
                *given, **{key: unwrapped(named[key]) for key in named}
            )
        except BaseException as error:
            raise as_plain_exception(error)  # noqa: B904 - it is the same one
        finally:
            for item, was in zip(arguments, given, strict=True):
                if type(item) is list and item is not was:
                    item[:] = was
            after_call(own, known)
        return as_plain_data(found, known)

    def __instancecheck__(self, value):
        return isinstance(unwrapped(value), object.__getattribute__(self, "_of"))


def call_product(of, *arguments):
    """What something of the product's gives, or raises; tests see of it and of what they handed over nothing but data."""
    return as_plain_data(*_call_product(of, arguments))


def _call_product(of, arguments):
    """What it gives as it is, and what is the tests' own in it."""
    own = test_objects()
    known = {at: (item, item) for at, item in own.items()}
    try:
        return of(*arguments), known
    except BaseException as error:
        raise as_plain_exception(error)  # noqa: B904 - it is the same one
    finally:
        after_call(own, known)


KEPT = deque(maxlen=16)
"""What tests handed over last: a product can keep it, and put something into it later."""
MOST_KEPT = 1000


def keep(value):
    kind = type(value)
    if id(kind) in IS_THING or id(kind) in IS_WHOLE or any(value is item for item in KEPT):
        return
    if (id(kind) in IS_HOLDING or id(kind) in IS_MAPPING) and len(value) > MOST_KEPT:
        return
    KEPT.append(value)


def test_objects(over=()):
    """By identity, what tests kept or hand over now, with what it holds."""
    own = {}
    for item in over:
        owned(item, own)
    for item in list(KEPT):
        before = len(own)
        owned(item, own)
        if len(own) - before > MOST_KEPT:
            KEPT.remove(item)
    return own


def space_of(value):
    """What an object of a test's own has; None of what has none, and of functions, classes and modules."""
    kind = type(value)
    if (
        id(kind) in IS_THING
        or id(kind) in IS_DERIVED
        or kind in (FUNCTION, METHOD, BUILTIN, types.ModuleType)
    ):
        return None
    if kind is type or issubclass(kind, type):
        return None
    found = getattr(value, "__dict__", None)
    return found if type(found) is dict else None


# What is raised.

EXCEPTIONS = {
    id(kind): [
        descriptor
        for name, descriptor in vars(kind).items()
        if type(descriptor) in (types.MemberDescriptorType, types.GetSetDescriptorType) and name[:2] != "__"
    ]
    for kind in vars(builtins).values()
    if isinstance(kind, type) and issubclass(kind, BaseException)
}
"""Of Python's own, what they hold."""
_NAMED = "annotations dict doc firstlineno init module qualname slots static_attributes weakref"
USUAL = frozenset("__%s__" % name for name in _NAMED.split())
CAUSE_OF, CONTEXT_OF = (vars(BaseException)[name].__get__ for name in ("__cause__", "__context__"))
GROUPS = getattr(builtins, "BaseExceptionGroup", ())
GROUPED_BY = vars(GROUPS)["exceptions"] if GROUPS else None
GROUPED = GROUPED_BY.__get__ if GROUPS else None
SPACE_OF_ERROR = vars(BaseException)["__dict__"].__get__
THEIR_ERRORS = deque(maxlen=16)
"""What functions of tests raised while the product had called them."""
TELLING = set()
"""By identity, what holds itself."""
KINDS_OF_ERRORS, MADE_OF = {}, {}
"""Classes that tests see in the place of the product's, by its identity; and the product's, by that of these."""
NOT_THEIRS = {}
"""By identity, classes of exceptions that were there before the product, or that tests handed to it."""


def as_plain_exception(error):
    """What was raised, with nothing in it but data; likewise what it came from, and what it is a group of."""
    chain, known, waiting = [], {}, [error]
    while waiting:
        found = waiting.pop()
        if found is None or any(found is item for item in (*chain, *THEIR_ERRORS)):
            continue
        chain.append(found)
        waiting += [CAUSE_OF(found), CONTEXT_OF(found)]
        waiting += GROUPED(found) if issubclass(type(found), GROUPS) else ()
    TELLING.update(map(id, chain))
    for item in chain:
        space = SPACE_OF_ERROR(item)
        for name, value in list(space.items()):
            space[name] = as_plain_data(value, known)
        for base in ORDERS(type(item)):
            for descriptor in EXCEPTIONS.get(id(base), ()):
                _tell(item, descriptor, known)
        if item is not error:
            _of_its_kind(item)
    TELLING.difference_update(map(id, chain))
    return _of_its_kind(error) if chain else error


def _tell(error, descriptor, known):
    try:
        value = descriptor.__get__(error)
        if id(type(value)) not in IS_WHOLE and descriptor is not GROUPED_BY:
            descriptor.__set__(error, as_plain_data(value, known))
    except (AttributeError, TypeError):
        # Not there, or not to be changed.
        return


def _says_nothing(kind):
    """Whether a class of exceptions is none of the product's, and its exceptions are no more than what they hold."""
    own = [base for base in ORDERS(kind) if id(base) not in EXCEPTIONS and base is not object]
    # Of the product's own it could say something later.
    return (not own or id(kind) in NOT_THEIRS) and all(
        name in USUAL or id(type(value)) in IS_WHOLE for base in own for name, value in SPACE(base).items()
    )


def _of_its_kind(error):
    """Of an exception whose class says more than what it holds: one of a class that is the same but for what that says."""
    kind = type(error)
    if id(kind) in MADE_OF or _says_nothing(kind):
        return error
    try:
        error.__class__ = kind_of_error(kind)
    except TypeError:
        base = next(base for base in ORDERS(kind) if id(base) in EXCEPTIONS)
        fresh = base.__new__(base, *BaseException.args.__get__(error))
        fresh.args = BaseException.args.__get__(error)
        return fresh.with_traceback(error.__traceback__)
    return error


class _KindOfError(type):
    """Of classes that tests get in the place of the product's exceptions: called or asked for what they have, they give data."""

    def __call__(cls, *arguments, **named):
        of = MADE_OF.get(id(cls))
        if of is None:
            return type.__call__(cls, *arguments, **named)
        return Function(of)(*arguments, **named)

    def __getattribute__(cls, name):
        of = MADE_OF.get(id(cls))
        if of is None or name.startswith("__"):
            return type.__getattribute__(cls, name)
        return call_product(getattr, of, name)


def kind_of_error(kind):
    """The class that tests see in the place of an exception of the product's; its bases' are bases of it, so that tests catch it by
    them. Raises TypeError for classes of classes of the product's own."""
    if type(kind) is not type:
        raise TypeError("a class of a class of its own")
    if id(kind) not in KINDS_OF_ERRORS:
        errors = [base for base in kind.__bases__ if issubclass(base, BaseException)]
        above = [kind_of_error(base) for base in errors if not _says_nothing(base)]
        # The product's is not told that a class is derived from it.
        still = type("Still", (), {"__slots__": (), "__init_subclass__": lambda cls, **named: None})
        found = _KindOfError(kind.__name__, (still, kind, *above), _what_it_says(kind))
        KINDS_OF_ERRORS[id(kind)], MADE_OF[id(found)] = found, kind
    return KINDS_OF_ERRORS[id(kind)]


def _what_it_says(kind):
    def attribute(self, name):
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        return as_plain_data(kind.__getattribute__(self, name))

    return {
        "__slots__": (),
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": as_plain_data(kind.__doc__),
        "__str__": lambda self: as_plain_data(kind.__str__(self)),
        "__repr__": lambda self: as_plain_data(kind.__repr__(self)),
        "__eq__": object.__eq__,
        "__ne__": object.__ne__,
        "__hash__": object.__hash__,
        "__getattribute__": attribute,
    }


# What is called.

SHOWN, SHOWN_FOR = {}, {}
"""Functions that the product got in the place of a test's: that by its own identity, and it by that of the test's."""
WAITED = 0x20 | 0x80 | 0x200
"""Flags of generators and coroutines."""


def shown(value):
    """A function of a test's as the product gets it: what it is called with is data, and what it raises is the test's."""
    kind = type(value)
    if kind is METHOD:
        inside = getattr(value.__func__, "__globals__", {}).get("__file__") in TESTS
    elif kind is FUNCTION:
        inside = value.__globals__.get("__file__") in TESTS and not value.__code__.co_flags & WAITED
    else:
        inside = type(value.__self__) not in (types.ModuleType, type, type(None))
    if not inside:
        return value
    # One for each, or the product could not find again what it was given.
    at = (id(value.__self__), value.__name__) if kind is not FUNCTION else id(value)
    if at in SHOWN_FOR:
        return SHOWN_FOR[at]

    def called(*arguments, **named):
        known = {at: (item, item) for at, item in test_objects().items()}
        given = [as_plain_data(item, known) for item in arguments]
        try:
            result = value(*given, **{key: as_plain_data(named[key], known) for key in named})
            keep(result)
            return unwrapped(result)
        except BaseException as error:
            THEIR_ERRORS.append(error)
            raise

    found = _like(value, called) if kind is FUNCTION else called
    found.__name__, found.__qualname__, found.__doc__ = value.__name__, value.__qualname__, value.__doc__
    found.__module__, found.__annotations__ = value.__module__, getattr(value, "__annotations__", {})
    vars(found).update(getattr(value, "__dict__", {}))
    found.__wrapped__ = value
    SHOWN[id(found)], SHOWN_FOR[at] = (value, found), found
    return found


def _like(function, called):
    """A function with the same parameters that calls another one."""
    code = function.__code__
    count, alone = code.co_argcount, code.co_kwonlyargcount
    names = code.co_varnames
    first, only = names[:count], names[count : count + alone]
    rest = names[count + alone : count + alone + bool(code.co_flags & 4) + bool(code.co_flags & 8)]
    starred = ["*" + rest[0]] if code.co_flags & 4 else []
    doubled = ["**" + rest[-1]] if code.co_flags & 8 else []
    parameters = list(first)
    if code.co_posonlyargcount:
        parameters.insert(code.co_posonlyargcount, "/")
    parameters += starred or (["*"] if only else [])
    given = list(first) + starred + [name + "=" + name for name in only] + doubled
    name = "called"
    while name in names:
        name += "_"
    source = "lambda %s: %s(%s)" % (", ".join(parameters + list(only) + doubled), name, ", ".join(given))
    found = eval(source, {name: called})
    found.__defaults__, found.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    return found


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
        for pair in value.items():
            for item in pair:
                owned(item, own)
    else:
        for item in list((space_of(value) or {}).values()):
            owned(item, own)


def emptied(value, known):
    """Of what a product may have put into something that holds others, in its place plain data."""
    kind = type(value)
    if kind is list or kind is deque or kind is set:
        if any(id(type(item)) not in IS_WHOLE for item in value):
            items = [as_plain_data(item, known) for item in value]
            value.clear()
            (value.update if kind is set else value.extend)(items)
    elif (id(kind) in IS_MAPPING or kind is defaultdict) and any(
        id(type(item)) not in IS_WHOLE for pair in value.items() for item in pair
    ):
        items = [(as_plain_data(key, known), as_plain_data(item, known)) for key, item in value.items()]
        value.clear()
        value.update(dict(items))
    elif id(kind) not in IS_WHOLE:
        space = space_of(value) or {}
        for name, item in list(space.items()):
            if id(type(item)) not in IS_WHOLE:
                space[name] = as_plain_data(item, known)


class Module(types.ModuleType):
    """A module of the product."""

    def __init__(self, of):
        types.ModuleType.__init__(self, "")
        # Without a name nothing is looked for in sys.modules that it has not.
        self.__dict__.update(__of__=of, __name__=None)

    def __getattr__(self, name):
        found, known = _call_product(getattr, (self.__dict__["__of__"], name))
        kind = type(found)
        if name == "__all__":
            return found
        if kind is types.ModuleType:
            return Module(found)
        if issubclass(kind, type):
            # What tests say that it is raised. Whoever says what its classes are equal to does not get so far.
            if kind is not type or not issubclass(found, BaseException):
                return proxy(found)
            return found if _says_nothing(found) else kind_of_error(found)
        return as_plain_data(found, known)


def unwrapped(value):
    """What a test hands to the product: things are what they are of, in lists and the like too."""
    kind = type(value)
    if id(kind) in IS_THING:
        return object.__getattribute__(value, "_of")
    if kind is _KindOfError:
        return MADE_OF.get(id(value), value)
    if issubclass(kind, type):
        NOT_THEIRS[id(value)] = value
        return value
    if kind is FUNCTION or kind is METHOD or kind is BUILTIN:
        return shown(value)
    if id(kind) in IS_DERIVED:
        return vars(value)["_of"]
    if id(kind) in IS_HOLDING and any(id(type(item)) not in IS_WHOLE for item in value):
        changed = [unwrapped(item) for item in value]
        return value if all(map(operator.is_, changed, value)) else kind(changed)
    if kind is dict and any(id(type(item)) not in IS_WHOLE for item in value.values()):
        changed = {key: unwrapped(item) for key, item in value.items()}
        return changed if any(changed[key] is not value[key] for key in value) else value
    return value
