"""Nets with weights of 16 bits, or operands rounded to bfloat16: `compile_inference`, sessions, the command line."""

import copy
import pickle

import numpy as np
import onnx_models
import pytest

import fastconv
from fastconv import ConvError, ConvTypeError, Sequential, layers, losses, reference
from fastconv.cli import main
from fastconv.graph.errors import OnnxError

OPTIONS = [{"weights_dtype": "float16"}, {"weights_dtype": "bfloat16"}, {"precision": "bfloat16"}]
X = np.random.default_rng(0).standard_normal((3, 20, 20, 3)).astype(np.float32)


def net(*, normalised=False):
    made = Sequential([
        layers.Conv2D(24, 3, padding="same", activation="relu"), layers.Conv2D(32, 3, padding="same"),
        *([layers.BatchNormalization()] if normalised else []), layers.MaxPooling2D(2),
        layers.DepthwiseConv2D(3, padding="same"), layers.Conv2D(40, 1), layers.Conv2DTranspose(8, 2, strides=2),
        layers.Flatten(), layers.Dense(30, activation="relu"), layers.Dense(10),
    ], name="net")  # fmt: skip
    made.forward(X[:1])
    return made


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_a_net_has_the_bits_of_rounded_weights(kind):
    ours, theirs = net(), net()
    weights = ours.get_weights()
    theirs.set_weights([reference.rounded(w, kind) if w.ndim > 1 else w for w in weights])
    held, plain = ours.compile_inference(weights_dtype=kind), theirs.compile_inference()
    np.testing.assert_array_equal(held.run(X), plain.run(X))
    np.testing.assert_array_equal(held.run(X[:1]), plain.run(X)[:1])
    assert ours.compile_inference(weights_dtype=kind) is held is not ours.compile_inference()
    assert held.explain() != plain.explain() and f"weights_dtype='{kind}'" in repr(held)
    assert sum(step["packed_bytes"] for step in held.steps) < 0.7 * sum(step["packed_bytes"] for step in plain.steps)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_normalised_net_stays_near_and_is_copied(options):
    ours = net(normalised=True)
    held, plain = ours.compile_inference(**options), ours.compile_inference()
    expected = plain.run(X)
    for plan in (held, copy.deepcopy(held), pickle.loads(pickle.dumps(held))):
        for _ in range(3):  # prepared, recorded, replayed
            got = plan.run(X)
            assert 0 < np.linalg.norm(got - expected) < 0.02 * np.linalg.norm(expected)
            np.testing.assert_array_equal(got, held.run(X))
        assert repr(plan) == repr(held)


def test_transforms_take_a_share_of_the_memory():
    """Winograd's for what comes first, as far as a share of all weights goes; the rest takes two bytes a weight."""
    made = Sequential([
        *(layers.Conv2D(n, 3, padding="same", activation="relu") for n in (32, 32, 64)), layers.MaxPooling2D(4),
        layers.Flatten(), layers.Dense(256),
    ])  # fmt: skip
    plan = made.compile_inference((32, 32, 3), weights_dtype="bfloat16")
    packed = [step["packed_bytes"] for step in plan.steps if "winograd" in (step["how"] or "")]
    assert packed[-2:] == [32 * 32 * (9 * 2 + 36 * 4), 32 * 64 * 9 * 2]
    weights = 2 * sum(w.size for w in made.get_weights())
    assert weights < sum(step["packed_bytes"] for step in plan.steps) < 1.18 * weights
    np.testing.assert_array_equal(copy.deepcopy(plan).run(np.ones((1, 32, 32, 3))), plan.run(np.ones((1, 32, 32, 3))))


def test_refusals():
    with pytest.raises(ConvTypeError, match=r"weights_dtype='float16' is for arrays .* in float32, but .*float64"):
        Sequential([layers.Conv2D(4, 3, dtype="float64")], dtype="float64").compile_inference(
            (20, 20, 3), weights_dtype="float16"
        )
    with pytest.raises(ConvError, match="precision must be one of 'float32', 'bfloat16'"):
        net().compile_inference(precision="bf16")
    ours = net()
    weights = ours.get_weights()
    weights[0][0, 0, 0, 0] = 1e6
    ours.set_weights(weights)
    with pytest.raises(ConvError, match=r"holds numbers up to 65504, but weight\[.* is 1e\+06"):
        ours.compile_inference(weights_dtype="float16")


@pytest.mark.parametrize("options", OPTIONS)
def test_sessions(options):
    onnx = pytest.importorskip("onnx")
    from fastconv.onnx import InferenceSession

    for proto in (onnx_models.small_net(onnx), onnx_models.net_with_bodies(onnx)):
        data = proto.SerializeToString()
        plain, held = InferenceSession(data), InferenceSession(data, **options)
        rng = np.random.default_rng(1)
        feeds = {
            value.name: (
                rng.standard_normal([n if isinstance(n, int) else 2 for n in value.shape]).astype(np.float32)
                if "float" in value.type else np.ones(value.shape, {"tensor(bool)": bool}.get(value.type, np.int64))
            )
            for value in plain.get_inputs()
        }  # fmt: skip
        for _ in range(3):
            for ours, theirs in zip(held.run(None, feeds), plain.run(None, feeds), strict=True):
                assert np.linalg.norm(ours - theirs) <= 0.03 * np.linalg.norm(theirs)
        if plain.describe()["packed_bytes"]:
            assert held.describe()["packed_bytes"] < 0.75 * plain.describe()["packed_bytes"]
    with pytest.raises(ConvError, match="weights_dtype must be one of"):
        InferenceSession(data, weights_dtype="int8")


