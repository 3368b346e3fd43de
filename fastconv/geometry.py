"""What a convolution or a pooling means in numbers: every shape rule and every refusal of a shape or an option.

Pure: no arrays. Shapes come in the logical order, activations as (batch, channels, height, width) and weights as
(out channels, in channels of a group, kernel height, kernel width). `shown` holds the shapes of input and weight as
the caller wrote them, for the messages, where they differ from that.

Along one axis of length H, with kernel k, stride s, dilation d and padding (p0, p1), output y looks through tap i at
position y*s + i*d - p0, and there are floor((H + p0 + p1 - d*(k-1) - 1) / s) + 1 outputs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np

from .errors import ConvError, ConvTypeError

Pair = tuple[int, int]
Shape = tuple[int, ...]
Pads = tuple[Pair, Pair]
Size = int | Sequence[int]
Padding = str | int | Sequence[int] | Sequence[Sequence[int]]

PADDING_WORDS: Final = ("valid", "same", "same_lower", "full")
PADDING_MODES: Final = ("zeros", "reflect", "replicate", "circular", "symmetric")
AXES: Final = ("height", "width")

LARGEST_BYTES: Final = 2**63 - 1
LARGEST_ELEMENT: Final = 8  # bytes of float64 and int64, in which any call may compute
# Positions stay below this, so that sums of a few of them fit in 64 bits too.
LARGEST_POSITION: Final = 2**60


class Geometry(NamedTuple):
    """One 2-D convolution (cross-correlation, as in every deep-learning library) with every size resolved."""

    batch: int
    in_channels: int
    out_channels: int
    groups: int
    input_size: Pair
    kernel_size: Pair
    output_size: Pair
    stride: Pair
    dilation: Pair
    padding: Pads  # ((top, bottom), (left, right)); negative values crop
    padding_mode: str


class PoolGeometry(NamedTuple):
    """One 2-D pooling with every size resolved."""

    batch: int
    channels: int
    input_size: Pair
    kernel_size: Pair
    output_size: Pair
    stride: Pair
    dilation: Pair
    padding: Pads


# ---- options as the caller writes them ---------------------------------------------------------------------------


def integer(name: str, value: object) -> int:
    """`value` as an int; NumPy's integers pass, bool and float do not."""
    if type(value) is int:
        return value
    if not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise ConvTypeError(
        f"{name} must be made of integers, but got {value!r} of type {type(value).__name__}; "
        f"convert it with int(...) if it holds a whole number."
    )


def _items(value: object) -> list[Any] | tuple[Any, ...] | None:
    """The entries of a sequence (list, tuple, 1-D array), None for everything else."""
    if isinstance(value, (tuple, list)):
        return value
    if isinstance(value, (str, bytes, dict, set, frozenset)) or not hasattr(value, "__len__"):
        return None
    try:
        return list(value)  # type: ignore[call-overload, no-any-return]
    except TypeError:  # a NumPy array without axes has no length
        return None


def _bounded(name: str, value: object, numbers: Sequence[int], least: int) -> None:
    for number in numbers:
        if number < least:
            raise ConvError(f"{name} must be at least {least}, but got {name}={value!r}.")
        if number > LARGEST_POSITION:
            raise ConvError(f"{name} must be at most 2**60, but got {name}={value!r}; positions would overflow.")


def pair(name: str, value: object, least: int) -> Pair:
    """An integer for both axes, or one for each, none below `least`."""
    if type(value) is int and least <= value <= LARGEST_POSITION:
        return value, value
    items = _items(value)
    if items is None:
        items = (value,)
    if len(items) not in (1, 2):
        raise ConvError(
            f"{name} must be one integer or a pair (height, width), but got {name}={value!r} with {len(items)} values."
        )
    first, last = integer(name, items[0]), integer(name, items[-1])
    _bounded(name, value, (first, last), least)
    return first, last


def single(name: str, value: object, least: int) -> int:
    """The one integer of an option of a 1-D operation, written as itself or as (itself,)."""
    items = _items(value)
    if items is None:
        items = (value,)
    if len(items) != 1:
        raise ConvError(
            f"{name} of a 1-D operation must be one integer, but got {name}={value!r} with {len(items)} values."
        )
    number = integer(name, items[0])
    _bounded(name, value, (number,), least)
    return number


