"""Values as they cross between tests and a product in another process: plain data, so that nothing of an object's own comes along.

One JSON value a line. What is a scalar stays one; what holds others is a list that begins with its kind.
"""

import sys


def _own_json():
    """A copy of the package for this module alone: what a product puts in the place of functions, or of how they do it, in the one that
    everybody imports changes nothing of what crosses."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "json"}
    import json

    for name in [name for name in sys.modules if name.partition(".")[0] == "json"]:
        del sys.modules[name]
    sys.modules.update(kept)
    return json


json = _own_json()
LINE_BYTES = 32 << 20
SCALARS = (type(None), bool, int, float, str)
HOLDING = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class CannotCross(Exception):
    """A value is no plain data."""


def encoded(value, other):
    """`other` encodes what is no plain data, or raises CannotCross."""
    kind = type(value)
    if kind in SCALARS:
        return value
    for name, holding in HOLDING.items():
        if kind is holding:
            return [name] + [encoded(item, other) for item in value]
    if kind is dict:
        return ["dict"] + [[encoded(key, other), encoded(item, other)] for key, item in value.items()]
    if kind is bytes:
        return ["bytes", value.hex()]
    if kind is complex:
        return ["complex", value.real, value.imag]
    return other(value)


def decoded(found, other):
    """`other` makes something of kinds that are not known here."""
    if type(found) in SCALARS:
        return found
    kind, items = found[0], found[1:]
    if kind in HOLDING:
        return HOLDING[kind](decoded(item, other) for item in items)
    if kind == "dict":
        return {decoded(key, other): decoded(item, other) for key, item in items}
    if kind == "bytes":
        return bytes.fromhex(items[0])
    if kind == "complex":
        return complex(float(items[0]), float(items[1]))
    return other(kind, items)


def line_of(message):
    """Raises CannotCross for what is too deep or too large."""
    try:
        data = json.dumps(message).encode("ascii") + b"\n"
    except (ValueError, RecursionError) as error:
        raise CannotCross(str(error)) from None
    if len(data) > LINE_BYTES:
        raise CannotCross("it takes %d bytes" % len(data))
    return data


class Lines:
    """Whole lines of a pipe."""

    def __init__(self, read, descriptor):
        self._read, self._descriptor, self._waiting = read, descriptor, b""

    def next(self):
        """The next message; None at the end, and for what is none."""
        # Each piece is looked through once, however many a line has.
        pieces, size = [self._waiting], len(self._waiting)
        while b"\n" not in pieces[-1]:
            data = self._read(self._descriptor, 1 << 16)
            if not data or size > LINE_BYTES:
                return None
            pieces.append(data)
            size += len(data)
        line, _, self._waiting = b"".join(pieces).partition(b"\n")
        try:
            return json.loads(line.decode("ascii"))
        except (ValueError, RecursionError):
            return None
