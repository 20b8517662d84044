"""What a line of text is: what ends with a line feed, as git, grep and JSON Lines have it; and how names and numbers stand in one."""

import io
from collections.abc import Sequence

BYTES_PER_TOKEN = 3
"""Cautious: English has about four, code about three and a half."""
BYTES_PER_MESSAGE = 8 * BYTES_PER_TOKEN
"""What a template puts around it."""


def whole_lines(text: str) -> list[str]:
    """Every line with its end. `str.splitlines` also ends lines at form feeds, U+0085, U+2028 and five others, which stand
    inside of lines for every other program."""
    return list(io.StringIO(text))


def bare_lines(text: str) -> list[str]:
    """Every line without its end, which is a line feed with or without a carriage return before it."""
    return [line.removesuffix("\r\n").removesuffix("\n") for line in whole_lines(text)]


def counted(number: int, one: str, many: str = "") -> str:
    """With the word in its number; `many` where it is not `one` with an s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def listed(names: Sequence[str], most: int) -> str:
    """The first `most` of them, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def estimated_tokens(*texts: str) -> int:
    """An upper estimate of the length of a prompt, a text for each message, where nobody counts it."""
    return sum(len(text.encode("utf-8", "replace")) + BYTES_PER_MESSAGE for text in texts) // BYTES_PER_TOKEN


def joined(text: str, lone: str = "surrogatepass") -> str:
    """Halves of a character that follow each other, as a stream can tear them apart, as the character: JSON cannot keep them apart.
    `lone` says what becomes of halves alone, as a codec's errors."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", lone)


def encodable(text: str) -> str:
    """The text with lone surrogates, which no encoding holds, as escapes; in JSON they are JSON's own, so that nothing is lost."""
    return text.encode("utf-8", "backslashreplace").decode()
