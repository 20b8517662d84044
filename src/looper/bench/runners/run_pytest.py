"""Runs pytest and reports each test's outcome to a file: run_pytest.py REPORT [--as-configured] FILE...

The folder of this program, not the tree, stands first on the module path while pytest is imported; the tree comes after
that, for the product. Nothing of the tree's own pytest configuration is read but its conftest files, unless it is asked for.
"""

import json
import os
import sys


def main():
    report, files = sys.argv[1], sys.argv[2:]
    del sys.argv[1:]
    # Repositories of the benchmark are tested as they configure it themselves; what a patch may change of that was taken out.
    own = files[:1] == ["--as-configured"]
    out = open(report, "a", 1)

    def say(**entry):
        out.write(json.dumps(entry) + "\n")

    import pytest

    say(begun=True)
    tree = os.getcwd()
    sys.path[0] = tree

    class Reporter:
        """Collects the three phases of each test into one outcome."""

        def __init__(self):
            self.outcomes = {}

        @pytest.hookimpl(trylast=True)
        def pytest_runtest_logreport(self, report):
            worse = self.outcomes.get(report.nodeid, "passed")
            if report.failed:
                worse = "failed" if report.when == "call" else "error"
            elif report.skipped and worse == "passed":
                # Marked in the test, not called for by the product.
                marked = hasattr(report, "wasxfail") and "xfail" in report.keywords
                worse = "xfailed" if marked else "skipped"
            self.outcomes[report.nodeid] = worse
            if report.when == "teardown":
                # The benchmark's ids end at the first blank, so several tests can share one.
                say(id=list({report.nodeid, (report.nodeid.split() or [""])[0]}), outcome=worse)

        def pytest_collectreport(self, report):
            if report.failed:
                say(error=f"collecting {report.nodeid} failed: {str(report.longrepr)[-500:]}")

    options = ["-q", "-p", "no:cacheprovider", "--rootdir", tree, "-c", os.devnull, "--tb=no", "--no-header"]
    # What lies above the tree, which the sandbox may not let anybody list, is not looked through for configuration.
    options += ["--confcutdir", tree]
    # A test module that cannot be imported must not keep the others from running.
    options.append("--continue-on-collection-errors")
    if own:
        options = ["-rA", "-p", "no:cacheprovider"]
    existing = [name for name in files if os.path.exists(os.path.join(tree, name))]
    status = int(pytest.main([*options, *existing], plugins=[Reporter()]))
    say(exit=status)
    out.close()
    sys.stdout.flush()
    # Not sys.exit: an exit handler of the product could change the status.
    os._exit(status)


main()
