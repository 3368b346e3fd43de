"""Models: totals, tables, values against the NumPy reference, conversion, weight files, prepared inference."""

import itertools
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastconv import ConvError, ConvTypeError, Sequential, layers, models, reference
from fastconv.graph import slices
from fastconv.layers.base import Layer
from fastconv.models import inference

Array = np.ndarray[Any, np.dtype[Any]]

TOTALS = [
    (lambda: models.vgg("A"), 132_863_336, 7.609),
    (lambda: models.vgg("A-LRN"), 132_863_336, 7.609),
    (lambda: models.vgg("B"), 133_047_848, 11.308),
    (lambda: models.vgg("C"), 133_638_952, 11.771),
    (lambda: models.vgg("D"), 138_357_544, 15.470),
    (lambda: models.vgg("E"), 143_667_240, 19.632),
    (lambda: models.resnet(18), 11_689_512, None),
    (lambda: models.resnet(34), 21_797_672, None),
    (lambda: models.resnet(50), 25_557_032, 4.089),
    (lambda: models.resnet(101), 44_549_160, 7.801),
    (lambda: models.resnet(152), 60_192_808, 11.514),
    (lambda: models.wide_resnet(50, width=2), 68_883_240, 11.398),
    (lambda: models.wide_resnet(101, width=2), 126_886_696, 22.753),
    (lambda: models.wide_resnet_cifar(28, 10), 36_479_194, 5.243),
    (lambda: models.wide_resnet_cifar(40, 4), 8_949_210, 1.299),
    (lambda: models.wide_resnet_cifar(16, 8), 10_961_370, 1.548),
]


@pytest.mark.parametrize(("make", "parameters", "giga"), TOTALS)
def test_totals(make: Any, parameters: int, giga: float | None) -> None:
    model = make()
    table = model.table()
    assert model.count_params() == table.parameters == parameters
    assert model.macs(model.built_shape) == table.macs
    if giga is not None:
        assert round(table.macs / 1e9, 3) == giga
    assert not any(parameter.allocated for parameter in model.parameters())


def test_table_of_vgg_d_is_the_lectures_with_the_sum_put_right(capsys: pytest.CaptureFixture[str]) -> None:
    model = models.vgg("D")
    table = model.table()
    assert table.forward_bytes == 4 * 15_237_608
    rows = {row.name: row for row in table.rows}
    assert rows["block1_conv1"].forward_bytes == 4 * 224 * 224 * 64
    assert rows["block1_conv1"].parameters == 1_728 + 64
    assert rows["fc1"].parameters == 7 * 7 * 512 * 4096 + 4096
    assert rows["fc1"].macs == 102_760_448
    assert rows["block1_pool"].output_shape == (112, 112, 64)
    assert rows["block5_pool"].field == (212, 212)
    assert rows["block5_pool"].stride == (32, 32)
    model.summary()
    printed = capsys.readouterr().out
    for text in ("138,357,544", "15,470,264,320", "60.95 MB", "block3_conv3", "224 x 224 x 64"):
        assert text in printed
    assert not any(parameter.allocated for parameter in model.parameters())


def test_receptive_fields_add_up() -> None:
    two = Sequential([layers.Conv2D(4, 3), layers.Conv2D(4, 3)], (9, 9, 1)).table().rows[-1].field
    three = Sequential([layers.Conv2D(4, 3) for _ in range(3)], (9, 9, 1)).table().rows[-1].field
    assert (two, three) == ((5, 5), (7, 7))
    strided = Sequential([layers.Conv2D(4, 3, 2), layers.Conv2D(4, 3, dilation_rate=2)], (32, 32, 1)).table().rows[-1]
    assert (strided.field, strided.stride) == ((11, 11), (2, 2))


def test_running_statistics_are_counted_apart() -> None:
    model = models.resnet(50)
    assert model.count_non_trainable() == model.table().non_trainable == 53_120


# ---- values against the reference -------------------------------------------------------------------------------


def activated(name: str, z: Array) -> Array:
    if name == "softmax":
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)
    functions: dict[str, Any] = {
        "linear": lambda v: v,
        "relu": lambda v: np.maximum(v, 0),
        "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
        "tanh": np.tanh,
        "leaky_relu": lambda v: np.where(v < 0, 0.2 * v, v),
    }
    return functions[name](z)


