"""The pages of one run as files: a folder that opens in any browser, without a server and without Looper.

Pages are asked of the application itself and followed from link to link, so that a page is what `looper serve` shows at that moment. What
needs a server is left out: searches and filters, curves, and what a template marks as `data-served`. Where two rollouts would stand side by
side a link leads to the other one, any other link becomes words. Each page has one address.
"""

import asyncio
import html
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urljoin, urlsplit

import httpx
from starlette.applications import Starlette

from looper.errors import BadInput, unwritable
from looper.records.base import content_hash
from looper.serve.answers import known_run
from looper.serve.pages import PageContext, Pages
from looper.views.trajectory import PAGE, cell_of
from looper.views.web.templating import static_file

KEPT = {
    "": ("page",),
    "tasks": (),
    "learned": (),
    "arms": ("a", "b"),
    "cells": ("attempt", "page"),
    "text": ("attempt", "step", "part"),
}
"""Pages of a run that become files, by the first part of their path below it, and what of an address tells two of them apart."""
PART_CHARS = 96
"""Of a folder or file that is named by an arm or a task. Where two are the same so far, a hash of the address tells them apart."""
STATIC = ("looper.css", "looper.js", "theme.js")
_LINK = re.compile(r' (href|src)="([^"]*)"')
_SERVED = re.compile(
    r"<(\w+)\b[^>]* data-served\b[^>]*>.*?</\1>|(?<= )data-(?:follow|of)=\"[^\"]*\"", re.DOTALL
)
"""Parts that need a server, none of which holds another of its kind, and what a page would follow or be told of."""
_NO_LINK = re.compile(r"<a\b(?![^>]* href=)[^>]*>(.*?)</a>", re.DOTALL)


def write_bundle(
    page_context: PageContext, run: str, folder: Path, say: Callable[[str], None] = lambda line: None
) -> int:
    """Write the pages of the run of this name below `folder`, which is new or empty; how many. `index.html` is the first. Raises BadInput."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is there already, and not empty. Name another folder.")
    work = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        work.mkdir()
        count = asyncio.run(_Bundle(page_context, run, work, say).write())
        if folder.exists():
            folder.rmdir()
        work.replace(folder)
    except OSError as error:
        raise unwritable(folder, "folder", error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return count


class _Bundle:
    def __init__(self, page_context: PageContext, run: str, folder: Path, say: Callable[[str], None]) -> None:
        self._app = Starlette(routes=list(Pages(page_context).routes()))
        self._run = known_run(page_context.projection, run)
        self._home, self._folder, self._say = f"/runs/{quote(run)}", folder, say
        self._latest: dict[str, str] = {}
        self._files, self._taken = dict[str, str](), set[str]()

    async def write(self) -> int:
        """How many pages and texts. Raises OSError."""
        waiting, known, count = [self._home], {self._home}, 0
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(self._app), base_url="http://bundle"
        ) as client:
            for number, address in enumerate(waiting, 1):
                answer = await client.get(address)
                if answer.status_code != 200:
                    continue  # A link to what a run has not, which its own page says.
                file = self._folder / self.file_of(address)
                content = answer.content
                if file.suffix == ".html":
                    text, links = self.as_file(answer.text, address)
                    content = text.encode("utf-8", "replace")
                    new = [link for link in links if link not in known]
                    waiting += new
                    known.update(new)
                self._put(file, content)
                count += 1
                if number % 200 == 0:
                    self._say(f"{number} of {len(waiting)} pages so far")
        for name in STATIC:
            self._put(self._folder / "static" / name, static_file(name))
        return count

    def _put(self, file: Path, content: bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def as_file(self, text: str, address: str) -> tuple[str, list[str]]:
        """A page with links among files, and the addresses of those that it leads to."""
        links = dict[str, None]()
        above = "../" * self.file_of(address).count("/")

        def link(found: re.Match[str]) -> str:
            kind, said = found[1], html.unescape(found[2])
            if said.startswith(("#", "data:")):
                return found[0]
            split = urlsplit(urljoin(address, said))
            if split.path.startswith("/static/"):
                return f' {kind}="{above}static/{split.path.rpartition("/")[2]}"'
            path, query = split.path, split.query
            if path == f"{self._home}/diff":
                path, query = f"{self._home}/cells/{quote(dict(parse_qsl(query)).get('b', ''))}", ""
            target = self.address_of(path, query)
            if target is None:
                return ""  # Without an address a link is words.
            links[target] = None
            fragment = f"#{split.fragment}" if split.fragment else ""
            return f' {kind}="{html.escape(above + quote(self.file_of(target)) + fragment)}"'

        return _NO_LINK.sub(r"\1", _LINK.sub(link, _SERVED.sub("", text))), list(links)

    def address_of(self, path: str, query: str) -> str | None:
        """The one address of a page of this run; None for what becomes no file."""
        if path != self._home and not path.startswith(f"{self._home}/"):
            return None
        part = path.removeprefix(self._home).strip("/").partition("/")[0]
        if part not in KEPT:
            return None
        first = {"page": "1", "attempt": self._latest_attempt(path)}
        asked = dict(parse_qsl(query))
        if set(asked) - {*KEPT[part], "step"}:
            return None  # Sorted or filtered otherwise.
        if part == "cells" and (step := asked.get("step", "")).isdecimal() and int(step):
            asked["page"] = str((int(step) - 1) // PAGE + 1)
        if part == "cells" and self._run.writer is not None:
            first["page"] = ""  # Of a rollout that goes on the last page is shown where none is named.
        told = {key: asked[key] for key in KEPT[part] if asked.get(key, "") not in ("", first.get(key))}
        return f"{path}?{urlencode(told)}" if told else path

    def _latest_attempt(self, path: str) -> str:
        """That is shown where an address names none; empty where it is of no cell."""
        name = unquote(path.removeprefix(self._home)).strip("/").partition("/")[2]
        if name not in self._latest:
            cell = cell_of(self._run, name, None)
            self._latest[name] = str(cell.attempt) if cell else ""
        return self._latest[name]

    def file_of(self, address: str) -> str:
        """Below the folder, with forward slashes."""
        if address not in self._files:
            name = self._name_of(address)
            if name.casefold() in self._taken:
                stem, dot, end = name.rpartition(".")
                name = f"{stem}.{content_hash(address)[:12]}{dot}{end}"
            self._taken.add(name.casefold())
            self._files[address] = name
        return self._files[address]

    def _name_of(self, address: str) -> str:
        split = urlsplit(address)
        path = unquote(split.path.removeprefix(self._home)).strip("/") or "index"
        told = "".join(f".{key}-{_plain(value)}" for key, value in parse_qsl(split.query))
        return (
            f"{'/'.join(map(_plain, path.split('/')))}{told}{'.txt' if path.startswith('text/') else '.html'}"
        )


def _plain(part: str) -> str:
    """For the name of a file on any system: two of them, with what tells attempts and pages apart, fit into one."""
    kept = re.sub(r"[^A-Za-z0-9._-]", "_", part)[:PART_CHARS]
    return f"_{kept}" if kept.startswith(".") else kept
