"""Which tasks can be used on this machine, as a table."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from looper.errors import one_line
from looper.records.eligibility import Validation
from looper.views.show import markdown_table

HEADS = (
    "repository", "tasks", "valid", "with ids left out", "invalid", "not tried",
    "read otherwise by the official parser", "seconds, median", "longest",
)  # fmt: skip


def rows(every: Mapping[str, int], found: Sequence[Validation]) -> Iterator[tuple[str, ...]]:
    """One for each repository; `every` says how many tasks it has."""
    for repo, count in every.items():
        mine = [each for each in found if each.repo == repo]
        valid = [each for each in mine if each.valid]
        yield (
            repo,
            str(count),
            str(len(valid)),
            str(sum(bool(each.excluded) for each in valid)),
            str(len(mine) - len(valid)),
            str(count - len(mine)),
            str(sum(bool(each.disagreements) for each in mine)),
            f"{median(each.gold_s for each in mine):.1f}" if mine else "–",
            f"{max(each.gold_s for each in mine):.1f}" if mine else "–",
        )


def table_lines(every: Mapping[str, int], found: Sequence[Validation]) -> list[str]:
    """The table in Markdown, then every task that is not valid with its cause, and every id that is left out."""
    lines = markdown_table(HEADS, rows(every, found))
    bad = [each for each in found if not each.valid]
    if bad:
        lines += ["", "Not valid:", "", *(f"- {each.instance_id}: {one_line(each.cause)}" for each in bad)]
    partly = [each for each in found if each.excluded]
    if partly:
        lines += ["", "PASS_TO_PASS ids that are left out:", ""]
        lines += [f"- {each.instance_id}: {_named(each.excluded)}" for each in partly]
    otherwise = [each for each in found if each.disagreements]
    if otherwise:
        lines += ["", "Read otherwise by the official parser, from the log of the same run:", ""]
        lines += [f"- {each.instance_id}: {_named(each.disagreements)}" for each in otherwise]
    return lines


def _named(ids: Mapping[str, str]) -> str:
    """Ids of tests, each with what is said of it; whoever wrote the rows chose their signs and lengths."""
    return "; ".join(f"`{one_line(name)}` ({one_line(said)})" for name, said in ids.items())
