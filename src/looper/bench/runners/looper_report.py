"""What the runner programs share: a report that the product cannot write, and nothing of the tree imported before its time.

Imported first of all, it takes the tree off the module path, so that what a runner needs is the interpreter's own; the runner
puts it back. The file of the report holds a key when the runner begins, and below it the files that are copies of tests. It is
emptied at once; each line of the report then has its number and a keyed hash of what it says, so that the file tells nobody the key.
"""

import builtins
import gc
import os
import sys

TREE = os.getcwd()
FUNCTION = type(lambda: None)
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
        gone = ChildProcessError
        # Not before Python 3.7.
        freeze, thaw = (getattr(gc, name, lambda: None) for name in ("freeze", "unfreeze"))

        def aside(work):
            """Do something in a process of its own, which goes on with this report; the number that it returns, or None where it never
            came to its end."""
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
                wait(child, 0)
            except gone:
                # A handler of the product's for ended children was first, or it told the system to keep none.
                pass
            if not said:
                return None
            lines[0], number = map(int, said.split())
            return number

        self.say, self.end, self.aside = say, end, aside
        self.copies = {name.decode("utf-8") for name in copies}


_BUILTINS = "__import__ AssertionError BaseException Exception all any bool getattr isinstance issubclass len repr sorted str type"


class Originals:
    """What decides outcomes, as it was before the product was imported; honest products leave it alone."""

    def __init__(self, modules, builtin=(), own=None):
        """Of `modules` what can be called, and what else of `builtin` names tests use; of `own`, which no name leads to, everything."""
        # By position and not by name: comparing is done after each test.
        self._known = [
            (vars(builtins), "builtins", name, getattr(builtins, name))
            for name in _BUILTINS.split() + list(builtin)
        ]
        self._hooks = []
        self._cells = []
        self._code = []
        self._sizes = []
        for module in modules:
            self._known.append((sys.modules, "sys.modules", module.__name__, module))
            self._remember(module)
        if own is not None:
            self._remember(own, every=True)
            self._cells = [(cell, cell.cell_contents) for cell in builtins.__import__.__closure__]

    def _remember(self, module, every=False):
        spaces = [(vars(module), module.__name__)]
        for name, value in spaces[0][0].items():
            if isinstance(value, type) and value.__module__ == module.__name__:
                spaces.append((vars(value), module.__name__ + "." + name))
        for space, place in spaces:
            if every:
                self._sizes.append((space, place, len(space)))
            for name, value in list(space.items()):
                if every or callable(value) or isinstance(value, (classmethod, staticmethod, property)):
                    self._known.append((space, place, name, value))
                    self._remember_code(place + "." + name, value)

    def _remember_code(self, name, value):
        """What a function does, which can be put in its place while it stays the same function."""
        if isinstance(value, (classmethod, staticmethod)):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        while type(value) is FUNCTION:
            self._code.append((name, value, value.__code__, value.__defaults__))
            value = vars(value).get("__wrapped__")

    def remember_hooks(self, manager):
        """Functions that pytest's own plugins hook in, before those of any tree are loaded."""
        for caller in list(vars(manager.hook).values()):
            for hook in getattr(caller, "get_hookimpls", list)():
                self._hooks.append((hook, hook.function))
                self._remember_code("a hook of pytest", hook.function)

    def replaced(self):
        """Dotted names that mean something else now."""
        missing = self
        named = [
            place + "." + name
            for namespace, place, name, value in self._known
            if namespace.get(name, missing) is not value
        ]
        named += ["a hook of pytest" for hook, function in self._hooks if hook.function is not function]
        named += [
            name
            for name, function, code, defaults in self._code
            if function.__code__ is not code or function.__defaults__ is not defaults
        ]
        named += [place for space, place, size in self._sizes if len(space) != size]
        return named + [
            "what tests import by" for cell, held in self._cells if cell.cell_contents is not held
        ]
