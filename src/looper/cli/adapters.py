"""What `looper adapter list`, `looper adapter show` and `looper lineage` print.

An adapter is of a run where its records name it (`adapters_of`), or where it was trained by hand from it, which its card says.
"""

from collections.abc import Callable, Iterator, Sequence

from looper.cli.options import json_line, the_run
from looper.cli.settings import Settings
from looper.cli.wiring import adapter_store, folder_digest
from looper.errors import BadInput
from looper.metrics.paired import repository_of
from looper.records.base import grouped
from looper.records.plan import arm_of
from looper.records.text import counted
from looper.records.training import AdapterRecord
from looper.views.lineage import adapters_of, lineage_data, lineage_lines
from looper.views.runs import read_runs

MOST = 3
"""So many runs are named that have an adapter."""


Users = dict[str, list[tuple[str, tuple[str, ...]]]]
"""By adapter the runs, and of each the arms, that have it."""


def _users(settings: Settings) -> Users:
    users: Users = {}
    for run in read_runs(settings.runs):
        for adapter, arms in adapters_of(run).items():
            users.setdefault(adapter, []).append((run.folder.name, arms))
    return users


def trained_on(card: AdapterRecord) -> Iterator[str]:
    for repository, tasks in grouped((repository_of(task), task) for task in card.tasks).items():
        yield f"trained on {counted(len(tasks), 'task')} of {repository}: {', '.join(sorted(tasks))}"


def one_adapter(settings: Settings, wanted: str, *, as_json: bool = False) -> Iterator[str]:
    """One adapter: what it is, the tasks it was trained on, where it lies and how a plan takes it. Raises BadInput."""
    kept = adapter_store(settings)
    card = kept.load(kept.named(wanted))
    if as_json:
        yield json_line({"adapter": card, "folder": kept.folder(card.id)})
        return
    yield _about(card, _users(settings).get(card.id, []))
    yield from trained_on(card)
    yield f"folder: {kept.folder(card.id)}"
    yield f"for the arms of a plan that say adapted = true: looper plan PLAN --adapter {card.id}"


def adapter_lines(settings: Settings, run: str | None = None, *, as_json: bool = False) -> Iterator[str]:
    """Every adapter in a line, or those of a run alone, the newest at the end; one that is damaged says so. Raises BadInput for a run
    that is not there."""
    kept = adapter_store(settings)
    written = {name: kept.written(name) for name in kept.ids()}
    names = sorted(written, key=lambda name: (written[name], name))
    users = _users(settings)
    if run is not None:
        only = the_run(settings.runs, run).folder.name
        read = card_reader(settings)
        names = [
            name
            for name in names
            if only in {had for had, _ in users.get(name, ())} | _trained_from(name, read)
        ]
    if as_json:
        cards, damaged = list[AdapterRecord](), dict[str, str]()
        for name in names:
            try:
                cards.append(kept.load(name))
            except BadInput as error:
                damaged[name] = str(error)
        origins = {
            name: {
                "written": written[name].isoformat(timespec="seconds"),
                "runs": [{"run": run, "arms": arms} for run, arms in users.get(name, ())],
            }
            for name in names
        }
        yield json_line({"adapters": cards, "damaged": damaged, "origins": origins})
        return
    if not names and run is not None:
        yield f"No adapter here is of {only}. All: looper adapter list"
    elif not names:
        yield f"There is no adapter in {settings.adapters} yet. Train one: looper train exp00"
    for name in names:
        day = f"{written[name]:%Y-%m-%d %H:%M} UTC"
        try:
            card = kept.load(name)
        except BadInput as error:
            yield f"{name}  {day}  damaged: {error}"
            continue
        yield f"{card.id}  {day}  {_about(card, users.get(name, []))}"
    if names:
        yield "Which tasks one was trained on: looper adapter show ADAPTER"


def _trained_from(name: str, read: Callable[[str], AdapterRecord | None]) -> set[str]:
    """The run that an adapter was trained from by hand; empty where there is none, or its card is damaged."""
    try:
        card = read(name)
    except ValueError:
        return set()
    return {card.run} if card is not None and card.run is not None else set()


def _about(card: AdapterRecord, users: Sequence[tuple[str, tuple[str, ...]]]) -> str:
    return (
        f"{card.make.value}{_by_hand(card)} {card.settings.kind.value} of rank {card.rank} on {card.base.name}, {_origin(card, users)}, "
        f"trained on {counted(len(card.tasks), 'task')}, {card.trained_tokens} tokens in {card.seconds:.0f} s, change "
        f"{100 * card.relative_change:.1f} %"
    )


def _by_hand(card: AdapterRecord) -> str:
    return " by hand" if card.run is not None else ""


def _origin(card: AdapterRecord, users: Sequence[tuple[str, tuple[str, ...]]]) -> str:
    """Who made an adapter of what, and which arms of which runs have it."""
    arms = dict.fromkeys(arm_of(source) for source in card.sources)
    by_hand = [f"from {card.run} ({', '.join(arms)})"] if card.run is not None else []
    had = [f"had by {', '.join(named)} of {run}" for run, named in users]
    more = [f"{len(had) - MOST} more"] if len(had) > MOST else []
    return "; ".join([*by_hand, *had[:MOST], *more]) or "of no run that is here"


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
    asked = (the_run(settings.runs, run), arm, card_reader(settings))
    return iter([json_line(lineage_data(*asked))]) if as_json else lineage_lines(*asked)
