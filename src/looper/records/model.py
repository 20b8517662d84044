"""A model by the name that a person gives it."""

from typing import Literal

from looper.records.base import Record


class ModelSpec(Record):
    """A model as a person names it: `nano`, `ollama:qwen2.5-coder:7b`, `gold`."""

    backend: Literal[
        "nano", "mlx", "ollama", "openai", "anthropic", "scripted", "gold", "noop", "predictions"
    ]
    name: str = ""
    """The backend's name for the model, or a path; empty where the backend has one model only."""
    adapter: str = ""
    """Id of an adapter that was trained here, to be served with it; empty for none."""
    base_url: str = ""
    """Of the server; empty for the backend's own default."""
