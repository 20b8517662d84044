"""Likeness of texts by the embeddings of a model that Ollama serves."""

import threading
from collections.abc import Sequence
from typing import Any

from looper.edges.models.http import Patience, Server
from looper.edges.models.ollama import DEFAULT_URL, HOW_TO_START
from looper.errors import ModelReplyBroken

WHOLE_S = 600.0


class OllamaEmbeddings:
    """Cosines between a question and texts. Each text is embedded once."""

    def __init__(self, name: str, base_url: str = "") -> None:
        url = (base_url or DEFAULT_URL).rstrip("/")
        self._name, self._server = name, Server(f"Ollama at {url}", url, {}, HOW_TO_START, Patience())
        self._missing = (
            f"{self._server.what} gives no embeddings with {name}. Get it with: ollama pull {name}"
        )
        self._known: dict[str, Sequence[float]] = {}
        self._lock = threading.Lock()

    def __call__(self, question: str, texts: Sequence[str]) -> list[float]:
        """Raises ModelError."""
        with self._lock:
            new = [text for text in dict.fromkeys((question, *texts)) if text not in self._known]
            if new:
                self._known |= dict(zip(new, self._embedded(new), strict=True))
            return [cosine(self._known[question], self._known[text]) for text in texts]

    def _embedded(self, texts: Sequence[str]) -> list[Sequence[float]]:
        found: list[Sequence[float]] = []

        def hear(answer: dict[str, Any]) -> bool:
            found.extend(answer["embeddings"])
            return True

        self._server.stream("/api/embed", {"model": self._name, "input": texts}, WHOLE_S, hear, self._missing)
        if len(found) != len(texts):
            raise ModelReplyBroken(f"{self._server.what} embedded {len(found)} of {len(texts)} texts.")
        return found


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """0 where either has no length."""
    lengths = [sum(value * value for value in vector) ** 0.5 for vector in (first, second)]
    if not all(lengths):
        return 0.0
    return float(sum(a * b for a, b in zip(first, second, strict=True)) / (lengths[0] * lengths[1]))
