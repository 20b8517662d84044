"""What all model servers have in common: a stream of JSON, and many ways to end it wrongly.

One event loop serves the requests of all threads. What is read is bounded in bytes and in time at each stage, because a server that
never ends an answer is as common as one that ends it early. What a status means stands in `faults`.
"""

import asyncio
import json
import re
import ssl
import threading
import zlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx

from looper.edges.models.faults import MOST_WORDS, fault, fault_in_stream, typed_faults
from looper.edges.models.sendable import sendable
from looper.errors import (
    BadInput,
    ModelDenied,
    ModelError,
    ModelMissing,
    ModelReplyBroken,
    ModelTimeout,
    ReplyLate,
    one_line,
)
from looper.protocols import Result

FIRST_BYTE_S = 300.0
"""A cold model is loaded from disk before its first token, and a long prompt is read."""
BETWEEN_BYTES_S = 60.0
CONNECT_S = 10.0
GET_S = 30.0
"""For the whole of an answer that nothing has to be thought out for."""
MOST_LISTED = 16 << 20
"""Bytes of such an answer. The longest lists of models take less than one mebibyte."""
MOST_BYTES = 256 << 20
"""Of one answer, with all that stands around its words."""
REFUSAL_S = 10.0
"""For the words of a refusal, whose status is what counts."""
NOTHING_LISTED = (
    "Is the address that of a model server? mlx_lm.server lists nothing until there is a folder for downloaded models: "
    "mkdir -p ~/.cache/huggingface/hub."
)
PIECE = 64 << 10
"""Bytes of a packed body that are unpacked at a time."""
_FIELDS = (b"event:", b"id:", b"retry:", b":")
"""Lines of an event stream that hold no data: keep-alives among them."""
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?')
"""A text of JSON, or one that its line cuts: as long as it goes, without a second try."""


@dataclass(frozen=True)
class Timeouts:
    """How long a server may be silent."""

    first_byte_s: float = FIRST_BYTE_S
    """Until the first word of a reply."""
    between_s: float = BETWEEN_BYTES_S
    """From then on."""


