"""Nets of any wiring: gradients against finite differences, prediction against the layers, training, errors."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from nets import MADE, data, nested, resnet, shared, two_heads, two_inputs, unet

import fastconv
from fastconv import ConvError, ConvTypeError, Input, Model, Sequential, layers, losses, optimizers

Array = np.ndarray[Any, np.dtype[Any]]


def outputs_of(net: Model, x: list[Array], training: bool = False) -> list[Array]:
    made = net.forward(x if len(x) > 1 else x[0], training)
    return made if isinstance(made, list) else [made]


def of(values: list[Any]) -> Any:
    return values if len(values) > 1 else values[0]


# ---- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """Of a random linear function of all outputs, by every input and every weight, in float64."""
    net = MADE[name]("float64")
    x, _ = data(net, 2)
    random = np.random.default_rng(0)
    for path, parameter in net.named_parameters():
        if path.endswith("beta"):  # no unit sits at the kink of its ReLU
            parameter.assign(random.uniform(0.1, 0.5, parameter.shape))
    weights = [random.standard_normal(y.shape) for y in outputs_of(net, x, True)]

    def value() -> float:
        made = outputs_of(net, x, True)
        return float(sum((w * y).sum() for w, y in zip(weights, made, strict=True)))

    outputs_of(net, x, True)
    found = net.backward(of(weights))
    found = found if isinstance(found, list) else [found]
    grads = [(p.updated(), np.array(p.grad)) for p in net.trained_parameters()] + list(zip(x, found, strict=True))
    for array, grad in grads:
        flat, own = array.reshape(-1), grad.reshape(-1)
        for i in random.choice(flat.size, min(flat.size, 4), replace=False):
            kept, step = flat[i], 1e-6
            flat[i] = kept + step
            high = value()
            flat[i] = kept - step
            low = value()
            flat[i] = kept
            assert own[i] == pytest.approx((high - low) / (2 * step), rel=2e-5, abs=2e-7)


@pytest.mark.parametrize("name", MADE)
def test_a_step_learns_what_a_step_by_hand_learns(name: str) -> None:
    """In the memory that a step lends, twice, and with frozen layers, weights move as by `forward` and `backward`."""
    nets = [MADE[name](), MADE[name]()]
    x, y = data(nets[0])
    for net in nets:
        net.layers[0].trainable = name == "unet"
        net.compile(optimizers.SGD(0.1), "mse")
    by_hand = nets[1]
    for _ in range(3):
        nets[0].train_on_batch(of(x), of(y))
        made = outputs_of(by_hand, x, True)
        by_hand.backward(of([losses.MeanSquaredError()(a, b)[1] for a, b in zip(made, y, strict=True)]))
        assert by_hand.optimizer is not None
        by_hand.optimizer.apply(by_hand.trained_parameters())
    for one, other in zip(nets[0].get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not nets[0]._arena._lent


def test_a_large_net_uses_its_memory_again_and_never_what_is_in_use() -> None:
    """Arrays beyond the arena's smallest, in a net where values are read by several: the bits of a net without it."""

    def make() -> Model:
        x = image = Input((32, 32, 3))
        for filters in (16, 16):
            y = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
            z = layers.BatchNormalization()(y)
            merged = layers.Add()([y, z, layers.ReLU()(z), y])
            x = layers.Concatenate()([merged, layers.Average()([y, z]), layers.Maximum()([y, z]), z - y])
        return Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)), seed=0)

    random = np.random.default_rng(0)
    x, y = random.standard_normal((8, 32, 32, 3), np.float32), random.standard_normal((8, 2), np.float32)
    one, other = make(), make()
    for net in (one, other):
        net.compile(optimizers.SGD(0.05), "mse")
    for _ in range(3):
        one.train_on_batch(x, y)
        _, grad = losses.MeanSquaredError()(other.forward(x, True), y)
        other.backward(grad)
        other.optimizer.apply(other.trained_parameters())  # type: ignore[union-attr]
    for ours, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    held = sum(len(free) for free in one._arena._free.values())
    one.train_on_batch(x, y)
    assert held == sum(len(free) for free in one._arena._free.values()) > 0