def by_reference(layer: Layer, x: Array) -> Array:
    """One layer in float64 by the NumPy reference."""
    w = [a.astype(float) for a in (layer.get_weights() if layer.parameters() else [])]
    if isinstance(layer, layers.Residual):
        body = side = x
        for inner in layer.body:
            body = by_reference(inner, body)
        for inner in layer.shortcut:
            side = by_reference(inner, side)
        return activated(layer.activation.name, body + side)
    if isinstance(layer, layers.Conv2D):
        bias = w[1] if layer.use_bias else None
        y = reference.conv2d(x, w[0], bias, layer.strides, layer.padding, data_format="NHWC")
        return activated(layer.activation.name, y)
    if isinstance(layer, layers.Conv2DTranspose):
        bias = w[1] if layer.use_bias else None
        y = reference.conv_transpose2d(
            x, w[0], bias, layer.strides, layer.padding, layer.output_padding or 0, data_format="NHWC"
        )
        return activated(layer.activation.name, y)
    if isinstance(layer, layers.BatchNormalization):
        gamma, beta, mean, variance = w
        return (x - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta
    if isinstance(layer, layers.MaxPooling2D):
        y = reference.max_pool2d(x, layer.pool_size, layer.strides, layer.padding, data_format="NHWC")
        assert isinstance(y, np.ndarray)
        return y
    if isinstance(layer, layers.GlobalAveragePooling2D):
        return x.mean(axis=(1, 2))
    if isinstance(layer, layers.Dense):
        return activated(layer.activation.name, x @ w[0] + (w[1] if layer.use_bias else 0))
    if isinstance(layer, layers.LocalResponseNormalization):
        total = np.zeros_like(x)
        for c in range(x.shape[-1]):
            near = x[..., max(0, c - layer.size // 2) : c - layer.size // 2 + layer.size]
            total[..., c] = (near * near).sum(axis=-1)
        return x / (layer.k + layer.alpha * total) ** layer.beta
    if isinstance(layer, layers.Reshape):
        return x.reshape(len(x), *layer.output_shape(x.shape)[1:])
    if isinstance(layer, layers.Dropout):
        return x
    assert isinstance(layer, layers.Activation)
    return activated(layer.function.name, x)


SMALL = [
    *(lambda c=c: models.vgg(c, 10, (32, 32, 3), dense=32, seed=1) for c in ("A", "A-LRN", "B", "C", "D", "E")),
    *(lambda d=d: models.resnet(d, 10, (32, 32, 3), seed=1) for d in (18, 34, 50)),
    lambda: models.resnet(101, 10, (17, 15, 3), seed=1),
    lambda: models.resnet(152, 10, (17, 15, 3), seed=1),
    lambda: models.wide_resnet(50, 2, 10, (17, 15, 3), seed=1),
    lambda: models.wide_resnet(101, 2, 10, (9, 8, 3), seed=1),
    *(
        lambda b=b: models.wide_resnet_cifar(10, 2, b, input_shape=(12, 10, 3), seed=1)
        for b in ("basic", "bottleneck", "basic-wide", "wide-dropout")
    ),
    lambda: models.dcgan_generator(20, 8, 32, seed=1),
    lambda: models.dcgan_discriminator((32, 32, 3), 8, seed=1),
    lambda: models.mlp(seed=1),
    lambda: models.cifar_vgg(input_shape=(16, 16, 3), seed=1),
    lambda: models.mnist_net(seed=1),
]


@pytest.mark.parametrize("make", SMALL)
def test_forward_and_prediction_equal_the_reference(make: Any) -> None:
    model = make()
    random = np.random.default_rng(7)
    for name, parameter in model.named_parameters():  # statistics and shifts as of a trained net
        if name.endswith(("moving_mean", "beta", "bias")):
            parameter.assign(random.standard_normal(parameter.shape) * 0.1)
        elif name.endswith(("moving_variance", "gamma")):
            parameter.assign(random.uniform(0.5, 1.5, parameter.shape))
    x = random.standard_normal((2, *model.built_shape)).astype("float32")
    y = x.astype(float)
    steps: list[tuple[Array, Array]] = []
    given = x
    for layer in model.layers:  # layer by layer, so that the error of one does not hide that of another
        given = layer.forward(given)
        y = by_reference(layer, y)
        steps.append((given, y))
    for (ours, wanted), layer in zip(steps, model.layers, strict=True):
        scale = max(1e-6, float(np.abs(wanted).max()))
        assert np.abs(ours - wanted).max() <= 3e-4 * scale, layer.name
    predicted = model.predict(x)
    assert np.abs(predicted - y).max() <= 3e-4 * max(1e-6, float(np.abs(y).max()))


# ---- prepared inference -----------------------------------------------------------------------------------------


def test_prepared_net_fuses_and_reuses_buffers() -> None:
    """The largest value and the next one, and one more beside residual blocks, are all the memory of a run."""
    plan = models.vgg("D", 10, (32, 32, 3), dense=16, seed=0).compile_inference()
    outputs = [4 * np.prod(step["output_shape"]) for step in plan.steps]
    assert plan._prepared.pool.peak <= 1.1 * max(a + b for a, b in itertools.pairwise(outputs)) + (64 << 10)
    residual = models.resnet(18, 10, (32, 32, 3), seed=0).compile_inference()
    outputs = [4 * np.prod(step["output_shape"]) for step in residual.steps]
    assert residual._prepared.pool.peak <= 4 * max(outputs)
    assert "+ residual + relu" in residual.explain() and "stem_conv + stem_bn + stem_relu" in residual.explain()
    assert len(residual.steps) == 2 + 8 * 2 + 3 + 3  # stem and pool, blocks, shortcuts, pool, dense and softmax


@pytest.mark.parametrize("slice_bytes, heavy_bytes", [(60_000, 1 << 30), (150_000, 400_000), (1, 1), (1, 1 << 30)])
def test_prepared_net_in_slices_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, slice_bytes: int, heavy_bytes: int
) -> None:
    model = models.resnet(18, 10, (32, 32, 3), seed=0)
    x = np.random.default_rng(0).random((5, 32, 32, 3), np.float32)
    whole = np.concatenate([model.compile_inference().run(one[None]) for one in x])
    monkeypatch.setattr(slices, "SLICE_BYTES", slice_bytes)
    monkeypatch.setattr(slices, "HEAVY_BYTES", heavy_bytes)
    plan = inference.InferencePlan(model, (32, 32, 3))
    for batch in (5, 5, 5, 2, 1, 4, 5):  # prepared, recorded and done again
        np.testing.assert_array_equal(plan.run(x[:batch]), whole[:batch])
    parts = plan._prepared._parts
    assert len(parts) > (slice_bytes > 1) and (heavy_bytes == 1 or any(1 <= images < 5 for images, _ in parts))
    assert plan.run(x[:0]).shape == (0, 10)
    assert len(plan.profile(x, 1).steps) >= len(plan.steps)


def test_prepared_net_of_views_alone_returns_a_copy() -> None:
    model = Sequential([layers.Flatten(), layers.Dropout(0.5)], (2, 2, 3))
    x = np.random.default_rng(0).random((3, 2, 2, 3), np.float32)
    result = model.compile_inference().run(x)
    np.testing.assert_array_equal(result, x.reshape(3, 12))
    assert not np.shares_memory(result, x)


def test_prepared_net_follows_the_weights() -> None:
    model = models.mnist_net(seed=0)
    x = np.random.default_rng(0).random((2, 28, 28, 1), np.float32)
    before = model.predict(x)
    plan = model.compile_inference()
    assert model.compile_inference() is plan
    layer = model.layers[0]
    layer.set_weights([w * 2 for w in layer.get_weights()])
    assert not plan.current
    with pytest.raises(ValueError, match="read-only"):
        layer.parameters()[0].array[...] = 0
    after = model.predict(x)
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, model.forward(x), atol=1e-6)


def test_prediction_of_lists_and_generators() -> None:
    model = Sequential([layers.Conv2D(4, 3, padding="same"), layers.GlobalAveragePooling2D()], seed=0)
    random = np.random.default_rng(0)
    images = [random.random((8, 9, 3), np.float32) for _ in range(5)]
    together = model.predict(np.stack(images), batch_size=2)
    assert together.shape == (5, 4)
    np.testing.assert_allclose(model.predict(iter(images)), together, rtol=1e-5)
    maps = Sequential([layers.Conv2D(4, 3, padding="same")], seed=0)
    answers = maps.predict([images[0], images[1][:5]], verbose=0)
    assert [a.shape for a in answers] == [(8, 9, 4), (5, 9, 4)]
    with pytest.raises(ConvError, match="no samples"):
        model.predict([])
    assert model.predict(np.empty((0, 8, 9, 3), np.float32)).shape == (0, 4)


# ---- fully convolutional ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.vgg("A", 7, (32, 32, 3), dense=24, seed=2),
        lambda: models.mnist_net(seed=2),
        lambda: models.wide_resnet_cifar(10, 1, input_shape=(16, 16, 3), seed=2),
    ],
)
@pytest.mark.parametrize("allocated", [True, False])
def test_fully_convolutional_form_has_equal_scores(make: Any, allocated: bool) -> None:
    model = make()
    x = np.random.default_rng(0).standard_normal((2, *model.built_shape)).astype("float32")
    scores = model.forward(x) if allocated else None
    convolutional = model.to_fully_convolutional()
    assert convolutional.count_params() == model.count_params()
    if scores is None:
        scores = model.forward(x)
    answer = convolutional.forward(x)
    assert answer.shape == (2, 1, 1, scores.shape[1])
    np.testing.assert_allclose(answer[:, 0, 0], scores, rtol=1e-4, atol=1e-6)
    height, width, channels = model.built_shape
    larger = np.random.default_rng(1).standard_normal((1, 2 * height, height + width, channels)).astype("float32")
    assert convolutional.predict(larger).shape[1:3] > (1, 1)


