"""What a person decides through the pages: one thing at a time, about exactly what was seen, on record before and after."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from looper.errors import RunBusy
from looper.journal import RunLock, Stream
from looper.records.audit_entry import AuditAction, AuditEntry, Stage

NAME = "deeds"
Done = TypeVar("Done")


class AuditLog:
    """The record of one user's decisions. Another server of the same user waits in the same line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def do(
        self,
        kind: AuditAction,
        target: str,
        seen_hash: str,
        work: Callable[[], Done],
        said: Callable[[Done], str],
    ) -> Done:
        """Raises RunBusy while another decision is being carried out, and what `work` raises once that is on record."""
        try:
            lock = RunLock(self.folder, "record of decisions in")
        except RunBusy as error:
            raise RunBusy(
                "Another decision is being carried out. Wait for its end, then try again."
            ) from error
        with contextlib.closing(lock), contextlib.closing(Stream(self.folder, NAME, AuditEntry)) as stream:

            def note(stage: Stage, words: str) -> None:
                at = datetime.now(UTC).isoformat(timespec="seconds")
                stream.append(
                    AuditEntry(kind=kind, target=target, seen_hash=seen_hash, stage=stage, said=words, at=at)
                )

            note(Stage.BEGUN, "")
            try:
                done = work()
            except Exception as error:
                note(Stage.FAILED, str(error))
                raise
            note(Stage.DONE, said(done))
            return done
