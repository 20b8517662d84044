"""What `looper model teach` does: a language model is fine-tuned on the work of a scripted expert, and becomes a model of its own.

The expert works in generated repositories of a seed that is kept for teaching, as a run like any other; its verified successes become
examples as in `looper train`, failed checks included, since going on after one is most of what there is to learn. The trainings are
those of `looper train`, one from the end of the other, and what they change is added to the weights. Run and adapters lie under the hash of all that
decides them, so the same command goes on where it was ended, however that was.
"""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from looper.cli.plans import RunOptions
from looper.cli.progress import Spoken, TrainingProgress
from looper.cli.running import run
from looper.cli.settings import Settings
from looper.cli.training import TrainOptions, examples_of
from looper.cli.wiring import keep_taught, mlx_model, must_be_free, taught, trained_folder, trainer_of
from looper.errors import BadInput
from looper.records.model import ModelSpec
from looper.records.teaching import Teaching
from looper.records.text import counted
from looper.records.training import (
    AdapterRecord,
    Example,
    Make,
    SelectionSettings,
    TrainingEvent,
    TrainingRequest,
    TrainingSettings,
)
from looper.records.trajectory import ModelIdentity
from looper.views.show import duration
from looper.views.teaching import card_text

FIRST_SEED = 7000
"""Seed of the suite that teaching with seed 0 uses; those after it belong to later seeds."""
REPOSITORIES = 40
MINUTES = 60.0
WARM_UP = 10
"""Iterations of the first training, which tells how long one takes."""
RATE, LAST_RATE, LAST_SHARE = 1e-3, 2e-4, 0.24
"""Learning rates, and the share of all iterations that learn at the lower one."""
MAX_TOKENS = 1024
MINIMUM = 4
"""Trajectories, below which there is nothing to learn from."""
_PLAN = """# Written by looper model teach.
title = "Teaching"
hypothesis = "The expert shows how issues of these repositories are worked on."
factor = "nothing: there is one arm"
[[arms]]
name = "expert"
role = "base"
[profiles.micro]
model = "expert"
scaffold = "terse"
temperature = 0.0
seeds = [0]
order = "parallel"
[profiles.micro.tasks]
suite = "micro"
level = 1
suite_seed = {suite_seed}
repositories = {repositories}
per_repo = 12
[profiles.micro.limits]
steps = 8
output_tokens = 400
context_tokens = 4096
wall_s = 600.0
command_s = 60.0
verify_s = 300.0
"""


@dataclass(frozen=True)
class TeachOptions:
    """What `looper model teach` was asked for."""

    name: str
    base: str
    minutes: float
    """CPU minutes that the trainings may take; what comes before and after them takes a few more."""
    iterations: int | None
    """In place of the minutes."""
    seed: int
    repositories: int
    sandbox: str = "auto"

    @property
    def command(self) -> str:
        """That does the same, and goes on with it."""
        given: list[tuple[str, object]] = [
            ("--from", self.base),
            ("--minutes", None if self.iterations else f"{self.minutes:g}"),
            ("--iterations", self.iterations),
            ("--seed", self.seed),
            ("--repositories", None if self.repositories == REPOSITORIES else self.repositories),
            ("--sandbox", None if self.sandbox == "auto" else self.sandbox),
        ]
        words = [str(word) for pair in given if pair[1] is not None for word in pair]
        return shlex.join(["looper", "model", "teach", self.name, *words])


@dataclass(frozen=True)
class _ExpertsRun(RunOptions):
    """The expert's run, which the command that teaches goes on with."""

    command: str = ""
    beside: str = ""
    """The command that teaches with the next seed, whose expert works in repositories of its own."""

    def anew(self) -> str:
        return self.beside

    def _command(self, *ending: str) -> str:
        return self.command


