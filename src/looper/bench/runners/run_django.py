"""Runs django's own test suite and reports each test's outcome to a file: run_django.py REPORT LABEL...

Ids are reported in both forms that the benchmark uses: `method (module.Class)`, and the first line of the docstring
where a test has one. Without labels the whole suite is run, its folders by name: runtests.py takes them as the file system
lists them, which differs from disk to disk, and tests of django 2.2 break others in some orders (auth_tests.test_templates
after template_tests). Works on every django and Python that the benchmark needs.
"""

import looper_report

import os
import sys
import unittest
import unittest.case
import unittest.result
import unittest.runner


def main():
    place, labels = sys.argv[1], sys.argv[2:]
    report = looper_report.Report(place)
    say = report.say

    def names(test):
        doc = test.shortDescription() if hasattr(test, "shortDescription") else None
        return [str(test)] + ([doc] if doc else [])

    def tell(test, outcome):
        method = getattr(test, "_testMethodName", "")
        say("test", outcome, type(test).__module__, "%s::%s" % (type(test).__name__, method), *names(test))

    class Reporter(unittest.TextTestResult):
        """Reports a test once, when it stops, with the worst that was said about it or its subtests."""

        def startTest(self, test):
            super().startTest(test)
            self._worst = None

        def stopTest(self, test):
            super().stopTest(test)
            tell(test, self._worst or "missing")
            del self._worst

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
                say("error", "%s: %s" % (test, err[1]))

        def addSkip(self, test, reason):
            super().addSkip(test, reason)
            if getattr(self, "_worst", "outside") == "outside":
                tell(test, "skipped")
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
    originals = looper_report.Originals([unittest.case, unittest.result, unittest.runner])
    say("begun")
    tests = os.path.join(looper_report.TREE, "tests")
    os.chdir(tests)
    looper_report.with_tree(tests)
    sys.path.insert(1, looper_report.TREE)
    listed = os.listdir
    if not labels:
        os.listdir = lambda *place: sorted(listed(*place))
    script = os.path.join(tests, "runtests.py")
    sys.argv = [script, "--verbosity", "2", "--settings=test_sqlite", "--parallel", "1"] + labels
    with open(script, "rb") as stream:
        code = compile(stream.read(), script, "exec")
    try:
        exec(code, {"__name__": "__main__", "__file__": script, "__builtins__": __builtins__})
        status = 0
    except SystemExit as stop:
        status = int(stop.code if isinstance(stop.code, int) else bool(stop.code))
    except BaseException as error:
        say("error", "the suite ended with %s: %s" % (type(error).__name__, error))
        raise
    replaced = originals.replaced()
    if replaced:
        say("tampered", "%s was replaced" % replaced[0])
    report.end(status)


main()
