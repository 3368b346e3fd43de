"""SciPy's convolutions at fastconv's speed: `signal` and `ndimage` have those of `scipy.signal` and `scipy.ndimage`.

    from fastconv.scipy import convolve2d, ndimage   # in place of scipy.signal and scipy.ndimage

Signatures, defaults, shapes, element types and values are SciPy's; SciPy itself is not needed. What goes beyond it are
keywords: `stride`, `dilation`, `batch`, `channels` and `num_threads`.

Where results differ from SciPy's:

- An integer result that leaves the range of its type is refused with `ConvError`; SciPy lets it wrap.
- Sums of floats are made in another order, so that they agree to rounding, not to the bit. Integers agree exactly.
- Where a kernel reaches beyond the end of an axis by four times its length or more, SciPy's `ndimage` reads memory
  outside the axis in mode 'reflect'; here the reflection goes on, as in `numpy.pad`.
- Large kernels go by Fourier transforms of tiles: an error follows the largest value near by; whole numbers come out
  exactly, and NaN and infinity reach the results whose window holds them, also in `signal.fftconvolve`.
- `longdouble` is refused, which `scipy.signal` takes; float16 is taken, which SciPy refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import ndimage, signal
from .missing import refusing
from .signal import convolve2d, correlate2d

__all__ = ["convolve2d", "correlate2d", "ndimage", "signal"]
if not TYPE_CHECKING:  # for whom every name would be one
    __getattr__ = refusing(__name__, __all__)
