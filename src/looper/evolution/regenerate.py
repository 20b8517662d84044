"""Whole programs from their specification, one generation after another: several models as mutation, a rig that decides, budgets that end.

Numbers come from the ledger of births, so a resumed campaign goes on where it was. A call is reserved before it is made, against the
model's budget and the lineage's balance. What fails is tried again with its source and diagnostics, at most three times in a row for a
genome, then by the next model.
"""

import contextlib
import json
import random
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from looper.errors import BadInput, BudgetSpent, InfrastructureError, ModelDenied, ModelUnpaid
from looper.evolution.asking import NoAnswer, asked, prompt_tokens, until_read
from looper.evolution.genome import Acceptance, Genome, mutated, parse_genome
from looper.evolution.rig import Rig, artifact_hash, inside, read_files, rigged
from looper.journal import Stream, read_stream, replace_file
from looper.protocols import ChatModel, ChatRequest, Message
from looper.records.base import content_hash
from looper.records.genome import Birth, Diagnostics, Failure, Manifest, Mode, Mutation, Rigged, RigStage
from looper.records.text import estimated_tokens, whole_lines
from looper.untrusted import remove_tree

BIRTHS = "births"
OUTPUT_TOKENS = 32_000
TIMEOUT_S = 600.0
RETRIES = 3
"""In a row for one genome, before the next model is asked."""
HISTORY = 5
"""Generations that a prompt tells of: all of them would be a thousand tokens more each."""

SYSTEM = """You write whole programs from their specification. You get the specification, and how earlier tries ended. Answer with the files \
of the program, each between two marker lines, and nothing else:

=== MARK FILE path/of/the/file
the content, literally
=== MARK END

MARK stands for the word that you are given. Paths are relative; every file ends before the next one begins."""


@dataclass(frozen=True)
class ProgramWriter:
    name: str
    model: ChatModel
    budget: int | None
    """Tokens that it may take in the whole campaign; None without limit."""


@dataclass(frozen=True)
class TokenEconomy:
    """What a lineage lives on, in tokens."""

    balance: int | None = None
    """To begin with; None where nobody counts."""
    income: int = 0
    """For each viable child."""


@dataclass(frozen=True)
class Regeneration:
    folder: Path
    genome: Genome
    acceptance: Acceptance
    writers: Sequence[ProgramWriter]
    rig: Rig
    mode: Mode
    economy: TokenEconomy
    seed: int
    say: Callable[[str], None]
    cancelled: Callable[[], bool]


def births(folder: Path) -> list[Birth]:
    """All that was born so far; takes no lock."""
    return list(read_stream(folder, BIRTHS, Birth))


def tokens_of(found: Sequence[Birth], model: str = "") -> int:
    return sum(one.prompt_tokens + one.completion_tokens for one in found if not model or one.model == model)


def run(of: Regeneration, generations: int) -> str:
    """Until so many generations have a verdict; the reason of the end. What the outside world broke is no generation. Raises what keeps it
    from going on at all."""
    stream, empty = Stream(of.folder, BIRTHS, Birth), set[str]()
    try:
        while True:
            # Births of the other way of writing share the ledger, and are not this one's.
            found = [one for one in births(of.folder) if one.mode is of.mode]
            if sum(one.rigged is not None for one in found) >= generations:
                return "generations"
            if of.cancelled():
                return "interrupted"
            if _same_failures(found):
                return f"suspect the harness: the last three ended with: {found[-1].infra}"
            try:
                writer, retry = _next(of, found, empty)
            except BudgetSpent as error:
                return f"budget: {error}"
            number = max((one.generation for one in births(of.folder)), default=0) + 1
            try:
                birth = _born(of, writer, number, retry, found)
            except BudgetSpent as error:
                of.say(str(error))
                empty.add(writer.name)
                continue
            stream.append(birth)
            of.say(_told(birth))
    finally:
        stream.close()


def _same_failures(found: Sequence[Birth]) -> bool:
    last = [one.infra for one in found[-3:]]
    return len(last) == 3 and bool(last[0]) and len(set(last)) == 1


