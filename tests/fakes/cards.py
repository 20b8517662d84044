"""Cards of adapters that nobody trained."""

from typing import Any

from looper.records.training import AdapterRecord, Make, TrainingSettings
from looper.records.trajectory import ModelIdentity

BASE = ModelIdentity(
    backend="x", backend_version="1", name="m", digest="d", quantisation="none", context_tokens=None
)
SETTINGS = TrainingSettings(learning_rate=1e-3, iterations=10, batch_size=4, max_tokens=512)


def card(**changes: Any) -> AdapterRecord:
    fields = {
        "id": "abc",
        "base": BASE,
        "make": Make.TRAINED,
        "settings": SETTINGS,
        "rank": 8,
        "start": "",
        "parts": (),
        "examples_hash": "",
        "tasks": (),
        "sources": (),
        "train_examples": 1,
        "validation_examples": 0,
        "supervised_tokens": 1,
        "trained_tokens": 1,
        "too_long": 0,
        "length_histogram": {},
        "train_losses": (),
        "validation_losses": (),
        "kept_iteration": 1,
        "relative_change": 0.1,
        "seconds": 1.0,
        "peak_memory_bytes": 1,
        "weights_hash": "",
        "backend": "",
    }
    return AdapterRecord.model_validate({**fields, **changes})
