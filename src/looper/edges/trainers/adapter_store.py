"""Adapters that were made here, each in a folder of its own under its id, with its card."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from looper.edges.models.mlx import ADAPTER_FILES
from looper.errors import BadInput, reason
from looper.records.training import AdapterRecord

CARD = "adapter.json"


class AdapterStore:
    """Adapters by id. Folders that begin with a dot are still being made."""

    def __init__(self, adapters: Path) -> None:
        self._adapters = adapters

    def ids(self) -> list[str]:
        return sorted(
            path.parent.name
            for path in self._adapters.glob(f"*/{CARD}")
            if not path.parent.name.startswith(".")
        )

    def named(self, wanted: str) -> str:
        """The one id that begins like that. Raises BadInput where it is not one."""
        found = [name for name in self.ids() if wanted and name.startswith(wanted)]
        if len(found) != 1:
            what = f"{len(found)} adapters begin" if found else "No adapter begins"
            raise BadInput(
                f'{what} with "{wanted}" in {self._adapters}. List them with: looper adapter list; another folder: LOOPER_HOME'
            )
        return found[0]

    def folder(self, adapter_id: str) -> Path:
        return self._adapters / adapter_id

    def written(self, adapter_id: str) -> datetime:
        """When the adapter came to be here: trained, or imported."""
        return datetime.fromtimestamp((self.folder(adapter_id) / CARD).stat().st_mtime, UTC)

    def has(self, adapter_id: str) -> bool:
        return self.folder(adapter_id).is_dir()

    def load(self, adapter_id: str) -> AdapterRecord:
        """The card of an adapter; as `card_in`."""
        return card_in(self.folder(adapter_id))


def card_in(folder: Path) -> AdapterRecord:
    """The card of the adapter in a folder, after a look at its weights. Raises BadInput where they are not the ones on it."""
    if not folder.exists():
        raise BadInput(
            f"There is no adapter {folder.name} in {folder.parent}. List them with: looper adapter list"
        )
    try:
        card = AdapterRecord.from_json((folder / CARD).read_bytes())
        whole = weights_hash(folder) == card.weights_hash
    except (OSError, ValueError) as error:
        raise BadInput(
            f"The adapter {folder} cannot be read: {reason(error)}. {_anew(folder.name)}"
        ) from error
    if not whole:
        raise BadInput(f"The weights in {folder} are not the ones on its card. {_anew(folder.name)}")
    return card


def _anew(adapter_id: str) -> str:
    # Runs that name it still do: with other weights under its id their origin could be shown even less.
    return f"Remove it: looper adapter rm {adapter_id} --force; then train again."


def weights_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ADAPTER_FILES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