def word(name: str, value: object, choices: Sequence[str]) -> str:
    """`value` in lower case if it is one of `choices`, in any case."""
    if not isinstance(value, str):
        raise ConvTypeError(
            f"{name} must be one of {', '.join(map(repr, choices))}, but got {value!r} of type {type(value).__name__}."
        )
    lower = value.lower()
    if lower not in choices:
        raise ConvError(f"{name} must be one of {', '.join(map(repr, choices))}, but got {name}={value!r}.")
    return lower


def flag(name: str, value: object) -> bool:
    """`value` as a bool; numbers do not pass for one."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ConvTypeError(f"{name} must be True or False, but got {value!r} of type {type(value).__name__}.")


def shape(name: str, value: object) -> Shape:
    """A shape given as such: a sequence of integers from 0."""
    items = _items(value)
    if items is None:
        raise ConvTypeError(
            f"{name} must be a sequence of integers such as (1, 3, 32, 32), but got {value!r} "
            f"of type {type(value).__name__}; for an array, pass its .shape."
        )
    if isinstance(value, (tuple, list)) or getattr(value, "ndim", 1) == 1:
        sizes = tuple(integer(name, size) for size in items)
    else:
        raise ConvTypeError(f"{name} must be a shape, but got an array of {len(items)} rows; pass its .shape.")
    _bounded(name, value, sizes, 0)
    return sizes


def channel_groups(value: object) -> int:
    """`groups` as an int from 1."""
    if type(value) is int and 1 <= value <= LARGEST_POSITION:
        return value
    number = integer("groups", value)
    _bounded("groups", value, (number,), 1)
    return number


def _padding_form(value: object, how: str) -> ConvError:
    return ConvError(f"padding must be {how}, but got padding={value!r}.")


_WORDS: Final = ", ".join(map(repr, PADDING_WORDS))
_FORMS: Final = f"an integer, (height, width), ((top, bottom), (left, right)) or one of {_WORDS}"
_FORMS_1D: Final = f"an integer, ((left, right),) or one of {_WORDS} in a 1-D operation"


def _sides(value: object, items: Sequence[Any]) -> Pair:
    """(before, after) of one axis in the nested form, where negative values crop."""
    if len(items) != 2:
        raise _padding_form(value, "nested as ((top, bottom), (left, right)), two values an axis")
    before, after = integer("padding", items[0]), integer("padding", items[1])
    _bounded("padding", value, (abs(before), abs(after)), 0)
    return before, after


def _not_negative(value: object, numbers: Sequence[int]) -> None:
    if min(numbers) < 0:
        raise _padding_form(
            value, "at least 0 in this form (to crop, write the nested form, such as ((-1, -1), (0, 0)))"
        )
    _bounded("padding", value, numbers, 0)


def parse_padding(value: object) -> str | Pads:
    """One of `PADDING_WORDS`, or ((top, bottom), (left, right))."""
    if type(value) is int and 0 <= value <= LARGEST_POSITION:
        side = (value, value)
        return side, side
    if isinstance(value, str):
        return word("padding", value, PADDING_WORDS)
    items = _items(value)
    if items is None:
        items = (value,)
    entries = [_items(item) for item in items]
    if len(items) == 4 and entries == [None] * 4:
        raise ConvError(
            f"padding={value!r} is ambiguous: four flat integers are (top, left, bottom, right) to ONNX and "
            "(left, right, top, bottom) to PyTorch's pad. Write ((top, bottom), (left, right))."
        )
    if len(items) not in (1, 2):
        raise _padding_form(value, _FORMS)
    if entries == [None] * len(items):
        height, width = integer("padding", items[0]), integer("padding", items[-1])
        _not_negative(value, (height, width))
        return (height, height), (width, width)
    first, last = entries[0], entries[-1]
    if len(items) == 1 or first is None or last is None:
        raise _padding_form(value, _FORMS)
    return _sides(value, first), _sides(value, last)


def padding_1d(value: object) -> str | Pads:
    """The padding of a 1-D operation (an integer, (p,), ((left, right),) or a word) as that of height one."""
    if isinstance(value, str):
        return word("padding", value, PADDING_WORDS)
    items = _items(value)
    if items is None:
        items = (value,)
    entries = [_items(item) for item in items]
    if len(items) == 1 and entries[0] is None:
        number = integer("padding", items[0])
        _not_negative(value, (number,))
        return (0, 0), (number, number)
    if len(items) != 1 or entries[0] is None or len(entries[0]) != 2:
        raise _padding_form(value, _FORMS_1D)
    return (0, 0), _sides(value, entries[0])


# ---- rules along one axis ----------------------------------------------------------------------------------------


def _same(size: int, extent: int, stride: int, lower: bool) -> Pair:
    """TensorFlow's SAME: ceil(size / stride) outputs, the odd pixel of padding at the end (at the start if `lower`)."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + extent - size, 0)
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


