"""The commands of `looper adapter`."""

from pathlib import Path
from typing import Annotated

import typer

from looper.cli.options import AsJson, OnlyRun, adapter_ids, chosen_settings, json_line, print_lines, shown
from looper.records.text import counted

adapter = typer.Typer(
    no_args_is_help=True, help="Adapters that were trained here, for other engines and back."
)
AdapterId = Annotated[
    str,
    typer.Argument(metavar="ADAPTER", help="Id of an adapter, or its beginning.", autocompletion=adapter_ids),
]


@adapter.command("list")
def list_adapters(run: OnlyRun = None, as_json: AsJson = False) -> None:
    """Print every adapter, the newest last: when it came here, what it is, whose runs and arms have it, how much it changes.

    With --run those that arms of this run have, or that were trained by hand from it.

    Example: looper adapter list --run exp00
    """
    from looper.cli.adapters import adapter_lines

    print_lines(adapter_lines(chosen_settings(), run, as_json=as_json))


@adapter.command("show")
def show_adapter(wanted: AdapterId, as_json: AsJson = False) -> None:
    """Print what ADAPTER is, every task that it was trained on, its folder, and how a plan takes it.

    Example: looper adapter show 0a1b2c
    """
    from looper.cli.adapters import one_adapter

    print_lines(one_adapter(chosen_settings(), wanted, as_json=as_json))


@adapter.command("rm")
def remove_adapter(
    wanted: Annotated[
        list[str],
        typer.Argument(
            metavar="ADAPTER", help="Ids of adapters, or their beginnings.", autocompletion=adapter_ids
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Although a run or another adapter names it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove each ADAPTER. One that a run's record, or another adapter, names is refused: its origin could not be shown any more.

    Example: looper adapter rm 0a1b2c
    """
    from looper.cli.keeping import remove_adapters

    shown(remove_adapters(wanted, chosen_settings(), force=force), as_json=as_json)


@adapter.command("export")
def export_adapter(
    wanted: AdapterId,
    place: Annotated[Path, typer.Argument(help="New folder to write to; with --gguf a new file.")],
    gguf: Annotated[bool, typer.Option("--gguf", help="For llama.cpp, which takes it with --lora.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write ADAPTER to PLACE in the layout of PEFT, with its card, or as GGUF. Plain LoRA only.

    Example: looper adapter export 0a1b2c /tmp/adapter
    """
    from looper.cli import wiring

    card = wiring.export_adapter(wanted, place, gguf, chosen_settings())
    if as_json:
        print(json_line({"adapter": card, "place": place}))
        return
    how = "as GGUF" if gguf else "in PEFT's layout, with its card"
    print(f"{place}: {card.id} {how}")


@adapter.command("import")
def import_adapter(
    folder: Annotated[
        Path, typer.Argument(help="An adapter in PEFT's layout, with the card it was exported with.")
    ],
    as_json: AsJson = False,
) -> None:
    """Take the adapter in FOLDER among the adapters. Its card says what it was trained on; without one it is refused.

    Example: looper adapter import /tmp/adapter
    """
    from looper.cli import wiring

    card = wiring.from_peft(folder, chosen_settings().adapters)
    if as_json:
        print(json_line({"adapter": card}))
        return
    print(f"{card.id} is there, trained on {counted(len(card.tasks), 'task')}")


@adapter.command("register")
def register_adapter(
    wanted: AdapterId,
    base: Annotated[str, typer.Option(help="Model of the server that the adapter belongs on.")],
    name: Annotated[str, typer.Option(help="Name of the new model.")],
    url: Annotated[str, typer.Option(help="Of the server; else Ollama's default.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a model of an Ollama server from its model BASE and ADAPTER.

    Refused where the base is quantised, there or in training: the adapter would sit on other weights than its own. Base and new model are
    asked for next tokens; where they do not say what MLX says here, the new model is removed again.

    Example: looper adapter register 0a1b2c --base llama3.2:3b-instruct-fp16 --name mine
    """
    from looper.cli import wiring

    card, compared = wiring.register_adapter(wanted, base, name, url, chosen_settings())
    if as_json:
        print(json_line({"adapter": card, "model": f"ollama:{name}", "base": base, "compared": compared}))
        return
    print_lines(
        [
            f"{name} is {base} with {card.id}: {compared}. Use it as a model: looper run exp00 --profile swe --model ollama:{name}"
        ]
    )
