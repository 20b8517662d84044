"""What `looper adapter list` and `looper lineage` print."""

from collections.abc import Callable, Iterator

from looper.cli.options import json_line
from looper.cli.settings import Settings
from looper.cli.wiring import adapter_store, folder_digest
from looper.errors import BadInput
from looper.records.training import AdapterRecord
from looper.views.lineage import lineage_data, lineage_lines
from looper.views.runs import run_named


def adapter_lines(settings: Settings, *, as_json: bool = False) -> Iterator[str]:
    """Every adapter in a line; one that is damaged says so."""
    kept = adapter_store(settings)
    if as_json:
        cards, damaged = list[AdapterRecord](), dict[str, str]()
        for name in kept.ids():
            try:
                cards.append(kept.load(name))
            except BadInput as error:
                damaged[name] = str(error)
        yield json_line({"adapters": cards, "damaged": damaged})
        return
    for name in kept.ids():
        try:
            card = kept.load(name)
        except BadInput as error:
            yield f"{name}  damaged: {error}"
            continue
        yield (
            f"{card.id}  {card.make.value} {card.settings.kind.value} of rank {card.rank} on {card.base.name}, "
            f"{len(card.tasks)} tasks, {card.trained_tokens} tokens in {card.seconds:.0f} s, "
            f"change {100 * card.relative_change:.1f} %"
        )


def card_reader(settings: Settings) -> Callable[[str], AdapterRecord | None]:
    """Gives the card of an adapter, or None where there is none of that id; raises ValueError where it is damaged."""

    kept = adapter_store(settings)

    def read(adapter: str) -> AdapterRecord | None:
        if not kept.has(adapter):
            return None
        try:
            return kept.load(adapter)
        except BadInput as error:
            raise ValueError(str(error)) from error

    return read


def served_hash(settings: Settings) -> Callable[[str], str | None]:
    """Gives the hash by which a rollout names an adapter that it was served with, by the adapter's id; None where it is not here."""
    kept = adapter_store(settings)
    known: dict[str, str | None] = {}

    def read(adapter: str) -> str | None:
        if adapter not in known:
            known[adapter] = folder_digest(kept.folder(adapter)) if kept.has(adapter) else None
        return known[adapter]

    return read


def lineage_of(
    settings: Settings, run: str | None, arm: str | None, *, as_json: bool = False
) -> Iterator[str]:
    """The treatment behind each arm of a run. Raises BadInput."""
    asked = (run_named(settings.runs, run), arm, card_reader(settings))
    return iter([json_line(lineage_data(*asked))]) if as_json else lineage_lines(*asked)
