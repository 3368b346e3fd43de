"""A whole net prepared for prediction.

BatchNormalization behind a convolution becomes part of its weights and bias; bias, activation and the addition of a
residual block happen while the convolution stores its result; weights are packed once; and the activations of the net
live in a few buffers that are used again and again. A batch goes through the net in slices: where activations are
large and weights small, as in the first stages, one image at a time passes all layers while its activations are in the
cache. The result equals the layers' own forward pass to rounding, and a batch gives the bits of its images one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core.arrays import empty
from .._core.ask_plans import prepared, prepared_transposed
from .._core.conv_plan import ConvPlan
from .._core.forks import Guard
from .._core.problem import Use
from .._core.words import Shape
from ..errors import ConvError
from ..layers import activations, rows
from ..layers.activations import LINEAR, Activation, Function
from ..layers.base import Layer, Sample, locating
from ..layers.convolution import Conv, ConvTranspose
from ..layers.core import Dense, Dropout, Flatten, Residual
from ..layers.normalization import BatchNormalization
from ..layers.pooling import AveragePooling, MaxPooling
from ..pooling import MAXIMA, MEANS

Array = NDArray[Any]
KEPT_BYTES = 256 << 20  # buffers above this are given back after a run
# A batch goes in slices whose activations take at most SLICE_BYTES at any step. From the first step with more weights
# than HEAVY_BYTES on, which would be read anew for every slice, it goes whole (ResNet-50, batch 8: 7 % less time).
SLICE_BYTES = 8 << 20
MOST_VIEWS = 1000  # remembered; a few for every step and size of a batch
HEAVY_BYTES = 16 << 20
WHOLE = 1 << 30  # images of a slice: more than any batch has

# A step computes its result from its input and the residual (or None) into `out`, whose first axis is the batch.
Run = Callable[[Array, "Array | None", Array], None]


@dataclass
class Step:
    """One operation of the prepared net: which layers it stands for, how it runs, and where its values live."""

    layers: list[str]
    how: str
    output_shape: Shape
    run: Run | None  # None: a view of the input
    weight_bytes: int = 0  # read by a run of any batch
    source: int = -1  # buffer numbers; -1 is the caller's input
    target: int = -1
    residual: int | None = None
    packed_bytes: int = 0
    workspace_bytes: int = 0
    in_place: bool = False
    slice: int = WHOLE  # images that go through it, and the steps of the same slice around it, at a time


class InferencePlan:
    """A model prepared for inputs of one shape and any batch. Made by `Sequential.compile_inference`.

    `run(x)` computes, `explain()` tells how. The plan holds copies of the weights as they were when it was made
    (dense layers' excepted); `current` is False once the model's have changed.
    """

    def __init__(self, model: Layer, sample: Shape) -> None:
        self.model, self.sample = model, sample
        self.steps: list[Step] = []
        self._parameters = model.parameters()
        self._versions = [parameter.version for parameter in self._parameters]
        self._guard = Guard(self._drop)
        self._values: list[Shape] = [sample]  # shape of every intermediate value; 0 is the input
        self._root = [0]  # the value whose memory it is: another one's for a view
        self._uses: list[tuple[int, int | None, int]] = []  # (input, residual, output) of every step
        self._last = self._chain(list(model.sublayers()), 0)
        self._slice_batch()
        self._assign_buffers()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy and a pickle are made of the model again, as long as it has the weights that were packed."""
        if not self.current:
            raise ConvError(
                f"this plan of {self.model.name} holds weights that the model no longer has, and cannot be copied; "
                "copy the model, or what compile_inference gives now."
            )
        return InferencePlan, (self.model, self.sample)

    def __repr__(self) -> str:
        shapes = f"(N, {', '.join(map(str, self.sample))}) -> (N, {', '.join(map(str, self._values[self._last]))})"
        stale = "" if self.current else ", the model's weights have changed since"
        return f"<InferencePlan of {self.model.name}: {shapes} {self.model.dtype}, {len(self.steps)} steps{stale}>"

    # ---- from layers to steps -----------------------------------------------------------------------------------

    def _add(self, value: int, step: Step, residual: int | None = None) -> int:
        self._values.append(step.output_shape)
        self.steps.append(step)
        made = len(self._values) - 1
        self._uses.append((value, residual, made))
        self._root.append(self._root[value] if step.run is None else made)
        return made

    def _chain(self, layers: list[Layer], value: int, residual: int | None = None, after: Function = LINEAR) -> int:
        """Steps for a chain from `value`; its last convolution adds `residual` and applies `after`, if it can."""
        at = 0
        while at < len(layers):
            layer = layers[at]
            with locating(layer):
                if isinstance(layer, Conv) and layer.channels_last:
                    at, value, residual, after = self._convolution(layers, at, value, residual, after)
                elif isinstance(layer, ConvTranspose) and layer.channels_last and 0 not in layer.output_shape(
                    Sample(self._values[value])
                ):
                    at, value = self._transposed(layers, at, value)
                elif isinstance(layer, BatchNormalization) and layer.channels_last:
                    at, value = self._normalisation(layers, at, value)
                elif isinstance(layer, Residual):
                    side = self._chain(list(layer.shortcut), value)
                    value = self._chain(list(layer.body), value, side, layer.activation)
                    self.steps[-1].layers.append(layer.name)
                    at += 1
                elif getattr(layer, "is_chain", False):
                    value = self._chain(list(layer.sublayers()), value)
                    at += 1
                else:
                    value = self._single(layer, value)
                    at += 1
        if residual is not None:
            value = self._sum(value, residual, after)
        return value

    def _convolution(
        self, layers: list[Layer], at: int, value: int, residual: int | None, after: Function
    ) -> tuple[int, int, int | None, Function]:
        """A convolution with the BatchNormalization, sum and activation behind it."""
        layer = layers[at]
        assert isinstance(layer, Conv)
        sample, names, at = self._values[value], [layer.name], at + 1
        weight, bias, activation = layer._weight(), None if layer.bias is None else layer.bias.array, layer.activation
        scale = shift = None
        while activation is LINEAR and at < len(layers):
            behind = layers[at]
            if isinstance(behind, BatchNormalization) and behind.channels_last and behind.built_shape is not None:
                own_scale, own_shift = behind.affine()
                scale = own_scale if scale is None else scale * own_scale
                shift = own_shift if shift is None else shift * own_scale + own_shift
            elif isinstance(behind, Activation) and behind.function.fused is not None:
                activation = behind.function
            elif not isinstance(behind, Dropout):
                break
            names.append(behind.name)
            at += 1
        if scale is not None and shift is not None:
            weight = weight * scale
            bias = shift if bias is None else bias * scale + shift
            bias = bias.astype(layer.dtype)
        last = at == len(layers) and activation is LINEAR
        add = residual if last else None
        if last and after.fused is not None and residual is not None:
            activation, after = after, LINEAR
        g = layer.geometry(sample)
        plan = prepared(
            Use.NETWORK, (1, *sample), weight.astype(layer.dtype, copy=False), bias, layer.strides, layer.padding,
            layer.dilation_rate, g.groups, data_format="channels_last", activation=activation.fused,
        )  # fmt: skip
        made = plan.explain()
        parts = [made.kind]
        parts += ["folded normalisation"] if scale is not None else []
        parts += ["residual"] if add is not None else []
        parts += [activation.fused] if activation.fused else []
        shape, run = (*g.output_size, g.out_channels), _planned(plan)
        own = activation is LINEAR or activation.fused is not None
        if own and not last and at < len(layers) and plan.pools and _halves(layers[at]):
            parts.append("max pooling")
            names.append(layers[at].name)
            at, shape, run = at + 1, (shape[0] // 2, shape[1] // 2, shape[2]), _planned_pooled(plan)
        step = Step(
            names, " + ".join(parts), shape, run, made.packed_weight_bytes,
            packed_bytes=made.packed_weight_bytes, workspace_bytes=made.workspace_bytes,
        )  # fmt: skip
        value = self._add(value, step, add)
        if activation.fused is None and activation is not LINEAR:
            value = self._apply(value, activation)
        if last:
            residual = None
            if after is not LINEAR:
                value, after = self._apply(value, after), LINEAR
        return at, value, residual, after

    def _transposed(self, layers: list[Layer], at: int, value: int) -> tuple[int, int]:
        """A transposed convolution with its weights packed, and the BatchNormalization behind it."""
        layer = layers[at]
        assert isinstance(layer, ConvTranspose) and layer.kernel is not None
        weight, bias = layer.kernel.array, None if layer.bias is None else layer.bias.array
        names, parts, behind = [layer.name], [], layers[at + 1] if at + 1 < len(layers) else None
        if isinstance(behind, BatchNormalization) and behind.channels_last and layer.activation is LINEAR:
            scale, shift = behind.affine()
            weight = (weight * scale[:, None]).astype(layer.dtype)
            bias = (shift if bias is None else bias * scale + shift).astype(layer.dtype)
            names, parts = [layer.name, behind.name], ["folded normalisation"]
        sample, g = self._values[value], layer.geometry(self._values[value])
        plan = prepared_transposed(
            (1, *sample), weight, bias, layer.strides, *layer.cut, 1, layer.dilation_rate, data_format="channels_last"
        )
        made, shape = plan.explain(), (*g.input_size, layer.filters)
        step = Step(
            names, " + ".join([made.kind, *parts]), shape, _planned_alone(plan), made.packed_weight_bytes,
            packed_bytes=made.packed_weight_bytes, workspace_bytes=made.workspace_bytes,
        )  # fmt: skip
        value = self._add(value, step)
        return at + len(names), value if layer.activation is LINEAR else self._apply(value, layer.activation)

    def _normalisation(self, layers: list[Layer], at: int, value: int) -> tuple[int, int]:
        """A BatchNormalization without a convolution before it, with the ReLU behind it."""
        layer = layers[at]
        assert isinstance(layer, BatchNormalization)
        scale, shift = layer.affine()
        behind = layers[at + 1] if at + 1 < len(layers) else None
        relu = isinstance(behind, Activation) and behind.function is activations.RELU
        names = [layer.name, behind.name] if relu and behind is not None else [layer.name]

        def run(x: Array, residual: Array | None, out: Array) -> None:
            rows.scale_shift(x, scale, shift, relu=relu, out=out)

        how = "scale and shift" + (" + relu" if relu else "")
        step = Step(names, how, self._values[value], run, in_place=True)
        return at + len(names), self._add(value, step)

    def _sum(self, value: int, residual: int, after: Function) -> int:
        def run(x: Array, other: Array | None, out: Array) -> None:
            assert other is not None
            np.add(x, other, out=out)
            if after is not LINEAR:
                out[...] = after.value(out)

        how = "sum" + ("" if after is LINEAR else f" + {after.name}")
        return self._add(value, Step([], how, self._values[value], run), residual)

    def _apply(self, value: int, function: Function) -> int:
        def run(x: Array, residual: Array | None, out: Array) -> None:
            function.into(x, out)

        return self._add(value, Step([], function.name, self._values[value], run, in_place=True))

    def _single(self, layer: Layer, value: int) -> int:
        """A layer without anything to fuse with."""
        sample = self._values[value]
        output: Any = tuple(layer.output_shape(Sample(sample)))
        run: Run | None
        how, in_place = "layer", False
        weight_bytes = sum(parameter.array.nbytes for parameter in layer.parameters())
        if isinstance(layer, Dropout):
            run, how = None, "nothing"
        elif isinstance(layer, Flatten) and layer.channels_last:
            run, how = None, "view"
        elif isinstance(layer, MaxPooling) and layer.channels_last:
            run, how = _max_pooling(layer), "max"
        elif isinstance(layer, AveragePooling) and layer.channels_last:
            run, how = _average_pooling(layer), "mean"
        elif isinstance(layer, Activation):
            run, how, in_place = _activation(layer), layer.function.name, True
        elif isinstance(layer, Dense) and len(sample) == 1:
            run, how = _dense(layer), "matrix product" + _suffix(layer.activation)
        else:
            run = _forward(layer)
        return self._add(value, Step([layer.name], how, output, run, weight_bytes, in_place=in_place))

    # ---- slices and buffers -------------------------------------------------------------------------------------

    def _slice_batch(self) -> None:
        """How many images go through a step at a time; steps in a row of the same number form a segment.

        From the first step with large weights on, the whole batch; before it, as many as every later step of that
        stretch can hold in the cache. What crosses from one segment into the next is kept for the whole batch.
        """
        item = self.model.dtype.itemsize
        heavy = [i for i, step in enumerate(self.steps) if step.weight_bytes > HEAVY_BYTES]
        images = WHOLE
        for i in reversed(range(heavy[0] if heavy else len(self.steps))):
            touched = item * sum(prod(self._values[value]) for value in self._uses[i] if value is not None)
            images = min(images, max(1, SLICE_BYTES // max(1, touched)))
            self.steps[i].slice = 1 << images.bit_length() - 1  # powers of two: fewer segments
        starts = [i for i in range(len(self.steps)) if i == 0 or self.steps[i].slice != self.steps[i - 1].slice]
        self._segments = list(zip(starts, [*starts[1:], len(self.steps)], strict=True))

    def _assign_buffers(self) -> None:
        """Give every value a buffer that no value needed at the same time occupies: two for a chain, three with a
        residual, others for what crosses from one segment into another."""
        segment_of = [segment for segment in self._segments for _ in range(*segment)]
        last_use = {
            self._root[value]: i for i, (x, add, _) in enumerate(self._uses) for value in (x, add) if value is not None
        }
        result = self._root[self._last]
        self._where = {0: -1, result: -1}  # value -> buffer; -1 is the caller's
        self._crossing: set[int] = set()
        lives: list[list[tuple[int, int]]] = []  # the steps, first and last, for which a buffer is taken
        self._sizes: list[list[tuple[int, int]]] = []  # elements of an image, and images, of each value of a buffer
        for i, (step, (x, add, out)) in enumerate(zip(self.steps, self._uses, strict=True)):
            source = self._root[x]
            if step.run is not None and out != result:
                first, end = i, last_use.get(out, i)
                crosses = segment_of[end] != segment_of[i]
                if crosses:  # written slice by slice, and read so
                    self._crossing.add(out)
                    first, end = segment_of[i][0], segment_of[end][1] - 1
                free = [b for b, held in enumerate(lives) if all(till < first or since > end for since, till in held)]
                ends = last_use[source] == i and source not in self._crossing and self._where[source] >= 0
                if step.in_place and ends and not crosses:
                    free.insert(0, self._where[source])
                elif not free:
                    free = [len(lives)]
                    lives.append([])
                    self._sizes.append([])
                self._where[out] = free[0]
                lives[free[0]].append((first, end))
                self._sizes[free[0]].append((prod(self._values[out]), WHOLE if crosses else step.slice))
            step.source, step.target = self._where[source], self._where[self._root[out]]
            step.residual = None if add is None else self._where[self._root[add]]
        self._drop()

    def _drop(self) -> None:
        """Begin anew with memory for intermediate values."""
        self._buffers: list[Array | None] = [None] * len(self._sizes)
        self._views: dict[tuple[int, int, int], Array] = {}  # (value, first image, end) in these buffers

    @property
    def current(self) -> bool:
        """Whether the model's weights are still those that were packed."""
        return all(p.version == v for p, v in zip(self._parameters, self._versions, strict=True))

    def _buffer(self, number: int, batch: int) -> Array:
        needed = max(elements * min(images, batch) for elements, images in self._sizes[number])
        held = self._buffers[number]
        if held is None or held.size < needed:
            held = self._buffers[number] = empty((needed,), self.model.dtype)
            self._views.clear()
        return held

    def run(self, x: Any) -> Array:
        """The outputs for a batch of samples of the planned shape."""
        array = np.asarray(x)
        if array.shape[1:] != self.sample:
            raise ConvError(
                f"{self.model.name} was prepared for a batch of {self.sample}, but got shape {array.shape}; call "
                "compile_inference for that shape."
            )
        if array.dtype != self.model.dtype:
            array = array.astype(self.model.dtype)
        with self._guard.lock:
            result = self._run(array)
            if sum(b.nbytes for b in self._buffers if b is not None) > KEPT_BYTES:
                self._drop()
        return result

    def _run(self, x: Array) -> Array:
        batch, result = len(x), self._root[self._last]
        given = {0: x, result: empty((batch, *self._values[result]), self.model.dtype)}
        if result == 0:
            given[0] = x.copy()
        buffers = [self._buffer(number, batch) for number in range(len(self._sizes))]
        views = self._views

        def view(value: int, first: int, end: int) -> Array:
            """A value's images from `first` to `end`, which have a place of their own if it crosses segments."""
            found = views.get((value, first, end))
            if found is not None:
                return found
            root, shape = self._root[value], (end - first, *self._values[value])
            if root in given:
                return given[root][first:end].reshape(shape)
            size = prod(shape[1:])
            start = first * size if root in self._crossing else 0
            if len(views) > MOST_VIEWS:
                views.clear()
            made = buffers[self._where[root]][start : start + (end - first) * size].reshape(shape)
            views[value, first, end] = made
            return made

        for steps in self._segments:
            slices = max(1, -(-batch // self.steps[steps[0]].slice))
            for piece in range(slices):
                bounds = batch * piece // slices, batch * (piece + 1) // slices
                values: dict[int, Array] = {}
                for i in range(*steps):
                    run, uses = self.steps[i].run, self._uses[i]
                    if run is None:
                        continue
                    for value in uses:
                        if value is not None and value not in values:
                            values[value] = view(value, *bounds)
                    run(values[uses[0]], None if uses[1] is None else values[uses[1]], values[uses[2]])
        return given[result].reshape(batch, *self._values[self._last])

    def explain(self) -> str:
        """A table: which layers became one step, by which algorithm, from which buffer into which."""
        head = ("step", "layers", "how", "output", "images", "buffers", "packed weights")
        lines = [head]
        for i, step in enumerate(self.steps, 1):
            into = {-1: "out"}.get(step.target, str(step.target))
            out_of = {-1: "in"}.get(step.source, str(step.source))
            route = f"{out_of} -> {into}" + ("" if step.residual is None else f" (+ {step.residual})")
            lines.append((
                str(i), ", ".join(step.layers), step.how, " x ".join(map(str, step.output_shape)),
                "all" if step.slice == WHOLE else str(step.slice), route,
                f"{step.packed_bytes:,}" if step.packed_bytes else "-",
            ))  # fmt: skip
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        item = self.model.dtype.itemsize
        bytes_ = [item * max(elements for elements, _ in sizes) for sizes in self._sizes]
        text.append(
            f"{len(bytes_)} buffers of {', '.join(f'{size:,}' for size in bytes_)} bytes an image; `images` go through "
            "a step, and the steps of the same number around it, at a time; "
            f"packed weights {sum(step.packed_bytes for step in self.steps):,} bytes, "
            f"scratch memory at most {max((step.workspace_bytes for step in self.steps), default=0):,} bytes"
        )
        return "\n".join(text)


def _suffix(activation: Function) -> str:
    return "" if activation is LINEAR else f" + {activation.name}"


def _planned(plan: ConvPlan) -> Run:
    def run(x: Array, residual: Array | None, out: Array) -> None:
        plan.run(x, out, residual=residual)

    return run


def _planned_alone(plan: ConvPlan) -> Run:
    def run(x: Array, residual: Array | None, out: Array) -> None:
        plan.run(x, out)

    return run


def _planned_pooled(plan: ConvPlan) -> Run:
    def run(x: Array, residual: Array | None, out: Array) -> None:
        plan.run_pooled(x, out)

    return run


def _halves(layer: Layer) -> bool:
    """Whether a layer takes the largest of every 2 x 2 pixels."""
    return (
        isinstance(layer, MaxPooling)
        and layer.channels_last
        and layer.pool_size == layer.strides == (2, 2)
        and layer.padding in ("valid", 0)
    )


def _max_pooling(layer: MaxPooling) -> Run:
    pool = MAXIMA[layer.axes]

    def run(x: Array, residual: Array | None, out: Array) -> None:
        pool(x, layer.pool_size, layer.strides, layer.padding, data_format="channels_last", out=out)

    return run


def _average_pooling(layer: AveragePooling) -> Run:
    pool = MEANS[layer.axes]

    def run(x: Array, residual: Array | None, out: Array) -> None:
        pool(
            x, layer.pool_size, layer.strides, layer.padding, count_include_pad=False, data_format="channels_last",
            out=out,
        )  # fmt: skip

    return run


def _activation(layer: Activation) -> Run:
    def run(x: Array, residual: Array | None, out: Array) -> None:
        layer.function.into(x, out)

    return run


def _dense(layer: Dense) -> Run:
    def run(x: Array, residual: Array | None, out: Array) -> None:
        assert layer.kernel is not None
        rows.dense(x, layer.kernel.array, out)
        if layer.bias is not None:
            out += layer.bias.array
        if layer.activation is not LINEAR:
            layer.activation.into(out, out)

    return run


def _forward(layer: Layer) -> Run:
    def run(x: Array, residual: Array | None, out: Array) -> None:
        out[...] = layer.forward(x)
        layer.release()

    return run

