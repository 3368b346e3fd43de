"""What `fastconv.keras` must keep in Keras: `python keras_on.py BACKEND`, a process for a backend.

Prints a line of JSON for each check: its name and what went wrong, empty if nothing did.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

os.environ["KERAS_BACKEND"] = BACKEND = sys.argv[1]

import numpy as np

import fastconv.keras

if BACKEND == "numpy":  # no JAX here, whatever is installed
    sys.modules["jax"] = None  # type: ignore[assignment]
    fastconv.keras.install()
    fastconv.keras.uninstall()

import keras
from keras import layers, ops

Check = Callable[[], None]
CHECKS: dict[str, list[Check]] = {"both": [], "numpy": [], "torch": []}
NN: Any = sys.modules[f"keras.src.backend.{BACKEND}.nn"]
RANDOM = np.random.default_rng(3)


def check(where: str) -> Callable[[Check], Check]:
    def kept(function: Check) -> Check:
        CHECKS[where].append(function)
        return function

    return kept


def noise(*shape: int, dtype: str = "float64") -> Any:
    return RANDOM.standard_normal(shape).astype(dtype)


def patched() -> dict[str, Any]:
    """Every attribute of Keras' modules that could be changed."""
    modules = [NN, keras.src.backend, keras.src.backend.numpy, keras.src.ops.nn, keras.src.layers]
    return {f"{m.__name__}.{name}": value for m in modules for name, value in vars(m).items() if callable(value)}


# ---- the right values: windows and einsum, or the dot product with a shifted image -----------------------------------


