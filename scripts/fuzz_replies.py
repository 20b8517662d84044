"""Random replies through the real loop: every one ends as its own cell's verdict, and no run is stopped.

    python scripts/fuzz_replies.py [--replies N] [--seed N] [--steps N] [--workers N] [--seconds S]

Whole cells of the embedded suite with real workspaces, the real sandbox, real verification and real records, answered by a model that
says anything: every kind of Unicode, NUL, lone surrogates, hundreds of thousands of characters, nested and broken tags, sound actions
with hostile paths and contents, commands that leave odd trees. Of each batch the records are read again and compared with what was
said; every eighth batch is then interrupted before its ends and repeated from its steps. Prints counts, seconds and the seed; ends
with 1 where anything was not as it should be.
"""

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from looper.agent.actions import render
from looper.agent.scaffold import packaged_scaffold
from looper.edges.datasets.micro import MicroSuite
from looper.edges.engines.local import LocalEngine, Threads
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.models.scripted import ScriptedModel
from looper.edges.sandboxes.check import find_sandbox
from looper.edges.workspaces.exports import GitSessions
from looper.experiment.cell import RunContext, run_cell
from looper.experiment.ledger import Ledger
from looper.experiment.run import run_plan
from looper.journal import Damage, read_stream
from looper.protocols import ChatRequest
from looper.records.model import ModelSpec
from looper.records.plan import Arm, ArmRole, Cell, Limits, Plan, RunManifest, TaskSelection
from looper.records.task import Task
from looper.records.text import joined
from looper.records.trajectory import (
    Action,
    Bash,
    Done,
    Edit,
    FinishReason,
    Read,
    Reply,
    Step,
    Trajectory,
    Write,
)
from looper.records.verdict import Outcome, Verdict

RANGES = (
    *((0x20, 0x7E),) * 4, (0x00, 0x1F), (0x7F, 0xFF), (0x100, 0x2FF), (0x2000, 0x206F), (0x4E00, 0x9FFF), (0xD800, 0xDFFF),
    (0xE000, 0xF8FF), (0xFE00, 0xFEFF), (0xFFF0, 0xFFFF), (0x1F300, 0x1FAFF), (0x10FF00, 0x10FFFF),
)  # fmt: skip
TOKENS = (
    "<bash>", "</bash>", "<bash", "</bash >", "<BASH>", "<read>", "</read>", '<read path="', '<write path="a.py">', "</write>",
    '<write path="b" mark="1">', "</write:1>", '<edit path="ops.py">', "<edit path='ops.py'>", "<old>", "</old>", "<new>", "</new>",
    "</edit>", "<done>", "</done", "<done/", "<think>", "</think>", "<thinking>", "```", "```bash\n", "~~~\n", "\n", "\r\n", "\r", "\t",
    " ", "\u2028", "\x85", "\f", "\0", "\ud800", "\udfff", "\ufeff", "\u200b", "<|im_end|>", "</s>", "&amp;", "&#10;", '"', "'", "=",
    ">", "/>", ":1-2", "../", ".git", "ops.py", "x", "def f():\n", "]]>", "\\", "$(", "`", "*", "-",
)  # fmt: skip
PATHS = (
    "ops.py", "check.py", "new.py", "a/b/c.txt", "tests/test_x.py", "conftest.py", ".git/config", ".git", "../up", "/etc/passwd", "~/x",
    ".", "", "a\0b", "a\ud800b", "\udcff", "n" * 255, "n" * 256, "d/" * 70 + "x", "d/" * 3000 + "x", ("e" * 250 + "/") * 11 + "f", "pipe",
    "loop", "closed/in", "a\nb", "a\u2028b", "-rf", "*", "$(id)", "con", "ops.py/x", "sub/.git", "\u202e", " ", "x" * 60_000,
)  # fmt: skip
COMMANDS = (
    "ls -la; python check.py", "rm -rf d many* copy 0*", "echo x >> ops.py", "cat ops.py", "true", "false", "exit 126", "exit 255", "kill -9 $$", "kill -SEGV $$",
    "mkfifo pipe", "ln -s loop loop; ln -s / root; ln -s . self", "touch $'a\\nb' $'\\xff\\xfe' $'\\u2028' -- -rf '*'",
    "mkdir -p closed/in; echo x > closed/in/f; chmod 0 closed/in closed ops.py", "chmod -R 0 . ; true", "chmod -R u+rwX . ; true",
    "rm -rf -- * .[!.]*", "rm -rf .git; git init -q sub", "mv ops.py ops; mkdir ops.py; echo x > ops.py/y", "truncate -s 200M sparse",
    "head -c 3M /dev/urandom > random.bin", "head -c 300K /dev/urandom", "printf '\\000\\377\\355\\240\\200'", "yes | head -c 5M",
    "touch many{1..200}", "for i in $(seq 40); do n=$(printf '%0250d' 0); mkdir $n && cd $n || break; done; touch deep",
    "python -c \"import os\nfor i in range(400): os.mkdir('d'); os.chdir('d')\nopen('f', 'w').write('x')\"",
    "python -c \"import socket; socket.socket(socket.AF_UNIX).bind('s')\"", "sleep 60 & disown; sleep 60 & echo on", "exec >&- 2>&- <&-",
    "ln ops.py hard; ln -s /etc/passwd out", "echo 'x = (' > ops.py", "python -c 'print(\"9\" * 200000)'", "ulimit -n 3; ls", "cd /; pwd; ls",
    "echo gitdir: /etc > .git/x; echo '* -text eol=crlf' > .gitattributes", "git config core.fsmonitor /bin/false; git status; git stash",
    "trap '' TERM INT; echo stay", "printf '\\r\\n' >> ops.py; sed -i 's/$/\\r/' check.py", "setsid sleep 60 &", "echo \"$PATH\"; env; id",
    "cp -r . /tmp/copy; cp -r /tmp/copy copy", "python - <<'E'\nimport os\nos.fork() or os.abort()\nE",
)  # fmt: skip
SLOW = (
    "sleep 30",
    "while :; do :; done",
    "cat /dev/zero > zero",
    ":(){ :|:& };:",
    "tail -f /dev/null | cat",
    "python -c 'x = [0]\nwhile 1: x *= 2'",
)


