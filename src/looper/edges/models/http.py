"""What all model servers have in common: a stream of JSON, and many ways to end it wrongly."""

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx

from looper.edges.models.faults import fault, fault_in_stream, typed_faults
from looper.edges.models.sendable import one_line, sendable
from looper.errors import BadInput, ModelReplyBroken, ModelTimeout, ReplyLate
from looper.protocols import Message

FIRST_BYTE_S = 300.0
"""A cold model is loaded from disk before its first token, and a long prompt is read."""
BETWEEN_BYTES_S = 60.0
CONNECT_S = 10.0
GET_S = 30.0
BYTES_PER_TOKEN = 3.0
"""Cautious: English has about four, code about three and a half. Used where a server gives no tokenizer."""
MOST_BYTES = 256 << 20
"""Of one answer, with all that stands around its words."""
_FIELDS = ("event:", "id:", "retry:", ":")
"""Lines of an event stream that hold no data: keep-alives among them."""


@dataclass(frozen=True)
class Patience:
    """How long a server may be silent."""

    first_byte_s: float = FIRST_BYTE_S
    """Until the first word of a reply."""
    between_s: float = BETWEEN_BYTES_S
    """From then on."""


def estimated_tokens(messages: Sequence[Message]) -> int:
    """An upper estimate of the prompt's length for servers that do not count beforehand."""
    return sum(int(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN) + 8 for _, text in messages)


class _Events:
    """JSON objects of an answer that comes in pieces: an event stream, or one object a line, or a single one.

    Lines end at `\\n` and nowhere else. Events are separated by blank lines, which some servers leave out, so what is a whole
    object is one; what is none may go on in the next line.
    """

    def __init__(self, what: str) -> None:
        self._what, self._begun = what, ""
        self._bytes, self._rest = 0, [b""]
        """All that came, and the pieces of the line that is not over."""

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """Raises ModelError for what is no JSON, and for the error that an object reports."""
        self._bytes += len(piece)
        if self._bytes > MOST_BYTES:
            raise ModelReplyBroken(f"{self._what} sent more than {MOST_BYTES >> 20} MiB for one reply.")
        more, *lines = piece.split(b"\n")
        self._rest.append(more)
        for line in lines:
            yield from self._line(b"".join(self._rest))
            self._rest = [line]

    def end(self) -> Iterator[dict[str, Any]]:
        yield from self._line(b"".join(self._rest))
        yield from self._line(b"")

    def _line(self, line: bytes) -> Iterator[dict[str, Any]]:
        text = line.decode("utf-8", "replace").strip()
        if not text and self._begun:
            raise ModelReplyBroken(f"{self._what} sent a line that is no JSON: {one_line(self._begun)[:80]}")
        data = text.removeprefix("data:").strip()
        if not data or data == "[DONE]" or text.startswith(_FIELDS):
            return
        self._begun = f"{self._begun}\n{data}".lstrip("\n")
        if not data.endswith(("}", "]")):
            return
        try:
            event = json.loads(self._begun)
        except json.JSONDecodeError:
            return
        self._begun = ""
        if isinstance(event, dict):
            error = event.get("error") or (event if event.get("object") == "error" else None)
            if error:
                raise fault_in_stream(self._what, error)
            yield event


@cache
def _certificates() -> ssl.SSLContext:
    """Those that are trusted, read once: it takes longer than a short reply."""
    return httpx.create_ssl_context()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One for all, in a thread of its own: whoever asks may be in a thread that runs a loop already."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="model-servers", daemon=True).start()
    return loop


class Server:
    """One model server, whose faults are typed."""

    def __init__(
        self, what: str, url: str, headers: dict[str, str], how_to_start: str, patience: Patience
    ) -> None:
        """`what` names it in messages. Raises BadInput for a key that no header can hold."""
        if not all(value.isascii() for value in headers.values()):
            raise BadInput(f"The key for {what[:1].lower()}{what[1:]} holds characters that no key has.")
        self.what = what
        self._url, self._headers = url, headers
        self._how_to_start, self._patience = how_to_start, patience

    def get(self, path: str, missing: str = "") -> tuple[Any, httpx.Headers]:
        """A whole JSON answer that is well. Raises ModelError; `missing` is said where there is no such thing."""
        with self.typed_faults(), httpx.Client(verify=_certificates()) as client:
            response = client.get(f"{self._url}{path}", headers=self._headers, timeout=GET_S)
            if response.status_code != 200:
                raise fault(self.what, response.status_code, response.text, response.headers, missing=missing)
            return response.json(), response.headers

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
            answer = asyncio.run_coroutine_threadsafe(
                self._stream(path, body, total_s, hear, missing), _loop()
            )
            try:
                answer.result()
            except BaseException:
                answer.cancel()  # Whoever asked was interrupted.
                raise

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
        end, allowed_s = now() + total_s, self._patience.first_byte_s
        waits = httpx.Timeout(None, connect=min(CONNECT_S, total_s))
        data = json.dumps(sendable(body), ensure_ascii=False).encode()
        headers = {**self._headers, "Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout_at(min(end, now() + allowed_s)) as silence,
                httpx.AsyncClient(verify=_certificates(), timeout=waits) as client,
                client.stream("POST", f"{self._url}{path}", content=data, headers=headers) as response,
            ):
                if response.status_code != 200:
                    text = (await response.aread()).decode("utf-8", "replace")
                    raise fault(self.what, response.status_code, text, response.headers, missing=missing)
                events = _Events(self.what)
                async for piece in response.aiter_bytes():
                    for event in events.feed(piece):
                        if hear(event):
                            allowed_s = self._patience.between_s
                    silence.reschedule(min(end, now() + allowed_s))
                for event in events.end():
                    hear(event)
        except TimeoutError as error:
            if now() >= end:
                raise ReplyLate(f"{self.what} did not finish its reply within {total_s:.0f} s.") from error
            raise ModelTimeout(f"{self.what} was silent for {allowed_s:.0f} s.") from error
