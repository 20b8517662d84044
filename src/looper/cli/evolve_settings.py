"""What `looper evolve` works with on a repository: command line before environment, `.env`, `[evolve]` of looper.toml, defaults.

One field is one setting: its name, type, default and what `looper evolve settings` prints of it. `repositories.opened` reads them
once for a command; a lab's process gets what was chosen through its environment (`as_variables`).
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from looper.errors import BadInput
from looper.experiment.plan_errors import plain_words
from looper.records.base import Count
from looper.records.plan import Price
from looper.untrusted import named_text, parsed_toml

PREFIX = "LOOPER_EVOLVE_"
FILE = "looper.toml"
Names = Annotated[tuple[str, ...], NoDecode]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class EvolveSettings(BaseSettings):
    """Each can be set as `LOOPER_EVOLVE_NAME`, in the environment or in `.env`; 0 means without limit only where that is said."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, validate_default=True)

    prime: str = Field("", description="model that proposes, as --model of looper run has it")
    prime_endpoint: str = Field("", description="its server; empty for the provider's own")
    prime_key: SecretStr = Field(SecretStr(""), description="its key; else the provider's variable")
    prime_price: str = Field("", description="US dollars for a million tokens, PROMPT/COMPLETION")
    lab: str = Field("", description="model that carries a contract out")
    lab_endpoint: str = Field("", description="its server")
    lab_key: SecretStr = Field(SecretStr(""), description="its key; it never enters the sandbox")
    lab_price: str = Field("", description="as prime_price")
    reviewer: str = Field("", description="model that reviews; empty for prime's. Not the lab's")
    reviewer_endpoint: str = Field("", description="its server; prime's where the model is prime's")
    reviewer_key: SecretStr = Field(SecretStr(""), description="its key")
    reviewer_price: str = Field("", description="as prime_price")
    review: bool = Field(True, description="whether a reviewer must approve")
    base: str = Field("", description="branch to begin from; empty for the one that is checked out")
    branch: str = Field(
        "evolve/active", description="branch that carries what is promoted; checked out nowhere"
    )
    allowed: Names = Field(("src",), description="folders that a candidate may change, with commas between")
    protected: Names = Field(("tests/*", FILE, "pyproject.toml"), description="patterns of fixed points")
    tests: Names = Field(("tests",), description="trusted test files or folders; empty for none")
    python: str = Field(
        "", description="interpreter with what the tests need; empty for one with pytest alone"
    )
    pythonpath: str = Field("", description="folder of the repository that is on the module path")
    benchmark: str = Field(
        "", description="micro: versions of Looper's own agent work at the embedded suite; empty for none"
    )
    tasks: Annotated[int, Field(ge=4, le=200)] = Field(100, description="of each lane of the benchmark")
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.05, description="of a false promotion in the whole campaign"
    )
    start: str = Field("", description="command that shows that a version starts")
    sandbox: str = Field("auto", description="as for looper run")
    lab_timeout_s: Seconds = Field(300.0, description="of one author's work")
    max_iterations: Annotated[int, Field(gt=0)] = Field(40, description="replies of one author")
    max_context: Annotated[int, Field(gt=1000)] = Field(
        60_000, description="tokens that an author sees at once"
    )
    max_output: Annotated[int, Field(gt=0)] = Field(4_000, description="tokens of one reply of an author")
    patience_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        60.0, description="how long a failing model server is asked again before the campaign pauses"
    )
    generations: Count = Field(5, description="to decide; 0 for without limit")
    token_budget: Count = Field(0, description="of all roles together; 0 for without limit")
    call_budget: Count = Field(0, description="calls within call_window_s; 0 for without limit")
    call_window_s: Seconds = Field(5 * 3600.0, description="a rolling window")
    money_budget: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="US dollars; needs prices; 0 for without limit"
    )
    plateau_window: Count = Field(3, description="end after so many without a promotion; 0 for never")
    lookback: Annotated[int, Field(gt=0)] = Field(5, description="generations that a proposal is told of")
    file_bytes: Annotated[int, Field(gt=0)] = Field(100_000, description="largest file of a candidate")
    changed_lines: Annotated[int, Field(gt=0)] = Field(1_500, description="that a candidate may add")

    @field_validator("allowed", "protected", "tests", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        return (
            [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        )

    @field_validator("prime_price", "lab_price", "reviewer_price")
    @classmethod
    def _is_a_price(cls, value: str) -> str:
        price(value)
        return value

    @field_validator("benchmark")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in ("", "micro"):
            raise ValueError("micro is the only benchmark; empty for none")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The file's values arrive beside the command line's, and come last.
        assert isinstance(init_settings, InitSettingsSource)
        given = dict(init_settings.init_kwargs)
        table = InitSettingsSource(settings_cls, given.pop("table", {}))
        return InitSettingsSource(settings_cls, given), env_settings, dotenv_settings, table


def evolve_settings(repository: Path, chosen: Mapping[str, Any]) -> EvolveSettings:
    """`chosen` on the command line; None for what was not. Raises BadInput, naming every setting that cannot be used."""
    dotenv = repository / ".env"
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    given |= {"table": _table(repository / FILE), "_env_file": dotenv if dotenv.is_file() else None}
    try:
        return EvolveSettings(**given)
    except ValidationError as error:
        said = "; ".join(
            f"{'.'.join(map(str, one['loc'][:1]))}: {plain_words(one, EvolveSettings)}"
            for one in error.errors()
        )
        raise BadInput(
            f"These settings cannot be used: {said}. They come from the command line, {PREFIX}NAME, .env or [evolve] of {FILE}."
        ) from error


def _table(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = parsed_toml(named_text(path)).get("evolve", {})
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: {error}.") from error
    unknown = sorted(set(found) - set(EvolveSettings.model_fields))
    if unknown:
        raise BadInput(
            f"{path}, [evolve]: there is no setting {', '.join(unknown)}. See them all: looper evolve settings"
        )
    return dict(found)


def price(text: str) -> Price | None:
    """`3/15` → dollars for a million tokens of prompt and of completion; None for no text. Raises ValueError."""
    if not text:
        return None
    parts = [float(part) for part in text.split("/")]
    if len(parts) != 2 or not all(0 <= part < 10_000 for part in parts):
        raise ValueError(f'"{text}" is no price; write PROMPT/COMPLETION for a million tokens, as 3/15')
    return Price(input=parts[0], output=parts[1])


def template(found: EvolveSettings) -> list[str]:
    """Every setting with its value, in the form of an `.env` file; keys are not shown."""
    lines = []
    for name, field in EvolveSettings.model_fields.items():
        value = getattr(found, name)
        shown = ",".join(value) if isinstance(value, tuple) else "" if isinstance(value, SecretStr) else value
        lines += [f"# {field.description}", f"{PREFIX}{name.upper()}={shown}"]
    return lines


def as_variables(chosen: Mapping[str, Any]) -> dict[str, str]:
    """What was chosen, as another process reads it."""
    return {
        f"{PREFIX}{name.upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
        for name, value in chosen.items()
        if value is not None
    }