def test_a_session_in_double_precision_refuses():
    onnx = pytest.importorskip("onnx")
    from fastconv.onnx import InferenceSession

    weight = onnx.numpy_helper.from_array(np.ones((4, 3, 3, 3)), "w")
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, None) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:], [weight])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)])
    session = InferenceSession(proto, weights_dtype="bfloat16")
    with pytest.raises((OnnxError, ConvTypeError), match="float64, and double precision would be lost"):
        session.run(None, {"x": np.ones((1, 3, 8, 8))})


def test_the_command_line(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    path, image = tmp_path / "net.onnx", tmp_path / "x.npy"
    proto = onnx_models.small_net(onnx)
    path.write_bytes(proto.SerializeToString())
    shape = [d.dim_value or 1 for d in proto.graph.input[0].type.tensor_type.shape.dim]
    np.save(image, np.ones(shape, np.float32))
    assert main(["run", str(path), str(image), "--weights-dtype", "bfloat16", "--explain"]) == 0
    assert main(["run", str(path), str(image), "--precision", "bfloat16"]) == 0
    assert "packed weights" in capsys.readouterr().out
    assert main(["run", str(path), str(image), "--precision", "float16"]) == 2
    assert "--precision" in capsys.readouterr().err


def test_rounding_is_that_of_other_packages():
    rng = np.random.default_rng(3)
    x = (rng.standard_normal(4000) * 2.0 ** rng.integers(-140, 17, 4000)).astype(np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(reference.rounded(x, "float16"), x.astype(np.float16).astype(np.float32))
    ml_dtypes = pytest.importorskip("ml_dtypes")
    np.testing.assert_array_equal(reference.rounded(x, "bfloat16"), x.astype(ml_dtypes.bfloat16).astype(np.float32))
    np.testing.assert_array_equal(fastconv._core.rounding.to_bfloat16(x), reference.rounded(x, "bfloat16"))


GRADIENTS = [  # layer, shape of the input, what the reference calls it
    (layers.Conv2D(20, 1, use_bias=False), (2, 9, 8, 33), {}),
    (layers.Conv2D(34, 3, padding="same", use_bias=False), (2, 20, 20, 33), {"padding": 1}),  # Winograd
    (layers.Conv2D(8, 3, strides=2, dilation_rate=2, use_bias=False), (2, 15, 12, 5), {"stride": 2, "dilation": 2}),
    (layers.Conv2D(12, 3, groups=12, padding="same", use_bias=False), (2, 9, 8, 12), {"padding": 1, "groups": 12}),
    (layers.Conv2D(40, 3, padding="same", use_bias=False), (70, 2, 2, 40), {"padding": 1}),  # images of few pixels
    (layers.Conv3D(10, 3, padding="same", use_bias=False), (2, 4, 12, 12, 16), {"padding": 1}),
]


@pytest.mark.parametrize("case", range(len(GRADIENTS)))
def test_a_step_rounds_the_operands_of_all_passes(case):
    """Forward and both gradients: those of rounded operands in double precision, to rounding in float32."""
    layer, shape, options = GRADIENTS[case]
    axes, rng = len(shape) - 2, np.random.default_rng(case)
    model = Sequential([layer])
    model.compile("sgd", "mse", precision="bfloat16")
    x = rng.standard_normal(shape).astype(np.float32)
    y = model.forward(x, training=True)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    dx, dw = model.backward(dy).copy(), layer.kernel.grad.copy()
    a, g, w = (reference.rounded(v, "bfloat16").astype(np.float64) for v in (x, dy, layer.get_weights()[0]))
    layout = {"data_format": "NHWC" if axes == 2 else "NDHWC", **options}
    conv = getattr(reference, f"conv{axes}d")
    expected = [
        (y, conv(a, w, **layout)), (dx, getattr(reference, f"conv{axes}d_input")(shape, w, g, **layout)),
        (dw, getattr(reference, f"conv{axes}d_weight")(a, w.shape, g, **layout)),
    ]  # fmt: skip
    for got, want in expected:
        assert got.dtype == np.float32 and abs(got - want).max() <= 2e-5 * abs(want).max()
    kernel = layer.kernel.array
    assert kernel.dtype == np.float32 and (reference.rounded(kernel, "bfloat16") != kernel).any()


def test_training_in_bfloat16():
    """It learns as in float32, from weights that stay float32; predictions round as steps do."""
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((64, 8, 8, 3)).astype(np.float32), rng.integers(0, 3, 64)
    x[np.arange(64), y] += 2
    found, weights = {}, None
    for precision in (None, "float32", "bfloat16"):
        made = Sequential([
            layers.Conv2D(16, 3, activation="relu"), layers.Conv2DTranspose(8, 2, strides=2), layers.Flatten(),
            layers.Dense(3),
        ], seed=0)  # fmt: skip
        made.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True), precision=precision)
        made.forward(x[:1])
        weights = weights or made.get_weights()
        made.set_weights(weights)
        found[precision] = [made.train_on_batch(x, y)[0] for _ in range(12)]
    single, half = np.array(found[None]), np.array(found["bfloat16"])
    assert found["float32"] == found[None] != found["bfloat16"]
    assert half[-1] < 0.8 * half[0] and abs(half - single).max() < 0.02 * single[0]
    rounded, plain = made.predict(x[:5]), made.compile_inference().run(x[:5])
    np.testing.assert_array_equal(rounded, made.compile_inference(precision="bfloat16").run(x[:5]))
    assert 0 < abs(rounded - plain).max() < 0.05
    with pytest.raises(ConvError, match="precision must be one of"):
        made.compile(precision="float16")
    with pytest.raises(ConvTypeError, match="float64, and double precision would be lost"):
        Sequential([layers.Dense(3, dtype="float64")], dtype="float64").compile(precision="bfloat16")
