"""Runs pytest and reports each test's outcome to a file: run_pytest.py REPORT [--apart FOLDER | --as-configured] [--from-tree | --bare] FILE...

Nothing of the tree can be imported before the report has begun: pytest comes from the interpreter's packages, or, where it is
itself the product, after the beginning. Nothing of the tree's own pytest configuration is read but its conftest files, unless
it is asked for.
"""

import looper_report

import ast
import builtins
import gc
import importlib
import importlib.util
import itertools
import os
import sys
import threading


CHANGED = {"logging", "sys", "warnings"}
"""Modules that pytest changes while a test runs, or that are there to be changed."""
HELPERS = ("approx", "raises", "warns")
"""What tests ask whether something is nearly equal, was raised or warned of."""


def watched(asked=()):
    """What decides outcomes beside pytest's own hooks; `asked` are modules that tests ask too."""
    import unittest.case

    import _pytest.python
    import _pytest.runner
    import _pytest.skipping
    import _pytest.unittest

    found = [unittest.case, _pytest.python, _pytest.runner, _pytest.skipping, _pytest.unittest]
    for name in asked:
        try:
            found.append(importlib.import_module(name))
        except ImportError:
            continue
    # Before pytest 3.7 its reports were in the runner.
    found += [sys.modules[name] for name in ("_pytest.reports",) if name in sys.modules]
    return found + [sys.modules[name] for name in sorted(sys.modules) if name.startswith("pluggy.")]


def helpers(asked, named):
    """Modules whose word tests take for what is equal, raised or matched: where pytest has what they name of it, and those that they import."""
    import pytest

    # Where they are differs from version to version.
    found = [
        sys.modules[getattr(pytest, name).__module__]
        for name in HELPERS
        if name in named and hasattr(pytest, name)
    ]
    found += [sys.modules[name] for name in asked if name in sys.modules and looper_report.is_pure(name)]
    return found + ([sys.modules["unittest.case"]] if "unittest" in asked else [])


def asked_by(files):
    """Modules outside of the tree that tests import, as far as they say so at their beginning, and the names and attributes that they use."""
    product = {name.partition(".")[0] for name in os.listdir(looper_report.TREE)}
    found, names = set(), set()
    for name in files:
        try:
            with open(os.path.join(looper_report.TREE, name), "rb") as stream:
                tree = ast.parse(stream.read())
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Name, ast.Attribute)):
                names.add(node.id if isinstance(node, ast.Name) else node.attr)
        for node in tree.body:
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
                found.update("%s.%s" % (node.module, alias.name) for alias in node.names)
                names.update(alias.name for alias in node.names)
    outside = sorted(name for name in found if name.partition(".")[0] not in product | CHANGED)
    return outside, names


