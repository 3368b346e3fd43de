"""Every size rule of every layer is Keras' own, and so are the values.

tests/data/keras_layers.json holds what Keras 3.15 makes of small signals along one axis, over a grid of kernels,
strides, dilations, paddings and output paddings, and the shapes that it computes for the other layers. Written by

    KERAS_BACKEND=torch python -P tests/layers/test_layer_sizes.py
    KERAS_BACKEND=tensorflow python -P tests/layers/test_layer_sizes.py

with fastconv on the path, and nothing in it was computed by fastconv. The values are TensorFlow's, but for transposed
convolutions with an even kernel, 'same' and an output_padding of 0: Keras has a size for them that TensorFlow (2.21)
refuses, and these are PyTorch's. (The averages of PyTorch at 'same' count pixels of a repeated border.) Where Keras is
installed, a part of the table is computed anew and compared, and both are asked for images of random sizes and options.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastconv import ConvError, ConvTypeError, Sequential, layers

TABLE = Path(__file__).parents[1] / "data" / "keras_layers.json"
SIGNAL = (-1, -3, 2, -5, 4, 7, -6, 8)
KERNEL = (1, 10, -3, 7, 100)
WHOLE = 60  # times averages over up to five values: integers
ADDITIVE = ("MaxPooling2D", "AveragePooling2D")  # of a sum of two signals the sum of the results

Options = dict[str, Any]


def lengths(name: str) -> tuple[int, ...]:
    return (1, 2, 4) if name == "Conv2DTranspose" else (1, 2, 3, 4, 5, 8)


def axis_options(name: str) -> Iterator[Options]:
    """The grid along one axis, in one order."""
    for k, padding in product(range(1, 6), ("valid", "same")):
        if name in ADDITIVE:
            yield from ({"pool_size": k, "strides": s, "padding": padding} for s in (None, 1, 2, 3, 4))
            continue
        for s, d in ((1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (1, 3)):
            options = {"kernel_size": k, "strides": s, "dilation_rate": d, "padding": padding}
            if name != "Conv2DTranspose":
                yield options
            else:
                yield from ({**options, "output_padding": p} for p in (None, *range(s)))


WINDOWED = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", *ADDITIVE)
# Layers whose size follows from nothing but their arguments; (rows, columns, channels).
OTHERS: list[tuple[str, Options, tuple[int, ...]]] = [
    *(("ZeroPadding2D", {"padding": p}, (4, 5, 2)) for p in (0, 1, (2, 3), ((1, 0), (0, 4)))),
    *(
        ("UpSampling2D", {"size": size, "interpolation": how}, shape)
        for size, how, shape in product((1, 3, (2, 5)), ("nearest", "bilinear"), ((4, 5, 2), (1, 7, 3)))
    ),
    *(("GlobalAveragePooling2D", {"keepdims": keep}, (4, 5, 2)) for keep in (False, True)),
    *(("Flatten", {}, shape) for shape in ((4, 5, 2), (7,))),
    *(("Reshape", {"target_shape": target}, (4, 5, 2)) for target in ((-1,), (2, -1, 5), (40,), (5, 4, 2))),
    *(("Dense", {"units": 3}, shape) for shape in ((4, 5, 2), (7,))),
    *(("BatchNormalization", {}, shape) for shape in ((4, 5, 2), (7,))),
    *(("Activation", {"activation": "relu"}, shape) for shape in ((4, 5, 2), (7,))),
    ("ReLU", {"max_value": 1.0}, (4, 5, 2)),
    ("LeakyReLU", {"negative_slope": 0.1}, (4, 5, 2)),
    *(("Softmax", {"axis": axis}, (4, 5, 2)) for axis in (-1, 1, 2)),
    ("Dropout", {"rate": 0.5}, (4, 5, 2)),
]
REFUSED: list[tuple[str, Options]] = [
    ("Conv2DTranspose", {"filters": 1, "kernel_size": 3, **options})
    for options in (
        {"output_padding": 1}, {"strides": 2, "output_padding": 2}, {"strides": 2, "output_padding": -1},
        {"strides": (3, 1), "output_padding": (2, 1)}, {"dilation_rate": 3, "output_padding": 1},
        {"strides": 2, "padding": "same", "output_padding": 2}, {"strides": 2, "output_padding": (1, 0, 0)},
        {"strides": 2, "output_padding": 1.0}, {"padding": "same", "dilation_rate": 2, "output_padding": (0, 1)},
    )
]  # fmt: skip


def made(module: Any, name: str, options: Options, data_format: str = "channels_last") -> Any:
    """A layer of ours or of Keras', one filter, without bias."""
    options = {**options, "data_format": data_format} if has_format(name) else dict(options)
    if name in ("Conv2D", "SeparableConv2D", "Conv2DTranspose"):
        options = {"filters": 1, "use_bias": False, **options}
    elif name == "DepthwiseConv2D":
        options["use_bias"] = False
    return getattr(module, name)(**options)


