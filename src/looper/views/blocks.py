"""Parts of a Markdown file that a command writes anew, between marks."""

import re
from collections.abc import Sequence

from looper.errors import BadInput


def with_block(text: str, command: str, lines: Sequence[str], file: str) -> str:
    """The text with what stands between the marks of a command replaced. Raises BadInput where `file` has no such marks."""
    begin, end = f"<!-- {command} -->", f"<!-- end of {command} -->"
    marked = re.compile(re.escape(begin) + r"\n.*?" + re.escape(end), re.DOTALL)
    if not marked.search(text):
        raise BadInput(f"{file} has no marks to write between: {begin} and {end}.")
    block = "\n".join([begin, *lines, end])
    return marked.sub(lambda _: block, text)
