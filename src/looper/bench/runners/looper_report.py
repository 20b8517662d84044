"""What the runner programs share: a report that the product cannot write, and nothing of the tree imported before its time.

Imported first of all, it takes the tree off the module path, so that what a runner needs is the interpreter's own; the runner
puts it back. The file of the report holds a key when the runner begins, and below it the files that are copies of tests. It is
emptied at once; each line of the report then has its number and a keyed hash of what it says, so that the file tells nobody the key.
"""

import builtins
import gc
import os
import re
import sys

TREE = os.getcwd()
FUNCTION, MODULE = type(lambda: None), type(sys)
_WHOLE_PATH = list(sys.path)
_ASKED = os.environ.pop("LOOPER_MODULE_PATH", "")


def _in_tree(place):
    return not place or (os.path.abspath(place) + os.sep).startswith(TREE + os.sep)


sys.path[:] = [place for place in sys.path if not _in_tree(place)]

try:
    # Hashlib itself loads OpenSSL: 4 ms that every verdict would pay.
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b
from json.encoder import encode_basestring_ascii


def with_tree(first=TREE):
    """Put the module path together as it was asked for, here and for children, with this folder in the place of the runner's own."""
    asked = [place for place in _ASKED.split(os.pathsep) if place]
    sys.path[:] = [first] + asked + [place for place in _WHOLE_PATH[1:] if place not in asked]
    if asked:
        os.environ["PYTHONPATH"] = _ASKED
    # No module of the product shall find this one in its place.
    sys.modules.pop(__name__, None)


class Report:
    """Everything that it needs is bound before the product can be imported, and bound where no module names it."""

    def __init__(self, place):
        descriptor = os.open(place, os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0))
        key, *copies = os.read(descriptor, 1 << 16).split(b"\n")
        os.ftruncate(descriptor, 0)
        write, encode, text, leave, sign = os.write, encode_basestring_ascii, str, os._exit, blake2b
        lines = [0]

        def say(kind, *words):
            said = "[%s]" % ",".join([encode(text(word)) for word in (kind,) + words])
            mark = sign(("%d %s" % (lines[0], said)).encode("ascii"), key=key, digest_size=16).hexdigest()
            write(descriptor, ("%d %s %s\n" % (lines[0], mark, said)).encode("ascii"))
            lines[0] += 1

        def end(status):
            say("exit", status)
            try:
                sys.stdout.flush()
            finally:
                # Not sys.exit: an exit handler of the product could change the status.
                leave(status)

        fork, pipe, close, read, wait, flush = (
            os.fork,
            os.pipe,
            os.close,
            os.read,
            os.waitpid,
            sys.stdout.flush,
        )
        gone, killed = ChildProcessError, 9
        # Not before Python 3.7.
        freeze, thaw = (getattr(gc, name, lambda: None) for name in ("freeze", "unfreeze"))

        def aside(work):
            """Do something in a process of its own, which goes on with this report; the number that it returns, or None where it never
            came to its end. Where that was killed, this one ends as if it had been too."""
            told, tell = pipe()
            flush()
            # What is frozen is not gone through for garbage, and so not copied for it.
            freeze()
            try:
                child = fork()
            except OSError:
                # The product let itself have no more processes.
                thaw()
                close(told)
                close(tell)
                return work()
            if not child:
                try:
                    number = work()
                    flush()
                    write(tell, ("%d %d" % (lines[0], number)).encode("ascii"))
                finally:
                    leave(0)
            thaw()
            close(tell)
            said = read(told, 100)
            close(told)
            try:
                ended = wait(child, 0)[1]
            except gone:
                # A handler of the product's for ended children was first, or it told the system to keep none.
                ended = 0
            if not said:
                if ended & 127 == killed:
                    leave(128 + killed)
                return None
            lines[0], number = map(int, said.split())
            return number

        self.say, self.end, self.aside = say, end, aside
        self.copies = {name.decode("utf-8") for name in copies}


_BUILTINS = "__import__ AssertionError BaseException Exception all any bool getattr isinstance issubclass len repr sorted str type"


_PYTEST = "_code approx compat outcomes python_api raises recwarn"
_PURE = "cmath collections decimal difflib fractions functools math numbers operator pprint re reprlib sre_compile sre_parse"
PURE = frozenset((_PURE + " statistics string unittest").split())
# Not all of pytest: Hypothesis changes its fixtures.
PYTEST = tuple("_pytest." + name for name in _PYTEST.split())
"""Packages that nobody has a reason to change, and by which tests find out what is equal, raised or matched."""
CONSTANTS = (int, float, complex, str, bytes)


def is_pure(module):
    return str(module).partition(".")[0] in PURE or str(module).startswith(PYTEST)


def _names(code):
    """What a function names, its inner ones among it."""
    found = set(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, type(code)):
            found |= _names(inner)
    return found


