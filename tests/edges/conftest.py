"""The embedded model and a trainer for it, one process and one folder for all tests of a module."""

from collections.abc import Iterator

import pytest

from looper.edges.models.mlx import MlxModel, nano_folder
from looper.edges.trainers.mlx import MlxTrainer


@pytest.fixture(scope="module")
def nano() -> Iterator[MlxModel]:
    model = MlxModel(nano_folder(), name="nano", context_tokens=2048)
    yield model
    model.close()


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> MlxTrainer:
    return MlxTrainer(nano_folder(), tmp_path_factory.mktemp("adapters"))