def _next(of: Regeneration, found: Sequence[Birth], empty: Collection[str]) -> tuple[ProgramWriter, int]:
    """Who writes the next one, and how many tries failed in a row. Raises BudgetSpent where nobody can."""
    spent = tokens_of(found)
    economy = of.economy
    if economy.balance is not None:
        viable = sum(bool(one.rigged and one.rigged.viable) for one in found)
        left = economy.balance + economy.income * viable - spent
        if left < OUTPUT_TOKENS_LEAST:
            raise BudgetSpent(
                f"the lineage has {max(0, left)} tokens left, and a call needs {OUTPUT_TOKENS_LEAST}"
            )
    failed = 0
    for one in reversed(found):
        if one.rigged is None:
            continue
        if one.rigged.viable:
            break
        failed += 1
    able = [
        one
        for one in of.writers
        if one.name not in empty
        and (one.budget is None or tokens_of(found, one.name) + OUTPUT_TOKENS_LEAST <= one.budget)
    ]
    if not able:
        raise BudgetSpent("no model has tokens left for another call")
    decided = [one for one in found if one.rigged is not None]
    if failed and failed % RETRIES and decided:
        same = next((one for one in able if one.name == decided[-1].model), None)
        if same is not None:
            return same, failed % RETRIES
    if failed and decided and len(able) > 1:
        able = [one for one in able if one.name != decided[-1].model]
    return random.Random(f"{of.seed}/{of.mode}/{len(decided)}").choice(able), 0


OUTPUT_TOKENS_LEAST = 500
"""Fewer left than this is none left."""


def _born(of: Regeneration, writer: ProgramWriter, number: int, retry: int, found: Sequence[Birth]) -> Birth:
    parent = next((one for one in reversed(found) if one.rigged and one.rigged.viable), None)
    failed = found[-1] if retry and found[-1].rigged else None
    birth = Birth(
        generation=number,
        mode=of.mode,
        parent=parent.generation if parent else 0,
        genome_hash=of.genome.hash,
        lineage=of.genome.name,
        model=writer.name,
        seed=of.seed + number,
        retry=retry,
        prompt_tokens=0,
        completion_tokens=0,
        manifest=None,
        rigged=None,
    )
    calls = _Calls(of, writer, birth, found)
    try:
        files, diagnostics = calls.files(parent, failed)
        if files is None:
            assert diagnostics is not None
            return birth.model_copy(
                update={
                    **calls.tokens(),
                    "rigged": Rigged(
                        viable=False, failed=RigStage.PARSE, checks={}, passed={}, diagnostics=diagnostics
                    ),
                }
            )
        folder = program_folder(of.folder, number)
        _write(folder, files)
        manifest = Manifest(
            generation=number,
            parent=birth.parent,
            genome_hash=of.genome.hash,
            artifact_hash=artifact_hash(files),
            model=writer.name,
            seed=birth.seed,
            files=tuple(sorted(files)),
            entry=of.genome.entry,
            **calls.tokens(),
        )
        replace_file(folder.parent / "manifest.json", manifest.to_json())
        at = program_folder(of.folder, parent.generation) if parent else None
        judged = rigged(of.rig, folder, manifest, of.genome, of.acceptance, at)
        return birth.model_copy(update={**calls.tokens(), "manifest": manifest, "rigged": judged})
    except (ModelDenied, ModelUnpaid):
        raise
    except InfrastructureError as error:
        return birth.model_copy(update={**calls.tokens(), "infra": f"{type(error).__name__}: {error}"})