class Originals:
    """What decides outcomes, as it was before the product was imported; honest products leave it alone."""

    def __init__(self, modules, builtin=(), own=None, helpers=()):
        """Of `modules` what can be called, and what else of `builtin` names tests use; of `helpers`, which tests ask whether something was
        raised or is equal, everything with all that they use; of `own`, which no name leads to, everything."""
        self._known = {}
        self._hooks = []
        self._cells = []
        self._code = []
        self._sizes = []
        self._followed = set()
        # From version 3.7 on their keys are a type, a pattern and flags.
        self._pattern = type(re.compile(""))
        self._patterns = [
            vars(re)[name]
            for name in ("_cache", "_cache2")
            if helpers and sys.version_info >= (3, 7) and type(vars(re).get(name)) is dict
        ]
        for name in ("_cache", "_cache2") if self._patterns else ():
            self._know(vars(re), "re", name, vars(re).get(name, self))
        for name in _BUILTINS.split() + list(builtin):
            self._know(vars(builtins), "builtins", name, getattr(builtins, name))
        for module in modules:
            self._know(sys.modules, "sys.modules", module.__name__, module)
            self._remember(module)
        others, codes = (
            set(self._known) - {(id(vars(re)), "_cache"), (id(vars(re)), "_cache2")},
            len(self._code),
        )
        for module in helpers:
            self._know(sys.modules, "sys.modules", module.__name__, module)
            self._remember(module, follow=True)
        # By position and not by name: comparing is done after each test.
        self._used = [
            found for key, found in self._known.items() if key not in others and found[1] != "builtins"
        ]
        self._used_code = self._code[codes:]
        if own is not None:
            self._remember(own, every=True)
            self._cells = [(cell, cell.cell_contents) for cell in builtins.__import__.__closure__]
        self._known = list(self._known.values())

    def _know(self, space, place, name, value):
        self._known[id(space), name] = (space, place, name, value)

    def _remember(self, module, every=False, follow=False):
        spaces = [(vars(module), module.__name__)]
        for name, value in spaces[0][0].items():
            if isinstance(value, type) and value.__module__ == module.__name__:
                spaces.append((vars(value), module.__name__ + "." + name))
        for space, place in spaces:
            if every:
                self._sizes.append((space, place, len(space)))
            for name, value in list(space.items()):
                # Test classes of unittest are there to be told how much to print.
                constant = (
                    follow
                    and isinstance(value, CONSTANTS)
                    and (space is spaces[0][0] or module.__name__.startswith(PYTEST))
                )
                if every or self._decides(value) or constant:
                    self._know(space, place, name, value)
                    self._remember_code(place + "." + name, value, follow)

    @staticmethod
    def _decides(value):
        return callable(value) or isinstance(value, (classmethod, staticmethod, property))

    def _remember_code(self, name, value, follow=False):
        """What a function does, which can be put in its place while it stays the same function; `follow`: and all that it uses."""
        if isinstance(value, (classmethod, staticmethod)):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        if type(value) is not FUNCTION:
            # Such as what keeps results.
            value = getattr(value, "__wrapped__", None)
        while type(value) is FUNCTION and value not in self._followed:
            named = value.__kwdefaults__ and dict(value.__kwdefaults__)
            self._code.append((name, value, value.__code__, value.__defaults__, named))
            if follow:
                self._followed.add(value)
                self._follow(value)
            value = vars(value).get("__wrapped__")

    def _follow(self, function):
        """What a function names, in its module, in modules that it names, and among the builtins."""
        space, names = function.__globals__, _names(function.__code__)
        place = str(space.get("__name__"))
        for name in names:
            if name in space:
                found = space[name]
                self._use(space, place, name)
                if type(found) is MODULE and is_pure(found.__name__):
                    for inner in names & set(vars(found)):
                        self._use(vars(found), found.__name__, inner)
            elif name in vars(builtins):
                # A name in its module would stand before the builtin one.
                self._know(space, place, name, self)
                self._know(vars(builtins), "builtins", name, vars(builtins)[name])

    def _use(self, space, place, name):
        value = space[name]
        if callable(value) or type(value) is MODULE:
            self._know(space, place, name, value)
        if not isinstance(value, type):
            if is_pure(getattr(value, "__module__", None)):
                self._remember_code(place + "." + name, value, follow=True)
        elif value not in self._followed and is_pure(value.__module__):
            self._followed.add(value)
            for inner, each in list(vars(value).items()):
                if self._decides(each):
                    self._know(vars(value), place + "." + name, inner, each)
                    self._remember_code(place + "." + name + "." + inner, each, follow=True)

    def remember_hooks(self, manager):
        """Functions that pytest's own plugins hook in, before those of any tree are loaded."""
        for caller in list(vars(manager.hook).values()):
            for hook in getattr(caller, "get_hookimpls", list)():
                self._hooks.append((hook, hook.function))
                self._remember_code("a hook of pytest", hook.function)

    def replaced(self, helpers=False):
        """Dotted names that mean something else now; only what helpers use, which no test replaces while it calls the product."""
        missing = self
        named = [
            place + "." + name
            for namespace, place, name, value in (self._used if helpers else self._known)
            if namespace.get(name, missing) is not value
        ]
        named += [
            name
            for name, function, code, defaults, others in (self._used_code if helpers else self._code)
            if function.__code__ is not code
            or function.__defaults__ is not defaults
            or function.__kwdefaults__ != others
        ]
        named += ["a pattern that re keeps"] * any(map(self._poisoned, self._patterns))
        if helpers:
            return named
        named += ["a hook of pytest" for hook, function in self._hooks if hook.function is not function]
        # Who warns leaves a registry of it in the module that is said to warn.
        named += [
            place
            for space, place, size in self._sizes
            if len(space) - ("__warningregistry__" in space) != size
        ]
        return named + [
            "what tests import by" for cell, held in self._cells if cell.cell_contents is not held
        ]

    def _poisoned(self, kept):
        """Whether what was kept of patterns is of others."""
        for (_, text, flags), found in list(kept.items()):
            kind = str if isinstance(text, str) else bytes
            if type(found) is not self._pattern or kind.__eq__(found.pattern, text) is not True:
                return True
            # A pattern can have flags within itself.
            if (
                found.flags & ~(flags | re.UNICODE)
                and (b"(?" if kind is bytes else "(?") not in found.pattern
            ):
                return True
        return False
