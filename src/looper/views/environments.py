"""What the environments of real tasks take, as a table, before and after they are built."""

from collections.abc import Iterator, Sequence

from looper.records.environment import Cost, NeededEnvironment

HEADS = ("environment", "Python", "tasks", "MiB", "seconds", "state")


def environment_lines(needed: Sequence[NeededEnvironment], free_bytes: int, where: str) -> Iterator[str]:
    """A row for each, then what those that are not there will take of the `free_bytes` on the disk; `where` expectations were measured."""
    rows = [HEADS, *map(_row, needed)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADS))]
    for row in rows:
        yield "  ".join(
            cell.rjust(width) if 2 <= at <= 4 else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
    yield _total([each for each in needed if not each.ready], len(needed), free_bytes >> 20, where)


def _row(each: NeededEnvironment) -> tuple[str, ...]:
    state = "ready" if each.ready else "to be built"
    if each.compiled:
        state += f"; {each.compiled} of its tasks are compiled from their own sources"
    return (each.lock, each.python, str(each.tasks), *_figures(each.cost), state)


def _figures(cost: Cost | None) -> tuple[str, str]:
    return (str(cost.mib), f"{cost.seconds:.1f}") if cost else ("unknown", "unknown")


def _total(missing: Sequence[NeededEnvironment], count: int, free_mib: int, where: str) -> str:
    if not missing:
        return f"{count} environments, all ready"
    costs = [each.cost for each in missing]
    known = [cost for cost in costs if cost]
    mib, seconds = sum(cost.mib for cost in known), sum(cost.seconds for cost in known)
    said = f"{len(missing)} of {count} environments to be built"
    if known:
        said += f": {mib} MiB and {seconds:.0f} s, as measured {where} from an empty cache"
    if len(known) < len(missing):
        said += f"; {len(missing) - len(known)} were not measured"
    return f"{said}; free on the disk: {free_mib} MiB{', WHICH IS LESS' if mib > free_mib else ''}"