def program_folder(root: Path, number: int) -> Path:
    return root / "artifacts" / f"gen-{number}" / "program"


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Anew: what a process that was killed here has left is no part of it."""
    remove_tree(folder.parent)
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    # Those who run it are other users.
    for part in (folder.parent.parent, folder.parent, folder, *folder.rglob("*")):
        part.chmod(0o755 if part.is_dir() else 0o644)


class _Calls:
    def __init__(self, of: Regeneration, writer: ProgramWriter, birth: Birth, found: Sequence[Birth]) -> None:
        self.of, self.writer, self.birth, self.found = of, writer, birth, found
        self.prompt_tokens = self.completion_tokens = 0
        # Drawn, so that no file can hold it by chance or on purpose.
        self.mark = secrets.token_hex(4)

    def tokens(self) -> dict[str, int]:
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}

    def files(
        self, parent: Birth | None, failed: Birth | None
    ) -> tuple[dict[str, bytes] | None, Diagnostics | None]:
        """What the model wrote; else why it is nothing that could be run."""
        before = (
            read_files(program_folder(self.of.folder, parent.generation))
            if parent and self.of.mode is Mode.PATCH
            else {}
        )
        wanted = f"Answer with the files alone, marked with {self.mark}."
        try:
            written = until_read(
                self._reply,
                SYSTEM,
                self._prompt(before, failed),
                lambda text: parse_files(text, self.mark),
                lambda problem: f"{problem}. {wanted}",
            )
        except NoAnswer as error:
            failure = Failure(test="files", error=str(error)[:500])
            return None, Diagnostics(stage=RigStage.PARSE, summary=str(error), failures=(failure,))
        return {**before, **written}, None

    def _reply(self, messages: tuple[Message, ...], attempt: int) -> str:
        model, budget = self.writer.model, self.writer.budget
        prompt = prompt_tokens(model, messages)
        most = OUTPUT_TOKENS
        spent = tokens_of(self.found, self.writer.name) + self.prompt_tokens + self.completion_tokens
        if budget is not None:
            most = min(most, budget - spent - prompt)
            if most <= 0:
                raise BudgetSpent(
                    f"{self.writer.name} has {max(0, budget - spent)} tokens left, and the prompt alone has {prompt}"
                )
        reply = model.reply(
            ChatRequest(
                conversation=f"birth-{self.birth.generation}-{self.mark}",
                messages=messages,
                max_output_tokens=most,
                context_tokens=200_000,
                temperature=0.7,
                seed=self.birth.seed,
                timeout_s=TIMEOUT_S,
            )
        )
        usage = reply.usage
        self.prompt_tokens += usage.prompt_tokens if usage.prompt_tokens is not None else prompt
        self.completion_tokens += (
            usage.completion_tokens if usage.completion_tokens is not None else estimated_tokens(reply.text)
        )
        return reply.text

    def _prompt(self, before: Mapping[str, bytes], failed: Birth | None) -> str:
        parts = [
            f"The marker word is {self.mark}.",
            f"<specification>\n{self.of.genome.text}\n</specification>",
        ]
        parts.append("<history>\n" + "\n".join(_history(self.found)) + "\n</history>")
        if before:
            parts.append(
                f"<program>\n{marked(before, self.mark)}</program>\nAnswer with those files alone that change."
            )
        if failed is not None and failed.rigged and failed.rigged.diagnostics:
            written = read_files(program_folder(self.of.folder, failed.generation)) if failed.manifest else {}
            parts.append(
                f"<failed>\n{marked(written, self.mark)}</failed>\n<diagnostics>\n{failed.rigged.diagnostics.model_dump_json()}\n</diagnostics>\n"
                "The last try failed so. Write the program again."
            )
        return "\n\n".join(parts)


def _history(found: Sequence[Birth]) -> Iterator[str]:
    for one in [birth for birth in found if birth.rigged][-HISTORY:]:
        assert one.rigged is not None
        end = (
            "viable"
            if one.rigged.viable
            else f"failed at {one.rigged.failed.value if one.rigged.failed else '?'}"
        )
        yield f"generation {one.generation}: {end}"


def marked(files: Mapping[str, bytes], mark: str) -> str:
    """Files as `parse_files` reads them."""
    return "".join(
        f"=== {mark} FILE {path}\n{_ending(content.decode('utf-8', 'replace'))}=== {mark} END\n"
        for path, content in files.items()
    )


def _ending(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def parse_files(text: str, mark: str) -> dict[str, bytes]:
    """By whole lines, so that a marker inside of a line is content. Raises ValueError where a block is not closed, a path leaves the folder,
    or there is no file."""
    files: dict[str, bytes] = {}
    path, lines = "", list[str]()
    for line in whole_lines(text):
        found = re.fullmatch(rf"=== {mark} (FILE (.+?)|END)\s*", line)
        if found and found[2]:
            if path:
                raise ValueError(f"{path} is not closed before {found[2]} begins")
            path, lines = found[2].strip(), []
            if not inside(path):
                raise ValueError(f"{path} leaves the program's folder")
            if path in files:
                raise ValueError(f"{path} is there twice")
        elif found and path:
            files[path], path = "".join(lines).encode(), ""
        elif path:
            lines.append(line)
    if path:
        raise ValueError(f"{path} is not closed")
    if not files:
        raise ValueError("there is no file")
    return files


def _told(birth: Birth) -> str:
    where = f"generation {birth.generation}, {birth.mode.value}, {birth.model}"
    if birth.infra:
        return f"{where}: no verdict, {birth.infra}"
    assert birth.rigged is not None
    if birth.rigged.viable:
        same = birth.rigged.same_as_parent
        return f"{where}: viable" + (
            f", says what its parent says to {100 * same:.0f} % of inputs" if same is not None else ""
        )
    return f"{where}: failed at {birth.rigged.failed.value if birth.rigged.failed else '?'}: {birth.rigged.diagnostics.summary if birth.rigged.diagnostics else ''}"


def identity(of: Regeneration) -> str:
    """What a campaign's ledger belongs to: another genome, battery or seed is another campaign."""
    return content_hash(of.genome.hash, of.acceptance.hash, str(of.seed))