def has_format(name: str) -> bool:
    return "2D" in name or name == "Flatten"


def fit(rows: Options, columns: Options, both: bool = True) -> bool:
    """Whether one layer can have these options along its two axes; Keras strides and dilates not `both`."""
    if rows["padding"] != columns["padding"]:
        return False
    if (rows.get("output_padding") is None) != (columns.get("output_padding") is None):
        return False
    dilated = max(own.get("dilation_rate", 1) for own in (rows, columns)) > 1
    return both or not dilated or (rows["strides"], columns["strides"]) == (1, 1)


def two_axes(rows: Options, columns: Options) -> Options:
    """Options of both axes from those of each; `padding` is one word for both."""

    def pair(key: str) -> Any:
        values = (rows[key], columns[key])
        if None not in values:
            return values
        if key == "strides" and values != (None, None):  # None: the window's
            return tuple(own[key] or own["pool_size"] for own in (rows, columns))
        return None

    return {key: rows[key] if key == "padding" else pair(key) for key in rows}


ONE: dict[str, Options] = {
    name: {key: None if key == "output_padding" else 1 for key in next(axis_options(name)) if key != "padding"}
    for name in WINDOWED
}


def along(name: str, options: Options) -> Options:
    """The options of a layer that does nothing along the columns."""
    other = ONE[name] | {"padding": options["padding"]}
    if options.get("output_padding") is not None:
        other["output_padding"] = 0
    if name in ("DepthwiseConv2D", "SeparableConv2D"):  # TensorFlow strides both axes alike
        other["strides"] = options["strides"]
    return two_axes(options, other)


