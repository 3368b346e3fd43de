"""A whole net prepared for prediction.

BatchNormalization behind a convolution becomes part of its weights and bias; bias, activation and the addition of a
residual block happen while the convolution stores its result; weights are packed once; and the activations of the net
live in two or three buffers that are used again and again. The result equals the layers' own forward pass to rounding.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import functional
from .errors import ConvError
from .geometry import Shape
from .layers import activations, rows
from .layers.activations import LINEAR, Activation, Function
from .layers.base import Layer, locating
from .layers.convolution import Conv2D
from .layers.core import Dense, Dropout, Flatten, Residual
from .layers.normalization import BatchNormalization
from .layers.pooling import AveragePooling2D, MaxPooling2D
from .plan import ConvPlan

Array = NDArray[Any]
KEPT_BYTES = 256 << 20  # buffers above this are given back after a run

# A step computes its result from its input and the residual (or None) into `out`, whose first axis is the batch.
Run = Callable[[Array, "Array | None", Array], None]


@dataclass
class Step:
    """One operation of the prepared net: which layers it stands for, how it runs, and where its values live."""

    layers: list[str]
    how: str
    output_shape: Shape
    run: Run | None  # None: a view of the input
    source: int = -1  # buffer numbers; -1 is the caller's input
    target: int = -1
    residual: int | None = None
    packed_bytes: int = 0
    workspace_bytes: int = 0
    in_place: bool = False


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
        self._buffers: list[Array | None] = []
        self._lock = threading.Lock()
        self._values: list[Shape] = [sample]  # shape of every intermediate value; 0 is the input
        self._uses: list[tuple[int, int | None, int]] = []  # (input, residual, output) of every step
        self._last = self._chain(list(model.sublayers()), 0)
        self._assign_buffers()

    # ---- from layers to steps -----------------------------------------------------------------------------------

    def _add(self, value: int, step: Step, residual: int | None = None) -> int:
        self._values.append(step.output_shape)
        self.steps.append(step)
        self._uses.append((value, residual, len(self._values) - 1))
        return len(self._values) - 1

    def _chain(self, layers: list[Layer], value: int, residual: int | None = None, after: Function = LINEAR) -> int:
        """Steps for a chain from `value`; its last convolution adds `residual` and applies `after`, if it can."""
        at = 0
        while at < len(layers):
            layer = layers[at]
            with locating(layer):
                if isinstance(layer, Conv2D) and layer.channels_last:
                    at, value, residual, after = self._convolution(layers, at, value, residual, after)
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
        assert isinstance(layer, Conv2D)
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
        plan = functional.plan_conv2d(
            (1, *sample), weight.astype(layer.dtype, copy=False), bias, layer.strides, layer.padding,
            layer.dilation_rate, g.groups, data_format="NHWC", activation=activation.fused,
        )  # fmt: skip
        made = plan.explain()
        parts = [made.algorithm]
        parts += ["folded normalisation"] if scale is not None else []
        parts += ["residual"] if add is not None else []
        parts += [activation.fused] if activation.fused else []
        step = Step(
            names, " + ".join(parts), (*g.output_size, g.out_channels), _planned(plan),
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
        output: Any = layer.output_shape(sample)
        run: Run | None
        how, in_place = "layer", False
        if isinstance(layer, Dropout):
            run, how = None, "nothing"
        elif isinstance(layer, Flatten) and layer.channels_last:
            run, how = None, "view"
        elif isinstance(layer, MaxPooling2D) and layer.channels_last:
            run, how = _max_pooling(layer), "max"
        elif isinstance(layer, AveragePooling2D) and layer.channels_last:
            run, how = _average_pooling(layer), "mean"
        elif isinstance(layer, Activation):
            run, how, in_place = _activation(layer), layer.function.name, True
        elif isinstance(layer, Dense) and len(sample) == 1:
            run, how = _dense(layer), "matrix product" + _suffix(layer.activation)
        else:
            run = _forward(layer)
        return self._add(value, Step([layer.name], how, output, run, in_place=in_place))

    # ---- buffers ------------------------------------------------------------------------------------------------

    def _assign_buffers(self) -> None:
        """Give every value a buffer that no value needed later occupies: two for a chain, three with a residual."""
        last_use = {value: i for i, (x, add, _) in enumerate(self._uses) for value in (x, add) if value is not None}
        where = {0: -1}  # value -> buffer
        holders: list[set[int]] = []  # values that live in each buffer
        for i, (step, (x, add, out)) in enumerate(zip(self.steps, self._uses, strict=True)):
            free = [b for b, held in enumerate(holders) if all(last_use.get(v, -1) < i for v in held)]
            ends = where[x] >= 0 and all(last_use.get(v, -1) <= i for v in holders[where[x]]) and out != self._last
            if step.run is None or (step.in_place and ends):
                target = where[x]
            elif out == self._last:
                target = -1  # the caller's
            elif free:
                target = free[0]
                holders[target] = set()
            else:
                target = len(holders)
                holders.append(set())
            if target >= 0:
                holders[target].add(out)
            where[out] = target
            step.source, step.target = where[x], target
            step.residual = None if add is None else where[add]
        self._sizes = [0] * len(holders)
        for out, target in where.items():
            if target >= 0:
                self._sizes[target] = max(self._sizes[target], prod(self._values[out]))
        self._buffers = [None] * len(holders)

    @property
    def current(self) -> bool:
        """Whether the model's weights are still those that were packed."""
        return all(p.version == v for p, v in zip(self._parameters, self._versions, strict=True))

    def _buffer(self, number: int, batch: int, shape: Shape) -> Array:
        needed = batch * self._sizes[number]
        held = self._buffers[number]
        if held is None or held.size < needed:
            held = self._buffers[number] = np.empty(needed, self.model.dtype)
        return held[: batch * prod(shape)].reshape(batch, *shape)

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
        with self._lock:
            result = self._run(array)
            if sum(b.nbytes for b in self._buffers if b is not None) > KEPT_BYTES:
                self._buffers = [None] * len(self._buffers)
        return result

    def _run(self, x: Array) -> Array:
        batch = len(x)
        values: dict[int, Array] = {0: x}
        for step, (source, add, out) in zip(self.steps, self._uses, strict=True):
            given = values[source]
            if step.run is None:
                values[out] = given.reshape(batch, *step.output_shape)
                continue
            if step.target < 0:
                target = np.empty((batch, *step.output_shape), self.model.dtype)
            else:
                target = self._buffer(step.target, batch, step.output_shape)
            step.run(given, None if add is None else values[add], target)
            values[out] = target
        result = values[self._last]
        shared = self._last == 0 or any(b is not None and np.may_share_memory(result, b) for b in self._buffers)
        return result.copy() if shared else result

    def explain(self) -> str:
        """A table: which layers became one step, by which algorithm, from which buffer into which."""
        head = ("step", "layers", "how", "output", "buffers", "packed weights")
        lines = [head]
        for i, step in enumerate(self.steps, 1):
            into = {-1: "out"}.get(step.target, str(step.target))
            out_of = {-1: "in"}.get(step.source, str(step.source))
            route = f"{out_of} -> {into}" + ("" if step.residual is None else f" (+ {step.residual})")
            lines.append((
                str(i), ", ".join(step.layers), step.how, " x ".join(map(str, step.output_shape)), route,
                f"{step.packed_bytes:,}" if step.packed_bytes else "-",
            ))  # fmt: skip
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        item = self.model.dtype.itemsize
        text.append(
            f"{len(self._sizes)} buffers of {', '.join(f'{size * item:,}' for size in self._sizes)} bytes a sample, "
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


def _max_pooling(layer: MaxPooling2D) -> Run:
    def run(x: Array, residual: Array | None, out: Array) -> None:
        functional.max_pool2d(x, layer.pool_size, layer.strides, layer.padding, data_format="NHWC", out=out)

    return run


def _average_pooling(layer: AveragePooling2D) -> Run:
    def run(x: Array, residual: Array | None, out: Array) -> None:
        functional.avg_pool2d(
            x, layer.pool_size, layer.strides, layer.padding, count_include_pad=False, data_format="NHWC", out=out
        )

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