def total_padding(padding: str, size: int, k: int, s: int, d: int) -> tuple[int, int]:
    extent = (k - 1) * d + 1
    total = max(0, (-(-size // s) - 1) * s + extent - size) if padding == "same" else 0
    return total // 2, total - total // 2


def windows(x: Any, kernel: tuple[int, ...], stride: int, padding: str, dilation: int, fill: float) -> Any:
    """(N, *output, C, *kernel) of x (N, *size, C)."""
    sides = [total_padding(padding, n, k, stride, dilation) for n, k in zip(x.shape[1:-1], kernel, strict=True)]
    x = np.pad(x, [(0, 0), *sides, (0, 0)], constant_values=fill)
    extent = tuple((k - 1) * dilation + 1 for k in kernel)
    axes = tuple(range(1, x.ndim - 1))
    seen = np.lib.stride_tricks.sliding_window_view(x, extent, axes)
    every, steps, taps = slice(None), slice(None, None, stride), slice(None, None, dilation)
    return seen[(every, *[steps] * len(axes), every, *[taps] * len(axes))]


def right_conv(x: Any, w: Any, stride: int, padding: str, dilation: int) -> Any:
    axes, groups = x.ndim - 2, x.shape[-1] // w.shape[-2]
    seen = windows(x, w.shape[:-2], stride, padding, dilation, 0)
    parts = []
    for g in range(groups):
        own, out = w.shape[-2], w.shape[-1] // groups
        piece = seen.take(range(g * own, (g + 1) * own), axis=1 + axes)
        kernel = np.moveaxis(w[..., g * out : (g + 1) * out], -2, 0)
        parts.append(np.tensordot(piece, kernel, axes=axes + 1))
    return np.concatenate(parts, -1)


def right_transposed(x: Any, w: Any, stride: int, padding: str) -> Any:
    """Every input pixel adds its kernel; what 'same' cuts is what the convolution of the result would pad."""
    axes, kernel = x.ndim - 2, w.shape[:-2]
    size = [(n - 1) * stride + max(k, stride) for n, k in zip(x.shape[1:-1], kernel, strict=True)]
    y = np.zeros((len(x), *size, w.shape[-2]))
    for at in itertools.product(*map(range, x.shape[1:-1])):
        piece = np.tensordot(x[(slice(None), *at)], np.moveaxis(w, -1, 0), axes=1)
        y[(slice(None), *(slice(i * stride, i * stride + k) for i, k in zip(at, kernel, strict=True)))] += piece
    if padding == "same":
        cuts = []
        for n, k in zip(x.shape[1:-1], kernel, strict=True):
            before = total_padding("same", n * stride, k, stride, 1)[0]
            cuts.append(slice(before, before + n * stride))
        y = y[(slice(None), *cuts)]
    assert axes == len(kernel)
    return y


PRECISION = 1e-10 if BACKEND == "torch" else 1e-5  # Keras has no types of 64 bits on NumPy


def near(got: Any, wanted: Any, scale: float = PRECISION) -> None:
    got = ops.convert_to_numpy(got)
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    assert np.abs(got - wanted).max(initial=0) <= scale * max(1.0, np.abs(wanted).max(initial=0))


def cases() -> Any:
    return itertools.product((1, 2, 3), ("valid", "same"), (1, 2), (1, 2), ("channels_last", "channels_first"))


def ordered(x: Any, form: str) -> Any:
    return np.moveaxis(x, -1, 1).copy() if form == "channels_first" else x


@check("both")
def values_are_right_in_every_option() -> None:
    with fastconv.keras.installed():
        for axes, padding, stride, dilation, form in cases():
            x, k = noise(2, *(7, 6, 5)[:axes], 4), (3, 2, 3)[:axes]
            how = {"strides": stride, "padding": padding, "data_format": form}
            for channels, filters in ((4, 3), (2, 6), (1, 8)):
                if stride == 1 or dilation == 1:
                    w = noise(*k, channels, filters)
                    y = ops.conv(ordered(x, form), w, dilation_rate=dilation, **how)
                    near(y, ordered(right_conv(x, w, stride, padding, dilation), form))
            if dilation == 1:
                w = noise(*k, 4, 2)
                wide = w.reshape(*k, 1, 8)
                y = ops.depthwise_conv(ordered(x, form), w, **how)
                near(y, ordered(right_conv(x, wide, stride, padding, 1), form))
                point = noise(*(1,) * axes, 8, 3)
                y = ops.separable_conv(ordered(x, form), w, point, **how)
                near(y, ordered(right_conv(right_conv(x, wide, stride, padding, 1), point, 1, "valid", 1), form))
                w = noise(*k, 3, 4)
                y = ops.conv_transpose(ordered(x, form), w, **how)
                near(y, ordered(right_transposed(x, w, stride, padding), form))
                y = ops.max_pool(ordered(x, form), k, **how)
                near(y, ordered(windows(x, k, stride, padding, 1, -np.inf).max(tuple(range(-axes, 0))), form))
                seen = windows(x, k, stride, padding, 1, np.nan)
                if BACKEND == "numpy" or padding == "valid" or not np.isnan(seen).any():
                    y = ops.average_pool(ordered(x, form), k, **how)
                    near(y, ordered(np.nanmean(seen, tuple(range(-axes, 0))), form))
        taken = fastconv.keras.report().taken
        assert {"conv", "depthwise_conv", "conv_transpose", "max_pool", "average_pool"} <= set(taken), taken


@check("both")
def nothing_stays_behind() -> None:
    before = patched()
    fastconv.keras.install()
    first = patched()
    fastconv.keras.install()
    assert patched() == first and first != before
    held = NN.conv
    with fastconv.keras.installed():
        assert NN.conv is held
    assert NN.conv is held and fastconv.keras.report().active
    fastconv.keras.uninstall()
    fastconv.keras.uninstall()
    after = patched()
    assert all(after[name] is value for name, value in before.items()) and after.keys() == before.keys()
    assert not fastconv.keras.report().active and "not installed" in repr(fastconv.keras.report())
    if BACKEND == "torch":  # who kept ours has Keras' own
        held(np.ones((1, 3, 3, 1), "float32"), np.ones((1, 1, 1, 1), "float32"))
        assert not fastconv.keras.report().taken


@check("both")
def blocks_overlap() -> None:
    theirs = NN.conv
    first, second = fastconv.keras.installed(), fastconv.keras.installed()
    first.__enter__()
    ours = NN.conv
    second.__enter__()  # as of another thread
    first.__exit__(None, None, None)
    assert NN.conv is ours and fastconv.keras.report().active
    second.__exit__(None, None, None)
    assert NN.conv is theirs
    with fastconv.keras.installed():
        fastconv.keras.install()
    assert NN.conv is not theirs and fastconv.keras.report().active  # for good: by whomever, it was asked for
    with fastconv.keras.installed():
        fastconv.keras.uninstall()
        assert NN.conv is theirs
        with fastconv.keras.installed():
            assert NN.conv is not theirs
        assert NN.conv is not theirs  # the outer block's
    assert NN.conv is theirs


@check("both")
def a_fork_in_the_middle_of_a_change_leaves_keras_whole() -> None:
    if not hasattr(os, "fork"):
        return
    from fastconv.keras.patches import _Installation

    before = patched()
    for name in ("put", "take_back"):
        own, half, go, parent = getattr(_Installation, name), threading.Event(), threading.Event(), os.getpid()

        def halting(self: Any, own: Any = own, half: Any = half, go: Any = go, parent: int = parent) -> None:
            class Halting(list[Any]):
                def __iter__(self) -> Any:
                    for at in range(len(self)):
                        if at == 2 and os.getpid() == parent:
                            half.set()
                            assert go.wait(60)
                        yield self[at]

            self._kept = Halting(self._kept)
            own(self)

        if name == "take_back":
            fastconv.keras.install()
        setattr(_Installation, name, halting)
        other = threading.Thread(target=fastconv.keras.install if name == "put" else fastconv.keras.uninstall)
        other.start()
        assert half.wait(60)
        child = os.fork()
        if child == 0:
            own_again = patched() == before and not fastconv.keras.report().active
            os._exit(0 if own_again else 1)
        go.set()
        other.join()
        setattr(_Installation, name, own)
        fastconv.keras.uninstall()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, name
        assert patched() == before


@check("both")
def who_wraps_ours_keeps_the_wrapping() -> None:
    theirs = NN.max_pool
    fastconv.keras.install()
    ours = NN.max_pool
    NN.max_pool = lambda *args, **kwargs: ours(*args, **kwargs)
    wrapped = NN.max_pool
    fastconv.keras.uninstall()
    assert NN.max_pool is wrapped
    NN.max_pool = theirs


def small_net() -> Any:
    keras.utils.set_random_seed(1)
    x = image = keras.Input((12, 10, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    skip = x = layers.Conv2D(8, 3, padding="same", use_bias=False, activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = layers.SeparableConv2D(8, 3, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2DTranspose(8, 2, strides=2, activation="relu")(x)
    x = layers.Concatenate()([x, skip])
    x = layers.AveragePooling2D(2)(x)
    x = layers.Conv2D(4, 1, activation="sigmoid")(x)
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))


@check("both")
def threads_share_a_model() -> None:
    net = small_net()
    with fastconv.keras.installed():
        images = [noise(3, 12, 10, 3, dtype="float32") for _ in range(6)]
        wanted = [ops.convert_to_numpy(net(x, training=False)) for x in images]
        got: list[Any] = [None] * 6

        def work(i: int) -> None:
            for _ in range(5):
                got[i] = ops.convert_to_numpy(net(images[i], training=False))

        team = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()
        assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))
        assert fastconv.keras.report().taken["conv"] >= 6 * 6 * 4


@check("both")
def a_forked_child_computes() -> None:
    if not hasattr(os, "fork"):
        return
    net, x = small_net(), noise(2, 12, 10, 3, dtype="float32")
    with fastconv.keras.installed():
        wanted = ops.convert_to_numpy(net(x, training=False))
        child = os.fork()
        if child == 0:
            os._exit(0 if np.array_equal(ops.convert_to_numpy(net(x, training=False)), wanted) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@check("both")
def what_keras_refuses_is_refused() -> None:
    with fastconv.keras.installed():
        for call in (
            lambda: ops.conv(np.ones((1, 5, 5, 3)), np.ones((3, 3, 2, 4))),
            lambda: ops.depthwise_conv(np.ones((1, 5, 5, 3)), np.ones((3, 3, 2, 4))),
            lambda: ops.conv_transpose(np.ones((1, 5, 5, 3)), np.ones((3, 3, 2, 4))),
            lambda: ops.conv(np.ones((1, 2, 2, 3)), np.ones((3, 3, 3, 4))),
            lambda: ops.conv(np.ones((1, 5, 5, 3)), np.ones((3, 3, 3, 4)), strides=0),
        ):
            try:
                call()
            except (ValueError, RuntimeError, ZeroDivisionError):
                continue
            raise AssertionError("nothing was raised")
        assert ops.conv(np.ones((0, 5, 5, 3)), np.ones((3, 3, 3, 4))).shape == (0, 3, 3, 4)


# ---- NumPy -----------------------------------------------------------------------------------------------------------


@check("numpy")
def layers_share_a_pass_and_nobody_sees_it() -> None:
    x = noise(2, 9, 8, 4, dtype="float32")
    for form, relu in itertools.product(("channels_last", "channels_first"), ("relu", None)):
        layer = layers.Conv2D(5, 3, padding="same", activation=relu, data_format=form, bias_initializer="random_normal")
        with fastconv.keras.installed():
            images = ordered(x, form)
            layer.build(images.shape)

            def right(layer: Any = layer, relu: str | None = relu, form: str = form) -> Any:
                kernel, bias = (np.asarray(v, "float64") for v in (layer.kernel.value, layer.bias.value))
                y = right_conv(x.astype("float64"), kernel, 1, "same", 1) + bias
                return ordered(np.maximum(y, 0) if relu else y, form)

            near(layer(images), right(), 1e-5)
            layer.kernel.assign(noise(3, 3, 4, 5))
            near(layer(images), right(), 1e-5)
            layer.kernel.value[0] *= 2  # in place, behind Keras' back
            near(layer(images), right(), 1e-5)
            layer.bias.value[...] = 7
            near(layer(images), right(), 1e-5)
            near(layer(images[:1]), right()[:1], 1e-5)


@check("numpy")
def layers_of_one_and_three_axes_share_a_pass() -> None:
    from fastconv.keras import fused

    kept: list[Any] = []
    before = fused.prepared

    def noted(*args: Any, **kwargs: Any) -> Any:
        kept.append(kwargs["activation"])
        return before(*args, **kwargs)

    fused.prepared = noted
    try:
        with fastconv.keras.installed():
            for kind, axes, how in (
                (layers.Conv1D, 1, {"padding": "same"}), (layers.Conv1D, 1, {"padding": "causal"}),
                (layers.Conv3D, 3, {"padding": "same"}),
            ):  # fmt: skip
                layer = kind(5, 3, activation="relu", bias_initializer="random_normal", **how)
                x = noise(2, *(9, 8, 7)[:axes], 4, dtype="float32")
                y = layer(x)
                wide = np.pad(x, [(0, 0), (2, 0), (0, 0)]) if how["padding"] == "causal" else x
                right = right_conv(
                    wide.astype("float64"), np.asarray(layer.kernel.value, "float64"), 1,
                    "same" if wide is x else "valid", 1,
                )  # fmt: skip
                near(y, np.maximum(right + layer.bias.value, 0), 1e-5)
    finally:
        fused.prepared = before
    assert kept == ["relu"] * 3, kept


@check("numpy")
def packed_weights_are_freed() -> None:
    import gc

    from fastconv.keras.fused import _Packed

    layer = layers.Conv2D(5, 3)
    with fastconv.keras.installed():
        layer(noise(2, 9, 8, 4, dtype="float32"))
        assert any(isinstance(one, _Packed) for one in gc.get_objects())
    gc.collect()
    assert not any(isinstance(one, _Packed) for one in gc.get_objects())


@check("numpy")
def who_takes_it_back_waits_for_results_on_their_way() -> None:
    """Between a convolution that has its bias and the sum that would add it."""
    layer, x = layers.Conv2D(5, 3, bias_initializer="ones"), noise(2, 9, 8, 4, dtype="float32")
    layer.build(x.shape)
    own, before = ops.reshape, patched()
    fastconv.keras.install()
    taking_back = threading.Thread(target=fastconv.keras.uninstall)

    def reshape(*args: Any, **kwargs: Any) -> Any:
        taking_back.start()
        taking_back.join(0.3)
        return own(*args, **kwargs)

    keras.src.ops.reshape = reshape
    try:
        y = layer(x)
    finally:
        keras.src.ops.reshape = own
        taking_back.join()
    near(y, right_conv(x.astype("float64"), layer.kernel.value.astype("float64"), 1, "valid", 1) + 1, 1e-5)
    assert patched() == before


@check("numpy")
def another_sum_than_the_layers() -> None:
    class Twice(layers.Conv2D):
        def convolution_op(self, inputs: Any, kernel: Any) -> Any:
            y = super().convolution_op(inputs, kernel)
            return ops.add(y, y)  # the array that is on its way, with something else than the bias

    class Elsewhere(layers.Conv2D):
        def call(self, inputs: Any) -> Any:
            y = self.convolution_op(inputs, self.kernel)
            return ops.relu(y) - ops.relu(-y)

    x = noise(1, 6, 6, 2, dtype="float32")
    with fastconv.keras.installed():
        for kind, factor in ((Twice, 2), (Elsewhere, 1)):
            layer = kind(3, 3, activation="linear", bias_initializer="ones")
            y = layer(x)
            wanted = factor * right_conv(x.astype("float64"), layer.kernel.value.astype("float64"), 1, "valid", 1)
            near(y, wanted + (kind is Twice), 1e-5)


@check("numpy")
def sums_and_relu_are_numpys() -> None:
    special = noise(40, 30, 7, dtype="float32")
    special[0, :4, 0] = [np.nan, np.inf, -np.inf, -0.0]
    with fastconv.keras.installed():
        assert np.array_equal(ops.relu(special), np.maximum(special, 0), equal_nan=True)
        for other in (special, special[:1, :1], special[0, 0], special[:, :1], special[..., :1], np.float32(3), 3, 2.5):
            got = ops.add(special, other)
            assert got.dtype == np.float32 and np.array_equal(got, special + other, equal_nan=True)
        assert ops.add(special.astype("float64"), special).dtype == np.float32  # Keras' rule
        copy = ops.convert_to_tensor(special)
        assert copy is not special and not np.shares_memory(copy, special)


@check("numpy")
def types_are_keras_own() -> None:
    import ml_dtypes

    x, w = noise(1, 6, 6, 3) * 3, noise(3, 3, 3, 4) * 3
    with fastconv.keras.installed():
        for dtype in ("float16", ml_dtypes.bfloat16, "float32", "float64"):
            a, b = x.astype(dtype), w.astype(dtype)
            wanted = np.dtype("float32") if dtype == "float64" else a.dtype  # Keras' rule
            results = ops.conv(a, b), ops.max_pool(a, 2), ops.average_pool(a, 2)
            assert all(y.dtype == wanted for y in (*results, ops.conv_transpose(a, np.swapaxes(b, -1, -2))))
        a, b = (v.astype("int8") * 9 for v in (x, w))
        wide = right_conv(a.astype("int64"), b.astype("int64"), 1, "valid", 1)
        assert np.array_equal(ops.conv(a, b), wide.astype("int8"))  # wraps round, as in JAX
        net = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(4, 3, activation="relu", dtype="mixed_float16")])
        assert net.predict(x.astype("float32"), verbose=0).dtype == np.float16


@check("numpy")
def without_jax_the_rest_says_so() -> None:
    with fastconv.keras.installed():
        try:
            ops.average_pool(np.ones((1, 4, 4, 1), "int32"), 2)
        except ValueError as error:
            assert "pip install jax" in str(error) and "int32" in str(error), error
        else:
            raise AssertionError("an average of integers")
        assert ("average_pool", "int32") in fastconv.keras.report().fell_through
    try:
        ops.conv(np.ones((1, 4, 4, 1), "float32"), np.ones((2, 2, 1, 1), "float32"))
    except ModuleNotFoundError as error:
        assert error.name == "jax" and "fastconv.keras.install" in str(error)
    else:
        raise AssertionError("who computed this?")
    real, imaginary = noise(3, 8), noise(3, 8)
    got = ops.fft((real, imaginary))
    wanted = np.fft.fft(real + 1j * imaginary)
    assert np.allclose(got[0], wanted.real) and np.allclose(got[1], wanted.imag)


# ---- torch -----------------------------------------------------------------------------------------------------------


def gradients(call: Callable[..., Any], *arrays: Any) -> list[Any]:
    """The result, and the gradients of a weighted sum of it, as arrays."""
    import torch

    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    y = call(*tensors)
    weights = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)
    made = torch.autograd.grad((y * weights).sum(), tensors)
    return [t.detach().numpy() for t in (y, *made)]


@check("torch")
def gradients_are_keras_own() -> None:
    count = 0
    for axes, padding, stride, dilation, form in cases():
        x, k = ordered(noise(2, *(7, 6, 5)[:axes], 4), form), (3, 2, 3)[:axes]
        how = {"strides": stride, "padding": padding, "data_format": form}
        calls: list[tuple[Any, ...]] = [
            (lambda x, how=how, k=k: ops.max_pool(x, k, **how), x),
            (lambda x, how=how, k=k: ops.average_pool(x, k, **how), x),
        ]
        if stride == 1 or dilation == 1:
            both = {**how, "dilation_rate": dilation}
            calls += [
                (lambda x, w, both=both: ops.conv(x, w, **both), x, noise(*k, 2, 6)),
                (lambda x, w, both=both: ops.depthwise_conv(x, w, **both), x, noise(*k, 4, 2)),
                (lambda x, w, both=both: ops.conv_transpose(x, w, **both), x, noise(*k, 3, 4)),
            ]
            both = {**both, "output_padding": stride - 1}
            calls.append((lambda x, w, both=both: ops.conv_transpose(x, w, **both), x, noise(*k, 3, 4)))
        for call, *arrays in calls:
            wanted = gradients(call, *arrays)
            with fastconv.keras.installed():
                got = gradients(call, *arrays)
                count += sum(fastconv.keras.report().taken.values())
            for a, b in zip(got, wanted, strict=True):
                near(a, b)
    assert count > 300, count


@check("torch")
def results_are_kept_where_a_gradient_reads_them() -> None:
    import torch

    x, w = torch.ones(1, 4, 4, 2, requires_grad=True), torch.ones(2, 2, 2, 3)
    kept: list[Any] = []
    with fastconv.keras.installed(), torch.autograd.graph.saved_tensors_hooks(kept.append, lambda one: one):
        for call, count in (
            (lambda: ops.max_pool(x, 2, data_format="channels_last"), 2),
            (lambda: ops.max_pool(x, 2, data_format="channels_first"), 1), (lambda: ops.average_pool(x, 2), 1),
            (lambda: ops.conv(x, w), 2),
        ):  # fmt: skip
            kept.clear()
            call()
            assert len(kept) == count, (len(kept), count)


@check("torch")
def derivatives_of_higher_order_and_watchers_are_keras_own() -> None:
    import torch
    from torch.autograd import forward_ad

    x, w = noise(1, 5, 5, 2), noise(3, 3, 2, 2)

    def second(x: Any, w: Any) -> Any:
        y = ops.conv(ops.max_pool(x, 2, strides=1), w)
        (dx,) = torch.autograd.grad((y**3).sum(), [x], create_graph=True)
        return dx

    wanted = gradients(second, x, w)
    with fastconv.keras.installed():
        for a, b in zip(gradients(second, x, w), wanted, strict=True):
            near(a, b)
        images, kernel = torch.tensor(x), torch.tensor(w)
        plain = ops.conv(images, kernel)
        first = images.movedim(-1, 1)  # what Keras' own function can be mapped over
        mapped = torch.func.vmap(lambda one: ops.conv(one, kernel, data_format="channels_first"))
        many = mapped(torch.stack([first] * 2))
        near(many[1].movedim(1, -1), plain.numpy())
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(ops.conv(forward_ad.make_dual(images, images), kernel)).tangent
        near(tangent, plain.numpy())
        leaf = images.clone().requires_grad_()
        y = ops.conv(leaf, kernel)
        (rows,) = torch.autograd.grad(y, leaf, torch.stack([torch.ones_like(y)] * 2), is_grads_batched=True)
        near(rows[1], torch.autograd.grad(ops.conv(leaf, kernel).sum(), leaf)[0].numpy())
        compiled = torch.compile(lambda x, w: ops.conv(x, w), backend="eager", fullgraph=True)
        near(compiled(images, kernel), plain.numpy())
        traced = torch.jit.trace(lambda x: ops.conv(x, kernel), images)
        near(traced(2 * images), 2 * plain.numpy())


@check("torch")
def other_types_and_devices_fall_through() -> None:
    import torch

    x, w = torch.ones(1, 4, 4, 2), torch.ones(2, 2, 2, 3)
    with fastconv.keras.installed():
        for dtype in (torch.float16, torch.bfloat16):
            assert ops.conv(x.to(dtype), w.to(dtype)).dtype is dtype
        with keras.device("meta"):
            assert ops.conv(x, w).is_meta
        report = fastconv.keras.report()
        assert set(report.fell_through) == {("conv", "float16"), ("conv", "bfloat16")}, report  # shapes do not count
        assert not report.taken and "float16" in repr(report)
        ops.average_pool(torch.ones(1, 4, 4, 1), 3, strides=2, padding="same")
        assert any(name == "average_pool" for name, _ in fastconv.keras.report().fell_through)


@check("torch")
def fit_is_the_same() -> None:
    x, y = noise(16, 12, 10, 3), RANDOM.integers(3, size=16)
    keras.config.set_floatx("float64")
    try:
        losses = []
        for installed in (False, True):
            net = small_net()
            net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
            if installed:
                fastconv.keras.install()
            losses.append(net.fit(x, y, batch_size=8, epochs=3, verbose=0, shuffle=False).history["loss"])
            if installed:
                report = fastconv.keras.report()
                fastconv.keras.uninstall()
                assert not report.fell_through, report
                assert report.taken["conv backward"] == report.taken["conv"] == 6 * 4, report
        assert np.allclose(*losses, rtol=1e-9, atol=0), losses
    finally:
        keras.config.set_floatx("float32")


def main() -> None:
    for function in CHECKS["both"] + CHECKS[BACKEND]:
        try:
            function()
            wrong = ""
        except BaseException:
            wrong = traceback.format_exc()
        fastconv.keras.uninstall()
        print(json.dumps({"check": function.__name__, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main()
