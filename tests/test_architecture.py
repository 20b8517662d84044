"""The shape of the house: which part may know which."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "looper"

MAY_IMPORT = {
    # The program begins here, and goes through the first door.
    "__main__": {"cli", "errors"},
    "records": {"records"},
    "errors": set(),
    "untrusted": {"errors"},
    "protocols": {"records"},
    "journal": {"records", "errors", "untrusted"},
    "agent": {"agent", "protocols", "records", "errors"},
    "bench": {"bench", "protocols", "records", "errors", "untrusted"},
    "memory": {"memory", "records"},
    "training": {"training", "records"},
    "metrics": {"metrics", "records", "errors"},
    "experiment": {
        "experiment", "agent", "bench", "memory", "training", "metrics", "journal", "protocols", "records", "errors",
        "untrusted",
    },
    "evolution": {
        "evolution", "experiment", "agent", "bench", "metrics", "journal", "protocols", "records", "errors", "untrusted",
    },
    "views": {"views", "evolution", "metrics", "journal", "records", "errors", "untrusted"},
    # The second door. What it may have done is handed to it, so no edge is known here.
    "serve": {"serve", "views", "evolution", "journal", "records", "errors"},
    # The weights of the embedded model, and no code.
    "nano": set(),
    # Suites that arrive as foreign data are made into records by the bench's own pure functions.
    "edges": {"edges", "bench", "journal", "protocols", "records", "errors", "untrusted"},
    "cli": {
        "cli", "evolution", "experiment", "agent", "bench", "memory", "training", "metrics", "views", "edges", "journal", "protocols", "records", "errors",
        "serve", "untrusted",
    },
}  # fmt: skip


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "weights" not in path.parts)


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def own_imports(path: Path) -> set[str]:
    """Dotted names below `looper` that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("looper"):
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("looper")}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_keep_their_direction(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return
    for name in own_imports(path):
        target = name.split(".")[1] if "." in name else "__init__"
        if target != "__init__":
            assert target in MAY_IMPORT[part], f"{part} must not know {target} ({name})"


def test_only_the_wiring_names_concrete_edges() -> None:
    naming = {
        str(path.relative_to(PACKAGE))
        for path in modules()
        if part_of(path) not in ("edges",) and any(".edges" in name for name in own_imports(path))
    }
    assert naming == {"cli/wiring.py"}


def test_the_core_knows_the_machine_by_sessions_alone() -> None:
    """Which sandbox, tree and environment a command meets, and how it is begun there, is said in one place of the edges."""
    machine = {"Command", "Sandbox", "Environment", "Environments"}
    for part in ("agent", "bench", "experiment", "evolution"):
        for path in (PACKAGE / part).rglob("*.py"):
            assert not machine & imported_names(path, "looper.protocols"), path
    building = {path.name for path in modules() if "Command" in imported_names(path, "looper.protocols")}
    sandboxes = {path.name for path in (PACKAGE / "edges/sandboxes").glob("*.py")}
    assert building <= sandboxes


def imported_names(path: Path, module: str) -> set[str]:
    """What a module takes from another, anywhere in it."""
    return {
        alias.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == module
        for alias in node.names
    }


def test_edges_take_no_decisions_of_the_bench_but_shapes_of_data() -> None:
    for path in (PACKAGE / "edges").rglob("*.py"):
        for name in own_imports(path):
            if name.startswith("looper.bench"):
                assert path.parent.name == "datasets", f"{path.name} imports {name}"


def test_every_module_says_why_it_exists_and_a_long_one_how_it_is_read() -> None:
    for path in modules():
        text = path.read_text("utf-8")
        doc = ast.get_docstring(ast.parse(text))
        assert doc, f"{path} has no docstring"
        assert text.count("\n") <= 150 or doc.count("\n") > 0, (
            f"{path} is long and has no paragraph at its head"
        )


def test_there_are_no_import_cycles() -> None:
    graph = {
        "looper." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts): own_imports(path)
        for path in modules()
    }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"cycle: {' → '.join((*above, name))}"
        if name in done or name not in graph:
            return
        for below in graph[name]:
            visit(below, (*above, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_the_machine_learning_library_is_imported_in_child_processes_only() -> None:
    """What imports MLX is such a process itself or a part of one: nobody else knows it."""
    with_mlx = [
        path for path in modules() if any(name in ("mlx", "mlx_lm") for name in outside_imports(path))
    ]
    names = {"looper." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in with_mlx}
    for path in modules():
        known = own_imports(path) & names
        assert not known or path in with_mlx, f"{path.name} imports MLX by way of {known}"
    assert "mlx_child.py" in {path.name for path in with_mlx}


def outside_imports(path: Path) -> set[str]:
    """Packages that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_what_a_model_can_do_is_said_by_a_protocol_and_not_by_its_class() -> None:
    """Who wants a model with an adapter asks for an AdapterHost: a wrapper around one, or a new backend, needs no name anywhere else."""
    trees = {path: ast.parse(path.read_text("utf-8")) for path in modules()}
    models = {
        node.name
        for path, tree in trees.items()
        if path.parent == PACKAGE / "edges" / "models"
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Model")
    }
    assert {"MlxModel", "RetryingModel"} <= models
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("isinstance", "hasattr"):
                continue
            asked = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            said = f"{path.name}:{node.lineno}: {ast.unparse(node)}"
            assert not asked & models, said
            # The caches of MLX have no types to ask for.
            wraps = path.parent.name == "models" and path.name != "mlx_child.py"
            assert "hasattr" not in asked or not wraps, said


def test_p07_nothing_asks_for_the_time_of_day() -> None:
    """Limits and waits count awake, monotonic time, so a clock that jumps or a machine that slept ends nothing. Only records say when
    they were made, and what is shown says how long ago a file was written; nothing waits for either."""
    wall_clock = {"time.time", "datetime.now", "datetime.utcnow", "time.localtime", "time.ctime"}
    for path in modules():
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Call)
        }
        assert not calls & wall_clock or path.name in (
            "ledger.py",
            "audit_log.py",
            "live.py",
            "validating.py",
            "verifying.py",
        ), path


def test_a_value_that_nobody_thought_of_runs_as_no_other_one() -> None:
    """Where members of an enumeration are told apart, the rest of them has no case of its own: it raises, or the type checker finds
    the one that was forgotten."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Match):
                continue
            patterns = [
                each
                for case in node.cases
                for each in (
                    case.pattern.patterns if isinstance(case.pattern, ast.MatchOr) else [case.pattern]
                )
            ]
            members = [
                each
                for each in patterns
                if isinstance(each, ast.MatchValue) and isinstance(each.value, ast.Attribute)
            ]
            last = node.cases[-1]
            rest = (
                isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None and last.guard is None
            )
            if members and rest:
                said = ast.unparse(last.body[0])
                assert said.startswith(("raise ", "assert_never(")), (
                    f"{path.name}:{last.body[0].lineno}: {said}"
                )