def test_every_score_of_the_map_is_that_of_its_window() -> None:
    model = Sequential(
        [layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(2), layers.Flatten(), layers.Dense(3)],
        (10, 10, 2), seed=0,
    )  # fmt: skip
    image = np.random.default_rng(0).standard_normal((1, 16, 14, 2)).astype("float32")
    scores = model.to_fully_convolutional().predict(image)
    assert scores.shape == (1, 4, 3, 3)
    for row in range(4):
        for column in range(3):
            window = image[:, 2 * row : 2 * row + 10, 2 * column : 2 * column + 10]
            np.testing.assert_allclose(scores[0, row, column], model.predict(window)[0], atol=1e-5)


# ---- weight files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_weights_survive_a_file(tmp_path: Path, suffix: str) -> None:
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"weights.{suffix}"
    model = models.wide_resnet_cifar(10, 1, seed=1)
    model.save(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    other = models.wide_resnet_cifar(10, 1, seed=2)
    other.load(path)
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_weights_of_models_in_models_survive_a_file(tmp_path: Path, suffix: str) -> None:
    """Layers of different chains have different paths, whatever they are called."""
    if suffix == "safetensors":
        pytest.importorskip("safetensors")

    def conv() -> layers.Conv2D:
        return layers.Conv2D(2, 3, padding="same")

    def nested(seed: int) -> Sequential:
        block = layers.Residual([Sequential([conv(), conv()]), conv()], [Sequential([conv()])])
        return Sequential([Sequential([conv(), Sequential([conv()])]), conv(), block, conv()], (5, 5, 2), seed=seed)

    model, other = nested(1), nested(2)
    names = [name for name, _ in model.named_parameters()]
    assert len(set(names)) == len(names) == 16
    model.save(tmp_path / f"weights.{suffix}")
    other.load(tmp_path / f"weights.{suffix}")
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_arrays_in_archives_as_numpy_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed, in the order of Fortran, in an archive with 64-bit offsets; other byte orders are other types."""
    model = Sequential([layers.Dense(3, name="d")], (4,), seed=1)
    kernel, bias = (parameter.array for parameter in model.parameters())
    path, other = tmp_path / "weights.npz", Sequential([layers.Dense(3, name="d")], (4,), seed=2)
    for write in (np.savez, np.savez_compressed):
        for wide in (False, True):
            with monkeypatch.context() as patch:
                if wide:
                    patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 0)
                write(path, **{"d/kernel": np.asfortranarray(kernel), "d/bias": bias})
            other.set_weights([np.zeros((4, 3)), np.zeros(3)])
            other.load(path)
            np.testing.assert_array_equal(other.get_weights()[0], kernel)
    np.savez(path, **{"d/kernel": kernel.astype(">f4"), "d/bias": bias})
    refuses(other, path, "d/kernel has dtype >f4")


def refuses(model: Sequential, path: Path, *words: str) -> None:
    before = model.get_weights()
    with pytest.raises(ConvError) as caught:
        model.load(path)
    for word in words:
        assert word in str(caught.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_damaged_files_say_so_and_change_nothing(tmp_path: Path, suffix: str) -> None:
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    model = models.mnist_net(seed=1)
    path = tmp_path / f"weights.{suffix}"
    model.save(path)
    whole = path.read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        refuses(model, path, "weights")
    path.write_bytes(b"not a file of weights" * 10)
    refuses(model, path, "weights")
    if suffix == "npz":
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 0xFF
        path.write_bytes(bytes(flipped))
        refuses(model, path, "weights")


def test_files_that_differ_say_what(tmp_path: Path) -> None:
    model = models.mnist_net(seed=1)
    arrays = {name: parameter.array for name, parameter in model.named_parameters()}
    path = tmp_path / "weights.npz"

    def written(**changes: Any) -> Path:
        np.savez(path, **{k: v for k, v in {**arrays, **changes}.items() if v is not None})
        return path

    refuses(model, written(**{"dense/bias": None}), "dense/bias is missing")
    refuses(model, written(**{"dense/extra": np.ones(2)}), "dense/extra is not in the model")
    refuses(model, written(**{"dense/bias": np.ones(3, "float32")}), "dense/bias", "(3,)", "(10,)")
    refuses(model, written(**{"conv2d/bias": np.ones(32, "float64")}), "conv2d/bias", "float64", "float32")
    np.savez(path, **{"dense/bias": np.array([{"a": 1}], dtype=object)})  # pickled inside: never read
    refuses(model, path, "weights.npz")
    with pytest.raises(FileNotFoundError):
        model.load(tmp_path / "none.npz")
    with pytest.raises(ConvError, match=r"\.npz or \.safetensors"):
        model.save(tmp_path / "weights.pkl")


# ---- construction -----------------------------------------------------------------------------------------------


def test_layers_get_names_of_their_own() -> None:
    model = Sequential([layers.Dense(2), layers.Dense(2, name="middle"), layers.Dense(2)])
    assert [layer.name for layer in model.layers] == ["dense", "middle", "dense_1"]
    with pytest.raises(ConvError, match="middle"):
        Sequential([layers.Dense(2, name="middle"), layers.Dense(2, name="middle")])


def test_the_same_seed_makes_the_same_weights_in_any_order() -> None:
    one, other = models.mnist_net(seed=3), models.mnist_net(seed=3)
    other.layers[-1].get_weights()  # made first here
    for ours, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(one.get_weights()[0], models.mnist_net(seed=4).get_weights()[0])


def test_a_model_is_a_layer() -> None:
    inner = Sequential([layers.Conv2D(3, 3, padding="same", activation="relu")])
    model = Sequential([inner, layers.Residual(Sequential([layers.Conv2D(3, 1)])), layers.Flatten(), layers.Dense(2)],
                       (6, 6, 3), seed=0)  # fmt: skip
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 3)).astype("float32")
    np.testing.assert_allclose(model.predict(x), model.forward(x), rtol=1e-4, atol=1e-6)
    assert model.table().parameters == model.count_params()


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: models.vgg("F"), ConvError, "configuration"),
    (lambda: models.resnet(20), ConvError, "depth"),
    (lambda: models.wide_resnet(34), ConvError, "depth"),
    (lambda: models.wide_resnet_cifar(27), ConvError, "depth"),
    (lambda: models.wide_resnet_cifar(block="wide"), ConvError, "block"),
    (lambda: models.dcgan_generator(image=48), ConvError, "image"),
    (lambda: Sequential([layers.Dense]), ConvTypeError, "parentheses"),
    (lambda: Sequential([layers.Conv2D(4, 5, name="big")], (4, 4, 3)), ConvError, "big"),
    (lambda: Sequential([layers.Dense(2)]).summary(), ConvError, "input"),
    (lambda: Sequential([layers.Dense(2), layers.Dense(2, dtype="float64")]), ConvTypeError, "float64"),
    (lambda: Sequential([layers.Dense(2)], (4,)).add(layers.Dense(2)), ConvError, "built"),
    (lambda: models.mnist_net().predict(np.ones((28, 28, 1))), ConvError, "batch"),
    (lambda: models.mnist_net().predict(np.ones((1, 32, 32, 1))), ConvError, "dense"),
    (lambda: models.vgg("A", input_shape=(16, 16, 3)), ConvError, "block5_pool"),
]


@pytest.mark.parametrize(("call", "error", "word"), REFUSED)
def test_refusals(call: Any, error: type[Exception], word: str) -> None:
    with pytest.raises(error, match=word):
        call()


def test_importing_fastconv_imports_no_layers() -> None:
    script = (
        "import sys, fastconv; assert not any(m.startswith('fastconv.layers') for m in sys.modules); fastconv.models"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    subprocess.run([sys.executable, "-P", "-c", script], check=True, env={**os.environ, "PYTHONPATH": path})
