"""Has the product, and answers what tests in another process ask of it: serve_product.py FOLDER.

Whatever the product does to this process, out of it come lines of data. It ends with its tests.
"""

import looper_report

import os
import sys

from looper_crossing import CannotCross, Lines, decoded, encoded, line_of


def main():
    folder = sys.argv[1]
    del sys.argv[1:]
    # A process that the product starts by itself (multiprocessing's spawn) would run this once more.
    del sys.modules["__main__"].__file__
    write, leave = os.write, os._exit
    # Not waiting to open it: where the tests are over by now, it is at its end.
    ask = os.open(os.path.join(folder, "ask"), os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(ask, True)
    lines = Lines(os.read, ask)
    answers = os.open(os.path.join(folder, "answer"), os.O_WRONLY)
    looper_report.with_tree()
    while True:
        question = lines.next()
        if question is None:
            leave(0)
        try:
            said = line_of(answer(*question))
        except CannotCross as error:
            said = line_of(["cannot", str(error)])
        while said:
            said = said[write(answers, said) :]


def answer(kind, module, *said):
    try:
        if kind == "import":
            __import__(module)
            return ["imported"]
        found = sys.modules[module]
        if not hasattr(found, said[0]):
            return ["missing", "module '%s' has no attribute '%s'" % (module, said[0])]
        value = getattr(found, said[0])
        if kind == "call":
            arguments = [decoded(item, made) for item in said[1]]
            value = value(*arguments, **{key: decoded(item, made) for key, item in said[2].items()})
        elif isinstance(value, type) and issubclass(value, BaseException):
            return ["class", names_of(value)[2]]
        elif callable(value):
            return ["function"]
        return ["value", encoded(value, cannot)]
    except CannotCross:
        raise
    except ImportError as error:
        if kind == "import" and getattr(error, "name", None) == module:
            return ["missing", module]
        return raised(error)
    except BaseException as error:
        return raised(error)


def cannot(value):
    raise CannotCross("a result of type %s is no plain data" % type(value).__name__)


def made(kind, items):
    """What tests handed over beside plain data."""
    if kind == "function":
        return getattr(sys.modules[items[0]], items[1])
    return type(str(items[0]), (), {key: decoded(item, made) for key, item in items[1].items()})


def names_of(kind):
    return [kind.__module__, kind.__name__, [base.__name__ for base in kind.__mro__[1:]]]


def raised(error):
    try:
        arguments = encoded(list(error.args), cannot)
    except (CannotCross, RecursionError):
        arguments = ["list", str(error)]
    return ["raised"] + names_of(type(error)) + [arguments]


main()