def teach(options: TeachOptions, settings: Settings, say: Callable[[str], None]) -> tuple[Teaching, Path]:
    """Everything behind `looper model teach`: what the model was taught, and its folder.

    Raises BadInput for a name that is taken and a base that is not here, and what runs and trainings raise.
    """
    must_be_free(options.name, settings.models)
    spec = ModelSpec(backend="mlx", name=options.base)
    if (before := taught(spec, settings)) is not None:
        raise BadInput(
            f"{options.base} was taught here already, and a model is taught once. Name what it was made of: --from {before.base.name}, "
            "with more --minutes."
        )
    base = mlx_model(spec, settings, MAX_TOKENS).identity().model_copy(update={"context_tokens": None})
    view = run(_experts_run(options, settings), settings, say)
    # A success that went straight to its end is as good as one with failed checks, and these are what teaches to go on.
    selection = SelectionSettings(drop_detours=False, minimum_tasks=MINIMUM)
    examples, attempts = examples_of(TrainOptions(view.folder, (), None, selection, {}), settings)
    say(
        f"{counted(len(examples), 'trajectory', 'trajectories')} of the expert to learn from, in {counted(options.repositories, 'repository', 'repositories')}"
    )
    stages = tuple(_trained(options, settings, base, examples, view.folder.name, Spoken(say)))
    plan = view.manifest.plan
    teaching = Teaching(
        name=options.name,
        base=base,
        command=options.command,
        run=view.folder.name,
        tasks=plan.selection,
        repositories=tuple(sorted({example.repo for example in examples})),
        attempts=attempts,
        stages=stages,
    )
    with Spoken(say).during("adding what was learned to the weights"):
        adapter = trainer_of(spec, settings).folder(stages[-1].id)
        folder = keep_taught(
            teaching, card_text(teaching), trained_folder(spec, settings), adapter, settings.models
        )
    return teaching, folder


def _experts_run(options: TeachOptions, settings: Settings) -> RunOptions:
    suite_seed = FIRST_SEED + options.seed
    file = settings.state / "teaching" / f"{suite_seed}-{options.repositories}" / "teaching.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_PLAN.format(suite_seed=suite_seed, repositories=options.repositories), "utf-8")
    return _ExpertsRun(
        str(file),
        sandbox=options.sandbox,
        command=options.command,
        beside=replace(options, seed=options.seed + 1).command,
    )


def _trained(
    options: TeachOptions,
    settings: Settings,
    base: ModelIdentity,
    examples: tuple[Example, ...],
    run_name: str,
    say: Spoken,
) -> Iterator[AdapterRecord]:
    """The trainings in order: the first tells how long an iteration takes, the last learns slowly."""
    trainer = trainer_of(ModelSpec(backend="mlx", name=options.base), settings)
    first = min(WARM_UP, max(2, (options.iterations or WARM_UP * 4) // 4))
    tell = _Progress(options.name, say, options.iterations)

    def stage(number: int, iterations: int, rate: float, start: str) -> AdapterRecord:
        how = TrainingSettings(
            rank=16,
            multiplier=2.0,
            learning_rate=rate,
            iterations=iterations,
            batch_size=2,
            max_tokens=MAX_TOKENS,
            seed=3 * options.seed + number,
            checkpoint_every=10,
        )
        request = TrainingRequest(base=base, make=Make.TRAINED, settings=how, examples=examples, start=start)
        with say.during(f"training {options.name}"):
            return trainer.train(request, tell.of(iterations), run=run_name)

    card = stage(0, first, RATE, "")
    yield card
    every = options.iterations or iterations_for(options.minutes, card)
    tell.total = every
    last = max(2, round(LAST_SHARE * every))
    each = (card.cpu_seconds or card.seconds) / first
    say(
        f"{first} of {every} iterations took {duration(first * each)} of the processor; the others will take about "
        f"{duration((every - first) * each)} of it"
    )
    for number, iterations, rate in ((1, every - first - last, RATE), (2, last, LAST_RATE)):
        card = stage(number, iterations, rate, card.id)
        yield card


def iterations_for(minutes: float, card: AdapterRecord) -> int:
    """Iterations that fit in so many CPU minutes, at the speed of a training. Raises BadInput where they are too few."""
    each = (card.cpu_seconds or card.seconds) / card.settings.iterations
    found = int(60 * minutes / each)
    if found < 2 * WARM_UP:
        raise BadInput(
            f"An iteration takes {each:.1f} CPU seconds here, so {minutes:g} minutes are enough for {found}, and {2 * WARM_UP} are the "
            f"least. Give it --minutes {2 * WARM_UP * each / 60 + 0.5:.0f} or more."
        )
    return found


class _Progress:
    """Tells the iterations of several trainings as those of one."""

    def __init__(self, name: str, say: Callable[[str], None], total: int | None) -> None:
        """`total` of the iterations is None for as long as it depends on the first of them."""
        self._name, self._tell, self.total = name, TrainingProgress(say), total
        self._before = 0

    def of(self, iterations: int) -> Callable[[TrainingEvent], None]:
        """For the next training, of so many iterations."""
        before, known = self._before, self.total is not None
        self._before += iterations
        what = self._name if known else f"{self._name}, first iterations, which tell how many there will be"

        def tell(event: TrainingEvent) -> None:
            if event.event != "finished":
                place = {"iteration": before + event.iteration, "iterations": self.total or iterations}
                self._tell(what, event.model_copy(update=place))

        return tell
