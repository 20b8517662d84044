"""A finished run in which an arm has learned, for everything that reads runs."""

import pytest
from tests.experiment.test_run import Project

PLAN = """
title = "Audited"
hypothesis = "h"
factor = "what the arm has learned"
[[arms]]
name = "base"
role = "base"
[[arms]]
name = "lora"
role = "treatment"
learning = { treatment = "adapter" }
[[arms]]
name = "in_batches"
role = "treatment"
learning = { treatment = "adapter", strategy = { name = "sequential" } }
[[contrasts]]
arm = "lora"
against = "base"
shown = "It helped here."
refuted = "It harmed here."
open = "It is open."
[[contrasts]]
arm = "in_batches"
against = "base"
metric = "action_log_likelihood"
shown = "It finds them likelier."
refuted = "It finds them less likely."
open = "It is open how likely it finds them."
[profiles.micro]
like = "demo"
seeds = [0, 1]
[profiles.micro.tasks]
per_repo = 3
limit = 3
[profiles.micro.experience]
per_repo = 8
samples = 1
batch = 2
temperature = 0.7
selection = { minimum_tasks = 1 }
training = { learning_rate = 1e-4, iterations = 4, batch_size = 4 }
"""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("audited"), tmp_path_factory.mktemp("home"))
    (project.folder / "experiments" / "audited.toml").write_text(PLAN)
    ran = project.looper("run", "audited", "--workers", "2")
    assert ran.returncode == 0, ran.stderr
    assert project.looper("report", "audited", "--results", "docs/results").returncode == 0
    return project