class _Events:
    """JSON objects of an answer that comes in pieces: an event stream, or one object a line, or a single one.

    Lines end at `\\n` and nowhere else. Events are separated by blank lines, which some servers leave out, so one is over
    where all its brackets are closed. Each byte is looked at a fixed number of times, however an answer is cut into lines
    and pieces: all that ask share the thread that reads.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._begun, self._open = bytearray(), 0
        """Of the event that is not over, and how many of its brackets are open."""
        self._bytes, self._rest = 0, bytearray()
        """All that came, counted, and the line that is not over."""

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """Raises ModelError for what is no JSON, and for the error that an object reports."""
        self._bytes += len(piece)
        if self._bytes > MOST_BYTES:
            raise ModelReplyBroken(f"{self._what} sent more than {MOST_BYTES >> 20} MiB for one reply.")
        first, *more = piece.split(b"\n")
        self._rest += first
        if more:
            lines, self._rest = [bytes(self._rest), *more[:-1]], bytearray(more[-1])
            for line in lines:
                yield from self._line(line)

    def end(self) -> Iterator[dict[str, Any]]:
        yield from self._line(bytes(self._rest))
        yield from self._line(b"")

    def _line(self, line: bytes) -> Iterator[dict[str, Any]]:
        line = line.strip()
        if not line and self._begun:
            raise self._no_json()
        data = line.removeprefix(b"data:").strip()
        if not data or data == b"[DONE]" or line.startswith(_FIELDS):
            return
        self._begun += b"\n" + data
        # A text of JSON goes over no line's end, so brackets in texts are known for what they are line by line.
        outside = _TEXT.sub(b"", data) if b'"' in data else data
        self._open += outside.count(b"[") + outside.count(b"{") - outside.count(b"]") - outside.count(b"}")
        if self._open > 0:
            return
        try:
            event = json.loads(self._begun.decode("utf-8", "replace"))
        except json.JSONDecodeError as unread:
            raise self._no_json() from unread
        self._begun, self._open = bytearray(), 0
        if isinstance(event, dict):
            error = event.get("error") or (event if event.get("object") == "error" else None)
            if error:
                raise fault_in_stream(self._what, error)
            yield event

    def _no_json(self) -> ModelReplyBroken:
        begin = one_line(self._begun.decode("utf-8", "replace"), 80)
        return ModelReplyBroken(f"{self._what} sent a line that is no JSON: {begin}")


async def _pieces(what: str, response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """A body as it comes, unpacked, in pieces between which others have their turn. Raises ModelError.

    A packed body can be a thousand times larger than what was sent, and packed again a million times.
    """
    packed = response.headers.get("content-encoding", "").strip().lower()
    if packed not in ("", "identity", "gzip", "deflate"):
        raise ModelReplyBroken(
            f"{what} sent a body that is packed ({one_line(packed, 60)}), and was asked not to. Turn that off there."
        )
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed in ("gzip", "deflate") else None
    try:
        async for piece in response.aiter_raw():
            if unpacking is None:
                yield piece
                continue
            while piece:
                yield unpacking.decompress(piece, PIECE)
                piece = unpacking.unconsumed_tail
                await asyncio.sleep(0)
        if unpacking is not None:
            yield unpacking.flush()
    except zlib.error as error:
        raise ModelReplyBroken(f"{what} sent a packed body that is damaged: {error}.") from error


@cache
def certificates() -> ssl.SSLContext:
    """Those that are trusted, read once: it takes longer than a short reply."""
    return httpx.create_ssl_context()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One for all, in a thread of its own: whoever asks may be in a thread that runs a loop already."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="model-servers", daemon=True).start()
    return loop


def _asked(asking: Coroutine[Any, Any, Result]) -> Result:
    """What comes of it, on the loop of all; it ends where whoever asks is interrupted."""
    answer = asyncio.run_coroutine_threadsafe(asking, _loop())
    try:
        return answer.result()
    except BaseException:
        answer.cancel()
        raise


class Server:
    """One model server, whose faults are typed."""

    def __init__(
        self,
        what: str,
        url: str,
        headers: dict[str, str],
        how_to_start: str,
        timeouts: Timeouts,
        how_to_enter: str = "",
    ) -> None:
        """`what` names it in messages, `how_to_enter` says what to do where it refuses the key. Raises BadInput for a key that no header
        can hold."""
        if not all(value.isascii() and value.isprintable() for value in headers.values()):
            raise BadInput(f"The key for {what[:1].lower()}{what[1:]} holds characters that no key has.")
        self.what = what
        self._url, self._headers = url, {**headers, "Accept-Encoding": "identity"}
        self._how_to_start, self._how_to_enter, self._patience = how_to_start, how_to_enter, timeouts

    def get(self, path: str, missing: str = "", total_s: float = GET_S) -> tuple[Any, httpx.Headers]:
        """A whole JSON answer that is well. Raises ModelError; `missing` is said where there is no such thing, or a page for people."""
        with self.typed_faults():
            whole = self._whole("GET", path, missing, min(total_s, self._patience.first_byte_s))
            body, headers = _asked(whole)
            begin = body.lstrip()[:1]
            if begin == b"<":
                raise ModelMissing(
                    missing or f"{self.what} has a page at {path}. Is the address that of a model server?"
                )
            if not begin:
                raise ModelReplyBroken(f"{self.what} answers {path} with nothing. {NOTHING_LISTED}")
            return json.loads(body), headers

    def post(self, path: str, body: Mapping[str, Any], total_s: float) -> bytes:
        """A whole answer that is well, whatever it says. Raises ModelError."""
        with self.typed_faults():
            return _asked(self._whole("POST", path, "", total_s, json=sendable(body)))[0]

    def typed_faults(self) -> AbstractContextManager[None]:
        """Around whatever reads an answer."""
        return typed_faults(self.what, self._how_to_start)

    def stream(
        self,
        path: str,
        body: Mapping[str, Any],
        total_s: float,
        hear: Callable[[dict[str, Any]], bool],
        missing: str = "",
    ) -> None:
        """Ask, and hand every JSON object of the answer to `hear` as it comes, which says whether words have come yet.

        Raises ModelError: ReplyLate where the answer is not over after `total_s`, ModelTimeout where the server was silent
        for longer than is allowed before that.
        """
        with self.typed_faults():
            _asked(self._stream(path, body, total_s, hear, missing))

    async def _whole(
        self, method: str, path: str, missing: str, total_s: float, **sent: Any
    ) -> tuple[bytes, httpx.Headers]:
        body = bytearray()
        try:
            async with (
                asyncio.timeout(total_s),
                self._answered(method, path, total_s, missing, headers=self._headers, **sent) as response,
            ):
                async for piece in _pieces(self.what, response):
                    body += piece
                    if len(body) > MOST_LISTED:
                        raise ModelReplyBroken(
                            f"{self.what} sent more than {MOST_LISTED >> 20} MiB for {path}. Is the address that of a model "
                            "server?"
                        )
                return bytes(body), response.headers
        except TimeoutError as error:
            raise ModelTimeout(f"{self.what} did not finish {path} within {total_s:.0f} s.") from error

    @asynccontextmanager
    async def _answered(
        self, method: str, path: str, total_s: float, missing: str, **sent: Any
    ) -> AsyncGenerator[httpx.Response, None]:
        """An answer that is well, while it comes. Raises ModelError for any other."""
        url = httpx.URL(f"{self._url}{path}")
        if (
            url.port or 0
        ) > 65535:  # httpx lets it through, and the socket's refusal comes in a group of errors.
            raise httpx.InvalidURL(f"{url.port} is no port")
        waits = httpx.Timeout(None, connect=min(CONNECT_S, total_s))
        async with (
            httpx.AsyncClient(verify=certificates(), timeout=waits) as client,
            client.stream(method, url, **sent) as response,
        ):
            if response.status_code != 200:
                raise await self._refusal(response, missing)
            yield response

    async def _refusal(self, response: httpx.Response, missing: str) -> ModelError:
        """What an answer that is not well says, by its status and the beginning of its words, however these end."""
        said = bytearray()
        with suppress(TimeoutError, httpx.HTTPError, ModelError):
            async with asyncio.timeout(REFUSAL_S), aclosing(_pieces(self.what, response)) as pieces:
                async for piece in pieces:
                    said += piece
                    if len(said) >= MOST_WORDS:
                        break
        words = said[:MOST_WORDS].decode("utf-8", "replace")
        found = fault(self.what, response.status_code, words, response.headers, missing=missing)
        if isinstance(found, ModelDenied) and self._how_to_enter:
            whole = f"{str(found).rstrip('.')}. {self._how_to_enter}"
            return ModelDenied(whole, message_if_others_answered=found.message_if_others_answered)
        return found

    async def _stream(
        self,
        path: str,
        body: Mapping[str, Any],
        total_s: float,
        hear: Callable[[dict[str, Any]], bool],
        missing: str,
    ) -> None:
        # A client's own read timeout cannot change once an answer has begun, so the loop's clock keeps all of them.
        now = asyncio.get_running_loop().time
        end, allowed_s, heard = now() + total_s, self._patience.first_byte_s, False
        data = json.dumps(sendable(body), ensure_ascii=False).encode()
        headers = {**self._headers, "Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout_at(min(end, now() + allowed_s)) as silence,
                self._answered("POST", path, total_s, missing, content=data, headers=headers) as response,
            ):
                events = _Events(self.what)
                async for piece in _pieces(self.what, response):
                    for event in events.feed(piece):
                        if hear(event):
                            allowed_s, heard = self._patience.between_s, True
                    silence.reschedule(min(end, now() + allowed_s))
                for event in events.end():
                    hear(event)
        except TimeoutError as error:
            if now() >= end:
                late = ReplyLate(f"{self.what} did not finish its reply within {total_s:.0f} s.")
                late.silent = not heard
                raise late from error
            raise ModelTimeout(f"{self.what} was silent for {allowed_s:.0f} s.") from error