def run(layer: Any, name: str, x: np.ndarray[Any, Any], kernel: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The output for an image (H, W, 1), with a kernel (kH, kW)."""
    if name not in ADDITIVE:
        layer.build((None, *x.shape))
        weights = [kernel[:, :, None, None]]
        layer.set_weights([*weights, np.ones((1, 1, 1, 1))] if name == "SeparableConv2D" else weights)
    y = layer(x[None].astype("float32"))
    return np.asarray(y.detach() if hasattr(y, "detach") else y)[0, :, :, 0]


def kernel_of(options: Options) -> np.ndarray[Any, Any]:
    return np.array(KERNEL[: options.get("kernel_size", 0)], float)


def values(module: Any, name: str, options: Options, length: int) -> list[int]:
    """What a layer makes of the first values of the signal along the rows, times `WHOLE` for averages."""
    layer = made(module, name, along(name, options))
    y = run(layer, name, np.array(SIGNAL[:length], float).reshape(-1, 1, 1), kernel_of(options)[:, None])
    assert y.shape == (size(module, name, options, length), 1), (name, options, length)
    scaled = y[:, 0].astype(float) * (WHOLE if name == "AveragePooling2D" else 1)
    whole = np.rint(scaled)
    assert_allclose(scaled, whole, atol=1e-3)
    return [int(value) for value in whole]


def size(module: Any, name: str, options: Options, length: int) -> int | None:
    """The size along the rows as a layer computes it beforehand, None where it refuses."""
    try:
        layer = made(module, name, along(name, options))
        shape = (1, length, 1, 1)
        return int((layer.output_shape if module is layers else layer.compute_output_shape)(shape)[1])
    except ValueError:  # Keras'; and ConvError is one
        return None


def keras_table(keras: Any, known: dict[str, Any]) -> dict[str, Any]:
    """What the file holds: computed by Keras alone, with entries of `known` where its backend fails."""

    def one(name: str, row: int, options: Options, column: int) -> list[int] | None:
        length = lengths(name)[column]
        if size(keras.layers, name, options, length) is None:
            return None
        try:
            return values(keras.layers, name, options, length)
        except Exception:
            kept: list[int] = known[name][row][column]
            return kept

    table: dict[str, Any] = {
        name: [
            [one(name, row, options, column) for column in range(len(lengths(name)))]
            for row, options in enumerate(axis_options(name))
        ]
        for name in WINDOWED
    }
    return table | {"others": keras_shapes(keras), "refused": keras_refusals(keras)}


def keras_shapes(keras: Any) -> list[list[int | None]]:
    return [
        list(made(keras.layers, name, options).compute_output_shape((None, *shape))) for name, options, shape in OTHERS
    ]


def keras_refusals(keras: Any) -> list[bool]:
    refused = []
    for name, options in REFUSED:
        try:
            made(keras.layers, name, options)
            refused.append(False)
        except ValueError:
            refused.append(True)
    return refused


def write(table: dict[str, Any]) -> None:
    """A row a line."""
    parts = []
    for name, rows in table.items():
        lines = ",\n  ".join(json.dumps(row, separators=(",", ":")) for row in rows)
        parts.append(f' "{name}": [\n  {lines}\n ]')
    TABLE.write_text("{\n" + ",\n".join(parts) + "\n}\n")


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(TABLE.read_text())
    return found


@pytest.mark.parametrize("name", WINDOWED)
def test_sizes_and_values_along_an_axis_are_keras(name: str, table: dict[str, Any]) -> None:
    for options, row in zip(axis_options(name), table[name], strict=True):
        for length, wanted in zip(lengths(name), row, strict=True):
            assert size(layers, name, options, length) == (None if wanted is None else len(wanted)), (options, length)
            if wanted is not None:
                assert values(layers, name, options, length) == wanted, (options, length)


@pytest.mark.parametrize("name", WINDOWED)
def test_both_axes_have_options_of_their_own(name: str, table: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    grid = list(zip(axis_options(name), table[name], strict=True))
    tried = 0
    while tried < 60:
        (a, of_a), (b, of_b) = (grid[i] for i in rng.integers(0, len(grid), 2))
        i, j = rng.integers(1, len(of_a), 2)
        if not fit(a, b) or None in (of_a[i], of_b[j]):
            continue
        u, v = (np.array(SIGNAL[: lengths(name)[n]], float) for n in (i, j))
        ru, rv = np.array(of_a[i], float), np.array(of_b[j], float)
        layer = made(layers, name, two_axes(a, b))
        if name in ADDITIVE:
            y = run(layer, name, np.add.outer(u, v)[..., None], np.empty((0, 0)))
            assert_allclose(y * (WHOLE if name == "AveragePooling2D" else 1), np.add.outer(ru, rv), atol=1e-3)
        else:
            y = run(layer, name, np.multiply.outer(u, v)[..., None], np.multiply.outer(kernel_of(a), kernel_of(b)))
            assert_array_equal(y, np.multiply.outer(ru, rv))
        tried += 1


def test_other_sizes_and_refusals_are_keras(table: dict[str, Any]) -> None:
    for (name, options, shape), wanted in zip(OTHERS, table["others"], strict=True):
        layer = made(layers, name, options)
        assert layer.output_shape((None, *shape)) == tuple(wanted), (name, options)
        assert layer.output_shape(shape) == tuple(wanted[1:])
        assert layer(np.zeros((2, *shape), "float32")).shape == (2, *wanted[1:])
    assert table["refused"] == [True] * len(REFUSED)
    for name, options in REFUSED:
        with pytest.raises((ConvError, ConvTypeError), match="output_padding"):
            made(layers, name, options)


def test_numbers_as_padding_take_what_pytorch_takes() -> None:
    layer = layers.Conv2DTranspose(1, 3, 2, 1, 1, dilation_rate=3)
    assert layer.output_shape((None, 5, 5, 1)) == (None, 14, 14, 1)
    assert layers.Conv2DTranspose(1, 3, 1, 0, 2, dilation_rate=3).output_shape((None, 5, 5, 1)) == (None, 13, 13, 1)
    assert layers.Conv2DTranspose(1, 2, 3, 0).output_shape((None, 5, 5, 1)) == (None, 14, 14, 1)


@pytest.mark.parametrize("name", WINDOWED)
def test_formats_and_unknown_sizes(name: str) -> None:
    rng = np.random.default_rng(1)
    grid = list(axis_options(name))
    for _ in range(20):
        a = grid[rng.integers(len(grid))]
        b = next(grid[i] for i in rng.permutation(len(grid)) if fit(a, grid[i]))
        options = two_axes(a, b)
        last, first = (made(layers, name, options, f"channels_{where}") for where in ("last", "first"))
        x = rng.integers(-9, 9, (2, 17, 15, 3)).astype("float32")
        y = last(x)
        if name not in ADDITIVE:
            first.build((3, 17, 15))
            first.set_weights(last.get_weights())
        assert_array_equal(first(x.transpose(0, 3, 1, 2)), y.transpose(0, 3, 1, 2))
        n, h, w, c = y.shape
        assert last.output_shape(x.shape) == (n, h, w, c)
        assert first.output_shape((None, 3, 17, 15)) == (None, c, h, w)
        assert last.output_shape((None, None, 15, 3)) == (None, None, w, c)
        assert last.output_shape((17, None, 3)) == (h, None, c)
        assert first.output_shape((n, 3, None, None)) == (n, c, None, None)


def test_unknown_sizes_go_through_a_net() -> None:
    net = [layers.Conv2D(4, 3, 2), layers.Residual([layers.Conv2D(4, 3, padding="same")]), layers.UpSampling2D(3)]
    assert Sequential(net).output_shape((None, None, 9, 3)) == (None, None, 12, 4)
    assert Sequential([layers.Conv2D(4, 3), layers.Flatten()]).output_shape((None, 8, None, 3)) == (None, None)
    assert layers.GlobalAveragePooling2D().output_shape((None, None, None, 3)) == (None, 3)
    assert layers.Reshape((5, -1, 2)).output_shape((None, None, 4, 2)) == (None, 5, None, 2)
    assert layers.Dense(5).output_shape((None, None, None, 3)) == (None, None, None, 5)
    with pytest.raises(ConvTypeError, match="integers"):
        layers.Conv2D(4, 3).output_shape((None, 8, 8, None))
    with pytest.raises(ConvError, match="unknown sizes of the input"):
        layers.Conv2D(4, 3).output_shape((None, 2, None, 3))


@pytest.mark.parametrize("padding", ["valid", "same", "same_lower", "full", ((1, 0), (-1, 2))])
def test_gradients_of_transposed_convolutions(padding: Any) -> None:
    """The layer is linear in its input and in its weights, and these numbers have exact sums."""
    rng = np.random.default_rng(2)
    for kernel, stride, extra, size in product((1, 2, 3, 5), (1, 2, 3), (None, 0, 1), ((1, 1), (2, 5))):
        if extra is not None and extra >= stride:
            continue
        layer = layers.Conv2DTranspose(3, (kernel, 3), stride, padding, extra, dtype="float64")
        try:
            layer.build((*size, 2))
        except ConvError:
            assert padding not in ("valid", "same", "same_lower")  # nothing is left
            continue
        weights = [rng.integers(-5, 6, w.shape).astype(float) for w in layer.get_weights()]
        layer.set_weights(weights)
        x = rng.integers(-5, 6, (2, *size, 2)).astype(float)
        y = layer(x)
        dy = rng.integers(-5, 6, y.shape).astype(float)
        dx = layer.backward(dy)
        without_bias = (dy * (y - weights[1])).sum()
        assert (dx * x).sum() == without_bias
        kernel_gradient, bias_gradient = (parameter.grad for parameter in layer.parameters())
        assert kernel_gradient is not None and (kernel_gradient * weights[0]).sum() == without_bias
        assert_array_equal(bias_gradient, dy.sum((0, 1, 2)))


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    pytest.importorskip(os.environ["KERAS_BACKEND"])
    return pytest.importorskip("keras")


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_the_table_is_what_keras_computes(keras: Any, table: dict[str, Any]) -> None:
    assert keras_shapes(keras) == table["others"]
    assert keras_refusals(keras) == table["refused"]
    rng = np.random.default_rng(4)
    for name in WINDOWED:
        for options, row in zip(axis_options(name), table[name], strict=True):
            column = int(rng.integers(len(row)))
            length, wanted = lengths(name)[column], row[column]
            assert size(keras.layers, name, options, length) == (None if wanted is None else len(wanted)), options
            if wanted is None or rng.random() < 0.8 or (name, options["padding"]) == ("AveragePooling2D", "same"):
                continue
            assert values(keras.layers, name, options, length) == wanted, (name, options, length)


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_keras_itself_on_images(keras: Any) -> None:
    rng = np.random.default_rng(3)
    cases: list[tuple[str, Options, tuple[int, ...]]] = [(n, o, s) for n, o, s in OTHERS if n not in ("Dropout",)]
    for name in WINDOWED:
        grid = list(axis_options(name))
        for _ in range(12):
            a = grid[rng.integers(len(grid))]
            b = next(grid[i] for i in rng.permutation(len(grid)) if fit(a, grid[i], both=False))
            if (name, a["padding"]) != ("AveragePooling2D", "same"):
                cases.append((name, two_axes(a, b), (int(rng.integers(13, 20)), int(rng.integers(13, 20)), 3)))
    for name, options, shape in cases:
        ours, theirs = made(layers, name, options), made(keras.layers, name, options)
        x = rng.standard_normal((2, *shape)).astype("float32")
        theirs.build((None, *shape))
        ours.build((None, *shape))
        if ours.parameters():
            ours.set_weights(theirs.get_weights())
        y = theirs(x)
        assert_allclose(ours(x), keras.ops.convert_to_numpy(y), rtol=1e-5, atol=1e-5, err_msg=f"{name} {options}")
        for unknown in [(None, *shape)] + ([(None, None, shape[1], shape[2]), (2, None, None, shape[2])]
                                           if len(shape) == 3 else []):  # fmt: skip
            if name == "Dense" or (name == "Reshape" and None in unknown[1:]):
                continue
            assert ours.output_shape(unknown) == tuple(theirs.compute_output_shape(unknown)), (name, options, unknown)
        if has_format(name) and name != "Flatten":
            wanted = made(keras.layers, name, options, "channels_first").compute_output_shape((None, 3, None, 14))
            assert made(layers, name, options, "channels_first").output_shape((None, 3, None, 14)) == tuple(wanted)


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras as installed

    write(keras_table(installed, json.loads(TABLE.read_text()) if TABLE.exists() else {}))
