"""Stand-ins for tasks of SWE-Bench-CL where the repositories cannot be fetched: base trees made from source releases.

    python scripts/make_stand_ins.py --data FILE --repo sympy/sympy --releases FOLDER --out FOLDER

FOLDER of releases holds source archives (`pip download --no-deps --no-binary :all: sympy==1.4`). For each task the first
release, from the task's version on, in which gold and test patch can be undone gives a base tree without the fix; it becomes
a commit of a bare mirror below OUT, and `data.jsonl` beside it the rows with these commits. Then:

    looper bench validate --data OUT/data.jsonl --mirrors OUT

A stand-in differs from the real base by everything else that changed up to its release. It shows that environments, runners,
ids and verdicts work, and nothing about the tasks themselves.
"""

import argparse
import gzip
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--releases", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    opened = gzip.open if options.data.suffix == ".gz" else open
    with opened(options.data, "rt", encoding="utf-8") as stream:
        rows = [row for row in map(json.loads, stream) if row["metadata"]["repo"] == options.repo]
    archives = sorted(options.releases.glob("*.tar.gz"), key=version_of)
    options.out.mkdir(parents=True, exist_ok=True)
    mirror = options.out / f"{options.repo.replace('/', '__')}.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(mirror)], check=True)
    made = []
    with tempfile.TemporaryDirectory() as place:
        for row in rows:
            name, commit = row["metadata"]["instance_id"], None
            for archive in archives:
                if version_of(archive) >= number(row["swebench"]["version"]):
                    commit = stand_in(row, archive, Path(place), mirror)
                    if commit:
                        break
            print(f"{name}: {archive.name if commit else 'no release from which the patches can be undone'}")
            if commit:
                row["metadata"]["base_commit"] = commit
                made.append(row)
    data = options.out / "data.jsonl"
    others = [
        line
        for line in (data.read_text("utf-8").splitlines() if data.exists() else ())
        if json.loads(line)["metadata"]["repo"] != options.repo
    ]
    data.write_text("\n".join([*others, *map(json.dumps, made)]) + "\n", "utf-8")
    print(f"{options.repo}: {len(made)} of {len(rows)} stand-ins")


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def version_of(archive: Path) -> tuple[int, ...]:
    return number(archive.name.removesuffix(".tar.gz").rpartition("-")[2])


def stand_in(row: dict[str, Any], archive: Path, place: Path, mirror: Path) -> str | None:
    """The commit of a release without a task's patches; None where they cannot be undone in it."""
    tree = place / archive.name.removesuffix(".tar.gz")
    if not tree.exists():
        subprocess.run(["tar", "-xf", str(archive), "-C", str(place)], check=True)
        git(tree, "init", "--quiet")
        git(tree, "add", "--all", "--force")
        commit(tree, archive.name)
    git(tree, "checkout", "--quiet", "--force", "HEAD")
    git(tree, "clean", "-dfxq")
    for patch in (row["evaluation"]["test_patch"], row["evaluation"]["patch"]):
        undone = subprocess.run(
            ["git", "apply", "--reverse", "--whitespace=nowarn", "-"],
            cwd=tree,
            input=patch.encode(),
            capture_output=True,
        )
        if undone.returncode != 0:
            return None
    git(tree, "add", "--all", "--force")
    made = git(tree, "commit-tree", git(tree, "write-tree"), "-m", row["metadata"]["instance_id"])
    # A ref of its own, so that nothing is collected as garbage.
    git(tree, "push", "--quiet", str(mirror), f"{made}:refs/heads/{row['metadata']['instance_id']}")
    git(tree, "reset", "--quiet", "--hard", "HEAD")
    return made


def commit(tree: Path, said: str) -> None:
    git(tree, "commit", "--quiet", "--message", said)


def git(tree: Path, *words: str) -> str:
    who = ["-c", "user.name=stand-in", "-c", "user.email=stand-in@localhost"]
    done = subprocess.run(["git", *who, *words], cwd=tree, check=True, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
