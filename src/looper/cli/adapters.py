"""What `looper adapter` and `looper lineage` do."""

from collections.abc import Callable, Iterator
from pathlib import Path

from looper.cli.settings import Settings
from looper.cli.wiring import adapter_named
from looper.edges.models.mlx import nano_folder
from looper.edges.models.ollama_adapters import register
from looper.edges.trainers.mlx import CARD, MlxTrainer
from looper.edges.trainers.peft import from_peft, to_peft
from looper.errors import BadInput
from looper.records.training import AdapterRecord
from looper.views.lineage import lineage_lines
from looper.views.runs import read_run


def _kept(settings: Settings) -> MlxTrainer:
    return MlxTrainer(nano_folder(), settings.state / "adapters")


def _cards(settings: Settings) -> list[Path]:
    """Cards of finished adapters; what is still being made lies in folders with a dot."""
    found = (settings.state / "adapters").glob(f"*/{CARD}")
    return sorted(path for path in found if not path.parent.name.startswith("."))


def one_adapter(settings: Settings, wanted: str) -> tuple[AdapterRecord, Path]:
    """Card and folder of the adapter whose id begins like that. Raises BadInput where it is not one, or damaged."""
    name = adapter_named(settings, wanted)
    return _kept(settings).load(name), _kept(settings).folder(name)


def adapter_lines(settings: Settings) -> Iterator[str]:
    """Every adapter in a line; one that is damaged says so."""
    for path in _cards(settings):
        try:
            card = _kept(settings).load(path.parent.name)
        except BadInput as error:
            yield f"{path.parent.name}  damaged: {error}"
            continue
        yield (
            f"{card.id}  {card.make.value} {card.settings.kind.value} of rank {card.rank} on {card.base.name}, "
            f"{len(card.tasks)} tasks, {card.trained_tokens} tokens in {card.seconds:.0f} s, "
            f"change {100 * card.relative_change:.1f} %"
        )


def export_adapter(settings: Settings, wanted: str, out: Path) -> str:
    card, folder = one_adapter(settings, wanted)
    to_peft(folder, card, out)
    return f"{out}: {card.id} in PEFT's layout, with its card"


def import_adapter(settings: Settings, folder: Path) -> str:
    card = from_peft(folder, settings.state / "adapters")
    return f"{card.id} is there, trained on {len(card.tasks)} tasks"


def register_adapter(settings: Settings, wanted: str, base: str, name: str, url: str) -> str:
    card, folder = one_adapter(settings, wanted)
    register(folder, card, base, name, url)
    return f"{name} is {base} with {card.id}. Use it as a model: looper run exp00 --profile swe --model ollama:{name}"


def card_reader(settings: Settings) -> Callable[[str], AdapterRecord | None]:
    """Gives the card of an adapter, or None where there is none of that id; raises ValueError where it is damaged."""

    def read(adapter: str) -> AdapterRecord | None:
        kept = _kept(settings)
        if not kept.has(adapter):
            return None
        try:
            return kept.load(adapter)
        except BadInput as error:
            raise ValueError(str(error)) from error

    return read


def lineage_of(settings: Settings, folder: Path, arm: str | None) -> Iterator[str]:
    """The treatment behind each arm of a run."""
    return lineage_lines(
        read_run(folder if folder.is_dir() else settings.runs / folder), arm, card_reader(settings)
    )
