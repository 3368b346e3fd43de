"""The row kernels of training against NumPy; the reliability board runs them between guard pages."""

import numpy as np
import pytest

from fastconv import _native

SIZES = [(1, 1), (2, 3), (300, 17), (77, 64), (600, 65), (3, 200)]  # (pixels, channels)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pixels, channels", SIZES)
def test_kernels_compute_what_numpy_does(pixels: int, channels: int, dtype: str) -> None:
    random = np.random.default_rng(0)

    def given(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(dtype)

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
    kernel, out = given(channels, 70), given(pixels, 70)
    _native.dense(x, kernel, out, 2)
    np.testing.assert_allclose(out, x @ kernel, **close)
