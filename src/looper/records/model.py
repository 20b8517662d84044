"""A model by the name that a person gives it."""

from typing import Annotated, Literal

from pydantic import Field

from looper.records.base import Record

Backend = Literal["nano", "mlx", "ollama", "openai", "anthropic", "scripted", "gold", "noop", "predictions"]


class ModelSpec(Record):
    """A model as a person names it: `nano`, `ollama:qwen2.5-coder:7b`, `gold`."""

    backend: Backend
    """What serves it."""
    name: Annotated[str, Field(examples=["qwen2.5-coder:7b"])] = ""
    """The backend's name for the model, or a path; empty where the backend has one model only."""
    adapter: Annotated[str, Field(examples=["3f2a91c04d5e6b78"])] = ""
    """Id of an adapter that was trained here, to be served with it; empty for none."""
    base_url: Annotated[str, Field(examples=["http://127.0.0.1:11434"])] = ""
    """Of the server; empty for the backend's own default."""

    @property
    def is_control(self) -> bool:
        """Whether it is there to show that the tests run, and decides nothing."""
        return self.backend in ("gold", "noop")

    @property
    def reads(self) -> bool:
        """Whether what it says depends on its prompt."""
        return not self.is_control and self.backend not in ("scripted", "predictions")

    @property
    def shows_losses(self) -> bool:
        """Whether it says how likely a text is, carries adapters and can be trained here."""
        return self.backend in ("nano", "mlx")

    @property
    def fills_a_machine(self) -> bool:
        """Whether it runs here and may be large."""
        return self.backend in ("mlx", "ollama")

    @property
    def is_small(self) -> bool:
        """Whether many rollouts at once cost it nothing."""
        return self.backend == "nano" or not self.reads
