"""A model by the name that a person gives it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from looper.records.base import Record

Backend = Literal[
    "nano",
    "mlx",
    "ollama",
    "openai",
    "vllm",
    "anthropic",
    "scripted",
    "gold",
    "noop",
    "expert",
    "predictions",
]


@dataclass(frozen=True)
class BackendTraits:
    """What a backend is like, for all that treats backends differently without speaking to them."""

    named: Literal["always", "file", "maybe", "never"] = "always"
    """Whether a model's name follows after a colon; whether it is that of a file, which nodes of a cluster are not sent."""
    address_after: str = ""
    """What stands between a model's name and its server's address; empty where there is no server."""
    key: str = ""
    """The environment variable that holds the key of whoever serves it; empty where none is asked for."""
    reads: bool = True
    """Whether what it says depends on its prompt."""
    shows_losses: bool = False
    """Whether it says how likely a text is, carries adapters and can be trained here."""
    may_carry_adapters: bool = False
    """Whether its server may take an adapter that was trained here on the same weights."""
    fills_a_machine: bool = False
    """Whether it runs here and may be large."""
    is_small: bool = False
    """Whether many rollouts at once cost it nothing, so that there are more workers than two."""
    highest_temperature: float | None = None
    """That it takes: 0 where it draws nothing, None for no bound or where what it says does not depend on its prompt."""
    sampling: tuple[str, ...] | None = None
    """Keys of a plan's `sampling` that it can be told; None for all, and where only its server says which."""
    has_roles: bool = True
    """Whether it can have a role of evolve: it answers any prompt, and needs no process, task or file of patches for that."""


BACKENDS: Mapping[Backend, BackendTraits] = {
    "nano": BackendTraits(named="maybe", shows_losses=True, is_small=True, has_roles=False),
    "mlx": BackendTraits(shows_losses=True, fills_a_machine=True, has_roles=False),
    "ollama": BackendTraits(address_after="@", fills_a_machine=True, may_carry_adapters=True),
    "openai": BackendTraits(address_after="@", key="OPENAI_API_KEY", may_carry_adapters=True),
    "vllm": BackendTraits(address_after="@", key="VLLM_API_KEY", may_carry_adapters=True),
    # Models of Anthropic may have an @ in their names.
    "anthropic": BackendTraits(
        address_after="@http", key="ANTHROPIC_API_KEY", highest_temperature=1.0, sampling=("top_k", "top_p")
    ),
    "scripted": BackendTraits(named="file", reads=False, is_small=True),
    "gold": BackendTraits(named="never", reads=False, is_small=True, has_roles=False),
    "noop": BackendTraits(named="never", reads=False, is_small=True, has_roles=False),
    "expert": BackendTraits(named="never", reads=False, is_small=True, has_roles=False),
    "predictions": BackendTraits(reads=False, is_small=True, has_roles=False),
}
SERVERS: tuple[Backend, ...] = tuple(name for name, traits in BACKENDS.items() if traits.address_after)
"""Backends that are spoken to at an address."""


class ModelSpec(Record):
    """A model as a person names it: `nano`, `ollama:qwen2.5-coder:7b`, `gold`."""

    backend: Backend
    """What serves it."""
    name: Annotated[str, Field(examples=["qwen2.5-coder:7b"])] = ""
    """The backend's name for the model, or a path; empty where the backend has one model only."""
    adapter: Annotated[str, Field(examples=["3f2a91c04d5e6b78"])] = ""
    """Id of an adapter that was trained here, to be served with it; empty for none."""
    base_url: Annotated[str, Field(examples=["http://127.0.0.1:11434"])] = ""
    """Of the server; empty for the backend's own default. Several, with commas between them, are servers of the same model."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of each of its servers."""
        return tuple(self.base_url.split(","))

    @property
    def is_control(self) -> bool:
        """Whether it is there to show that the tests run, and decides nothing."""
        return self.backend in ("gold", "noop")

    @property
    def reads(self) -> bool:
        """Whether what it says depends on its prompt."""
        return BACKENDS[self.backend].reads

    @property
    def shows_losses(self) -> bool:
        """Whether it says how likely a text is, carries adapters and can be trained here."""
        return BACKENDS[self.backend].shows_losses

    @property
    def carries_adapters(self) -> bool:
        """Whether it can have an adapter: it was trained here, or its server may take it."""
        return self.shows_losses or BACKENDS[self.backend].may_carry_adapters

    @property
    def carried_there(self) -> bool:
        """Whether it has an adapter on a server of another process."""
        return bool(self.adapter) and not self.shows_losses

    @property
    def fills_a_machine(self) -> bool:
        """Whether it runs here and may be large."""
        return BACKENDS[self.backend].fills_a_machine

    @property
    def is_small(self) -> bool:
        """Whether many rollouts at once cost it nothing."""
        return BACKENDS[self.backend].is_small
