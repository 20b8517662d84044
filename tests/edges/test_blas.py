"""The BLAS that MLX's Linux CPU build multiplies by, in a process of its own."""

import os
import subprocess
import sys

import pytest

from looper.edges.models.blas import BIND_NOW

PROGRAM = """
import sys, time
import mlx.core as mx
from looper.edges.models.blas import bind_openblas
left, right = mx.random.normal((64, 300)), mx.random.normal((300, 200))
before = left @ right
mx.eval(before)
bound = [bind_openblas(), bind_openblas()]
after = left @ right
mx.eval(after)
print(bound, float(mx.abs(before - after).max()) < 1e-4, mx.array_equal(before, after).item())
"""


def said(**environment: str) -> str:
    argv = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MLX brings a fast one")
def test_r1_mlx_multiplies_by_the_openblas_that_scipy_brings() -> None:
    """The products are the same but for rounding, and the second time there is nothing left to exchange."""
    pytest.importorskip("mlx.core")
    assert said(**BIND_NOW) == "[True, False] True False"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MLX brings a fast one")
def test_r1_without_an_openblas_mlx_goes_on_with_its_own() -> None:
    pytest.importorskip("mlx.core")
    hidden = "import looper.edges.models.blas as b; b.find_openblas = lambda: None\n"
    done = subprocess.run([sys.executable, "-c", hidden + PROGRAM], capture_output=True, text=True)
    assert done.stdout.strip() == "[False, False] True True", done.stderr
