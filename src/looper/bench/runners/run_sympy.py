"""Runs sympy's own test program and reports each test's outcome to a file: run_sympy.py REPORT FILE...

Ids are bare function names, as in the benchmark; tests of one name in several files share theirs. Works on every sympy that
the benchmark needs: the program moved to another module in version 1.6.
"""

import json
import os
import sys


def main():
    report, files = sys.argv[1], sys.argv[2:]
    out = open(report, "a", 1)

    def say(**entry):
        out.write(json.dumps(entry) + "\n")

    say(begun=True)
    sys.path[0] = os.getcwd()
    try:
        from sympy.testing import runtests
    except ImportError:
        from sympy.utilities import runtests

    plain = runtests.PyTestReporter

    class Reporter(plain):
        """Reports a test once, when its outcome is known; what goes wrong outside of any test is an error."""

        _test = None

        def entering_test(self, f):
            plain.entering_test(self, f)
            self._test = f.__name__

        def _say(self, outcome):
            if self._test is not None:
                say(id=[self._test], outcome=outcome)
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
                say(error="%s: %s" % (exc_info[0].__name__, exc_info[1]))
            self._say("error")

        def import_error(self, filename, exc_info):
            plain.import_error(self, filename, exc_info)
            say(error="importing %s failed: %s" % (filename, exc_info[1]))

    runtests.PyTestReporter = Reporter
    existing = [name for name in files if os.path.exists(name)]
    # One process, as the benchmark's command has it. Files that are named are run even where sympy leaves them out of a whole run.
    passed = runtests.test(*existing, verbose=True, colors=False, subprocess=False, sort=True)
    status = 0 if passed else 1
    say(exit=status)
    out.close()
    sys.stdout.flush()
    os._exit(status)


main()
