"""Runs sympy's own test program and reports each test's outcome to a file: run_sympy.py REPORT FILE...

Ids are bare function names, as in the benchmark; tests of one name in several files share theirs. Works on every sympy that
the benchmark needs: the program moved to another module in version 1.6.
"""

import looper_report

import os
import sys


def main():
    place, files = sys.argv[1], sys.argv[2:]
    report = looper_report.Report(place)
    say = report.say
    originals = looper_report.Originals([])
    say("begun")
    looper_report.with_tree()
    try:
        try:
            from sympy.testing import runtests
        except ImportError:
            from sympy.utilities import runtests
    except BaseException as error:
        say("error", "importing sympy's test program failed: %s: %s" % (type(error).__name__, error))
        raise

    plain = runtests.PyTestReporter

    class Reporter(plain):
        """Reports a test once, when its outcome is known; what goes wrong outside of any test is an error."""

        _test = None
        _file = ""

        def entering_filename(self, filename, n):
            plain.entering_filename(self, filename, n)
            self._file = os.path.relpath(filename, looper_report.TREE).replace(os.sep, "/")

        def entering_test(self, f):
            plain.entering_test(self, f)
            self._test = f.__name__

        def _say(self, outcome):
            if self._test is not None:
                say("test", outcome, self._file, self._test, self._test)
                self._test = None

        def test_pass(self, *given):
            plain.test_pass(self, *given)
            self._say("passed")

        def test_xfail(self, *given):
            plain.test_xfail(self, *given)
            self._say("xfailed")

        def test_xpass(self, *given):
            plain.test_xpass(self, *given)
            self._say("failed")

        def test_skip(self, *given):
            plain.test_skip(self, *given)
            self._say("skipped")

        def test_timeout(self, *given):
            plain.test_timeout(self, *given)
            self._say("failed")

        def test_fail(self, exc_info):
            plain.test_fail(self, exc_info)
            self._say("failed")

        def test_exception(self, exc_info):
            plain.test_exception(self, exc_info)
            if self._test is None:
                say("error", "%s: %s" % (exc_info[0].__name__, exc_info[1]))
            self._say("error")

        def import_error(self, filename, exc_info):
            plain.import_error(self, filename, exc_info)
            say("error", "importing %s failed: %s" % (filename, exc_info[1]))

    runtests.PyTestReporter = Reporter
    existing = [name for name in files if os.path.exists(name)]
    # One process, as the benchmark's command has it. Files that are named are run even where sympy leaves them out of a whole run.
    passed = runtests.test(*existing, verbose=True, colors=False, subprocess=False, sort=True)
    replaced = originals.replaced()
    if replaced:
        say("tampered", "%s was replaced" % replaced[0])
    report.end(0 if passed else 1)


main()