def main():
    place, files = sys.argv[1], sys.argv[2:]
    del sys.argv[1:]
    # Repositories of the benchmark are tested as they configure it themselves; what a patch may change of that was taken out.
    as_configured = files[:1] == ["--as-configured"]
    files = files[as_configured:]
    # The product is in another process, behind the pipes of a folder; nothing of the tree but its tests is imported here.
    pipes = files[1] if files[:1] == ["--apart"] else ""
    files = files[2:] if pipes else files
    from_tree = files[:1] == ["--from-tree"]
    files = files[from_tree:]
    # Written for Looper: such tests ask for no fixture but their own.
    bare = files[:1] == ["--bare"]
    files = files[bare:]
    report = looper_report.Report(place)
    say, copies, alone, leave = report.say, report.copies, threading.active_count, os._exit
    # Copies that are to run before the tests.
    early = set(itertools.takewhile(copies.__contains__, files))
    if from_tree:
        say("begun")
        looper_report.with_tree()
    else:
        # Until tests are collected: what pytest makes while it starts stays, and going through it is 7 % of what a verdict costs.
        gc.disable()
    if bare and not pipes:
        import looper_plain
    try:
        import pytest
    except BaseException as error:
        if not from_tree:
            raise
        say("error", "importing pytest failed: %s: %s" % (type(error).__name__, error))
        raise
    # A process that the product starts by itself (multiprocessing's spawn) runs the main program once more: pytest's, as elsewhere.
    own = os.path.join(os.path.dirname(pytest.__file__), "__main__.py")
    sys.modules["__main__"].__file__ = own if os.path.exists(own) else pytest.__file__
    # A pytest under test is replaced by its own tests, and whether unittest was imported before them is seen by some.
    asked, named = asked_by(files) if bare else (["unittest.mock"], set(HELPERS))
    decide = [] if from_tree else watched(asked)
    builtin = sorted(name for name in named if name in vars(builtins) and not name.startswith("__"))

    def look(helpers=False):
        replaced = originals.replaced(helpers)
        if replaced:
            say("tampered", "%s was replaced" % replaced[0])

    helping = [] if from_tree else helpers(asked, named)
    plain = None
    if bare and not pipes:
        plain = looper_plain
        # Tests that ask nobody but themselves need no look in between.
        plain.connect(looper_report.TREE, files, helping and (lambda: look(helpers=True)))
        del sys.modules[plain.__name__]
    # Which puts functions of its own into unittest.mock while tests run, for shorter messages, unless it is asked not to.
    mocks = as_configured and importlib.util.find_spec("pytest_mock") is not None
    originals = looper_report.Originals(decide, builtin, plain, helping)
    if pipes:
        import looper_apart

        looper_apart.connect(pipes, looper_report.TREE, lambda why: say("refused", why))
    if not from_tree:
        say("begun")
    if not from_tree and not pipes:
        looper_report.with_tree()

    class Reporter:
        """Collects the three phases of each test into one outcome."""

        def __init__(self):
            self.outcomes = {}
            self.raised = set()
            self.broken = set()

        @pytest.hookimpl(tryfirst=True)
        def pytest_load_initial_conftests(self, early_config):
            if not from_tree:
                originals.remember_hooks(early_config.pluginmanager)

        @pytest.hookimpl(tryfirst=True)
        def pytest_collection(self):
            gc.enable()

        @pytest.hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_runtest_makereport(self, item, call):
            if call.excinfo is not None:
                self.raised.add((item.nodeid, call.when))
            yield

        @pytest.hookimpl(trylast=True)
        def pytest_runtest_logreport(self, report):
            worse = self.outcomes.get(report.nodeid, "passed")
            if report.failed:
                worse = "failed" if report.when == "call" else "error"
            elif report.skipped and worse == "passed":
                # Called for while the test ran it is no mark.
                said = str(getattr(report, "wasxfail", "reason: "))
                marked = "xfail" in report.keywords and (
                    not said.startswith("reason: ") or said.startswith("reason: [NOTRUN]")
                )
                worse = "xfailed" if marked else "skipped"
            elif report.passed and worse == "passed" and (report.nodeid, report.when) in self.raised:
                worse = "failed"
                say("tampered", "%s raised and was reported as passed" % report.nodeid)
            self.outcomes[report.nodeid] = worse
            if report.when == "teardown":
                where, _, name = report.nodeid.partition("::")
                # The benchmark's ids end at the first blank, so several tests can share one.
                ids = sorted({report.nodeid, (report.nodeid.split() or [""])[0]}, key=len, reverse=True)
                say("test", worse, where, name, *ids)
                look()

        def pytest_collectreport(self, report):
            if report.failed:
                self.broken.add(report.nodeid.partition("::")[0])
                say("error", "collecting %s failed: %s" % (report.nodeid, str(report.longrepr)[-500:]))

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtestloop(self, session):
            # What was replaced while the product was imported can be back when a test ends.
            look()
            # A copy that cannot be imported keeps no real test from running.
            if self.broken <= copies:
                session.config.option.continue_on_collection_errors = True
            # In a process of their own: what they leave in the product must not help the tests. A thread of the product's would not be
            # there.
            chosen = [item for item in session.items if item.nodeid.partition("::")[0] in early]
            if chosen and alone() == 1:

                def run_early():
                    try:
                        for at, item in enumerate(chosen, 1):
                            following = chosen[at] if at < len(chosen) else None
                            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                    finally:
                        look()
                    return session.testsfailed

                failed = report.aside(run_early)
                if failed is None:
                    leave(1)
                session.testsfailed = failed
                session.items[:] = [item for item in session.items if item not in chosen]

    # Every outcome is printed as well, to be read as the benchmark's own harness does.
    options = ["-q", "-rap", "-p", "no:cacheprovider", "--rootdir", looper_report.TREE, "-c", os.devnull]
    # What lies above the tree, which the sandbox may not let anybody list, is not looked through for configuration.
    options += ["--no-header", "--color=no", "--confcutdir", looper_report.TREE]
    # Why a test failed is for people; what the product printed would stand between the lines that are read.
    options += ["--tb=short", "--show-capture=no"]
    if bare:
        # Writing tests anew, to say more of what an assertion compared, is 12 % of what a verdict costs. A tenth are plugins
        # that bring fixtures and options, or that collect garbage five times at the end to warn of what they find.
        options.append("--assert=plain")
        unused = "unraisableexception threadexception faulthandler legacypath doctest junitxml pastebin setuponly setupplan"
        options += [word for name in (unused + " stepwise").split() for word in ("-p", "no:" + name)]
    # A test module that cannot be imported must not keep the others from running.
    options.append("--continue-on-collection-errors")
    if as_configured:
        options = ["-rA", "-p", "no:cacheprovider"]
        if pytest.__version__.startswith("3."):
            # Whose -rA names no test that passed; so the benchmark's command has it print every test.
            options += ["-vv", "-o", "console_output_style=classic", "--tb=no"]
        if mocks:
            # First: before pytest 3.7 all that follows it, up to the next option, is taken for more of it.
            options = ["-o", "mock_traceback_monkeypatch=false"] + options
    existing = [name for name in files if os.path.exists(os.path.join(looper_report.TREE, name))]
    status = int(pytest.main(options + existing, plugins=[Reporter()]))
    look()
    report.end(status)


if __name__ == "__main__":
    main()
