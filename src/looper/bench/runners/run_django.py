"""Runs django's own test suite and reports each test's outcome to a file: run_django.py REPORT LABEL...

Ids are reported in both forms that the benchmark uses: `method (module.Class)`, and the first line of the docstring
where a test has one. Works on every django and Python that the benchmark needs.
"""

import json
import os
import sys
import unittest


def main():
    report, labels = sys.argv[1], sys.argv[2:]
    out = open(report, "a", 1)

    def say(**entry):
        out.write(json.dumps(entry) + "\n")

    def names(test):
        doc = test.shortDescription() if hasattr(test, "shortDescription") else None
        return [str(test)] + ([doc] if doc else [])

    class Reporter(unittest.TextTestResult):
        """Reports a test once, when it stops, with the worst that was said about it or its subtests."""

        def startTest(self, test):
            super().startTest(test)
            self._worst = None

        def stopTest(self, test):
            super().stopTest(test)
            say(id=names(test), outcome=self._worst or "missing")

        def _say(self, outcome):
            order = [None, "passed", "xfailed", "skipped", "failed", "error"]
            if order.index(outcome) > order.index(self._worst):
                self._worst = outcome

        def addSuccess(self, test):
            super().addSuccess(test)
            self._say("passed")

        def addFailure(self, test, err):
            super().addFailure(test, err)
            self._say("failed")

        def addError(self, test, err):
            super().addError(test, err)
            if hasattr(self, "_worst") and hasattr(test, "_testMethodName"):
                self._say("error")
            else:
                say(error=f"{test}: {err[1]}")

        def addSkip(self, test, reason):
            super().addSkip(test, reason)
            if getattr(self, "_worst", "outside") == "outside":
                say(id=names(test), outcome="skipped")
            else:
                self._say("skipped")

        def addExpectedFailure(self, test, err):
            super().addExpectedFailure(test, err)
            self._say("xfailed")

        def addUnexpectedSuccess(self, test):
            super().addUnexpectedSuccess(test)
            self._say("failed")

        def addSubTest(self, test, subtest, err):
            super().addSubTest(test, subtest, err)
            if err is not None:
                self._say("failed" if issubclass(err[0], test.failureException) else "error")

    unittest.TextTestRunner.resultclass = Reporter
    say(begun=True)
    tree = os.getcwd()
    tests = os.path.join(tree, "tests")
    os.chdir(tests)
    sys.path[0:1] = [tests, tree]
    script = os.path.join(tests, "runtests.py")
    sys.argv = [script, "--verbosity", "2", "--settings=test_sqlite", "--parallel", "1"] + labels
    with open(script, "rb") as stream:
        code = compile(stream.read(), script, "exec")
    try:
        exec(code, {"__name__": "__main__", "__file__": script, "__builtins__": __builtins__})
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    say(exit=status)
    out.close()
    sys.stdout.flush()
    os._exit(status)


main()
