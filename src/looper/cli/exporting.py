"""What `looper export` and `looper import` do."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from looper.cli.options import the_run
from looper.cli.settings import Settings
from looper.cli.training import TrainOptions, examples_of, pairs_of
from looper.cli.wiring import read_foreign
from looper.errors import BadInput, possible
from looper.journal import must_be_replaceable, replace_file
from looper.records.text import counted, encodable
from looper.records.training import Example, SelectionSettings
from looper.views.decided import registered_text
from looper.views.exports import atif_lines, csv_lines, write_parquet
from looper.views.foreign import foreign_lines, foreign_predictions
from looper.views.predictions import prediction_lines

ALWAYS_WHOLE = {"registered": ("--arm", "--seed"), "sft": ("--seed",), "dpo": ("--seed",)}
"""By format the options that would choose a part of it, and cannot."""


def export_run(
    settings: Settings, wanted: str | None, kind: str, arm: str | None, seed: int | None, out: Path | None
) -> None:
    """Raises BadInput, also for a file that is there. No file is made where anything is wrong."""
    run = the_run(settings.runs, wanted)
    if out is not None and os.path.lexists(out):
        raise BadInput(f"{out} is there already. Name another file, or remove it first.")
    if out is not None:
        must_be_replaceable(out)
    options = TrainOptions(run.folder, (arm,) if arm else (), None, SelectionSettings(minimum_tasks=1), {})
    makes: dict[str, Callable[[], Iterator[str]]] = {
        "predictions": lambda: prediction_lines(run, arm, seed),
        "csv": lambda: csv_lines(run, arm, seed),
        "atif": lambda: atif_lines(run, arm, seed),
        "sft": lambda: map(_sft, examples_of(options, settings)[0]),
        "dpo": lambda: (_dpo(*pair) for pair in pairs_of(options, settings)),
        "registered": lambda: iter([registered_text(run)]),
    }
    if kind not in (*makes, "parquet"):
        raise BadInput(f"--format {kind}: {possible(kind, [*makes, 'parquet'], 'There are')}")
    for option, value in (("--arm", arm), ("--seed", seed)):
        if value is not None and option in ALWAYS_WHOLE.get(kind, ()):
            raise BadInput(
                f"--format {kind} is not made of one {option[2:]} alone. Leave {option} {value} out."
            )
    if kind == "parquet":
        if out is None:
            raise BadInput("Parquet is no text; name a file: --out FILE")
        write_parquet(run, out, arm, seed)
        return
    lines = [encodable(line) for line in makes[kind]()]
    if out is None:
        for line in lines:
            print(line)
        return
    replace_file(out, "".join(f"{line}\n" for line in lines).encode())


def _messages(example: Example) -> list[dict[str, object]]:
    """`weight` is 1 for turns that the loss counts, as several trainers read it."""
    return [
        {
            "role": turn.role,
            "content": turn.text,
            **({"weight": int(turn.supervised)} if turn.role == "assistant" else {}),
        }
        for turn in example.turns
    ]


def _sft(example: Example) -> str:
    return json.dumps(
        {"messages": _messages(example), "instance_id": example.instance_id, "source": example.source},
        ensure_ascii=False,
    )


def _dpo(chosen: Example, rejected: Example) -> str:
    """The opening is the prompt; what follows in each attempt is what is compared."""
    opening = next(at for at, turn in enumerate(chosen.turns) if turn.role == "assistant")
    return json.dumps(
        {
            "prompt": _messages(chosen)[:opening],
            "chosen": _messages(chosen)[opening:],
            "rejected": _messages(rejected)[opening:],
            "instance_id": chosen.instance_id,
            "sources": [chosen.source, rejected.source],
        },
        ensure_ascii=False,
    )


def import_lines(sources: Sequence[str], predictions: Path | None) -> Iterator[str]:
    """Nothing is written where any source cannot be read."""
    runs = [read_foreign(source) for source in sources]
    yield from foreign_lines(runs)
    if predictions is not None:
        if predictions.exists():
            raise BadInput(f"{predictions} is there already. Name another file.")
        must_be_replaceable(predictions)
        lines = [encodable(line) for run in runs for line in foreign_predictions(run)]
        predictions.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        yield f"{predictions}: {counted(len(lines), 'prediction')}; judge them: looper bench verify {predictions} --suite swe-bench-cl"
