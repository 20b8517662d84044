"""Likeness of texts by the embeddings of a model that Ollama serves."""

import threading
from collections.abc import Sequence
from typing import Any

import httpx

from looper.edges.models.http import Patience, timeouts
from looper.edges.models.ollama import DEFAULT_URL, HOW_TO_START
from looper.errors import ModelMissing, ModelUnreachable


class OllamaEmbeddings:
    """Cosines between a question and texts. Each text is embedded once."""

    def __init__(self, name: str, base_url: str = "") -> None:
        import ollama

        self._name, self._server = name, base_url or DEFAULT_URL
        self._client: Any = ollama.Client(host=self._server, timeout=timeouts(Patience(), 600))
        self._refused: Any = ollama.ResponseError
        self._known: dict[str, Sequence[float]] = {}
        self._lock = threading.Lock()

    def __call__(self, question: str, texts: Sequence[str]) -> list[float]:
        """Raises ModelMissing or ModelUnreachable."""
        with self._lock:
            new = [text for text in dict.fromkeys((question, *texts)) if text not in self._known]
            if new:
                self._known |= dict(zip(new, self._embedded(new), strict=True))
            return [cosine(self._known[question], self._known[text]) for text in texts]

    def _embedded(self, texts: Sequence[str]) -> list[Sequence[float]]:
        try:
            found = self._client.embed(model=self._name, input=list(texts)).embeddings
        except self._refused as error:
            raise ModelMissing(
                f"Ollama at {self._server} gives no embeddings with {self._name}: {error.error}. "
                f"Get it with: ollama pull {self._name}"
            ) from error
        except (httpx.TransportError, ConnectionError) as error:
            raise ModelUnreachable(f"Ollama at {self._server} cannot be reached. {HOW_TO_START}") from error
        return list(found)


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """0 where either has no length."""
    lengths = [sum(value * value for value in vector) ** 0.5 for vector in (first, second)]
    if not all(lengths):
        return 0.0
    return float(sum(a * b for a, b in zip(first, second, strict=True)) / (lengths[0] * lengths[1]))
