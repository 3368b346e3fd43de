"""Arrays that say what is not so, for every argument of every entry point. Run as a program: a crash ends that alone.

Whatever an array's class says, a call does what it does for the plain array below: it gives the same bits, or raises.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastconv
from fastconv import grad, layers, losses, optimizers, tiled_predict
from fastconv.scipy import convolve2d, ndimage

Array = np.ndarray
Call = tuple[str, Callable[..., Any], dict[str, Any]]  # what, the function of keywords, the arrays among them


def lie(**said: Any) -> Callable[[Array], Array]:
    """A view whose class has these attributes."""
    kind = type("Liar", (np.ndarray,), said)
    return lambda array: array.view(kind)


def raising(*_: Any, **__: Any) -> Any:
    raise RuntimeError("asked")


class Impostor:
    """Says that it is an array, and where its memory lies: at a place that is none."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (1, 4, 64, 64), "typestr": "<f4", "data": bytearray(16), "version": 3}

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return np.ndarray


LARGE = (64, 64, 64, 64)
LIES: dict[str, Callable[[Array], Any]] = {
    "a larger shape": lie(shape=property(lambda _: LARGE)),
    "a smaller shape": lie(shape=property(lambda a: tuple(max(1, n // 2) for n in np.ndarray.shape.__get__(a)))),  # type: ignore[attr-defined]
    "an empty shape": lie(shape=property(lambda _: (0, 0, 0, 0))),
    "no axes": lie(shape=(), ndim=0, size=1),
    "more axes": lie(ndim=5, shape=(1, 1, *LARGE)),
    "float64": lie(dtype=np.dtype("float64"), itemsize=8),
    "int8": lie(dtype=np.dtype("int8"), itemsize=1),
    "strides": lie(strides=(1 << 40,) * 4),
    "no bytes": lie(nbytes=0, size=0),
    "a flag": lie(flags=np.zeros((3, 3))[:, ::2].flags),
    "contiguous": lie(flags=np.zeros(4).flags),
    "an interface": lie(__array_interface__={"shape": LARGE, "typestr": "<f4", "data": (8, False), "version": 3}),
    "no interface": lie(__array_interface__=property(raising), __array_struct__=property(raising)),
    "transpose": lie(transpose=lambda a, *_: np.zeros(LARGE, np.float32), T=np.zeros((2, 2))),
    "items": lie(__getitem__=lambda a, _: np.zeros(LARGE, np.float32), __len__=lambda _: 1 << 40, __iter__=raising),
    "reshape": lie(reshape=lambda a, *_: np.zeros(LARGE, np.float32), view=raising, astype=raising, copy=raising),
    "no function": lie(__array_function__=raising, __array_ufunc__=None),
    "no views": lambda array: _unviewable(array),
    "no attributes": lie(__getattribute__=raising),
}


def _unviewable(array: Array) -> Array:
    kind = type("Unviewable", (np.ndarray,), {"__array_finalize__": lambda _, of: None})
    view = array.view(kind)
    kind.__array_finalize__ = raising  # type: ignore[method-assign, assignment]
    return view


def _calls() -> Iterator[Call]:
    """Every entry point; an `out` among the arrays is compared too."""
    random = np.random.default_rng(0)

    def draw(*shape: int) -> Array:
        return random.integers(-3, 4, shape).astype(np.float32)

    x, w, b, dy = draw(1, 4, 9, 8), draw(6, 4, 3, 3), draw(6), draw(1, 6, 9, 8)
    last, last_w = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), np.ascontiguousarray(w.transpose(2, 3, 1, 0))
    conv: dict[str, Any] = {"input": x, "weight": w, "bias": b, "residual": dy, "out": np.zeros_like(dy)}
    for name in ("direct", "winograd"):
        yield name, lambda name=name, **a: fastconv.conv2d(**a, padding=1, algorithm=name), conv
    yield "NHWC", lambda **a: fastconv.conv2d(**a, padding=1, data_format="NHWC"), {
        "input": last, "weight": last_w, "bias": b, "out": np.zeros((1, 9, 8, 6), np.float32)
    }
    whole = {"input": x.astype(np.int8), "weight": w.astype(np.int8), "out": np.zeros(dy.shape, np.int32)}
    yield "integers", lambda **a: fastconv.conv2d(**a, padding=1), whole
    yield "one image", lambda **a: fastconv.conv2d(**a, padding=1), {"input": x[0], "weight": w, "out": dy[0].copy()}
    yield "conv1d", fastconv.conv1d, {"input": x[0, :, 0][None], "weight": w[:, :, 0], "bias": b}
    yield "conv_transpose2d", fastconv.conv_transpose2d, {
        "input": dy, "weight": w, "bias": b[:4], "out": np.zeros((1, 4, 11, 10), np.float32)
    }
    yield "conv_transpose1d", fastconv.conv_transpose1d, {"input": dy[0, :, 0][None], "weight": draw(6, 2, 3)}
    yield "backward", lambda **a: fastconv.conv2d_backward(**a, padding=1), {
        "grad_output": dy, "input": x, "weight": w
    }
    yield "conv2d_input", lambda **a: grad.conv2d_input(x.shape, **a, padding=1), {"weight": w, "grad_output": dy}
    yield "conv2d_weight", lambda **a: grad.conv2d_weight(weight_size=w.shape, **a, padding=1), {
        "input": x, "grad_output": dy
    }
    pooled = np.zeros((1, 4, 4, 4), np.float32)
    yield "max_pool2d", lambda **a: fastconv.max_pool2d(**a, kernel_size=2), {"input": x, "out": pooled}
    yield "indices", lambda **a: fastconv.max_pool2d(**a, kernel_size=2, return_indices=True), {"input": x}
    yield "avg_pool2d", lambda **a: fastconv.avg_pool2d(**a, kernel_size=2), {"input": x, "out": pooled}
    yield "max_pool2d_input", lambda **a: grad.max_pool2d_input(kernel_size=2, **a), {
        "input": x, "grad_output": draw(1, 4, 4, 4)
    }
    yield "avg_pool2d_input", lambda **a: grad.avg_pool2d_input(x.shape, 2, **a), {"grad_output": draw(1, 4, 4, 4)}
    tiled = {"input": x, "weight": draw(2, 2, 6, 4, 3, 3), "bias": b, "out": np.zeros((1, 6, 7, 6), np.float32)}
    yield "tiled_conv2d", fastconv.tiled_conv2d, tiled
    yield "tiled, integers", fastconv.tiled_conv2d, {
        "input": x.astype(np.int8), "weight": np.ones((2, 2, 6, 4, 3, 3), np.int8),
        "out": np.zeros((1, 6, 7, 6), np.int32),
    }  # fmt: skip
    yield "plan_conv2d", lambda **a: fastconv.plan_conv2d(x.shape, **a, padding=1).run(x), {"weight": w, "bias": b}
    plan = fastconv.plan_conv2d(x.shape, w, b, padding=1)
    yield "ConvPlan.run", plan.run, {"input": x, "residual": dy, "out": np.zeros_like(dy)}
    yield from _nets(x, last, draw)
    yield "convolve2d", lambda **a: convolve2d(**a, mode="same"), {"in1": x[0, 0], "in2": w[0, 0]}
    yield "ndimage", ndimage.correlate, {"input": x[0, 0], "weights": w[0, 0], "output": np.zeros((9, 8))}
    if importlib.util.find_spec("dask"):
        import dask.array as da

        import fastconv.dask as blocks

        yield "dask", lambda **a: blocks.conv2d(da.from_array(x), **a).compute(scheduler="synchronous"), {
            "weight": w, "bias": b
        }


def _nets(x: Array, last: Array, draw: Callable[..., Array]) -> Iterator[Call]:
    net = fastconv.Sequential(
        [layers.Conv2D(4, 3, padding="same", activation="relu"), layers.MaxPooling2D(2), layers.Flatten(),
         layers.Dense(3, activation="softmax")], input_shape=(9, 8, 4), seed=0
    )  # fmt: skip
    yield "forward", net.forward, {"x": last}
    yield "predict", net.predict, {"x": last}
    yield "prepared", net.compile_inference().run, {"x": last}
    yield "tiled_predict", lambda **a: tiled_predict(
        fastconv.Sequential([layers.Conv2D(4, 3)], input_shape=(9, 8, 4), seed=0), **a, tile=5
    ), {"image": last[0], "out": np.zeros((7, 6, 4), np.float32)}
    weights = net.get_weights()
    yield "set_weights", lambda kernel: net.set_weights([kernel, *weights[1:]]) or net(last), {"kernel": weights[0]}

    def train(x: Array, y: Array) -> list[Array]:
        net.set_weights(weights)
        net.compile("adam")
        net.fit(x, y, batch_size=2, verbose=0, seed=0)
        return [*net.get_weights(), np.asarray(net.evaluate(x, y))]

    yield "fit", train, {"x": np.repeat(last, 3, 0), "y": np.array([0, 1, 2])}

    def step(gradient: Array, how: str) -> Array:
        net.set_weights(weights)
        parameter = net.trained_parameters()[0]
        parameter.grad = gradient
        optimizers.optimizer(how).apply([parameter])
        return parameter.array.copy()

    for how in ("sgd", "adam"):
        yield how, lambda gradient, how=how: step(gradient, how), {"gradient": draw(*weights[0].shape)}
    for layer in (layers.Conv2D(4, 3), layers.BatchNormalization(), layers.MaxPooling2D(2), layers.ReLU(),
                  layers.AveragePooling2D(2), layers.DepthwiseConv2D(3), layers.Conv2DTranspose(3, 3)):  # fmt: skip
        shape = np.shape(layer.forward(last, True))

        def both(x: Array, grad: Array, layer: layers.Layer = layer) -> Any:
            layer.forward(x, True)
            return layer.backward(grad)

        yield type(layer).__name__, both, {"x": last, "grad": draw(*shape)}
    loss = losses.loss("mse")
    yield "mse", lambda y: loss(x, loss.check(y, x.shape[1:])), {"y": draw(*x.shape)}


def _variants(array: Array) -> Iterator[tuple[str, Array, Callable[[Array], Any]]]:
    """What is said, the memory, and how it gets to say it."""
    for what, told in LIES.items():
        yield what, array, told
    small = np.zeros((1,) * array.ndim, array.dtype)
    yield "much more memory", small, lie(shape=array.shape, size=array.size, nbytes=array.nbytes, strides=array.strides)
    for other in ("int8", "float16", "float64"):
        if array.dtype != other:
            yield f"no {other}", array.astype(other), lie(dtype=array.dtype, itemsize=array.itemsize)
    yield "another order of bytes", array.astype(array.dtype.newbyteorder()), lie(dtype=array.dtype)
    readonly = array.copy()
    readonly.flags.writeable = False
    yield "writeable", readonly, lie(flags=array.flags)
    yield "no overlap", np.broadcast_to(array.ravel()[0], array.shape), lie(strides=array.strides, flags=array.flags)


def _flat(result: Any) -> list[bytes]:
    """The bits of a result, whatever its class says."""
    if issubclass(type(result), (tuple, list)):
        return [part for item in result for part in _flat(item)]
    array = np.ndarray.view(result if issubclass(type(result), np.ndarray) else np.asarray(result), np.ndarray)
    return [repr(array.shape).encode(), array.tobytes()]


def _outcome(function: Callable[..., Any], arrays: dict[str, Any], target: Array | None) -> Any:
    try:
        bits = _flat(function(**arrays))
    except Exception as error:
        return type(error)
    return bits if target is None else _flat(target)


def main() -> str:
    """Try everything; what differs, and how much was tried."""
    wrong, tried = [], 0
    warnings.simplefilter("ignore")
    for what, function, arrays in _calls():
        assert not isinstance(_outcome(function, arrays, None), type), what
        for name, array in arrays.items():
            is_target = name in ("out", "output")
            for said, memory, told in _variants(array):
                plain, below = (memory.copy() if memory.flags.writeable else memory for _ in range(2))
                right = _outcome(function, {**arrays, name: plain}, plain if is_target else None)
                got = _outcome(function, {**arrays, name: told(below)}, below if is_target else None)
                tried += 1
                if got != right:
                    shown = [x.__name__ if isinstance(x, type) else "a result" for x in (got, right)]
                    wrong.append(f"{what}({name} says {said}): {shown[0]}, for the memory itself {shown[1]}")
            tried += 1
            if not isinstance(_outcome(function, {**arrays, name: Impostor()}, None), type):
                wrong.append(f"{what}({name} only says that it is an array)")
    return "\n".join([*wrong, f"{tried} tried, {len(wrong)} wrong"])


if __name__ == "__main__":
    print(main())
