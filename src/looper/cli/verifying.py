"""What `looper report --verify` and `looper report --sign` look at, run by run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from looper.cli.adapters import card_reader, served_hash
from looper.cli.preparing import tasks_as_they_are
from looper.cli.settings import Settings
from looper.cli.wiring import code_version, put_at, texts_at
from looper.errors import BadInput
from looper.experiment.schedule import leaking_tasks
from looper.journal import read_stream
from looper.records.base import content_hash, grouped
from looper.records.plan import RunManifest
from looper.records.seal import Seal
from looper.records.task import Task
from looper.views.audit import ExternalFacts, audit, unchecked
from looper.views.results import look_at_text
from looper.views.runs import RunView
from looper.views.signatures import Signature, SignedPart, signature_of, signatures_in, signed_amiss
from looper.views.web.page import look_at_page


@dataclass(frozen=True)
class SignedSeals:
    """What was put elsewhere, by run."""

    place: Path
    of: Mapping[str, list[Signature]]


@dataclass
class Verifier:
    """Looks at runs, one after the other; what they share is had once."""

    settings: Settings
    signed: SignedSeals | None = None

    def look(self, run: RunView) -> tuple[list[str], list[str]]:
        """What does not fit, and what could not be looked at."""
        outside = self._outside(run.manifest)
        page = look_at_page(run, code_version())
        text, other_text = look_at_text(run, code_version())
        amiss = [*audit(run, outside), *page.amiss, *filter(None, [text])]
        unseen = [*unchecked(run, outside), *filter(None, [page.unchecked, other_text])]
        if self.signed is not None:
            amiss += signed_amiss(run.folder, self.signed.of, str(self.signed.place))
            mine = self.signed.of.get(run.folder.name, [])
            signed = {one.part for one in mine}
            plans = [one.when for one in mine if one.part is SignedPart.PLAN]
            if plans and run.sessions and min(plans) > run.sessions[0].begun:
                unseen.append(
                    f"its plan was signed at {min(plans)}, after its first session began at {run.sessions[0].begun}: that says nothing "
                    "of what stood before the data"
                )
            unseen += [
                f"its {part.value} was not signed in {self.signed.place}"
                for part in SignedPart
                if part not in signed
            ]
        return amiss, unseen

    def _outside(self, manifest: RunManifest) -> ExternalFacts:
        tasks: tuple[Task, ...] = ()
        why = ""
        try:
            tasks = tasks_as_they_are(manifest, self.settings)
        except BadInput as error:
            why = str(error)
        return ExternalFacts(
            tasks_hash=None if why else content_hash(*tasks),
            adapter=card_reader(self.settings),
            code_version=code_version(),
            tasks={task.instance_id: task for task in tasks},
            leaked=frozenset(leaking_tasks(tasks)) & {*manifest.tasks},
            why_no_tasks=why,
            served=served_hash(self.settings),
        )


def signed_at(place: Path) -> SignedSeals:
    """Raises BadInput where nothing was signed there."""
    found = grouped((one.run, one) for one in signatures_in(texts_at(place)))
    if not found:
        raise BadInput(f"{place} has no signature of a run. Put some there: looper report --sign {place}")
    return SignedSeals(place, found)


def sign_seals(settings: Settings, runs: Sequence[RunView], place: Path) -> Iterator[str]:
    """Put the hash of each run's plan, and of its seals where it has some, where they are not there yet; what was done, in words.
    Raises BadInput."""
    if place.resolve().is_relative_to(settings.runs.resolve()):
        raise BadInput(
            f"{place} lies below {settings.runs}: who changes a run there can change it too. Name a place elsewhere."
        )
    known = {(one.run, one.sha256) for one in signatures_in(texts_at(place))}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new: dict[str, str] = {}
    for run in runs:
        seals = list(read_stream(run.folder, "seals", Seal))
        parts = [signature_of(SignedPart.PLAN, run.folder, now)]
        if seals:
            parts.append(signature_of(SignedPart.SEAL, run.folder, seals[-1].ended))
        else:
            yield f"{run.folder.name}: its seal is not signed, for it has none"
        for one in parts:
            if (one.run, one.sha256) in known:
                yield f"{one.run}: {one.part.value} signed before"
            else:
                new[one.tag] = one.line()
    put_at(place, new)
    yield from (f"{place}: {line}" for line in new.values())