class Maker:
    """One reply, drawn."""

    def __init__(self, *seed: object) -> None:
        self.rng = random.Random("/".join(map(str, seed)))

    def reply(self) -> tuple[str, FinishReason]:
        kinds: tuple[tuple[Callable[[], str], float], ...] = (
            (self.text, 32), (self.soup, 28), (self.damaged, 20), (self.file_action, 9), (self.huge, 2), (self.command, 2), (self.done, 0.2),
        )  # fmt: skip
        said = self.rng.choices([make for make, _ in kinds], [weight for _, weight in kinds])[0]()
        return said, FinishReason.LENGTH if self.rng.random() < 0.03 else FinishReason.STOP

    def text(self, most: int = 200) -> str:
        return "".join(
            chr(self.rng.randint(*self.rng.choice(RANGES))) for _ in range(self.rng.randrange(most))
        )

    def soup(self) -> str:
        return "".join(self.rng.choice(TOKENS) for _ in range(self.rng.randrange(30)))

    def hostile(self) -> str:
        return self.rng.choice((self.text, self.soup, lambda: "x = 1\n" * self.rng.randrange(9)))()

    def path(self) -> str:
        return self.text(12) or "p" if self.rng.random() < 0.2 else self.rng.choice(PATHS)

    def action(self) -> Action:
        number = self.rng.choice((None, 1, 2, 10**8))
        match self.rng.randrange(3):
            case 0:
                return Read(path=self.path(), start=number, end=number and number + self.rng.randrange(9))
            case 1:
                return Write(path=self.path(), content=self.hostile(), confirm_shrink=self.rng.random() < 0.5)
            case _:
                old = self.rng.choice(("return", "\n", " ", "    return", "def", self.hostile() or "x"))
                return Edit(path=self.path(), old=old, new=self.hostile(), occurrence=number)

    def file_action(self) -> str:
        return self.rng.choice(("", "So:\n", "<think>x</think>\n")) + render(self.action())

    def damaged(self) -> str:
        """An action with a few characters taken out, put in or said twice."""
        said = render(self.action() if self.rng.random() < 0.9 else Bash(command=self.hostile()))[:5_000]
        for _ in range(self.rng.randrange(1, 4)):
            at = self.rng.randrange(len(said) + 1)
            put = self.rng.choice(("", self.rng.choice(TOKENS), said[at : at + 9] * 2))
            said = said[:at] + put + said[at + self.rng.randrange(4) :]
        return said

    def huge(self) -> str:
        length = self.rng.randrange(10_000, 300_000)
        match self.rng.randrange(5):
            case 0:
                return self.rng.choice(TOKENS) * (length // 8)
            case 1:
                return f'<write path="huge.py">{self.rng.choice(("(", "x", "-", "a.", chr(0x10FFFF))) * (length // 2)}</write>'
            case 2:
                return f"<bash>echo {'y' * length} | wc -c</bash>"
            case 3:
                return "".join(
                    f"<{name}>" for name in self.rng.choices(("bash", "old", "think", "x"), k=length // 8)
                )
            case _:
                return f'<edit path="ops.py"><old>{"n" * length}</old><new></new></edit>'

    def command(self) -> str:
        commands = self.rng.sample(COMMANDS, self.rng.randrange(1, 3))
        if self.rng.random() < 0.03:
            commands.append(self.rng.choice(SLOW))
        if self.rng.random() < 0.1:
            commands = [self.hostile()]
        return render(
            Bash(command="; ".join(commands) if self.rng.random() < 0.5 else "\n".join(commands) or "ls")
        )

    def done(self) -> str:
        return render(Done(message=self.hostile()))


class Babbler(ScriptedModel):
    """Says what is drawn for its cell and turn, so that it says the same after an interruption."""

    def __init__(self, seed: int) -> None:
        super().__init__(["<done></done>"])
        self._seed = seed

    def reply(self, request: ChatRequest) -> Reply:
        turn = sum(role == "assistant" for role, _ in request.messages)
        text, finish = Maker(self._seed, request.conversation.partition("#")[0], turn).reply()
        return super().reply(request).model_copy(update={"text": text, "finish_reason": finish})


class Fuzz:
    """One temporary state folder, and what was found so far."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.sandbox = find_sandbox("auto")
        tasks, mirrors = MicroSuite(folder / "suites", 0, 0).load()
        self.tasks: Sequence[Task] = tasks
        environments = HarnessEnvironment(folder / "environments")
        place = folder / "workspaces"
        sessions = GitSessions(mirrors, folder / "exports", place, self.sandbox, environments.of)
        model = Babbler(options.seed)
        self.run_context = RunContext(sessions, lambda arm, task, adapter, server: model, "fuzz")
        self.limits = Limits(
            steps=options.steps,
            output_tokens=1,
            context_tokens=2,
            wall_s=900,
            command_s=3,
            verify_s=60,
            memory_mb=512,
        )
        self.replies = self.repeated = self.diverged = 0
        self.problems: list[str] = []
        self.ends, self.outcomes, self.told = Counter[str](), Counter[str](), Counter[str]()
        self.slowest: tuple[float, str] = (0.0, "")

    def finished(self, cell: Cell, verdict: Verdict) -> None:
        """Nothing is shown of a cell."""

    def batch(self, number: int) -> None:
        folder = self.folder / "runs" / str(number)
        task = self.tasks[number % len(self.tasks)]
        names = ("base", "terse", *(("guarded",) if number % 4 == 0 else ()))
        cells = [
            Cell(arm=name, seed=seed, instance_id=task.instance_id)
            for seed in (2 * number, 2 * number + 1)
            for name in names
        ]
        self._run(folder, task, cells)
        self.replies += self._look(folder, cells)
        if number % 8 == 0:
            before = {end.cell: end for end in read_stream(folder, "trajectories", Trajectory)}
            for name in ("trajectories", "verdicts"):
                (folder / f"{name}.jsonl").unlink()
            self._run(folder, task, cells)
            self._look(folder, cells, before)
            self.repeated += len(cells)
        shutil.rmtree(folder)

    def _run(self, folder: Path, task: Task, cells: Sequence[Cell]) -> None:
        seeds = tuple(dict.fromkeys(cell.seed for cell in cells))
        plan = Plan(
            experiment="fuzz", profile="fuzz", title="Fuzz", hypothesis="Every cell ends alone.", factor="none", arms=ARMS,
            selection=TaskSelection(suite="micro"), seeds=seeds, limits=self.limits, order="parallel",
        )  # fmt: skip
        identity = Babbler(self.options.seed).identity()
        manifest = RunManifest(
            plan=plan, code_version="fuzz", tasks=(task.instance_id,), tasks_hash="",
            models={arm.name: identity for arm in ARMS}, environments=("fuzz",), sandbox=self.sandbox.name,
        )  # fmt: skip
        ledger = Ledger(folder, manifest)
        lanes, stop = [[cell] for cell in cells], threading.Event()
        engine = LocalEngine(
            Threads(self.options.workers),
            lambda job, tell: run_cell(job, self.run_context, tell, stop.is_set),
        )
        try:
            run_plan(
                plan, plan.arms, {task.instance_id: task}, lanes, ledger, engine, stop, self, degenerate_stops=False,
            )  # fmt: skip
        except Exception as error:
            self.problems.append(f"the run was stopped: {type(error).__name__}: {error}")
            raise
        finally:
            ledger.close()

    def _look(self, folder: Path, cells: Sequence[Cell], before: dict[str, Trajectory] | None = None) -> int:
        """Compare the records with what was said and what must be; how many replies there were."""
        damage: list[Damage] = []
        steps = list(read_stream(folder, "steps", Step, damage))
        ends = {end.cell: end for end in read_stream(folder, "trajectories", Trajectory, damage)}
        verdicts = {found.cell: found for found in read_stream(folder, "verdicts", Verdict, damage)}
        self.problems += [f"{found.file} line {found.line}: {found.reason}" for found in damage]
        for step in steps if before is None else ():
            said, _ = Maker(self.options.seed, step.cell, step.index - 1).reply()
            if step.reply.text != joined(said):
                self.problems.append(f"{step.cell} step {step.index}: the record is not what was said")
            self.told[step.problem.value if step.problem else step.observation.kind.value] += 1
            self.slowest = max(self.slowest, (step.wall_s, f"{step.cell} step {step.index}"))
        for cell in cells:
            end, verdict = ends.get(cell.key), verdicts.get(cell.key)
            if end is None or verdict is None:
                self.problems.append(f"{cell.key}: has no {'verdict' if end else 'end'}")
                continue
            again = before is not None and verdict.attempt > 1
            self.diverged += again
            if verdict.outcome not in (Outcome.UNRESOLVED, Outcome.TAMPERED) or (
                verdict.attempt > 1 and not again
            ):
                self.problems.append(
                    f"{cell.key}: {verdict.outcome.value}, attempt {verdict.attempt}: {verdict.cause}\n{verdict.fault}"
                )
            if before is None:
                self.ends[end.stop_reason.value] += 1
                self.outcomes[verdict.outcome.value] += 1
            elif not again and (end.stop_reason, end.steps) != (
                before[cell.key].stop_reason,
                before[cell.key].steps,
            ):
                self.problems.append(f"{cell.key}: ended otherwise when it was repeated")
        return len(steps)


def _arm(name: str, role: ArmRole, scaffold: str, guarded: bool) -> Arm:
    found = packaged_scaffold(scaffold)
    off = dict.fromkeys(("no_action_stop", "no_progress_stop", "repeat_stop", "repeat_refuse"))
    guards = found.guards if guarded else found.guards.model_copy(update=off)
    return Arm(
        name=name,
        role=role,
        model=ModelSpec(backend="noop"),
        scaffold=found.model_copy(update={"guards": guards}),
        temperature=0.0,
    )


ARMS = (
    _arm("base", ArmRole.BASE, "full", guarded=False),
    _arm("guarded", ArmRole.TREATMENT, "full", guarded=True),
    _arm("terse", ArmRole.TREATMENT, "terse", guarded=False),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--replies", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=500, help="limit of one rollout")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--seconds", type=float, default=1e9, help="end after the batch in which they are over"
    )
    options = parser.parse_args()
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="looper-fuzz-"))
    folder.chmod(0o755)
    try:
        fuzz = Fuzz(folder, options)
        number = 0
        while fuzz.replies < options.replies and time.monotonic() - begun < options.seconds:
            known = len(fuzz.problems)
            fuzz.batch(number)
            print("\n".join(fuzz.problems[known:]), end="", file=sys.stderr)
            number += 1
            print(
                f"{fuzz.replies} replies, {sum(fuzz.outcomes.values())} cells, {time.monotonic() - begun:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        print("\n".join(fuzz.problems[:20]))
    print(
        f"seed {options.seed}: {fuzz.replies} replies in {sum(fuzz.outcomes.values())} rollouts, {time.monotonic() - begun:.0f} s, sandbox {fuzz.sandbox.name}"
    )
    print(f"told: {dict(fuzz.told.most_common())}")
    print(f"rollouts ended: {dict(fuzz.ends.most_common())}; verdicts: {dict(fuzz.outcomes.most_common())}")
    print(
        f"repeated from their records: {fuzz.repeated} rollouts, {fuzz.diverged} of them begun anew; slowest step {fuzz.slowest[0]:.1f} s"
    )
    print(f"not as it should be: {len(fuzz.problems)}")
    return bool(fuzz.problems)


if __name__ == "__main__":
    sys.exit(main())
