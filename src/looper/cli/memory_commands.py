"""The commands of `looper memory`."""

from typing import Annotated

import typer

from looper.cli.options import AsJson, RunName, chosen_settings, print_lines, shown

memory = typer.Typer(
    no_args_is_help=True, help="What a run remembers: to whom it was told, where it comes from."
)


@memory.command("list")
def list_memory(run: RunName = None, as_json: AsJson = False) -> None:
    """Print for each arm what its memory gave to the tasks, then every item.

    A task is told something where an item is like its issue, or, of a kind that makes one text of all items, where there is one; a
    rollout wrote the code of an item where its edits have what the item says to write. Of items that tell no code that is not counted.

    Example: looper memory list --run exp00-micro-0123456789ab
    """
    from looper.cli.reading import memory_lines

    print_lines(memory_lines(chosen_settings().runs, run, as_json=as_json))


@memory.command()
def why(
    item: Annotated[str, typer.Argument(help="Id of a memory item, or its beginning.")],
    run: RunName = None,
    as_json: AsJson = False,
) -> None:
    """Print where ITEM comes from, what it says, and every rollout that was told it.

    Example: looper memory why 0a1b2c
    """
    from looper.cli.reading import memory_why

    print_lines(memory_why(chosen_settings().runs, run, item, as_json=as_json))


@memory.command()
def revert(
    item: Annotated[str, typer.Argument(help="Id of a memory item, or its beginning.")],
    reason: Annotated[str, typer.Option(help="Why; stands in the run's records.")],
    run: RunName = None,
    as_json: AsJson = False,
) -> None:
    """Tell ITEM no more: what the run has still to do goes without it. What was told stays in the records.

    Example: looper memory revert 0a1b2c --reason "names a file that is gone"
    """
    from looper.cli.after import memory_revert

    shown([memory_revert(chosen_settings().runs, run, item, reason)], as_json=as_json)
