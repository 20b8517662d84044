"""Scaffolds that ship with the package, by name."""

import tomllib
from functools import cache
from importlib import resources

from pydantic import ValidationError

from looper.errors import BadInput
from looper.records.plan import Scaffold


def scaffold_names() -> tuple[str, ...]:
    folder = resources.files("looper.agent") / "scaffolds"
    return tuple(
        sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    )


@cache
def packaged_scaffold(name: str) -> Scaffold:
    """Raises BadInput for a name that does not exist."""
    if name not in scaffold_names():
        raise BadInput(f'There is no scaffold "{name}". Use one of: {", ".join(scaffold_names())}.')
    text = (resources.files("looper.agent") / "scaffolds" / f"{name}.toml").read_text("utf-8")
    try:
        return Scaffold.model_validate({"name": name, **tomllib.loads(text)})
    except ValidationError as error:
        raise BadInput(f'Scaffold "{name}" is damaged: {error}. Reinstall the package.') from error
