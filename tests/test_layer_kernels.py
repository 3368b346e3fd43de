"""The row kernels of training read and write not one byte outside their arrays (see test_guard_pages)."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_guard_pages import GuardedMemory

from fastconv import _native

SIZES = [(1, 1), (2, 3), (300, 17), (77, 64), (600, 65), (3, 200)]  # (pixels, channels)


def work(at_end: bool) -> None:
    """Every kernel on guarded arrays, checked against NumPy."""
    random = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        for pixels, channels in SIZES:
            memory = GuardedMemory(at_end)

            def given(*shape: int, dtype: str = dtype, memory: GuardedMemory = memory) -> np.ndarray:
                made = memory.copy(random.standard_normal(shape).astype(dtype))
                assert made is not None
                return made

            x, y, z = given(pixels, channels), given(pixels, channels), given(pixels, channels)
            a, b, total, product = given(channels), given(channels), given(channels), given(channels)
            close = {"rtol": 1e-3, "atol": 1e-3}
            _native.relu_gradient(z, x, y, 6.0, total, 2)
            np.testing.assert_array_equal(z, x * (y > 0))
            np.testing.assert_allclose(total, z.sum(axis=0), **close)
            _native.channel_sums(x, total, 2)
            np.testing.assert_allclose(total, x.sum(axis=0), **close)
            _native.channel_products(x, a, y, b, total, product, 2)
            np.testing.assert_allclose(product, ((x - a) * (y - b)).sum(axis=0), **close)
            _native.affine(z, x, a, y, b, total, False, 2)
            np.testing.assert_allclose(z, x * a + y * b + total, **close)
            _native.affine(z, x, a, None, None, b, True, 2)
            np.testing.assert_allclose(z, np.maximum(x * a + b, 0), **close)
            w, g, m, s = (given(pixels * channels) for _ in range(4))
            s[...] = np.abs(s)
            _native.sgd(w, g, m, 0.1, 0.9, 1.0, True, 2)
            _native.adam(w, g, m, s, 0.1, 0.9, 0.99, 1e-7, 1.0, 2)
            kernel, out = given(channels, 70), given(pixels, 70)
            _native.dense(x, kernel, out, 2)
            np.testing.assert_allclose(out, x @ kernel, **close)
            images, pooled = given(2, 5, 7, channels), given(2, 3, 3, channels)
            pooled[...] = -9
            _native.max_pool_gradient(given(2, 5, 7, channels), images, pooled, pooled, (3, 3), (2, 3), (1, 1), 2)
            del x, y, z, a, b, total, product, w, g, m, s, kernel, out, images, pooled
            memory.forget()


@pytest.mark.parametrize("at_end", [True, False])
def test_kernels_stay_inside_their_arrays(at_end: bool) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    script = f"import test_layer_kernels; test_layer_kernels.work({at_end}); print('done')"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
