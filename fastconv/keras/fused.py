"""Keras' convolution layers on NumPy: bias and ReLU with the convolution, from weights that stay packed.

A layer's `call` convolves, adds its bias and applies its activation, in this order and with nothing between: so says
its code, by which it is recognised when the convolution is asked for. Its three calls then share one pass: the
convolution gives the finished result, and the sum and the activation, when they come, find the very array that they are
of and hand it on. Should another bias come than the layer's, the convolution is done again without one; and whoever
takes the functions away waits until none is on its way, which Keras' own sum would give its bias once more.

The packed weights are used while kernel and bias hold the bytes that were packed.
"""

from __future__ import annotations

import sys
import time
from threading import get_ident
from types import FrameType
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary, ref

import numpy as np

import fastconv
from fastconv._core.arrays import Array
from fastconv._core.ask_plans import prepared
from fastconv._core.forks import Guard
from fastconv._core.problem import Use
from fastconv._core.steps import TYPES

from .operators import Asked
from .steps import Convolution, weight_of

KEPT_PLANS: Final = (
    2  # shapes of input that a layer keeps packed weights for; Winograd's are some four times the weights
)
PATIENCE: Final = 5.0  # seconds that `close` waits: for convolutions, and for results that an error left on their way


class _Packed:
    """What a layer's weights were, and the plans that hold them."""

    def __init__(self, kernel: Array, bias: Array | None) -> None:
        self.kernel, self.bias = bytearray(kernel.data), None if bias is None else bytearray(bias.data)
        self.plans: dict[tuple[object, ...], fastconv.ConvPlan] = {}

    def holds(self, kernel: Array, bias: Array | None) -> bool:
        """Whether these are the bytes that were packed: a comparison of memory at its speed."""
        if bias is None or self.bias is None:
            return bias is None and self.bias is None and self.kernel == kernel.data
        return self.kernel == kernel.data and self.bias == bias.data


class _Flight(NamedTuple):
    """A result on its way through its layer's `call`."""

    result: Any  # a weak reference
    bias: Array | None  # to come; None once it has been asked for
    relu: bool  # whether the activation follows
    asked: Asked


class Layers:
    """The layers that were met, and what is on its way in each thread."""

    def __init__(self) -> None:
        from keras import activations
        from keras.src.layers.convolutional.base_conv import BaseConv
        from keras.src.layers.convolutional.base_depthwise_conv import BaseDepthwiseConv
        from keras.src.layers.convolutional.conv1d import Conv1D
        from keras.src.ops import nn as ops

        self._relu = activations.relu
        self._without = (None, activations.linear)
        # The code that may stand between a layer's `call` and the backend, from there outwards.
        self._calls = {
            "conv": (
                (ops.conv.__code__, BaseConv.convolution_op.__code__, BaseConv.call.__code__),
                (ops.conv.__code__, Conv1D.call.__code__),
            ),
            "depthwise_conv": ((ops.depthwise_conv.__code__, BaseDepthwiseConv.call.__code__),),
        }
        self._flights: dict[int, _Flight | None] = {}  # by thread; None: in the making
        self._open = True
        self._guard = Guard(self._drop)
        self._drop()

    def _drop(self) -> None:
        self._packed: WeakKeyDictionary[Any, _Packed] = WeakKeyDictionary()

    def _layer(self, name: str) -> Any:
        """The layer whose `call` asks for this operator; None where it is somebody else."""
        # Behind `_made`, `run`, the host's `compute` and the function that stands for Keras'.
        inmost = sys._getframe(5)
        for codes in self._calls.get(name, ()):
            frame: FrameType | None = inmost
            found = None
            for code in codes:
                if frame is None or frame.f_code is not code:
                    break
                found, frame = frame, frame.f_back
            else:
                return None if found is None else found.f_locals.get("self")
        return None

    def run(self, name: str, asked: Asked) -> Array | None:
        """The layer's result with bias and ReLU; None where no layer that is known asks."""
        here = get_ident()
        self._flights[here] = None  # before it is asked whether this is open: `close` does it the other way round
        try:
            return self._made(name, asked, here) if self._open else None
        finally:
            if self._flights[here] is None:
                del self._flights[here]

    def _made(self, name: str, asked: Asked, here: int) -> Array | None:
        x, w = asked.inputs, asked.kernel
        if not isinstance(asked.step, Convolution) or x.dtype not in TYPES or not w.flags.c_contiguous or not x.size:
            return None
        layer = self._layer(name)
        if layer is None or not (layer.activation in self._without or layer.activation is self._relu):
            return None
        bias = layer.bias.value if layer.use_bias else None
        if bias is not None and (type(bias) is not np.ndarray or bias.dtype != x.dtype or not bias.flags.c_contiguous):
            return None
        relu = layer.activation is self._relu
        y = self._plan(layer, asked, bias, relu).run(x)
        if bias is not None or relu:
            self._flights[here] = _Flight(ref(y), bias, relu, asked)
        return y

    def _plan(self, layer: Any, asked: Asked, bias: Array | None, relu: bool) -> fastconv.ConvPlan:
        o, x, w = asked.step.options, asked.inputs, asked.kernel
        key = (x.shape[1:], x.dtype, o, relu)
        with self._guard.lock:
            packed = self._packed.get(layer)
            if packed is None or not packed.holds(w, bias):
                packed = self._packed[layer] = _Packed(w, bias)
            plan = packed.plans.get(key)
            if plan is None:
                while len(packed.plans) >= KEPT_PLANS:
                    packed.plans.pop(next(iter(packed.plans)))
                plan = packed.plans[key] = prepared(
                    Use.NETWORK, x.shape, weight_of(o, w), bias, o.stride, o.padding, o.dilation, o.groups,
                    data_format=o.data_format, activation="relu" if relu else None,
                )  # fmt: skip
        return plan

    def flying(self, x: Any) -> _Flight | None:
        """What is on its way, if it is x."""
        flight = self._flights.get(get_ident())
        return flight if flight is not None and flight.result() is x else None

    def added(self, flight: _Flight, bias: Any) -> bool:
        """Whether the sum that is asked for has been made."""
        del self._flights[get_ident()]
        if flight.bias is None or bias.size != flight.bias.size or bias.tobytes() != flight.bias.tobytes():
            return False
        if flight.relu:
            self._flights[get_ident()] = flight._replace(bias=None)
        return True

    def activated(self) -> None:
        """ReLU was asked for."""
        del self._flights[get_ident()]

    def close(self) -> None:
        """Let nothing begin, wait for what other threads have on its way, and free the packed weights."""
        self._open = False
        until = time.monotonic() + PATIENCE
        while self._others_on_their_way() and time.monotonic() < until:
            time.sleep(1e-4)
        self._drop()

    def _others_on_their_way(self) -> bool:
        living, here = sys._current_frames(), get_ident()
        return any(
            thread != here and thread in living and (flight is None or flight.result() is not None)
            for thread, flight in self._flights.copy().items()
        )
