"""Likeness of texts by the embeddings of a model that Ollama serves."""

import math
import operator
import threading
from collections.abc import Sequence
from typing import Any

from looper.edges.models.http import Server, Timeouts
from looper.edges.models.ollama import DEFAULT_URL, HOW_TO_START
from looper.errors import ModelReplyBroken
from looper.records.text import counted

WHOLE_S = 600.0


class OllamaEmbeddings:
    """Cosines between a question and texts, 0 with what has no length. Each text is embedded once."""

    def __init__(self, name: str, base_url: str = "") -> None:
        url = (base_url or DEFAULT_URL).rstrip("/")
        self._name, self._server = name, Server(f"Ollama at {url}", url, {}, HOW_TO_START, Timeouts())
        self._missing = (
            f"{self._server.what} gives no embeddings with {name}. Get it with: ollama pull {name}"
        )
        self._known: dict[str, Sequence[float]] = {}
        """Each of length 1, or of length 0."""
        self._lock = threading.Lock()

    def __call__(self, question: str, texts: Sequence[str]) -> list[float]:
        """Raises ModelError."""
        with self._lock:
            new = [text for text in dict.fromkeys((question, *texts)) if text not in self._known]
            if new:
                self._known |= dict(zip(new, self._embedded(new), strict=True))
            asked = self._known[question]
            return [sum(map(operator.mul, asked, self._known[text])) for text in texts]

    def _embedded(self, texts: Sequence[str]) -> list[Sequence[float]]:
        found: list[Sequence[float]] = []

        def hear(answer: dict[str, Any]) -> bool:
            found.extend(direction(vector) for vector in answer["embeddings"])
            return True

        self._server.stream("/api/embed", {"model": self._name, "input": texts}, WHOLE_S, hear, self._missing)
        if len(found) != len(texts):
            raise ModelReplyBroken(
                f"{self._server.what} embedded {len(found)} of {counted(len(texts), 'text')}."
            )
        if len({len(vector) for vector in (*found, *self._known.values())}) > 1:
            raise ModelReplyBroken(f"{self._server.what} embedded texts in vectors of different lengths.")
        return found


def direction(vector: Sequence[float]) -> Sequence[float]:
    """The same of length 1, or of length 0. Raises ValueError, TypeError or OverflowError for what is no vector."""
    values = [float(value) for value in vector]
    if not all(map(math.isfinite, values)):
        raise ValueError("a vector that is not finite")
    largest = max(map(abs, values), default=0.0) or 1.0
    length = math.hypot(*(value / largest for value in values)) or 1.0
    return [value / largest / length for value in values]
