"""What all model servers have in common: a stream of lines, and many ways to end it wrongly."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from looper.errors import (
    ModelDenied,
    ModelError,
    ModelFatal,
    ModelMissing,
    ModelOverloaded,
    ModelReplyBroken,
    ModelServerFault,
    ModelTimeout,
    ModelUnpaid,
    ModelUnreachable,
)
from looper.protocols import Message

FIRST_BYTE_S = 300.0
"""A cold model is loaded from disk before its first token."""
BETWEEN_BYTES_S = 60.0
CONNECT_S = 10.0
GET_S = 30.0
BYTES_PER_TOKEN = 3.0
"""Cautious: English has about four, code about three and a half. Used where a server gives no tokenizer."""
MOST_BYTES_PER_TOKEN = 16.0
"""No tokenizer reads ordinary text with fewer tokens than this; a server that says so has cut the prompt."""


@dataclass(frozen=True)
class Patience:
    """How long a server may be silent."""

    first_byte_s: float = FIRST_BYTE_S
    between_s: float = BETWEEN_BYTES_S


def estimated_tokens(messages: Sequence[Message]) -> int:
    """An upper estimate of the prompt's length for servers that do not count beforehand."""
    return sum(int(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN) + 8 for _, text in messages)


def prompt_was_cut(messages: Sequence[Message], counted: int) -> bool:
    """Whether a server counted fewer prompt tokens than the text can possibly have."""
    size = sum(len(text.encode("utf-8", "replace")) for _, text in messages)
    return counted < size / MOST_BYTES_PER_TOKEN


@contextmanager
def typed_faults(server: str, how_to_start: str) -> Iterator[None]:
    """Turn what the network does into Looper's model errors."""
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise ModelUnreachable(f"{server} does not answer. {how_to_start}") from error
    except httpx.TimeoutException as error:
        raise ModelTimeout(f"{server} was silent for too long.") from error
    except (httpx.ConnectError, ConnectionError) as error:
        raise ModelUnreachable(f"{server} cannot be reached. {how_to_start}") from error
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
        raise ModelReplyBroken(f"{server} cut its reply: {error}.") from error
    except httpx.HTTPError as error:
        raise ModelUnreachable(f"{server}: {error}. {how_to_start}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelReplyBroken(f"{server} sent a line that is no JSON: {error}.") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelReplyBroken(
            f"{server} sent a reply of another shape: {type(error).__name__} {error}."
        ) from error


def status_error(server: str, status: int, body: str, headers: httpx.Headers | None = None) -> ModelError:
    """The error that an HTTP status stands for."""
    said = _said(body)
    if status == 404:
        return ModelMissing(f"{server}: {said}")
    if status == 429 and headers is not None and "retry-after" not in headers and _is_spend_limit(said):
        return ModelUnpaid(f"{server} has reached a spending limit: {said}")
    if status in (429, 503, 529):
        return ModelOverloaded(
            f"{server} is overloaded ({status}): {said}", retry_after_s=_retry_after(headers)
        )
    if status in (401, 403):
        return ModelDenied(f"{server} refused the key ({status}): {said}")
    if status == 402 or (status == 400 and _is_spend_limit(said)):
        return ModelUnpaid(f"{server} wants to be paid ({status}): {said}")
    if status in (400, 413, 422):
        return ModelFatal(f"{server} refused the request ({status}): {said}")
    return ModelServerFault(f"{server} failed ({status}): {said}")


def _is_spend_limit(said: str) -> bool:
    return any(word in said.lower() for word in ("quota", "credit", "billing", "spend"))


def _said(body: str) -> str:
    try:
        found = json.loads(body)
        found = found.get("error", found) if isinstance(found, dict) else found
        found = found.get("message", found) if isinstance(found, dict) else found
        return str(found)[:300]
    except ValueError:
        return body.strip()[:300] or "no explanation"


def _retry_after(headers: httpx.Headers | None) -> float | None:
    value = headers.get("retry-after") if headers is not None else None
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        return None


class Deadline:
    """The end of the time that a whole reply may take."""

    def __init__(self, seconds: float, what: str) -> None:
        self._until, self._seconds, self._what = time.monotonic() + seconds, seconds, what

    def check(self) -> None:
        if time.monotonic() > self._until:
            raise ModelTimeout(f"{self._what} did not finish its reply within {self._seconds:.0f} s.")


def timeouts(patience: Patience, total_s: float) -> httpx.Timeout:
    return httpx.Timeout(
        min(max(patience.first_byte_s, patience.between_s), total_s), connect=min(CONNECT_S, total_s)
    )


class Server:
    """One model server, whose faults are typed."""

    def __init__(
        self, what: str, url: str, headers: dict[str, str], how_to_start: str, patience: Patience
    ) -> None:
        """`what` names it in messages."""
        self.what = what
        self._url, self._headers = url, headers
        self._how_to_start, self._patience = how_to_start, patience
        self._client = httpx.Client()

    def get(self, path: str) -> httpx.Response:
        """A whole answer that is well. Raises ModelError."""
        with self.typed_faults():
            response = self._client.get(f"{self._url}{path}", headers=self._headers, timeout=GET_S)
            if response.status_code != 200:
                raise status_error(self.what, response.status_code, response.text, response.headers)
        return response

    def typed_faults(self) -> AbstractContextManager[None]:
        """Around whatever reads an answer."""
        return typed_faults(self.what, self._how_to_start)

    def events(self, path: str, body: dict[str, Any], total_s: float) -> Iterator[dict[str, Any]]:
        """JSON payloads of a server-sent event stream, `[DONE]` as an empty one. Raises ModelError."""
        deadline = Deadline(total_s, self.what)
        with self._client.stream(
            "POST",
            f"{self._url}{path}",
            json=body,
            headers=self._headers,
            timeout=timeouts(self._patience, total_s),
        ) as response:
            if response.status_code != 200:
                response.read()
                raise status_error(self.what, response.status_code, response.text, response.headers)
            for line in response.iter_lines():
                deadline.check()
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                event = {} if data == "[DONE]" else json.loads(data)
                if event.get("error"):
                    raise ModelServerFault(f"{self.what} broke off: {_said(json.dumps(event))}")
                yield event

    def close(self) -> None:
        self._client.close()
