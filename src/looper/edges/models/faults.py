"""What a server's refusal means: whether it can pass, is this conversation's own, or is true of every request.

Servers agree on neither statuses nor words. mlx_lm.server answers 404 to whatever its generator raises, a chat template's
refusal among it; vLLM reports bad requests inside a stream under 200; a window that is too small is 400, 413 or 500, with
or without a code. So words decide where a status leaves open what was meant.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from looper.edges.trainers.encoding import OTHER_TEMPLATE
from looper.errors import (
    ContextOverflow,
    ModelDenied,
    ModelError,
    ModelMissing,
    ModelOverloaded,
    ModelReplyBroken,
    ModelServerFault,
    ModelUnfit,
    ModelUnpaid,
    ModelUnreachable,
    RequestRefused,
    one_line,
)

MOST_WORDS = 32 << 10
"""Of a refusal: what came of it is said by its beginning."""
_OVERFLOW = re.compile(
    r"context[ _](length|window|size|limit)|(maximum|max)[ _](model|prompt|input|context)[ _]len"
    r"|(prompt|input) is too long|too many (input )?tokens|reduce the length|maximum number of tokens"
    r"|max_new_tokens\W+must be|must have less than \d+ tokens"
)
"""Of vLLM, SGLang, TGI, llama.cpp, llama-cpp-python, Ollama, LM Studio, OpenAI, Anthropic, Google, Mistral, xAI, Groq, Cohere
and Bedrock; codes such as `context_length_exceeded` and `exceed_context_size_error` are among them."""
_TEMPLATE = re.compile(
    r"chat[ _]template|jinja|system role|system (message|instruction|prompt)s? (is |are )?not|roles? must alternate"
    r"|roles are supported|developer instruction is not"
)
_FLAGGED = re.compile(r"moderation|flagged|content[ _](management[ _])?(policy|filter)")
_SPENDING = re.compile(
    r"current quota|insufficient[ _](quota|credit|balance|funds)|credit balance|billing|spend(ing)? limit"
)
_MESSAGES = re.compile(r"messages?\b|content|prompt")
"""What differs from one conversation to the next."""
_PARAMETER = re.compile(
    r"param|option|field|unsupported|not support|unknown|unrecogni[sz]ed|extra input|not permitted|must be|invalid type"
)
_STATUS_OF = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "exceed_context_size_error": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "authentication_error": 401,
    "insufficient_quota": 402,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "notfounderror": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "overloaded_error": 529,
    "unavailable_error": 503,
}
"""Of errors that come without a status of their own, by their type or code."""


def fault(
    server: str, status: int, body: str, headers: Mapping[str, str] | None = None, *, missing: str = ""
) -> ModelError:
    """The error that a status and the words beside it stand for. `missing` is said where the model is not there."""
    said, words = said_in(body), body.lower()
    about = said.lower()
    message_if_others_answered = f"{server} refused this conversation and answers others ({status}): {said}"
    wants = headers is None or "retry-after" in headers
    match status:
        case 400 | 403 if _FLAGGED.search(words):
            return RequestRefused(f"{server} does not answer this conversation ({status}): {said}")
        case 401 | 403:
            return ModelDenied(
                f"{server} refused the key ({status}): {said}",
                message_if_others_answered=message_if_others_answered if status == 403 else "",
            )
        case 402:
            return ModelUnpaid(f"{server} wants to be paid ({status}): {said}")
        case 400 | 429 if _SPENDING.search(words) and not (status == 429 and wants):
            return ModelUnpaid(f"{server} has reached a spending limit ({status}): {said}")
        case 429 | 503 | 529:
            return ModelOverloaded(
                f"{server} is overloaded ({status}): {said}", retry_after_s=_retry_after(headers)
            )
        case 413:
            return ContextOverflow(f"{server} has no room for this prompt ({status}): {said}")
        case 400 | 404 | 422 | 500 if _OVERFLOW.search(words):
            return ContextOverflow(f"{server} has no room for this prompt ({status}): {said}")
        case 400 | 404 | 422 | 500 if _TEMPLATE.search(words):
            return ModelUnfit(
                f"{server} cannot take our messages ({status}): {said.rstrip('.')}. {OTHER_TEMPLATE}",
                message_if_others_answered=message_if_others_answered,
            )
        case 500 if "unable to load model" in words:
            # Ollama, of a file of an architecture that it does not know.
            return ModelUnfit(
                f"{server} cannot load the model ({status}): {said.rstrip('.')}. Get its file again, or a version of the server that knows "
                "its architecture."
            )
        case 404 | 410:
            return ModelMissing(
                missing or f"{server}: {said}", message_if_others_answered=message_if_others_answered
            )
        case 400 | 422 if _PARAMETER.search(about) and not _MESSAGES.search(about):
            return ModelUnfit(
                f"{server} refused what every request says ({status}): {said}",
                message_if_others_answered=message_if_others_answered,
            )
        case 400 | 422:
            return RequestRefused(f"{server} refused the request ({status}): {said}")
        case _ if status >= 500 or status in (408, 409, 425):
            return ModelServerFault(f"{server} failed ({status}): {said}")
        case _:
            return ModelMissing(
                f"{server} answers {status}: {said.rstrip('.')}. Is the address that of a model server?",
                message_if_others_answered=message_if_others_answered,
            )


def fault_in_stream(server: str, error: Any) -> ModelError:
    """The error that was reported where a reply should have been, under a status of 200."""
    told = error if isinstance(error, Mapping) else {}
    found = 0
    for value in (told.get(key) for key in ("code", "status", "status_code", "type")):
        named = str(value).lower()
        found = found or _STATUS_OF.get(named, int(named) if named.isdecimal() and len(named) == 3 else 0)
    return fault(server, found if found >= 400 else 500, json.dumps({"error": error})[:MOST_WORDS])


def said_in(body: str) -> str:
    """What a server says went wrong, in one line that can be printed."""
    try:
        found = json.loads(body)
        for key in ("error", "detail", "message"):
            if isinstance(found, dict) and found.get(key):
                found = found[key]
        return one_line(found if isinstance(found, str) else json.dumps(found))
    except (ValueError, RecursionError):
        return one_line(body) or "no explanation"


def _retry_after(headers: Mapping[str, str] | None) -> float | None:
    value = headers.get("retry-after") if headers is not None else None
    try:
        seconds = float(value or "nan")
    except ValueError:
        return None
    return None if math.isnan(seconds) else max(0.0, seconds)


@contextmanager
def typed_faults(server: str, how_to_start: str) -> Iterator[None]:
    """Turn what the network does into Looper's model errors."""
    try:
        yield
    except ModelError:
        raise
    except httpx.ConnectTimeout as error:
        raise ModelUnreachable(f"{server} does not answer. {how_to_start}") from error
    except (httpx.ConnectError, ConnectionError) as error:
        raise ModelUnreachable(f"{server} cannot be reached. {how_to_start}") from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise ModelMissing(f"{server} has no address that can be used: {one_line(str(error))}") from error
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
        said = one_line(str(error)).rstrip(".") or type(error).__name__
        if said.startswith("Server disconnected without"):
            raise ModelUnreachable(f"{server} hung up without an answer. {how_to_start}") from error
        if said.startswith("illegal status line"):
            raise ModelMissing(
                f"{server} does not speak HTTP. Is the address that of a model server, and http or https right?"
            ) from error
        raise ModelReplyBroken(f"{server} cut its reply: {said}.") from error
    except httpx.HTTPError as error:
        said = one_line(str(error)).rstrip(".") or type(error).__name__
        raise ModelUnreachable(f"{server}: {said}. {how_to_start}") from error
    except json.JSONDecodeError as error:
        raise ModelReplyBroken(f"{server} sent a line that is no JSON: {error}.") from error
    except (
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
        IndexError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ModelReplyBroken(
            f"{server} sent a reply of another shape: {type(error).__name__} {one_line(str(error)).rstrip('.')}."
        ) from error
