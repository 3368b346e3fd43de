"""Keras' calls read: the arguments of `keras.src.backend.*.nn`'s functions as a step and its operands.

One function an operator, with the signature of Keras' own; what it cannot read, or what means something else in this
backend, is `Left` to Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from .steps import AveragePooling, Convolution, MaxPooling, Options, Step, Transposed


class Left(Exception):
    """This call is Keras' own; why, or nothing where that is no matter for a report."""


class Asked(NamedTuple):
    """A step and the tensors that it is of."""

    step: Step
    inputs: Any
    kernel: Any  # None for poolings
    rest: tuple[Any, ...]  # what follows the tensors in the call of Keras' function, by position
    kernel_shape: tuple[int, ...] | None = None  # as Keras' function takes it, where ours is another


class Patch(NamedTuple):
    """An attribute of a module of Keras and what makes ours of Keras' own."""

    module: Any
    name: str
    make: Callable[[Any], Any]


class Host(Protocol):
    """What a backend answers for its operators."""

    averages_border: bool  # whether average poolings count a border that is wider at one end than at the other

    def passes_by(self) -> str | None:
        """Why calls go to Keras' own functions before they are read, if they do; empty as in `Left`."""

    def patches(self) -> list[Patch]:
        """What changes besides the operators."""

    def close(self) -> None:
        """Before the patches go: what was kept is freed, and nothing that they share is left half done."""

    def compute(self, name: str, asked: Asked, theirs: Any) -> Any:
        """The result of an operator; `theirs` is Keras' own function."""

    def tensor(self, value: Any) -> Any:
        """The value as a tensor of the backend, as Keras makes it one."""

    def data_format(self, word: Any) -> str:
        """'channels_last' or 'channels_first'."""

    def crops(
        self, inputs: Any, kernel: Any, strides: Any, padding: Any, output_padding: Any, dilation_rate: Any
    ) -> Any:
        """What a transposed convolution cuts off each end of each axis, in this version of Keras."""


def _numbers(value: Any, axes: int) -> tuple[int, ...]:
    """One for all axes, or one each."""
    numbers = (value,) * axes if isinstance(value, int) else tuple(map(int, value))
    if len(numbers) != axes or any(number < 1 for number in numbers):
        raise Left("options that Keras refuses")
    return numbers


def _word(padding: Any) -> str:
    if padding not in ("valid", "same"):
        raise Left("options that Keras refuses")
    return str(padding)


def _axes(inputs: Any) -> int:
    axes = int(inputs.ndim) - 2
    if axes not in (1, 2, 3):
        raise Left("not of one to three axes")
    return axes


def _channels(inputs: Any, last: bool) -> int:
    return int(inputs.shape[-1 if last else 1])


def conv(
    host: Host, inputs: Any, kernel: Any, strides: Any = 1, padding: Any = "valid", data_format: Any = None,
    dilation_rate: Any = 1,
) -> Asked:  # fmt: skip
    """Read `nn.conv`."""
    inputs, kernel = host.tensor(inputs), host.tensor(kernel)
    axes, last = _axes(inputs), host.data_format(data_format) == "channels_last"
    channels, own = _channels(inputs, last), int(kernel.shape[-2]) if kernel.ndim == axes + 2 else 0
    if own == 0 or channels % own:
        raise Left("shapes that Keras refuses")
    options = Options(_numbers(strides, axes), _word(padding), _numbers(dilation_rate, axes), channels // own, last)
    return Asked(Convolution(options), inputs, kernel, (strides, padding, data_format, dilation_rate))


def depthwise_conv(
    host: Host, inputs: Any, kernel: Any, strides: Any = 1, padding: Any = "valid", data_format: Any = None,
    dilation_rate: Any = 1,
) -> Asked:  # fmt: skip
    """Read `nn.depthwise_conv`."""
    inputs, kernel = host.tensor(inputs), host.tensor(kernel)
    channels = _channels(inputs, host.data_format(data_format) == "channels_last")
    if kernel.ndim != inputs.ndim or channels != int(kernel.shape[-2]):
        raise Left("shapes that Keras refuses")
    own = tuple(kernel.shape)
    kernel = kernel.reshape((*own[:-2], 1, channels * own[-1]))
    return conv(host, inputs, kernel, strides, padding, data_format, dilation_rate)._replace(kernel_shape=own)


def conv_transpose(
    host: Host, inputs: Any, kernel: Any, strides: Any = 1, padding: Any = "valid", output_padding: Any = None,
    data_format: Any = None, dilation_rate: Any = 1,
) -> Asked:  # fmt: skip
    """Read `nn.conv_transpose`."""
    inputs, kernel = host.tensor(inputs), host.tensor(kernel)
    axes, last = _axes(inputs), host.data_format(data_format) == "channels_last"
    if kernel.ndim != axes + 2 or int(kernel.shape[-1]) != _channels(inputs, last):
        raise Left("shapes that Keras refuses")
    stride, dilation = _numbers(strides, axes), _numbers(dilation_rate, axes)
    crops = host.crops(inputs, kernel, stride, _word(padding), output_padding, dilation)
    places = inputs.shape[1:-1] if last else inputs.shape[2:]
    size = tuple(
        (int(count) - 1) * step + (int(taps) - 1) * apart + 1 - before - after
        for count, step, taps, apart, (before, after) in zip(
            places, stride, kernel.shape[:-2], dilation, crops, strict=True
        )
    )
    # Fewer positions than a stride behind the last tap are the convolution's remainder, no cropping.
    sides = tuple(
        (before, max(after, 0) if after > -step else after) for step, (before, after) in zip(stride, crops, strict=True)
    )
    rest = (strides, padding, output_padding, data_format, dilation_rate)
    return Asked(Transposed(Options(stride, sides, dilation, 1, last), size), inputs, kernel, rest)


def _pooling(
    host: Host, kind: Callable[..., Step], inputs: Any, pool_size: Any, strides: Any, padding: Any, data_format: Any
) -> Asked:
    inputs = host.tensor(inputs)
    axes, last = _axes(inputs), host.data_format(data_format) == "channels_last"
    size = _numbers(pool_size, axes)
    stride = size if strides is None else _numbers(strides, axes)
    options = Options(stride, _word(padding), (1,) * axes, 1, last)
    return Asked(kind(options, size), inputs, None, (pool_size, strides, padding, data_format))


def max_pool(
    host: Host, inputs: Any, pool_size: Any, strides: Any = None, padding: Any = "valid", data_format: Any = None
) -> Asked:
    """Read `nn.max_pool`."""
    return _pooling(host, MaxPooling, inputs, pool_size, strides, padding, data_format)


def average_pool(
    host: Host, inputs: Any, pool_size: Any, strides: Any = None, padding: Any = "valid", data_format: Any = None
) -> Asked:
    """Read `nn.average_pool`."""
    asked = _pooling(host, AveragePooling, inputs, pool_size, strides, padding, data_format)
    if padding == "same" and host.averages_border:
        o, shape = asked.step.options, asked.inputs.shape
        places, size = shape[1:-1] if o.last else shape[2:], _numbers(pool_size, o.axes)
        if any(max(0, (-(-n // s) - 1) * s + k - n) % 2 for n, s, k in zip(places, o.stride, size, strict=True)):
            raise Left("Keras on torch counts a border that is wider at the end")
    return asked


# What is patched: every function that `keras.layers` and `keras.ops` call, but for those that call these
# (`separable_conv`).
OPERATORS: Final[dict[str, Callable[..., Asked]]] = {
    read.__name__: read for read in (conv, depthwise_conv, conv_transpose, max_pool, average_pool)
}