def _sides_of_word(chosen: str, size: int, extent: int, stride: int) -> Pair:
    if chosen == "valid":
        return 0, 0
    if chosen == "full":
        return extent - 1, extent - 1
    return _same(size, extent, stride, chosen == "same_lower")


def padded_index(i: int, n: int, mode: str) -> int:
    """Which of the `n` elements of an axis lies at position `i` of its extension, for every mode but 'zeros'.

    Repeated as often as the padding is wide, as NumPy does: abcd extends to dcb|abcd|cba ('reflect'),
    aaa|abcd|ddd ('replicate'), bcd|abcd|abc ('circular'), cba|abcd|dcb ('symmetric').
    """
    if mode == "replicate":
        return min(max(i, 0), n - 1)
    if mode == "circular":
        return i % n
    if mode == "symmetric":
        i %= 2 * n
        return min(i, 2 * n - 1 - i)
    if n == 1:
        return 0
    i %= 2 * n - 2
    return min(i, 2 * n - 2 - i)


# ---- convolution -------------------------------------------------------------------------------------------------


def _require_axes(name: str, input_shape: Shape, weight_shape: Shape, shown: tuple[Shape, Shape]) -> None:
    for argument, logical, own in (("input", input_shape, shown[0]), ("weight", weight_shape, shown[1])):
        if len(logical) != 4:
            raise ConvError(
                f"{name}: {argument} must have 4 axes, but got shape {own}; the shapes are input {shown[0]} "
                f"and weight {shown[1]}. Add the missing axes with reshape."
            )
    if 0 in weight_shape[2:]:
        raise ConvError(
            f"{name}: the kernel of weight must be at least 1 x 1, but weight of shape {shown[1]} has kernel "
            f"{weight_shape[2]} x {weight_shape[3]}."
        )


def _layout_hint(channels: int, shown: Shape) -> str:
    """Where the channels may have been put by mistake."""
    if len(shown) in (3, 4) and channels == shown[-1]:
        return " The last axis of input would fit: pass data_format='NHWC' if channels come last."
    if len(shown) in (3, 4) and channels == shown[-3]:
        return " Another axis of input would fit: pass data_format='NCHW' if channels come before height and width."
    return " Pass a weight made for this input, or the groups it was made for."


def _check_bytes(name: str, arrays: dict[str, Shape], described: Callable[[], str]) -> None:
    """No array of a call may need more bytes than a 64-bit integer counts; NumPy leaves empty axes out of the count."""
    for what, size in arrays.items():
        count = prod(size) if 0 not in size else prod(filter(None, size))
        if count > LARGEST_BYTES // LARGEST_ELEMENT:
            raise ConvError(
                f"{name}: the {what} of shape {size} would need more than 2**63 bytes ({described()}); "
                "reduce the sizes or the padding."
            )


