"""Runs pytest and reports each test's outcome to a file: run_pytest.py REPORT FILE...

The folder of this program, not the tree, stands first on the module path while pytest is imported; the tree comes after
that, for the product. Nothing of the tree's own pytest configuration is read but its conftest files.
"""

import json
import os
import sys


def main():
    report, files = sys.argv[1], sys.argv[2:]
    del sys.argv[1:]
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
                say(id=[report.nodeid], outcome=worse)

        def pytest_collectreport(self, report):
            if report.failed:
                say(error=f"collecting {report.nodeid} failed: {str(report.longrepr)[-500:]}")

    options = ["-q", "-p", "no:cacheprovider", "--rootdir", tree, "-c", os.devnull, "--tb=no", "--no-header"]
    # A test module that cannot be imported must not keep the others from running.
    options.append("--continue-on-collection-errors")
    existing = [name for name in files if os.path.exists(os.path.join(tree, name))]
    status = int(pytest.main([*options, *existing], plugins=[Reporter()]))
    say(exit=status)
    out.close()
    # Not sys.exit: an exit handler of the product could change the status.
    os._exit(status)


main()
