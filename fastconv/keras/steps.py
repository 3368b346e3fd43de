"""What Keras' operators compute, as fastconv's functions on arrays that lie as Keras has them: a step an operator.

Kernels stay (*kernel, channels, filters), for transposed convolutions (*kernel, filters, channels), in either order of
the activations. A step knows its options and nothing of a backend: NumPy's arrays and the memory of tensors are the
same to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final, NamedTuple

from fastconv import grad
from fastconv._core.arrays import Array, empty
from fastconv._core.layouts import WEIGHT_INWARD
from fastconv._core.select import wish_for_shapes
from fastconv._core.windows import pool_geometry
from fastconv.functional import CONVOLUTIONS
from fastconv.layers import rows
from fastconv.pooling import MAXIMA, MEANS

Sizes = tuple[int, ...]
Gradients = tuple[Array | None, Array | None]


def _by_axes(what: str) -> dict[int, Any]:
    """The functions of `grad` of this name by the number of axes; `{}` in it is that number."""
    return {axes: getattr(grad, what.format(axes)) for axes in (1, 2, 3)}


INPUT_GRADIENTS: Final = _by_axes("conv{}d_input")
WEIGHT_GRADIENTS: Final = _by_axes("conv{}d_weight")
MAX_GRADIENTS: Final = _by_axes("max_pool{}d_input")
MEAN_GRADIENTS: Final = _by_axes("avg_pool{}d_input")


class Options(NamedTuple):
    """What all operators have; `padding` is a word or (before, after) of each axis."""

    stride: Sizes
    padding: Any
    dilation: Sizes
    groups: int
    last: bool  # activations are (N, *size, C)

    @property
    def axes(self) -> int:
        """How many axes an image has."""
        return len(self.stride)

    @property
    def data_format(self) -> str:
        """The order of the axes of activations in fastconv's words."""
        return "channels_last" if self.last else "channels_first"

    def inward(self, shape: Sizes) -> Sizes:
        """The shape of activations as (N, C, *size)."""
        return (shape[0], shape[-1], *shape[1:-1]) if self.last else shape


def weight_of(o: Options, w: Array) -> Array:
    """Keras' kernel in the order that fastconv's functions want beside such activations: a view."""
    return w if o.last else w.transpose(WEIGHT_INWARD[w.ndim])


def _weight_gradient(o: Options, x: Array, shape: Sizes, dy: Array, how: dict[str, Any]) -> Array:
    """The gradient of a kernel, contiguous in Keras' order: optimisers walk it beside the kernel."""
    dw = empty(shape, x.dtype)
    to = weight_of(o, dw)
    WEIGHT_GRADIENTS[o.axes](x, to.shape, dy, o.stride, o.padding, o.dilation, o.groups, out=to, **how)
    return dw


class Step(ABC):
    """An operator with its options."""

    def __init__(self, options: Options) -> None:
        self.options = options

    @property
    def keeps_result(self) -> bool:
        """Whether `gradients` looks at the result."""
        return False

    @abstractmethod
    def forward(self, x: Array, w: Array | None, threads: int | None = None) -> Array:
        """The result."""

    @abstractmethod
    def gradients(
        self, wanted: tuple[bool, bool], x: Array, w: Array | None, y: Array | None, dy: Array, threads: int
    ) -> Gradients:
        """Those of x and w that are wanted; y is the result of a step that `keeps_result`."""


class Weighted(Step):
    """What both convolutions have."""

    def _how(self, images: Sizes, w: Array, threads: int | None) -> dict[str, Any]:
        """How the convolution of images of this shape, and its gradients, are computed."""
        o, (*kernel, inner, outer) = self.options, w.shape
        options = (o.stride, o.padding, o.dilation, o.groups)
        algorithm, _ = wish_for_shapes(o.inward(images), (outer, inner, *kernel), *options, w.dtype)
        return {"data_format": o.data_format, "algorithm": algorithm, "num_threads": threads}


