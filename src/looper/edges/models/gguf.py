"""The header of a GGUF file: metadata, and type, shape and place of every tensor.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. MLX maps the file without
comparing it with its header: a truncated one gives zeros for weights, or ends the process.
"""

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.errors import BadInput

MAGIC, VERSIONS, ALIGNMENT = b"GGUF", (2, 3), 32
BLOCKS = {"F32": (1, 4), "F16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q8_0": (32, 34)}
"""Types that MLX reads without loss: weights in a block, and bytes of a block."""
TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K",
    13: "Q5_K", 14: "Q6_K", 30: "BF16",
}  # fmt: skip
"""Names of `ggml_type`; others are named by their number."""
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True)
class Tensor:
    type: str
    shape: tuple[int, ...]
    """Rows first, as MLX and PyTorch have it; in the file the order is the other way."""
    offset: int
    """Bytes from the beginning of the data section."""


@dataclass(frozen=True)
class Header:
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def read_header(file: Path) -> Header:
    """Raises BadInput for what is no GGUF file, is cut short, or holds tensors of a type that is not in BLOCKS."""
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] != MAGIC:
                raise BadInput(f"{file} is no GGUF file: it does not begin with GGUF. Name another file.")
            return _Reader(file, data).header()
    except (OSError, ValueError) as error:  # An empty file cannot be mapped.
        raise BadInput(f"{file} cannot be read: {error}. Name a GGUF file.") from error
    except (struct.error, ArithmeticError, LookupError, TypeError, MemoryError, RecursionError) as error:
        raise BadInput(
            f"{file} is cut short or damaged: its header cannot be read to the end. Download it again."
        ) from error


class _Reader:
    def __init__(self, file: Path, data: mmap.mmap) -> None:
        self._file, self._data, self._at = file, data, len(MAGIC)

    def header(self) -> Header:
        version = self._number("I")
        if version not in VERSIONS:
            raise BadInput(
                f"{self._file} is GGUF version {version}, and 2 and 3 are read here. Download a newer file."
            )
        tensors, pairs = self._number("Q"), self._number("Q")
        metadata = {self._string(): self._value(self._number("I")) for _ in range(pairs)}
        header = Header(metadata, dict(self._tensor() for _ in range(tensors)))
        self._must_hold(header)
        return header

    def _number(self, kind: str) -> Any:
        return self._numbers(kind, 1)[0]

    def _numbers(self, kind: str, count: int) -> tuple[Any, ...]:
        layout = f"<{count}{kind}"
        found = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return found

    def _string(self) -> str:
        length: int = self._number("Q")
        return bytes(self._numbers("s", length)[0] if length else b"").decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(_NUMBERS[kind])
        item, count = self._number("I"), self._number("Q")
        if item in _NUMBERS:
            return list(self._numbers(_NUMBERS[item], count))
        return [self._value(item) for _ in range(count)]

    def _tensor(self) -> tuple[str, Tensor]:
        name, dimensions = self._string(), self._number("I")
        shape = tuple(reversed(self._numbers("Q", dimensions)))
        kind: int = self._number("I")
        return name, Tensor(TYPES.get(kind, f"number {kind}"), shape, self._number("Q"))

    def _must_hold(self, header: Header) -> None:
        """Raises BadInput where a tensor is of a type that is not read, or reaches past the end of the file."""
        alignment = int(header.metadata.get("general.alignment", ALIGNMENT))
        begin = math.ceil(self._at / alignment) * alignment
        for name, tensor in header.tensors.items():
            if tensor.type not in BLOCKS:
                raise BadInput(
                    f"{self._file} holds {name} as {tensor.type}, and what is read here is {', '.join(BLOCKS)}. "
                    "Download the model in one of these quantisations."
                )
            weights, size = BLOCKS[tensor.type]
            end = begin + tensor.offset + math.prod(tensor.shape) // weights * size
            if end > len(self._data):
                raise BadInput(
                    f"{self._file} is cut short: {name} ends at byte {end}, the file at {len(self._data)}. Download it again."
                )
