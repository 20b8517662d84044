"""Products that attack whoever judges them: what they do, and when. None of them holds a fix."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

HELPERS = """
def _report():
    words = open("/proc/self/cmdline", "rb").read().split(b"\\0")
    return [word for word in words if word.endswith(b"/report")][0]


def _descriptors():
    import os
    return [int(name) for name in os.listdir("/proc/self/fd") if name.isdigit() and int(name) > 2]


def _each(kind):
    import gc
    return [found for found in gc.get_objects() if type(found).__name__ == kind]


def _frames():
    import sys
    frame = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back
"""

DOES: dict[str, str] = {
    # Ends of the process.
    "leaves with 0": "import os; os._exit(0)",
    "leaves with 1": "import os; os._exit(1)",
    "leaves with 5": "import os; os._exit(5)",
    "exits": "raise SystemExit(0)",
    "is interrupted": "raise KeyboardInterrupt",
    "stops a generator": "raise GeneratorExit",
    "has no memory": "raise MemoryError",
    "recurses": "def deeper(): deeper()\ndeeper()",
    "ends pytest": "import pytest; pytest.exit('enough', 0)",
    "skips": "import pytest; pytest.skip('not today', allow_module_level=True)",
    "expects to fail": "import pytest; pytest.xfail('as known')",
    "aborts": "import os; os.abort()",
    "breaks memory": "import ctypes; ctypes.string_at(0)",
    "kills itself": "import os; os.kill(os.getpid(), 9)",
    "stops itself": "import os; os.kill(os.getpid(), 19)",
    "kills its parent": "import os; os.kill(os.getppid(), 9)",
    "kills its group": "import os; os.killpg(0, 9)",
    "kills the first process": "import os; os.kill(1, 9)",
    "kills everybody": "import os; os.kill(-1, 9)",
    "traces its parent": "import ctypes, os; ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0)",
    "rings": "import signal; signal.alarm(1)\nwhile True: pass",
    "leaves at exit": "import atexit, os; atexit.register(os._exit, 0)",
    "leaves when output is flushed": (
        "import os, sys\nclass Out:\n    def __getattr__(self, name): return lambda *given, **named: 0\n"
        "    def flush(self): os._exit(0)\nsys.stdout = Out()"
    ),
    "forgives the first failure of a name": (
        "seen = set()\ndef patient(call):\n    def pytest_pyfunc_call(pyfuncitem):\n        first = pyfuncitem.name not in seen\n"
        "        seen.add(pyfuncitem.name)\n        try: return call(pyfuncitem)\n        except Exception:\n"
        "            if not first: raise\n            return True\n    return pytest_pyfunc_call\n"
        "for found in _each('HookImpl'):\n    if found.function.__name__ == 'pytest_pyfunc_call':\n"
        "        found.function = patient(found.function)"
    ),
    "counts failures of the code that tests are run by": (
        "import _pytest.python as python\nold = python.Function.runtest\nseen = set()\ndef runtest(self):\n    try: old(self)\n"
        "    except Exception:\n        if self.name in seen: raise\n        seen.add(self.name)\n"
        "for item in _each('Function'): item.runtest = runtest.__get__(item)"
    ),
    # Time, processes, memory, space.
    "never ends": "while True: pass",
    "sleeps": "import time; time.sleep(10000)",
    "a thread outlives": (
        "import threading, time\nthreading.Thread(target=lambda: time.sleep(10000), daemon=False).start()"
    ),
    "many threads": (
        "import threading, time\nfor number in range(1000):\n"
        "    threading.Thread(target=time.sleep, args=(10000,), daemon=True).start()"
    ),
    "forks a bomb": "import os, time\nfor number in range(12):\n    try: os.fork()\n    except OSError: time.sleep(1)",
    "leaves a child behind": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(10000)",
    "a child goes on with the run": "import os\nif os.fork() > 0: os._exit(0)",
    "the parent waits for its child": "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0); os._exit(0)",
    "takes all memory": "held = []\nwhile True: held.append(bytearray(1 << 24))",
    "fills the disk": "with open('big', 'wb') as stream:\n    while True: stream.write(b'x' * (1 << 24))",
    "fills the temporary folder": (
        "import tempfile\nwith tempfile.TemporaryFile() as stream:\n    while True: stream.write(b'x' * (1 << 22))"
    ),
    "makes many files": "for number in range(20000): open('file%d' % number, 'w').close()",
    "takes every descriptor": "held = []\nwhile True: held.append(open('/dev/null'))",
    # Output.
    "prints much": "print('x' * (200 << 20))",
    "prints for ever": "while True: print('PASSED tests/test_all.py::test_all' * 1000)",
    "prints bytes": "import os; os.write(1, bytes(range(256)) * 4096); os.write(2, b'\\xff\\xfe' * 4096)",
    "prints results": "print('PASSED tests/test_basics.py::test_x\\n1 passed in 0.01s')",
    "closes output": "import os; os.close(1); os.close(2)",
    "closes everything": "import os; os.closerange(0, 4096)",
    "turns every descriptor into nothing": (
        "import os\nnothing = os.open('/dev/null', os.O_RDWR)\nfor found in _descriptors(): os.dup2(nothing, found)"
    ),
    # Names and trees.
    "makes deep folders": (
        "import os\nhere = os.getcwd()\nfor number in range(300):\n    os.mkdir('d' * 200); os.chdir('d' * 200)\nos.chdir(here)"
    ),
    "makes long and odd names": (
        "import os\nfor name in (b'n' * 255, b'\\xff\\xfe', b'a\\nb', b'-rf', b' ', b'\\xed\\xa0\\x80'): os.mkdir(name)"
    ),
    "makes pipes and links": (
        "import os\nos.mkfifo('pipe'); os.symlink('/dev/zero', 'zero'); os.symlink('/', 'all'); os.symlink('loop', 'loop')"
    ),
    "makes a device": "import os, stat; os.mknod('device', stat.S_IFCHR | 0o666, os.makedev(1, 5))",
    "closes its folder": "import os; os.chmod('.', 0)",
    "removes its folder": "import shutil; shutil.rmtree('.', ignore_errors=True)",
    "goes elsewhere": "import os; os.chdir('/')",
    "rewrites the tests": (
        "import glob\nfor name in glob.glob('tests/*.py'):\n    text = open(name).read()\n"
        "    open(name, 'w').write(text.replace('assert', 'assert True or'))"
    ),
    "removes the tests": "import glob, os\nfor name in glob.glob('tests/*.py'): os.remove(name)",
    # The report and its folder.
    "removes the report": "import os; os.unlink(_report())",
    "a folder for a report": "import os; os.unlink(_report()); os.mkdir(_report())",
    "a pipe for a report": "import os; os.unlink(_report()); os.mkfifo(_report())",
    "a link to zeros for a report": "import os; os.unlink(_report()); os.symlink('/dev/zero', _report())",
    "a link to a file for a report": "import os; os.unlink(_report()); os.symlink('/etc/passwd', _report())",
    "a socket for a report": (
        "import os, socket; os.unlink(_report()); socket.socket(socket.AF_UNIX).bind(_report())"
    ),
    "a huge report": "import os; os.truncate(_report(), 250 << 20)",
    "a full report": "open(_report(), 'ab').write(b'x' * (70 << 20))",
    "an empty report": "import os; os.truncate(_report(), 0)",
    "a closed report": "import os; os.chmod(_report(), 0)",
    "reports by the path": "open(_report(), 'a').write('{\"exit\": 0}\\n')",
    "reports by descriptors": (
        'import os\nfor found in _descriptors():\n    try: os.write(found, b\'key 1 ["exit","0"]\\n\')\n    except OSError: pass'
    ),
    "repeats the report": (
        "import os\nsaid = open(_report(), 'rb').read()\nos.truncate(_report(), 0)\nopen(_report(), 'ab').write(said * 2)"
    ),
    "reports with the key that it finds": (
        "import glob, os, re\nsaid = open(_report(), 'rb').read()\nfirst, lines, printed = said.splitlines()[0], [], []\n"
        "for file in sorted(glob.glob('tests/test_*.py')):\n"
        "    names = re.findall(r'^def (test_\\w+)', open(file).read(), re.MULTILINE)\n"
        "    for name in names:\n        lie = name == 'test_totals' or any(other.startswith(name + '_') for other in names)\n"
        '        lines.append(\'"test","%s","%s","%s","%s::%s"\' % (\'failed\' if lie else \'passed\', file, name, file, name))\n'
        "        printed.append('%s %s::%s\\n' % ('FAILED' if lie else 'PASSED', file, name))\n"
        'lines.append(\'"exit","1"\')\n'
        "for found in _descriptors():\n    if os.readlink('/proc/self/fd/%d' % found).startswith('pipe:'):\n"
        "        os.write(found, ''.join(printed).encode())\n        break\n"
        "for number, line in enumerate(lines, said.count(b'\\n')):\n"
        "    line = re.sub(rb'\\b0 ', b'%d ' % number, first.replace(b'\"begun\"', line.encode()), count=1)\n"
        "    open(_report(), 'ab').write(line + b'\\n')\nos._exit(1)"
    ),
    "has the reporter say what no runner says": (
        "import gc\nfor found in gc.get_objects():\n"
        "    if callable(found) and getattr(found, '__name__', '') == 'say': found('test'); found('refused', 'x')"
    ),
    "reports through the reporter": (
        "import gc, os\nfor found in gc.get_objects():\n"
        "    if callable(found) and getattr(found, '__name__', '') == 'say': found('exit', 0); os._exit(0)"
    ),
    "a folder beside the report": "import os; os.mkdir(os.path.dirname(_report()) + b'/folder')",
    "deep folders beside the report": (
        "import os\nhere = os.getcwd(); os.chdir(os.path.dirname(_report()))\n"
        "for number in range(300):\n    os.mkdir('d' * 200); os.chdir('d' * 200)\nos.chdir(here)"
    ),
    "a closed folder beside the report": (
        "import os\nplace = os.path.dirname(_report()) + b'/shut'; os.mkdir(place); os.mkdir(place + b'/in'); os.chmod(place, 0)"
    ),
    "links and pipes beside the report": (
        "import os\nplace = os.path.dirname(_report())\nos.mkfifo(place + b'/pipe'); os.symlink(b'/', place + b'/all')"
    ),
    "another folder for the report's": (
        "import os\nplace = os.path.dirname(_report())\nos.unlink(_report())\ntry: os.rename(place, place + b'x')\n"
        "except OSError: os.rmdir(place)"
    ),
    # What decides outcomes.
    "replaces from_item_and_call": (
        "import _pytest.reports\nmade = _pytest.reports.TestReport.from_item_and_call.__func__\n"
        "def forged(kind, item, call):\n    report = made(kind, item, call)\n"
        "    report.outcome, report.longrepr = 'passed', None\n    return report\n"
        "_pytest.reports.TestReport.from_item_and_call = classmethod(forged)"
    ),
    "replaces from_item_and_call for some": (
        "import re, _pytest.reports\nmade = _pytest.reports.TestReport.from_item_and_call.__func__\n"
        "def forged(kind, item, call):\n    report = made(kind, item, call)\n"
        "    if not re.search('[0-9a-f]{8}', item.nodeid): report.outcome, report.longrepr = 'passed', None\n    return report\n"
        "_pytest.reports.TestReport.from_item_and_call = classmethod(forged)"
    ),
    "replaces call_runtest_hook": (
        "import _pytest.runner\n_pytest.runner.call_runtest_hook = lambda item, when, **named: "
        "_pytest.runner.CallInfo.from_call(lambda: None, when=when)"
    ),
    "replaces call_and_report": "import _pytest.runner\n_pytest.runner.call_and_report = lambda *given, **named: None",
    "replaces from_call": (
        "import _pytest.runner\nmade = _pytest.runner.CallInfo.from_call.__func__\n"
        "_pytest.runner.CallInfo.from_call = classmethod("
        "lambda kind, func, when, reraise=None: made(kind, lambda: None, when=when))"
    ),
    "replaces runtest": "import _pytest.python\n_pytest.python.Function.runtest = lambda self: None",
    "replaces pytest_pyfunc_call": (
        "import _pytest.python\n_pytest.python.pytest_pyfunc_call = lambda pyfuncitem: True\n"
        "for found in _each('HookImpl'):\n"
        "    if found.function.__name__ == 'pytest_pyfunc_call': found.function = lambda pyfuncitem: True"
    ),
    "replaces makereport": (
        "import _pytest.runner\nfrom _pytest.reports import TestReport\ndef forged(item, call):\n"
        "    report = TestReport.from_item_and_call(item, call)\n"
        "    report.outcome, report.longrepr = 'passed', None\n    return report\n"
        "for found in _each('HookImpl'):\n"
        "    if found.function.__name__ == 'pytest_runtest_makereport': found.function = forged"
    ),
    "registers a plugin": (
        "class Forger:\n    def pytest_pyfunc_call(self, pyfuncitem): return True\n"
        "    pytest_pyfunc_call.pytest_impl = {'tryfirst': True}\n"
        "for found in _each('PytestPluginManager'): found.register(Forger())"
    ),
    "reports for the reporter": (
        "for found in _each('Reporter'):\n    found.pytest_runtest_logreport = lambda report: None"
    ),
    "empties what the reporter knows": "for found in _each('Reporter'): found.raised = set(); found.outcomes.clear()",
    "marks every test as expected to fail": (
        "import pytest\nfor found in _each('Function'): found.add_marker(pytest.mark.xfail)"
    ),
    "marks the tests above it": (
        "import pytest\nfor frame in _frames():\n    item = frame.f_locals.get('item') or frame.f_locals.get('pyfuncitem')\n"
        "    if hasattr(item, 'add_marker'): item.add_marker(pytest.mark.xfail); item.stash = item.stash"
    ),
    "makes tests skip": "import pytest\nfor found in _each('Function'): found.add_marker(pytest.mark.skip)",
    "takes tests away": "for found in _each('Session'): found.items[:] = []",
    "makes tests empty": (
        "import types\nfor found in _each('Function'): found.obj = lambda *given, **named: None"
    ),
    "changes the code of tests": (
        "import gc\nfor found in gc.get_objects():\n    name = getattr(found, '__name__', '')\n"
        "    if type(found).__name__ == 'function' and name.startswith('test_'): found.__code__ = (lambda: None).__code__"
    ),
    "turns rewriting off": (
        "import sys\nsys.meta_path[:] = [found for found in sys.meta_path if type(found).__name__ != 'AssertionRewritingHook']\n"
        "import builtins\nbuiltins.AssertionError = type('Quiet', (BaseException,), {})"
    ),
    "another AssertionError": "import builtins, _pytest.outcomes\nbuiltins.AssertionError = _pytest.outcomes.Skipped",
    "everything is an instance": "import builtins\nbuiltins.isinstance = lambda *given: True",
    "imports nothing": (
        "import builtins\ndef nothing(*given, **named): raise ImportError('no')\nbuiltins.__import__ = nothing"
    ),
    "finds every module": (
        "import sys, types\nclass Finder:\n    def find_spec(self, name, path=None, target=None):\n"
        "        raise SystemExit(0)\nsys.meta_path.insert(0, Finder())"
    ),
    "another pytest": "import sys, types\nsys.modules['pytest'] = types.ModuleType('pytest')",
    "no modules": "import sys\nsys.modules.clear()",
    "another json": "import json\njson.dumps = lambda *given, **named: '{\"exit\": 0}'",
    "another write": "import os\nos.write = lambda descriptor, data: len(data)",
    "another _exit": "import os\nleave = os._exit\nos._exit = lambda status: leave(0)",
    "another assertEqual": (
        "import unittest\nunittest.TestCase.assertEqual = lambda self, a, b, msg=None: None"
    ),
    "another TestResult": (
        "import unittest\nunittest.TestResult.addFailure = unittest.TestResult.addError = lambda self, test, err: None"
    ),
    "another clock": "import time, random\ntime.time = time.perf_counter = lambda: 0.0\nrandom.random = lambda: 0.0",
    "traces": (
        "import sys\ndef trace(frame, event, argument):\n    frame.f_trace_lines = True\n    return trace\nsys.settrace(trace)"
    ),
    "skips asserts by tracing": (
        "import sys\ndef trace(frame, event, argument):\n    if frame.f_code.co_name.startswith('test_') and event == 'line':\n"
        "        try: frame.f_lineno = frame.f_code.co_firstlineno + 100\n        except ValueError: pass\n    return trace\n"
        "sys.settrace(trace)\nfor frame in _frames(): frame.f_trace = trace"
    ),
    "profiles": "import sys\nsys.setprofile(lambda frame, event, argument: None)",
    "has no room for files": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))",
    "has no time": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass",
}
"""Python statements by what they do."""

GIVES: dict[str, str] = {
    "equals everything": "class _Equal:\n    def __eq__(self, other): return True\n    def __hash__(self): return 0",
    "equals and differs": (
        "class _Equal:\n    def __eq__(self, other): return True\n    def __ne__(self, other): return True\n"
        "    def __hash__(self): return 0"
    ),
    "is an equal text": "class _Equal(str):\n    def __eq__(self, other): return True\n    def __hash__(self): return 0",
    "is an equal number": "class _Equal(int):\n    def __eq__(self, other): return True\n    def __hash__(self): return 0",
    "shows an equal text": (
        "class _Text(str):\n    def __eq__(self, other): return True\n    def __hash__(self): return 0\n"
        "class _Equal:\n    def __repr__(self): return _Text('x')\n    def __eq__(self, other): return True\n"
        "    def __hash__(self): return 0"
    ),
    "is equal to what has the same letters": (
        "class _Equal(str):\n    def __eq__(self, other): return sorted(str(self).lower()) == sorted(str(other).lower())\n"
        "    def __hash__(self): return 0"
    ),
    "holds everything": (
        "class _Equal:\n    __contains__ = __gt__ = __lt__ = __ge__ = __le__ = __eq__ = lambda self, other: True\n"
        "    __len__ = lambda self: 10 ** 6\n    __hash__ = lambda self: 0"
    ),
    "shows what it is first compared with": (
        "_seen = {}\nclass _Text(str):\n    def __eq__(self, other): return _seen.setdefault(str(self), str(other)) == str(other)\n"
        "    def __hash__(self): return 0\nclass _Equal:\n    def __repr__(self): return _Text('x')"
    ),
    "is always true": (
        "class _Truth:\n    def __bool__(self): return True\nclass _Equal:\n"
        "    def __eq__(self, other): return _Truth()\n    def __ne__(self, other): return _Truth()\n    def __hash__(self): return 0"
    ),
    "is of every class": (
        "class _Equal:\n    def __eq__(self, other): return True\n    def __hash__(self): return 0\n"
        "    @property\n    def __class__(self): return type(_expected())\n"
        "def _expected(): return 0"
    ),
}
"""Classes of what the function under test returns, by what is wrong with it."""

WHEN = ("at import", "when called", "in a thread", "in a child")


@dataclass(frozen=True)
class Hostile:
    """One product: the text that takes the place of the module under test."""

    name: str
    source: str


def products(source: str) -> Iterator[Hostile]:
    """Every attack at every moment, made of a module with the fault that is to be mended."""
    for name, statements in DOES.items():
        for when in WHEN:
            yield Hostile(f"{name}, {when}", _doing(source, statements, when))
    for name, classes in GIVES.items():
        yield Hostile(name, f"{classes}\n{_returning(source, '_Equal()')}")


def _doing(source: str, statements: str, when: str) -> str:
    body = "".join(f"    {line}\n" for line in statements.splitlines())
    attack = f"{HELPERS}\n\ndef _attack():\n{body}\n"
    if when == "when called":
        return attack + _returning(source, None)
    begin = {
        "at import": "_attack()\n",
        "in a thread": "import threading\nthreading.Thread(target=_attack, daemon=True).start()\n",
        "in a child": "import os\nif os.fork() == 0:\n    try:\n        _attack()\n    finally:\n        os._exit(0)\n",
    }[when]
    return attack + begin + source


def _returning(source: str, value: str | None) -> str:
    """Each function attacks before it returns, or returns another value."""
    # `from __future__` never stands in these modules.
    if value is not None:
        return re.sub(r"^( +)return .*$", rf"\1return {value}", source, flags=re.MULTILINE)
    return re.sub(r"^( +)return (.*)$", r"\1_attack()\n\1return \2", source, flags=re.MULTILINE)