MUTATIONS = "mutations"
MUTATE = """You improve one section of a specification that programs are written from. You get the whole specification and the name of the section. Answer with one JSON object and nothing else: {"content": "the section's new text, without its heading", "reason": "one sentence"}. \
Blocks between FROZEN marks, the entry and the vectors must stay as they are."""


def inherited_genome(folder: Path, first: Genome) -> Genome:
    """What the next generation is written from: the first genome with every change that proved itself, in order."""
    found = first
    for mutation in read_stream(folder, MUTATIONS, Mutation):
        if mutation.inherited and mutation.parent_hash == found.hash:
            found = parse_genome((folder / "genomes" / f"{mutation.genome_hash}.md").read_text("utf-8"))
    return found


def mutate(of: Regeneration, mutator: ChatModel, number: int) -> Mutation:
    """Change one section, write one generation from it, and keep the change where that is viable. Raises BadInput where no usable section
    came of the model's answers."""
    genome = of.genome
    section = random.Random(f"{of.seed}/mutation/{number}").choice(
        [
            name
            for name in genome.sections
            if "<!-- FROZEN" not in genome.sections[name] and "```" not in genome.sections[name]
        ]
    )

    def read(text: str) -> tuple[Genome, Mutation]:
        try:
            said = json.loads(text[text.index("{") : text.rindex("}") + 1])
            return mutated(genome, section, str(said["content"]), str(said["reason"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"That cannot be used: {type(error).__name__} {error}.") from error

    try:
        changed, mutation = asked(
            mutator,
            f"mutation-{number}",
            MUTATE,
            f"Section: {section}\n\n{genome.text}",
            read,
            again="Answer with the JSON object alone.",
            output_tokens=4_000,
            seed=of.seed + number,
        )
    except NoAnswer as error:
        raise BadInput(
            f"No change of the specification came of the model's answers; the last one: {error}"
        ) from error
    place = of.folder / "genomes"
    place.mkdir(exist_ok=True)
    replace_file(place / f"{changed.hash}.md", changed.text.encode())
    before = sum(one.rigged is not None and one.mode is of.mode for one in births(of.folder))
    run(replace(of, genome=changed), before + 1)
    born = births(of.folder)[-1]
    proved = born.genome_hash == changed.hash and born.rigged is not None and born.rigged.viable
    found = mutation.model_copy(update={"inherited": proved})
    with contextlib.closing(Stream(of.folder, MUTATIONS, Mutation)) as stream:
        stream.append(found)
    of.say(f"section {section}: {found.reason} {'inherited' if proved else 'dropped'}")
    return found