class Convolution(Weighted):
    """A convolution, in groups or not."""

    def forward(self, x: Array, w: Array | None, threads: int | None = None) -> Array:
        assert w is not None
        o = self.options
        y: Array = CONVOLUTIONS[o.axes](
            x, weight_of(o, w), None, o.stride, o.padding, o.dilation, o.groups, **self._how(x.shape, w, threads)
        )
        return y

    def gradients(
        self, wanted: tuple[bool, bool], x: Array, w: Array | None, y: Array | None, dy: Array, threads: int
    ) -> Gradients:
        assert w is not None
        o, how = self.options, self._how(x.shape, w, threads)
        dx = dw = None
        if wanted[0]:
            dx = INPUT_GRADIENTS[o.axes](x.shape, weight_of(o, w), dy, o.stride, o.padding, o.dilation, o.groups, **how)
        if wanted[1]:
            dw = _weight_gradient(o, x, w.shape, dy, how)
        return dx, dw


class Transposed(Weighted):
    """A transposed convolution to images of this size: the input gradient of the convolution with these options."""

    def __init__(self, options: Options, size: Sizes) -> None:
        super().__init__(options)
        self.size = size

    def _shape(self, x: Array, w: Array) -> Sizes:
        """The result's."""
        return (len(x), *self.size, w.shape[-2]) if self.options.last else (len(x), w.shape[-2], *self.size)

    def forward(self, x: Array, w: Array | None, threads: int | None = None) -> Array:
        assert w is not None
        o, shape = self.options, self._shape(x, w)
        y: Array = INPUT_GRADIENTS[o.axes](
            shape, weight_of(o, w), x, o.stride, o.padding, o.dilation, o.groups, **self._how(shape, w, threads)
        )
        return y

    def gradients(
        self, wanted: tuple[bool, bool], x: Array, w: Array | None, y: Array | None, dy: Array, threads: int
    ) -> Gradients:
        assert w is not None
        o, how = self.options, self._how(dy.shape, w, threads)
        dx = dw = None
        if wanted[0]:
            dx = CONVOLUTIONS[o.axes](dy, weight_of(o, w), None, o.stride, o.padding, o.dilation, o.groups, **how)
        if wanted[1]:
            dw = _weight_gradient(o, dy, w.shape, x, how)
        return dx, dw


class Pooling(Step):
    """What both poolings have; `options.groups` is not looked at."""

    def __init__(self, options: Options, size: Sizes) -> None:
        super().__init__(options)
        self.size = size


class MaxPooling(Pooling):
    """The maximum of every window."""

    @property
    def keeps_result(self) -> bool:
        """Channels last, where its gradient is native without places."""
        return self.options.last

    def forward(self, x: Array, w: Array | None, threads: int | None = None) -> Array:
        o = self.options
        y: Array = MAXIMA[o.axes](x, self.size, o.stride, o.padding, data_format=o.data_format, num_threads=threads)
        return y

    def gradients(
        self, wanted: tuple[bool, bool], x: Array, w: Array | None, y: Array | None, dy: Array, threads: int
    ) -> Gradients:
        o = self.options
        if y is not None:
            g = pool_geometry(o.inward(x.shape), self.size, o.stride, o.padding)
            return rows.max_pool_gradient(g, x, y, dy, threads), None
        dx: Array = MAX_GRADIENTS[o.axes](
            x, self.size, dy, o.stride, o.padding, data_format=o.data_format, num_threads=threads
        )
        return dx, None


class AveragePooling(Pooling):
    """The mean of what of every window lies in the image."""

    def forward(self, x: Array, w: Array | None, threads: int | None = None) -> Array:
        o = self.options
        y: Array = MEANS[o.axes](
            x, self.size, o.stride, o.padding, count_include_pad=False, data_format=o.data_format, num_threads=threads
        )
        return y

    def gradients(
        self, wanted: tuple[bool, bool], x: Array, w: Array | None, y: Array | None, dy: Array, threads: int
    ) -> Gradients:
        o = self.options
        dx: Array = MEAN_GRADIENTS[o.axes](
            x.shape, self.size, dy, o.stride, o.padding, count_include_pad=False, data_format=o.data_format,
            num_threads=threads,
        )  # fmt: skip
        return dx, None