def _kernel_extent(kernel: Pair, dilation: Pair) -> Pair:
    """Rows and columns that a dilated kernel spans."""
    return (kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1


def conv_geometry(
    input_shape: Shape,
    weight_shape: Shape,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    padding_mode: Any = "zeros",
    *,
    name: str = "conv2d",
    shown: tuple[Shape, Shape] | None = None,
) -> Geometry:
    """The convolution of an input and a weight of these shapes."""
    shown = shown or (input_shape, weight_shape)
    _require_axes(name, input_shape, weight_shape, shown)
    strides, dilations, count = pair("stride", stride, 1), pair("dilation", dilation, 1), channel_groups(groups)
    mode = word("padding_mode", padding_mode, PADDING_MODES)
    batch, in_channels, height, width = input_shape
    out_channels, group_channels, *_ = weight_shape
    if group_channels * count != in_channels:
        raise ConvError(
            f"{name}: weight of shape {shown[1]} with groups={count} takes {group_channels * count} input channels "
            f"({group_channels} a group), but input of shape {shown[0]} has {in_channels}."
            + _layout_hint(group_channels * count, shown[0])
        )
    if out_channels % count:
        raise ConvError(
            f"{name}: the output channels of weight must be divisible by groups={count}, but weight of shape "
            f"{shown[1]} has {out_channels}; pass groups=1 or a divisor of {out_channels}."
        )
    kernel = (weight_shape[2], weight_shape[3])
    extent = _kernel_extent(kernel, dilations)
    size = (height, width)
    parsed = parse_padding(padding)
    if isinstance(parsed, str):
        pads = (
            _sides_of_word(parsed, height, extent[0], strides[0]),
            _sides_of_word(parsed, width, extent[1], strides[1]),
        )
    else:
        pads = parsed

    def described() -> str:
        return (
            f"input {shown[0]}, weight {shown[1]}, stride={strides}, padding={padding!r}, dilation={dilations}, "
            f"groups={count}"
        )

    def axis_outputs(axis: int) -> int:
        """Outputs along one axis, or why there are none."""
        (before, after), length, spanned = pads[axis], size[axis], extent[axis]
        padded = length + before + after
        if padded > LARGEST_POSITION or spanned > LARGEST_POSITION:
            raise ConvError(
                f"{name}: the padded {AXES[axis]} {padded} or the dilated kernel's {spanned} is above 2**60 "
                f"({described()}); reduce padding or dilation."
            )
        if before < 0 or after < 0:
            crop = max(-before, 0) + max(-after, 0)
            if crop > length:
                raise ConvError(
                    f"{name}: padding={padding!r} crops {crop} of the {length} positions of the input's {AXES[axis]} "
                    f"(input {shown[0]}); crop at most {length}."
                )
        if length == 0 and mode != "zeros" and (before > 0 or after > 0):
            raise ConvError(
                f"{name}: padding_mode={mode!r} has nothing to repeat: the {AXES[axis]} of input {shown[0]} is 0 "
                f"with padding={padding!r}; use padding_mode='zeros'."
            )
        if padded < spanned and not (length == 0 and parsed in ("same", "same_lower")):
            raise ConvError(
                f"{name}: the kernel of weight is larger than the padded input: its {AXES[axis]} spans {spanned}, "
                f"the padded input's is {padded} ({described()}). "
                "Pad more, for instance padding='same', or use a smaller kernel or dilation."
            )
        return (padded - spanned) // strides[axis] + 1

    output_size = (axis_outputs(0), axis_outputs(1))
    output_shape = (batch, out_channels, *output_size)
    arrays = {"output": output_shape, "input": input_shape, "weight": weight_shape}
    if mode != "zeros":  # the input gradient is made on the padded image, then folded
        arrays["padded input"] = (in_channels, height + sum(pads[0]), width + sum(pads[1]))
    _check_bytes(name, arrays, described)
    return Geometry(
        batch, in_channels, out_channels, count, size, kernel, output_size, strides, dilations, pads, mode
    )


def keras_transposed_padding(
    padding: Any, kernel: Pair, stride: Pair, dilation: Pair, output_padding: Any
) -> tuple[Pads, Pair]:
    """(padding, output_padding) as `conv_transpose_geometry` takes them, of a layer written in Keras' words.

    With the kernel's extent k along an axis, 'valid' has (H - 1)*s + max(k, s) positions, or with output_padding
    (H - 1)*s + k + output_padding; 'same' has H*s, or (H - 1)*s + k % 2 + output_padding: that of a padding of k // 2
    on both sides. The odd position that 'same' cuts off lies at the end, as in the convolution that it transposes.
    """
    parsed = parse_padding(padding)
    given = None if output_padding is None else pair("output_padding", output_padding, 0)
    extents = _kernel_extent(kernel, dilation)
    pads, extra = [], []
    for axis, (extent, step) in enumerate(zip(extents, stride, strict=True)):
        added = None if given is None else given[axis]
        if added is not None and added >= (step if isinstance(parsed, str) else max(step, dilation[axis])):
            raise ConvError(
                f"output_padding must be smaller than strides, but along the {AXES[axis]} output_padding is {added} "
                f"and strides {step} (output_padding={output_padding!r}, strides={stride}, dilation_rate={dilation}, "
                f"padding={padding!r}); where padding is given as numbers, it may be below dilation_rate instead."
            )
        if parsed in ("same", "same_lower"):
            cut = extent - (step if added is None else extent % 2 + added)
            sides = (max(cut, 0) // 2, max(cut, 0) - max(cut, 0) // 2)
            pads.append(sides[::-1] if parsed == "same_lower" else sides)
            extra.append(max(-cut, 0))
        elif isinstance(parsed, str):
            pads.append(_sides_of_word(parsed, 0, extent, step))
            extra.append(max(step - extent, 0) if added is None and parsed == "valid" else added or 0)
        else:
            pads.append(parsed[axis])
            extra.append(added or 0)
    return (pads[0], pads[1]), (extra[0], extra[1])


def conv_transpose_geometry(
    input_shape: Shape,
    weight_shape: Shape,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
    *,
    name: str = "conv_transpose2d",
    shown: tuple[Shape, Shape] | None = None,
    least: int = 1,
) -> Geometry:
    """The convolution whose input gradient is the transposed convolution of these shapes.

    Its input is the transposed output, its output the transposed input; weight is (in channels, out channels of a
    group, kernel height, kernel width). Along an axis the transposed output has
    (H - 1)*s - p0 - p1 + d*(k - 1) + 1 + output_padding positions, and at least `least`. A word for padding is the
    convolution's that is transposed: 'same' gives H*s + output_padding.
    """
    shown = shown or (input_shape, weight_shape)
    _require_axes(name, input_shape, weight_shape, shown)
    strides, dilations, count = pair("stride", stride, 1), pair("dilation", dilation, 1), channel_groups(groups)
    extra = pair("output_padding", output_padding, 0)
    batch, in_channels, height, width = input_shape
    if weight_shape[0] != in_channels:
        raise ConvError(
            f"{name}: weight of shape {shown[1]} takes {weight_shape[0]} input channels, but input of shape "
            f"{shown[0]} has {in_channels}." + _layout_hint(weight_shape[0], shown[0])
        )
    if in_channels % count:
        raise ConvError(
            f"{name}: the input channels must be divisible by groups={count}, but input of shape {shown[0]} has "
            f"{in_channels} (weight {shown[1]}); pass groups=1 or a divisor of {in_channels}."
        )
    kernel = (weight_shape[2], weight_shape[3])
    extent = _kernel_extent(kernel, dilations)
    size = (height, width)
    parsed = parse_padding(padding)

    def described() -> str:
        return (
            f"input {shown[0]}, weight {shown[1]}, stride={strides}, padding={padding!r}, "
            f"output_padding={extra}, dilation={dilations}, groups={count}"
        )

    pads, outputs = [], []
    for axis in (0, 1):
        if extra[axis] >= max(strides[axis], dilations[axis]):
            raise ConvError(
                f"{name}: output_padding must be smaller than stride or dilation, but along the {AXES[axis]} "
                f"output_padding is {extra[axis]}, stride {strides[axis]} and dilation {dilations[axis]} "
                f"({described()})."
            )
        full = (size[axis] - 1) * strides[axis] + extent[axis]
        if isinstance(parsed, str):
            sides = _sides_of_word(parsed, size[axis] * strides[axis], extent[axis], strides[axis])
        else:
            sides = parsed[axis]
        if parsed in ("same", "same_lower"):
            output = size[axis] * strides[axis] + extra[axis]
        else:
            output = full - sides[0] - sides[1] + extra[axis]
        if max(output, full) > LARGEST_POSITION:
            raise ConvError(
                f"{name}: the output's {AXES[axis]} {output} is above 2**60 ({described()}); reduce stride or dilation."
            )
        if output < (least if size[axis] else 0):
            raise ConvError(
                f"{name}: padding={padding!r} leaves no output: its {AXES[axis]} would be {output} ({described()}). "
                "Reduce padding or raise output_padding."
            )
        pads.append(sides)
        outputs.append(output)
    out_channels = weight_shape[1] * count
    output_shape = (batch, out_channels, *outputs)
    _check_bytes(name, {"output": output_shape, "input": input_shape, "weight": weight_shape}, described)
    return Geometry(
        batch, out_channels, in_channels, count, (outputs[0], outputs[1]), kernel, size, strides, dilations,
        (pads[0], pads[1]), "zeros",
    )  # fmt: skip


def tiled_geometries(g: Geometry, tiles: Pair) -> Iterator[tuple[int, int, Geometry]]:
    """The convolutions (a, b, geometry) that make rows a, a + tH, ... and columns b, b + tW, ... of the output of `g`.

    Row y = a + t*y' looks at y*s + i*d - p0 = y'*(t*s) + i*d - (p0 - a*s): a stride and a shift.
    """
    for a in range(tiles[0]):
        for b in range(tiles[1]):
            (top, bottom), (left, right) = g.padding
            rows = max(0, -(-(g.output_size[0] - a) // tiles[0]))
            columns = max(0, -(-(g.output_size[1] - b) // tiles[1]))
            yield a, b, g._replace(
                output_size=(rows, columns),
                stride=(g.stride[0] * tiles[0], g.stride[1] * tiles[1]),
                padding=((top - a * g.stride[0], bottom), (left - b * g.stride[1], right)),
            )


# ---- pooling -----------------------------------------------------------------------------------------------------


def _pool_pads(name: str, padding: object, size: Pair, extent: Pair, strides: Pair) -> Pads:
    parsed = parse_padding(padding)
    if isinstance(parsed, str):
        if parsed == "full":
            raise ConvError(
                f"{name}: padding='full' would make windows that hold padding alone; use 'same', 'valid' or numbers."
            )
        return (
            _sides_of_word(parsed, size[0], extent[0], strides[0]),
            _sides_of_word(parsed, size[1], extent[1], strides[1]),
        )
    for axis in (0, 1):
        if min(parsed[axis]) < 0:
            raise ConvError(
                f"{name}: padding of a pooling must be at least 0, but got padding={padding!r}; "
                "crop by slicing the input."
            )
        if max(parsed[axis]) > extent[axis] // 2:
            raise ConvError(
                f"{name}: padding must be at most half of the window, but along the {AXES[axis]} padding is "
                f"{parsed[axis]} and the window spans {extent[axis]} (padding={padding!r}); use at most "
                f"{extent[axis] // 2}, or pad the input beforehand."
            )
    return parsed


def _require_pixels(name: str, axis: int, size: int, dilation: int, stride: int, before: int, outputs: int) -> None:
    """A window that starts in the padding may step over a short axis: a maximum of nothing."""
    if size >= dilation:
        return
    for start in range(-before, min(0, outputs * stride - before), stride):
        if start % dilation >= size:
            raise ConvError(
                f"{name}: with dilation {dilation} and padding {before} a window steps over the whole "
                f"{AXES[axis]} {size} of the input; use a smaller dilation or padding."
            )


def pool_geometry(
    input_shape: Shape,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: Any = False,
    *,
    name: str = "pool2d",
    shown: Shape | None = None,
) -> PoolGeometry:
    """The pooling of an input of this shape. With `ceil_mode` a last, partial window counts if it starts inside the
    input or the padding before it, as in PyTorch."""
    shown = shown or input_shape
    if len(input_shape) != 4:
        raise ConvError(f"{name}: input must have 4 axes, but got shape {shown}; add the missing axes with reshape.")
    kernel = pair("kernel_size", kernel_size, 1)
    strides = kernel if stride is None else pair("stride", stride, 1)
    dilations = pair("dilation", dilation, 1)
    ceil = flag("ceil_mode", ceil_mode)
    batch, channels, height, width = input_shape
    size, extent = (height, width), _kernel_extent(kernel, dilations)
    pads = _pool_pads(name, padding, size, extent, strides)

    outputs = []
    for axis in (0, 1):
        before, after = pads[axis]
        if max(extent[axis], size[axis] + before + after) > LARGEST_POSITION:
            raise ConvError(f"{name}: the window's {AXES[axis]} {extent[axis]} is above 2**60; reduce kernel_size.")
        if size[axis] == 0 and isinstance(padding, str) and padding.lower() != "valid":
            outputs.append(0)
            continue
        slack = strides[axis] - 1 if ceil else 0
        output = (size[axis] + before + after - extent[axis] + slack) // strides[axis] + 1
        if ceil and (output - 1) * strides[axis] >= size[axis] + before:
            output -= 1
        if output < 1 or size[axis] == 0:
            raise ConvError(
                f"{name}: kernel_size={kernel} is larger than the padded input: along the {AXES[axis]} the window "
                f"spans {extent[axis]}, the padded input {size[axis] + before + after} (input {shown}, "
                f"stride={strides}, padding={padding!r}, dilation={dilations}). Use a smaller kernel_size."
            )
        _require_pixels(name, axis, size[axis], dilations[axis], strides[axis], before, output)
        outputs.append(output)

    def described() -> str:
        return f"input {shown}, kernel_size={kernel}, stride={strides}, padding={padding!r}"

    _check_bytes(name, {"output": (batch, channels, *outputs), "input": input_shape}, described)
    return PoolGeometry(batch, channels, size, kernel, (outputs[0], outputs[1]), strides, dilations, pads)