def test_bits_do_not_depend_on_threads() -> None:
    before = fastconv.get_num_threads()
    trained = []
    try:
        for threads in (1, 2, 3):
            fastconv.set_num_threads(threads)
            net = unet(size=32)
            random = np.random.default_rng(0)
            x = random.random((4, 32, 32, 1), np.float32)
            net.compile("adam")
            for _ in range(2):
                net.train_on_batch(x, (x[..., 0] > 0.5).astype(int))
            trained.append([*net.get_weights(), net.predict(x)])
    finally:
        fastconv.set_num_threads(before)
    for others in trained[1:]:
        for one, other in zip(trained[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


def test_shared_weights_are_one_and_stepped_once() -> None:
    net = shared()
    names = [name for name, _ in net.named_parameters()]
    assert len(set(names)) == len(names) == 10  # six of the tower, two of the layer that is called thrice, two
    assert len(net.trained_parameters()) == len(net.get_weights()) - 2 == 8
    assert net.count_params() == sum(p.size for p in net.trained_parameters())


# ---- prediction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
def test_prediction_is_one_graph_with_the_values_of_the_layers(name: str) -> None:
    net = MADE[name]()
    x, y = data(net, 5)
    net.compile(optimizers.SGD(0.01), "mse")
    net.fit(of(x), of(y), verbose=0)  # so that running statistics are none of their first values
    wanted = outputs_of(net, x)
    plan = net.compile_inference()
    for made in (net.predict(of(x)), net.predict(of(x), batch_size=2), plan.run(of(x)), plan.run(of(x))):
        for ours, theirs in zip(made if isinstance(made, list) else [made], wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert net.compile_inference() is plan and plan.explain() and plan.profile(of(x), 1).steps
    empty = net.predict(of([array[:0] for array in x]))
    assert [len(array) for array in (empty if isinstance(empty, list) else [empty])] == [0] * len(wanted)


def test_sums_and_concatenations_are_fused_as_in_any_graph() -> None:
    x = image = Input((8, 8, 4))
    for _ in range(2):
        y = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.Add()([x, layers.BatchNormalization()(y)]))
    plan = Model(image, x).compile_inference()
    assert len(plan.steps) == 2 and plan.explain().count("+ residual + relu") == 2


def test_inputs_by_name_and_outputs_that_are_inputs() -> None:
    net = two_inputs()
    x, _ = data(net)
    named = dict(zip(net.input_names, x, strict=True))
    assert net.input_names == ["image", "numbers"] and net.output_names == ["value"]
    np.testing.assert_array_equal(net.predict(named), net.predict(x))
    np.testing.assert_array_equal(net.compile_inference().run(named), net.predict(x))
    a = Input((3,))
    same = Model(a, [a, layers.ReLU()(a), a])
    values = np.array([[-1, 0, 2]], np.float32)
    for made in (same.predict(values), same(values)):
        np.testing.assert_array_equal(made, [values, np.maximum(values, 0), values])


def test_sizes_that_are_not_known_come_with_the_first_input() -> None:
    net = unet(size=None)
    assert net.output_shape((None, 16, 24, 1)) == (None, 16, 24, 2)
    with pytest.raises(ConvError, match=r"unknown sizes.*build"):
        net.count_params()
    assert "conv2d_transpose" in str(net.table((16, 24, 1)))
    x = np.random.default_rng(0).random((2, 16, 24, 1), np.float32)
    assert net(x).shape == net.predict(x).shape == (2, 16, 24, 2)
    assert net.predict(x[:, :8, :8]).shape == (2, 8, 8, 2)
    assert net.count_params() == unet().count_params()


def test_a_unet_on_an_image_in_tiles() -> None:
    net = unet()
    image = np.random.default_rng(0).random((36, 44, 1), np.float32)
    whole = net(image[None])[0]
    for tile in (8, (16, 20), 100):
        np.testing.assert_array_equal(fastconv.tiled_predict(net, image, tile), whole)
    for wrong, word in ((resnet(), "whole image"), (two_heads(), "several"), (two_inputs(), "several")):
        with pytest.raises(ConvError, match=word):
            fastconv.tiled_predict(wrong, np.zeros((*wrong.inputs[0].shape[1:],), np.float32))


# ---- training -------------------------------------------------------------------------------------------------------


def test_a_unet_learns_to_segment() -> None:
    random = np.random.default_rng(0)
    x = random.random((64, 16, 16, 1), np.float32)
    blurred = (x + np.roll(x, 1, 1) + np.roll(x, 1, 2) + np.roll(x, -1, 1) + np.roll(x, -1, 2))[..., 0] / 5
    y = (blurred > 0.5).astype(int)
    net = unet(size=16, seed=1)
    net.compile(optimizers.Adam(0.02), "sparse_categorical_crossentropy", ["accuracy"])
    history = net.fit(x, y, 8, 15, verbose=0, seed=0, validation_split=0.25).history
    assert history["val_accuracy"][-1] > 0.85 > history["val_accuracy"][0]


def test_two_heads_learn_by_loss_weights_and_names() -> None:
    random = np.random.default_rng(0)
    x = random.random((60, 6, 6, 1), np.float32)
    kind, place = (x[:, 0, 0, 0] * 3).astype(int), x[:, 1, :2, 0]
    net = two_heads()
    net.compile(
        optimizers.Adam(0.02), {"kind": "sparse_categorical_crossentropy", "place": "mse"}, {"kind": ["accuracy"]},
        loss_weights={"place": 2.0},
    )  # fmt: skip
    history = net.fit(x, {"place": place, "kind": kind}, 20, 60, verbose=0, seed=0).history
    assert list(history)[:4] == ["loss", "kind_loss", "place_loss", "kind_accuracy"]
    np.testing.assert_allclose(
        history["loss"], np.array(history["kind_loss"]) + 2 * np.array(history["place_loss"]), rtol=1e-6
    )
    assert history["kind_accuracy"][-1] > 0.85 and history["place_loss"][-1] < 0.3 * history["place_loss"][0]
    values = net.evaluate(x, [kind, place], return_dict=True)
    assert list(values) == ["loss", "kind_loss", "place_loss", "kind_accuracy"]
    assert net.evaluate(x, [kind, place]) == list(values.values())
    probabilities, _ = net.predict(x)
    assert values["kind_accuracy"] == np.mean(probabilities.argmax(1) == kind)


def test_an_output_without_a_loss_leaves_its_head_alone() -> None:
    net = two_heads()
    x, y = data(net)
    before = net.get_layer("place").get_weights()
    net.compile(optimizers.SGD(0.1), ["categorical_crossentropy", None])
    net.fit(x[0], [np.eye(3)[[0, 1, 2, 0]], None], verbose=0)
    net.train_on_batch(x[0], {"kind": np.eye(3)[[0, 1, 2, 0]], "place": y[1]})
    for old, new in zip(before, net.get_layer("place").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_softmax_that_others_read_too_learns_from_its_logits() -> None:
    """Probabilities that are an output and go on: the loss still takes logits, and gradients of both add."""
    image = Input((4,), dtype="float64")
    p = layers.Dense(3, activation="softmax", dtype="float64")(image)
    q = layers.Dense(2, dtype="float64")(p)
    net = Model(image, [p, q], seed=0)
    net.compile(optimizers.SGD(0.0), ["sparse_categorical_crossentropy", "mse"])
    random = np.random.default_rng(0)
    x, labels, y = random.standard_normal((5, 4)), random.integers(0, 3, 5), random.standard_normal((5, 2))
    measured = net.train_on_batch(x, [labels, y])

    def value() -> float:
        a, b = net.forward(x)
        return float(-np.log(a[np.arange(5), labels]).mean() + ((b - y) ** 2).mean())

    assert measured[0] == pytest.approx(value())
    for parameter in net.parameters():
        flat = parameter.updated().reshape(-1)
        for i in range(flat.size):
            kept = flat[i]
            flat[i] = kept + 1e-6
            high = value()
            flat[i] = kept - 1e-6
            low = value()
            flat[i] = kept
            assert parameter.grad is not None
            assert parameter.grad.reshape(-1)[i] == pytest.approx((high - low) / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("end", [
    lambda: Sequential([layers.Dense(3, activation="softmax")]), lambda: layers.Softmax(),
    lambda: Sequential([Sequential([layers.Dense(4)]), Sequential([layers.Dense(3), layers.Activation("softmax")])]),
])  # fmt: skip
def test_a_softmax_at_the_end_of_a_net_within_is_left_to_the_loss(end: Any) -> None:
    plain = Sequential([layers.Dense(3), end()], (4,), seed=0)
    image = Input((4,))
    wired = Model(image, end()(layers.Dense(3)(image)), seed=0)
    wired.set_weights(plain.get_weights())
    x, y = np.random.default_rng(0).standard_normal((6, 4)), np.array([0, 1, 2, 0, 1, 2])
    wanted = -np.log(plain.forward(x)[np.arange(6), y]).mean()
    for net in (plain, wired):
        net.compile("sgd", metrics=["accuracy", lambda p, t: float(p.sum(-1).mean())])
        loss, _, total = net.train_on_batch(x, y)
        assert loss == pytest.approx(wanted, rel=1e-5) and total == pytest.approx(1)  # metrics see probabilities
    for one, other in zip(plain.get_weights(), wired.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("last", [
    lambda: layers.Conv2DTranspose(3, 2, activation="softmax"),
    lambda: layers.SeparableConv2D(3, 2, activation="softmax"),
    lambda: layers.TiledConv2D(3, 2, activation="softmax"),
])  # fmt: skip
def test_a_softmax_of_any_convolution_is_left_to_the_loss(last: Any) -> None:
    net = Sequential([layers.Conv2D(2, 2), last()], (5, 5, 1), seed=0)
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 1)).astype("float32")
    p = net.forward(x)
    y = np.random.default_rng(1).integers(0, 3, p.shape[:-1])
    net.compile("sgd")
    wanted = -np.log(np.take_along_axis(p, y[..., None], -1)).mean()
    assert net.train_on_batch(x, y)[0] == pytest.approx(wanted, rel=1e-5)
    residual = Sequential([layers.Residual([layers.Conv2D(1, 1)], activation="softmax")], (5, 5, 1))
    with pytest.raises(ConvError, match=r"layers\.Softmax\(\)"):
        residual.compile("sgd")


def test_a_frozen_net_within_stays_and_its_statistics_too() -> None:
    base = Sequential([layers.Conv2D(2, 3), layers.BatchNormalization()], (6, 6, 1), name="base")
    image = Input((6, 6, 1))
    net = Model(image, layers.Dense(2)(layers.Flatten()(base(image, training=False))), seed=0)
    base.trainable = False
    before, x = base.get_weights(), np.random.default_rng(0).random((4, 6, 6, 1), np.float32)
    net.compile(optimizers.SGD(0.5), "mse")
    net.fit(x, np.ones((4, 2)), epochs=2, verbose=0)
    for old, new in zip(before, base.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert [p.name for p in net.trained_parameters()] == ["kernel", "bias"]


def test_features_of_a_trained_net() -> None:
    """A net of a layer inside another: `get_layer(name).output`, as Keras' users write it; weights are the same."""
    net = unet()
    features = Model(net.input, [net.get_layer("max_pooling2d").output, net.output])
    x = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    assert [layer.name for layer in net.layers][:2] == ["conv2d", "batch_normalization"]
    pooled, scores = features.predict(x)
    assert pooled.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(scores, net.predict(x), rtol=1e-5)
    assert features.layers[0] is net.layers[0]


@pytest.mark.parametrize("name", MADE)
def test_copies_and_pickles_train_on_as_the_net_would(name: str) -> None:
    net = MADE[name]()
    x, y = data(net)
    net.compile("adam", "mse")
    net.train_on_batch(of(x), of(y))
    made = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    net.train_on_batch(of(x), of(y))
    for other in made:
        other.train_on_batch(of(x), of(y))
        for one, two in zip(net.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(one, two)
        again = Model(other.inputs, other.outputs)  # symbolic tensors of a copy are made anew
        for one, two in zip(outputs_of(net, x), outputs_of(again, x), strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_chain_begins_with_an_input_and_has_symbolic_ends() -> None:
    net = Sequential([Input((6, 6, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)], seed=0)
    other = Sequential(seed=0)
    for layer in (Input((6, 6, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)):
        other.add(layer)
    x = np.random.default_rng(0).random((3, 6, 6, 1), np.float32)
    assert net.built_shape == (6, 6, 1) and other.count_params() == net.count_params() == 86
    np.testing.assert_array_equal(net.predict(x), other.predict(x))
    features = Model(net.input, [net.layers[0].output, net.output])
    np.testing.assert_array_equal(features(x)[1], net(x))
    assert Sequential([layers.Input((None, None, 1)), layers.Conv2D(2, 3)]).predict(x).shape == (3, 4, 4, 2)
    with pytest.raises(ConvTypeError, match="an Input before them"):
        Sequential([net.output, layers.Dense(2)])


# ---- the table ------------------------------------------------------------------------------------------------------


def test_the_table_names_what_a_layer_is_connected_to_and_counts_weights_once() -> None:
    net = unet(size=16)
    table = net.table()
    rows = {row.name: row for row in table.rows}
    assert rows["concatenate"].connected == ("conv2d_transpose", "conv2d_3")
    assert rows["concatenate_1"].connected == ("conv2d_1", "up_sampling2d")
    assert rows["concatenate"].output_shape == (8, 8, 8)
    assert (rows["conv2d_transpose"].stride, rows["up_sampling2d"].stride) == ((2, 2), (1, 1))
    assert table.parameters == net.count_params() and table.macs == net.macs((16, 16, 1))
    assert table.forward_bytes == sum(row.forward_bytes for row in table.rows)
    printed = str(table)
    assert "connected to" in printed and "conv2d_1, up_sampling2d" in printed
    assert not any(p.allocated for p in net.parameters())
    assert "connected to" not in str(Sequential([layers.Dense(2)], (3,)).table())


def test_the_table_of_shared_and_nested_nets() -> None:
    table = shared().table()
    assert table.parameters == shared().count_params()
    calls = [row for row in table.rows if row.name == "dense"]
    assert [row.again for row in calls] == [False, True, True] and [bool(row.parameters) for row in calls] == [1, 0, 0]
    assert all(row.macs == 9 for row in calls) and "again" in str(table)
    assert [row.name for row in table.rows[:2]] == ["one", "other"]
    rows = nested().table().rows
    assert rows[-1].connected == ("concatenate",) and rows[0].output_shape == (6, 6, 1)


def test_receptive_fields_behind_what_enlarges() -> None:
    def fields(*chain: Any) -> list[Any]:
        return [(row.field[0], row.stride[0]) for row in Sequential(chain, (12, 12, 1)).table().rows[1:]]

    assert fields(layers.UpSampling2D(2), layers.Conv2D(1, 3), layers.Conv2D(1, 2)) == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert fields(layers.Conv2D(1, 3, 2), layers.Conv2DTranspose(1, 3, 2)) == [(3, 2), (5, 1)]
    assert fields(layers.UpSampling2D(2, interpolation="bilinear")) == [(2, 0.5)]


# ---- errors ---------------------------------------------------------------------------------------------------------


def tensor(*shape: int) -> Any:
    return Input(shape)


def unlike() -> Any:
    return layers.Add()([tensor(4, 4, 2), tensor(4, 3, 2)])


def disconnected() -> Any:
    a, b = tensor(3), tensor(3)
    return Model(a, layers.Dense(2)(b))


def idle() -> Any:
    a, b = tensor(3), tensor(3)
    return Model([a, b], layers.Dense(2)(a))


def named_twice() -> Any:
    a = tensor(3)
    return Model(a, layers.Dense(2, name="d")(layers.Dense(2, name="d")(a)))


def inputs_named_twice() -> Any:
    a, b = Input((3,), name="a"), Input((3,), name="a")
    return Model([a, b], layers.Add()([a, b]))


def mixed() -> Any:
    return layers.Add()([Input((3,)), np.zeros((2, 3))])


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (disconnected, ConvError, "disconnected.*not among the inputs"),
    (idle, ConvError, "disconnected.*no output needs the input"),
    (unlike, ConvError, r"add .*cannot merge the shapes.*\(4, 4, 2\).*\(4, 3, 2\)|Add"),
    (named_twice, ConvError, "two layers are named 'd'"),
    (inputs_named_twice, ConvError, "two inputs are named 'a'"),
    (mixed, ConvTypeError, "arrays alone"),
    (lambda: layers.Conv2D(2, 3)(tensor(5)), ConvError, r"conv2d.*\(H, W, C\).*\(5,\)"),
    (lambda: layers.Conv2D(2, 9)(tensor(4, 4, 1)), ConvError, "conv2d"),
    (lambda: layers.Dense(2)([tensor(2), tensor(2)]), ConvError, "dense takes one input.*list of 2"),
    (lambda: layers.Add()(tensor(2)), ConvTypeError, r"call it on a list"),
    (lambda: layers.Subtract()([tensor(2)] * 3), ConvError, "two inputs"),
    (lambda: layers.Concatenate()([tensor(4, 4, 2), tensor(4, 5, 2)]), ConvError, "but along axis -1"),
    (lambda: layers.Concatenate(axis=0), ConvError, "batch"),
    (lambda: layers.Concatenate(axis=3)([tensor(2), tensor(2)]), ConvError, "axis=3"),
    (lambda: layers.Multiply()([tensor(2), tensor(2, 2, 2)]), ConvError, "as many axes"),
    (lambda: layers.Dense(2, dtype="float64")(tensor(2)), ConvTypeError, "float64"),
    (lambda: layers.Dense(2)(tensor(2), training=True), ConvError, "training=True"),
    (lambda: tensor(2) + 1, ConvTypeError, "int"),
    (lambda: np.ones(2) * tensor(2), ConvTypeError, "ndarray"),
    (lambda: np.sum(tensor(2)), (ConvTypeError, TypeError), ""),
    (lambda: [*tensor(2)], ConvTypeError, "has no values"),
    (lambda: Input(3), ConvTypeError, "tuple"),
    (lambda: Input(()), ConvError, "sizes"),
    (lambda: Input((3,), dtype="int8"), ConvTypeError, "dtype"),
    (lambda: Model(layers.Dense(2), tensor(2)), ConvTypeError, "inputs must be a symbolic tensor"),
    (lambda: Model(tensor(2), []), ConvError, "at least one"),
    (lambda: Sequential([two_heads()]), ConvError, "Model"),
    (lambda: two_inputs().forward(np.zeros((1, 5, 5, 2))), ConvError, "list of 2.*image.*numbers"),
    (lambda: two_inputs().predict([np.zeros((1, 5, 5, 2))]), ConvError, "list of 2"),
    (lambda: two_inputs().predict({"image": np.zeros((1, 5, 5, 2))}), ConvError, "names"),
    (lambda: two_inputs().predict([np.zeros((1, 5, 5, 2)), np.zeros((2, 3))]), ConvError, "as many samples"),
    (lambda: two_inputs().predict([np.zeros((1, 5, 5, 2)), np.zeros(3)]), ConvError, "numbers.*batch"),
    (lambda: unet().predict(np.zeros((8, 8, 1))), ConvError, r"batch.*x\[None\]"),
    (lambda: unet().predict(np.zeros((1, 8, 8, 2))), ConvError, "conv2d"),
    (lambda: unet(size=6), ConvError, "concatenate"),
    (lambda: two_heads().compile("sgd", ["mse"]), ConvError, "each of the 2 outputs"),
    (lambda: two_heads().compile("sgd", {"kind": "mse"}), ConvError, "'place' is missing"),
    (lambda: two_heads().compile("sgd", {"kind": "mse", "plaice": "mse"}), ConvError, "'plaice' is none"),
    (lambda: two_heads().compile("sgd", "mse", ["accuracy"]), ConvError, "each of the 2 outputs"),
    (lambda: two_heads().compile("sgd", [None, None]), ConvError, "one output at least"),
    (lambda: two_heads().compile("sgd", "mse", weighted_metrics=[]), ConvTypeError, r"keras\.install\(\)"),
    (lambda: layers.Conv2D(2, 3, kernel_regularizer="l2"), ConvTypeError, r"kernel_regularizer.*keras\.install\(\)"),
    (lambda: layers.RandomFlip(), AttributeError, r"keras\.layers\.RandomFlip.*keras\.install\(\)"),
    (lambda: two_heads().compile("rmsprop"), ConvError, r"keras\.install\(\)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), REFUSED)
def test_refusals(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"(?s){words}"):
        call()


def test_what_is_wrong_with_data_is_said_before_a_step() -> None:
    net = two_heads()
    net.compile("sgd", ["sparse_categorical_crossentropy", "mse"])
    x, y = data(net)
    before = net.get_weights()
    for given, words in (
        ([np.array([0, 1, 2, 3]), y[1]], "output kind: y holds the label 3"),
        ([np.array([0, 1, 2, 0]), y[1][:, :1]], "output place: y must have the shape"),
        ([np.array([0, 1, 2, 0]), None], "'place' is None"),
        ([np.array([0, 1, 2]), y[1]], "4 samples and y 3"),
        (np.zeros(4), "list of 2"),
    ):
        with pytest.raises((ConvError, ConvTypeError), match=words):
            net.fit(x[0], given, verbose=0)
    for old, new in zip(before, net.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    with pytest.raises(ConvError, match="backward needs a forward"):
        two_heads().backward([y[0], y[1]])
    net.forward(x[0])
    with pytest.raises(ConvError, match="list of 2"):
        net.backward(y[0])
    with pytest.raises(ConvError, match="shape"):
        net.backward([y[0], y[1][:2]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_upsampling_is_native_in_the_prepared_net(dtype: str) -> None:
    random = np.random.default_rng(0)
    for layer, shape in (
        (layers.UpSampling2D((2, 3), dtype=dtype), (4, 5, 3)), (layers.UpSampling1D(4, dtype=dtype), (6, 2)),
        (layers.UpSampling3D((1, 2, 3), dtype=dtype), (2, 3, 2, 2)),
        (layers.UpSampling2D(2, interpolation="bilinear", dtype=dtype), (4, 3, 5)),
        (layers.UpSampling2D((3, 1), interpolation="bilinear", dtype=dtype), (1, 3, 2)),
    ):  # fmt: skip
        net = Sequential([layer], shape)
        x = random.standard_normal((3, *shape)).astype(dtype)
        for _ in range(3):
            np.testing.assert_allclose(net.predict(x), net.forward(x), rtol=1e-6, atol=1e-6)
        assert [step["operators"] for step in net.compile_inference().steps] == [layer.name]
        assert "layer" not in [step["how"] for step in net.compile_inference().steps]


def test_a_batch_in_slices_has_the_bits_of_its_images() -> None:
    """Whatever lies between the parts of a batch: its order in memory decides how sums are made."""
    x = np.random.default_rng(0).standard_normal((5, 8, 8, 16)).astype(np.float32)
    image = Input((8, 8, 16))
    made = layers.Concatenate()([layers.Conv2D(8, 1)(image), layers.Conv2D(5, 3, padding="same")(image)])
    plan = Model(image, layers.GlobalAveragePooling2D()(made), seed=0).compile_inference()
    for _ in range(4):  # recorded, and done again
        whole = plan.run(x)
        for i in range(len(x)):
            np.testing.assert_array_equal(plan.run(x[i : i + 1])[0], whole[i])


class Swapped(layers.Layer):
    """A merging layer of a user's own: the second of its inputs."""

    reads_images, merges = False, True

    def build(self, input_shape: Any) -> None:
        self.built_shape = input_shape

    def output_shape(self, input_shape: Any) -> Any:
        return input_shape[1]

    def forward(self, x: Any, training: bool = False) -> Array:
        return np.asarray(x[1])


def test_merging_layers_of_ones_own_and_of_one_value_are_predicted() -> None:
    image, numbers = Input((3, 4, 2)), Input((3, 4, 2))
    x = [np.random.default_rng(0).random((5, 3, 4, 2), np.float32) for _ in range(2)]
    np.testing.assert_array_equal(Model([image, numbers], Swapped()([image, numbers])).predict(x), x[1])
    for merge in (layers.Add, layers.Maximum, layers.Concatenate):
        np.testing.assert_array_equal(Model(image, merge()([image])).predict(x[0]), x[0])


class Doubled(layers.Dense):
    """A layer of the library's that says for itself what it computes."""

    def forward(self, x: Any, training: bool = False) -> Array:
        return 2 * super().forward(x, training)


class Kept(layers.Dropout):
    """The same of one that inference leaves out."""

    def forward(self, x: Any, training: bool = False) -> Array:
        return np.asarray(x) + 1


class Named(layers.Dense):
    """One that says nothing of its own is computed as what it extends."""


def test_layers_that_override_forward_predict_by_that() -> None:
    x = np.random.default_rng(0).random((3, 5), np.float32)
    net = Sequential([Doubled(4, activation="relu"), Kept(0.5), Named(2)], seed=0)
    net.build((None, 5))
    np.testing.assert_allclose(net.predict(x), net.forward(x), rtol=1e-6)
    assert [step["how"] == "layer" for step in net.compile_inference((5,)).steps] == [True, True, False]


class Tripled(Sequential):
    """A net that says for itself what it computes."""

    def forward(self, x: Any, training: bool = False) -> Any:
        return 3 * super().forward(x, training)


def test_nets_that_override_forward_predict_by_that() -> None:
    x = np.random.default_rng(0).random((3, 5), np.float32)
    for net in (Tripled([Named(4)], seed=0), Sequential([Tripled([Named(4)]), Named(2)], seed=0)):
        net.build((None, 5))
        np.testing.assert_allclose(net.predict(x), net.forward(x), rtol=1e-6)


class Swap(Model):
    """One of two outputs that says how results go out and gradients come back."""

    def forward(self, x: Any, training: bool = False) -> Any:
        first, second = super().forward(x, training)
        return [3 * first, first[:, :2] + second]

    def backward(self, grad: Any) -> Any:
        first, second = (np.asarray(one) for one in grad)
        first = 3 * first
        first[:, :2] += second
        return super().backward([first, second])


def two_ends(kind: type[Model]) -> Model:
    x = Input((5,))
    y = layers.Dense(6, activation="tanh")(x)
    return kind(x, [layers.Dense(4)(y), layers.Dense(2)(y)], seed=0)


@pytest.mark.parametrize("inside", [False, True])
def test_nets_of_several_outputs_that_override_forward_and_backward(inside: bool) -> None:
    """What they compute, and how gradients come back, is what all of predict, evaluate and fit go by, at any depth."""
    rng = np.random.default_rng(0)
    x, y = rng.random((3, 5), np.float32), [rng.random((3, 4), np.float32), rng.random((3, 2), np.float32)]
    net = two_ends(Swap)
    if inside:
        first = Input((5,))
        net = Model(first, net(first))
    plain = two_ends(Model)
    plain.set_weights(net.get_weights())
    a, b = plain.forward(x)
    wanted = [3 * a, a[:, :2] + b]
    for made in (net.forward(x), net.predict(x), net.compile_inference((5,)).run(x)):
        for one, right in zip(made, wanted, strict=True):
            np.testing.assert_allclose(one, right, rtol=1e-6)
    for one in (net, plain):
        one.compile("sgd", ["mse", "mse"])
    total = sum(np.mean((one - right) ** 2) for one, right in zip(wanted, y, strict=True))
    assert net.evaluate(x, y)[0] == pytest.approx(total, rel=1e-5)
    net.train_on_batch(x, y)
    grads = [2 * (one - right) / right.size for one, right in zip(wanted, y, strict=True)]
    grads[0] *= 3
    grads[0][:, :2] += grads[1]
    plain.forward(x, True)
    plain.backward(grads)
    for one, before in zip(net.trained_parameters(), plain.trained_parameters(), strict=True):
        np.testing.assert_allclose(one.grad, before.grad, rtol=1e-4, atol=1e-6)


class Short(Model):
    def forward(self, x: Any, training: bool = False) -> Any:
        return super().forward(x, training)[0]


class Sure(Sequential):
    """Ends in a softmax that the loss would take apart from what is done to it."""

    def forward(self, x: Any, training: bool = False) -> Any:
        return super().forward(x, training) ** 2


class Halved(layers.Dense):
    def forward(self, x: Any, training: bool = False) -> Array:
        return super().forward(x, training) / 2

    def backward(self, grad: Any) -> Array:
        return super().backward(np.asarray(grad) / 2)


def test_what_an_override_leaves_unsaid_is_refused() -> None:
    x = np.zeros((3, 5), np.float32)
    net = two_ends(Short)
    net.compile("sgd", ["mse", "mse"])
    for run in (lambda: net.predict(x), lambda: net.evaluate(x, [np.zeros((3, 4)), np.zeros((3, 2))])):
        with pytest.raises(ConvError, match="made 1 results, not 2"):
            run()
    for end in ([Sure([layers.Dense(4, activation="softmax")])], [Doubled(4, activation="softmax")]):
        with pytest.raises(ConvError, match="overrides forward but not forward_logits"):
            Sequential(end).compile("sgd", "sparse_categorical_crossentropy")
    for kind, last in ((Tripled, layers.Dense), (Sequential, Doubled)):
        image = kind([layers.Conv2D(3, 3), layers.Flatten(), last(4)])
        image.build((None, 5, 5, 2))
        with pytest.raises(ConvError, match="overrides forward"):
            image.to_fully_convolutional()


def test_a_first_layer_that_overrides_backward_is_trained_by_that() -> None:
    x, y = np.random.default_rng(0).random((3, 5), np.float32), np.zeros((3, 4), np.float32)
    nets = [Sequential([kind(4)], seed=0) for kind in (Halved, Named)]
    for net in nets:
        net.compile("sgd", "mse")
        net.train_on_batch(x, y)
    halved, plain = (net.layers[0].kernel.grad for net in nets)
    np.testing.assert_allclose(halved, plain / 4, rtol=1e-5)


@pytest.mark.parametrize("name", MADE)
def test_a_copy_between_forward_and_backward_leaves_the_net_as_it_is(name: str) -> None:
    net = MADE[name]("float32")
    x, _ = data(net, 2)
    ones = of([np.ones_like(y) for y in outputs_of(net, x)])
    wanted = net.backward(ones)
    outputs_of(net, x)
    made = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    np.testing.assert_equal(net.backward(ones), wanted)
    for other in made:  # which keep nothing
        with pytest.raises(ConvError, match="backward needs a forward"):
            other.backward(ones)
